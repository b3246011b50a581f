"""Where a store is: a folder of a file system, or a prefix of an object store.

Local places are `pathlib.Path`s. `ObjectPath` has those of its methods that the store uses, so that
most code does not know which of the two it was given. Object stores are reached through fsspec:
S3, Google Cloud Storage, Azure, `memory://`, and whatever else has a file system there.
"""

import io
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from stores.errors import ObjectStoreError
from stores.reach import reaching, writing

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_LOCAL = frozenset({"file", "local"})
NUM_REQUESTS = 8
"""Files asked of an object store at once; one stream alone does not fill a network."""
_READ_BLOCK_BYTES = 8 * 2**20


def default_cache() -> Path:
    """Where local copies are kept when nobody says where: `~/.cache/deltaedit`."""
    return Path.home() / ".cache" / "deltaedit"


class ObjectStatus(NamedTuple):
    """What is known of an object without reading it."""

    st_size: int
    """Its length in bytes, under the name that `os.stat_result` has for it."""


@dataclass(frozen=True, order=True, slots=True)
class ObjectPath:
    """An object, or a prefix of objects, by its URL; equal, ordered and pickled by it.

    Every method asks the object store anew: nothing is cached, so what other processes wrote is
    seen. Every method raises `ObjectStoreError` where the object store does not answer or refuses,
    and `FileNotFoundError` where it has no such object.
    """

    url: str
    """For instance `s3://bucket/ffhq.store`; without a slash at its end."""
    cache: Path = field(default_factory=default_cache, compare=False)
    """The local folder for copies of files that must be mapped into memory (`stores.cache`)."""

    def __post_init__(self) -> None:
        match = _URL.fullmatch(self.url)
        names = [name for name in match[2].split("/") if name] if match else []
        if match is None or not names:
            raise ObjectStoreError(
                f"{self.url!r} is no place in an object store; write s3://B/NAME"
            )
        object.__setattr__(self, "url", f"{match[1]}://{'/'.join(names)}")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | PurePosixPath) -> "ObjectPath":
        """The object `name` below this one."""
        return ObjectPath(f"{self.url}/{name}", self.cache)

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> "ObjectPath":
        """The prefix that this object is in."""
        return ObjectPath(self.url.rpartition("/")[0], self.cache)

    def absolute(self) -> "ObjectPath":
        """Itself: a URL depends on no working folder."""
        return self

    resolve = absolute

    def exists(self) -> bool:
        """Whether there is such an object, or any below this prefix."""
        return self._kind() is not None

    def is_dir(self) -> bool:
        """Whether there is any object below this prefix."""
        return self._kind() == "directory"

    def _kind(self) -> str | None:
        """What fsspec's own `exists` hides: a refusal is an error, not an absence."""
        try:
            with reaching(self.url) as (files, key):
                return str(files.info(key)["type"])
        except FileNotFoundError:
            return None

    def stat(self) -> ObjectStatus:
        """Its size."""
        with reaching(self.url) as (files, key):
            return ObjectStatus(int(files.info(key)["size"]))

    def modified_s(self) -> float:
        """When it was last written, by the object store's clock: seconds since 1970."""
        with reaching(self.url) as (files, key):
            return files.modified(key).timestamp()

    def iterdir(self) -> Iterator["ObjectPath"]:
        """What is directly below this prefix, in one listing.

        Raises:
            FileNotFoundError: Nothing is.
        """
        return (self / name for name in sorted(self.names()))

    def names(self) -> set[str]:
        """The names of what `iterdir` gives."""
        with reaching(self.url) as (files, key):
            listed = files.ls(key, detail=False)
        return {str(name).rstrip("/").rpartition("/")[2] for name in listed if name != key}

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """What directly below this prefix has a name that fits; nothing where there is nothing."""
        try:
            found = list(self.iterdir())
        except FileNotFoundError:
            found = []
        return (path for path in found if PurePosixPath(path.name).match(pattern))

    def walk_files(self) -> Iterator["ObjectPath"]:
        """Every object below this prefix, at any depth, in one listing."""
        with reaching(self.url) as (files, key):
            listed = [str(name) for name in files.find(key)]
        return (self / name.removeprefix(key).lstrip("/") for name in listed if name != key)

    @contextmanager
    def reading(self) -> Iterator[io.BufferedIOBase]:
        """A stream of its bytes for the length of the block."""
        with (
            reaching(self.url) as (files, key),
            files.open(key, "rb", block_size=_READ_BLOCK_BYTES) as stream,
        ):
            yield stream

    def read_bytes(self) -> bytes:
        """All its bytes."""
        with reaching(self.url) as (files, key):
            return files.cat_file(key)

    def write_bytes(self, data: bytes) -> None:
        """Put an object in the place of a former one: the new bytes or the old, never a mixture."""
        with writing(self.url) as (files, key):
            files.pipe_file(key, data)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove it."""
        try:
            with reaching(self.url) as (files, key):
                files.rm_file(key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def move_to(self, target: "ObjectPath") -> None:
        """Copy it within the object store, then remove it; killed between, both are there."""
        with writing(self.url) as (files, key):
            files.cp_file(key, files._strip_protocol(target.url))  # noqa: SLF001 - no public way
            files.rm_file(key)

    def create(self, data: bytes) -> None:
        """Put an object where there is none.

        Raises:
            FileExistsError: There is one; it is left alone.
        """
        with writing(self.url) as (files, key):
            files.pipe_file(key, data, mode="create")

    def upload(self, local: Path, *, exclusive: bool = False) -> None:
        """Put a local file's bytes; whole or not at all.

        Raises:
            FileExistsError: `exclusive`, and there is an object; it is left alone.
        """
        with writing(self.url) as (files, key):
            files.put_file(str(local), key, mode="create" if exclusive else "overwrite")

    def download(self, local: Path) -> None:
        """Copy its bytes into a local file, which is overwritten."""
        with reaching(self.url) as (files, key):
            files.get_file(key, str(local))


StorePath: TypeAlias = Path | ObjectPath


def is_url(place: str) -> bool:
    """Whether a text is the URL of an object: of anything but a local file."""
    match = _URL.match(place)
    return match is not None and match[1] not in _LOCAL


def without_file_scheme(place: str) -> str:
    """The path that a `file://` URL names; any other text as it is."""
    match = _URL.match(place)
    return match[2] if match is not None and match[1] in _LOCAL else place


def store_path(place: str | os.PathLike[str] | ObjectPath, cache: Path | None = None) -> StorePath:
    """The place that a user wrote: a path, a `file://` URL, or the URL of an object store.

    Args:
        place: The text; what is a path already stays as it is.
        cache: The folder for local copies of remote files; `default_cache` if not given.

    Raises:
        ObjectStoreError: A URL that names no place.
    """
    if isinstance(place, ObjectPath):
        return place
    match = _URL.fullmatch(os.fspath(place))
    if match is None:
        return Path(place)
    if match[1] in _LOCAL and match[2]:
        return Path(match[2])
    return ObjectPath(match[0], cache or default_cache())


def name_below(path: StorePath, root: StorePath) -> str:
    """The name of a file of a store relative to the store: `shards/ffhq-000000.h5`."""
    return PurePosixPath(str(path)).relative_to(str(root)).as_posix()


def names_in(folder: StorePath) -> Collection[str]:
    """The names of what is directly in a folder, without a path for each.

    Raises:
        FileNotFoundError: There is no such folder, or, on an object store, nothing in it.
    """
    if isinstance(folder, ObjectPath):
        return folder.names()
    return os.listdir(folder)  # noqa: PTH208 - a path for each takes five times as long


def read_all(paths: Sequence[StorePath]) -> list[bytes]:
    """The bytes of several small files of one store, those of an object store fetched at once.

    Raises:
        FileNotFoundError: One of them is missing.
    """
    remote = [path for path in paths if isinstance(path, ObjectPath)]
    if not remote:
        return [path.read_bytes() for path in paths]
    with reaching(remote[0].url) as (files, _):
        keys = [files._strip_protocol(path.url) for path in remote]  # noqa: SLF001 - no public way
        found = files.cat(keys)
    return [found[key] for key in keys]
