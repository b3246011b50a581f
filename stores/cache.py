"""Local copies of files that libraries must open or map into memory, kept by their digest.

A file that is local already is used where it is. A copy is compared with its digest when it is
made, and appears whole, so any number of processes and runs share one cache; it may be deleted at
any time when nothing reads from it.
"""

import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stores.atomic import make_folder, replacing
from stores.checksum import sha256_file
from stores.errors import ShardCorruptError
from stores.places import ObjectPath, StorePath


def cached_copy(path: StorePath, sha256: str) -> Path:
    """A local file with the bytes of `path`: itself if it is local, else a kept copy.

    Args:
        path: The file.
        sha256: Its digest; only what is fetched now is compared with it.

    Raises:
        ShardCorruptError: What the object store has is missing or has another digest.
        ObjectStoreError: The object store cannot be reached, or refuses.
        OutOfSpaceError: There is no room for the copy.
    """
    if isinstance(path, Path):
        return path
    copy = path.cache / sha256[:2] / f"{sha256}-{path.name}"
    with _locks[copy]:  # threads that want one object fetch it once
        return _copied(path, sha256, copy)


_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


def _copied(path: ObjectPath, sha256: str, copy: Path) -> Path:
    if copy.exists():
        return copy
    make_folder(copy.parent)
    with replacing(copy) as temporary:
        _fetch(path, temporary)
        found = sha256_file(temporary)
        if found != sha256:
            raise ShardCorruptError(f"{path} has the digest {found}, committed with {sha256}")
    return copy


@contextmanager
def local_file(path: StorePath) -> Iterator[Path]:
    """A local file with the bytes of `path` for the length of the block; nothing is kept.

    Raises:
        ShardCorruptError: The object store has no such object.
        ObjectStoreError: The object store cannot be reached, or refuses.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="deltaedit-") as folder:
        copy = Path(folder) / path.name
        _fetch(path, copy)
        yield copy


def cache_bytes(folder: Path) -> int:
    """What the copies in a cache folder take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _fetch(path: StorePath, copy: Path) -> None:
    assert not isinstance(path, Path), "what is local is not fetched"
    try:
        path.download(copy)
    except FileNotFoundError as error:
        raise ShardCorruptError(
            f"{path} is missing; `deltaedit store verify` lists what is"
        ) from error
