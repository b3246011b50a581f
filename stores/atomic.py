"""Files that are there whole or not at all: temporary name, fsync, rename, fsync of the folder.

An object store has no rename and needs none: an upload appears whole, when it ends, or not at all.
There a file is made on a local disk first.
"""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stores.errors import OutOfSpaceError, StoreError
from stores.places import ObjectPath, StorePath

TEMPORARY_SUFFIX = ".tmp"
"""Ends the name of every file in work. A killed process may leave one; nothing ever reads it."""

# EFBIG is what a file size limit (RLIMIT_FSIZE, FAT) answers in place of ENOSPC.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def staged(path: StorePath, *, size_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path` for the length of the block, then remove what is left.

    For a path on an object store it is in the system's folder of temporary files (`TMPDIR`).

    Args:
        path: The final name; `publish` puts the finished file there.
        size_bytes: What the file will need, for the message when there is no room.

    Raises:
        OutOfSpaceError: Something in the block met a full disk, quota or size limit.
    """
    folder = Path(tempfile.gettempdir()) if isinstance(path, ObjectPath) else path.parent
    temporary = folder / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    try:
        yield temporary
    except Exception as error:
        if not isinstance(error, StoreError) and _is_out_of_space(error):
            raise _out_of_space(path, size_bytes) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: StorePath) -> None:
    """Put a finished, synced file in the place of `path`, so that power loss does not undo it.

    Raises:
        ObjectStoreError: `path` is on an object store that cannot be reached, or refuses.
    """
    if isinstance(path, ObjectPath):
        path.upload(temporary)
        return
    temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def replacing(path: StorePath, *, size_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary path as `staged`; put the file in the place of `path` when the block ends.

    The file is synced before the rename and the folder after it, so that power loss leaves the
    old file or the new one. When the block raises, `path` is untouched and the temporary removed.

    Args:
        path: The final name.
        size_bytes: What the file will need, for the message when there is no room.

    Raises:
        OutOfSpaceError: The block, the sync or the rename met a full disk, quota or size limit.
    """
    with staged(path, size_bytes=size_bytes) as temporary:
        yield temporary
        sync_file(temporary)
        publish(temporary, path)


def write_atomic(path: StorePath, data: bytes) -> None:
    """Make `path` hold `data`, whole or not at all.

    Raises:
        OutOfSpaceError: There is no room.
        ObjectStoreError: `path` is on an object store that cannot be reached, or refuses.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    with replacing(path, size_bytes=len(data)) as temporary:
        temporary.write_bytes(data)


def sync_file(path: Path) -> None:
    """Make a file's bytes survive power loss."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(path: StorePath, target: StorePath) -> None:
    """Give a file another name in the same store, so that power loss does not undo it."""
    if isinstance(path, ObjectPath) and isinstance(target, ObjectPath):
        path.move_to(target)
        return
    assert isinstance(path, Path), "both are of one store"
    assert isinstance(target, Path), "both are of one store"
    path.rename(target)
    sync_folder(target.parent)
    sync_folder(path.parent)


def sync_folder(folder: StorePath) -> None:
    """Make renames and removals in a folder survive power loss; object stores do it alone."""
    if isinstance(folder, ObjectPath):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: StorePath) -> None:
    """Create a folder and its parents; on an object store there are none to create.

    Raises:
        OutOfSpaceError: There is no room, not even for a folder.
        StoreError: A file is in the way, or the place may not be written to.
    """
    if isinstance(folder, ObjectPath):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if _is_out_of_space(error):
            raise _out_of_space(folder, None) from error
        raise StoreError(
            f"cannot make the folder {folder}: {error.strerror}. Give a place that may be "
            "written to."
        ) from error


def _is_out_of_space(error: BaseException | None) -> bool:
    """Search the chain: h5py closes a file in a failed block with a RuntimeError of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _out_of_space(path: StorePath, size_bytes: int | None) -> OutOfSpaceError:
    needed = "" if size_bytes is None else f" ({size_bytes:,} bytes needed)"
    return OutOfSpaceError(
        f"no room to write {path}{needed}: the disk, the quota or the file size limit is full. "
        "Everything committed before is safe; free space and run the same command again."
    )
