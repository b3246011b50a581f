"""Where a store is: a folder of a file system, or a prefix of an object store.

Local places are `pathlib.Path`s. `ObjectPath` has those of its methods that the store uses, so that
most code does not know which of the two it was given. Object stores are reached through fsspec:
S3, Google Cloud Storage, Azure, `memory://`, and whatever else has a file system there.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias

from stores.errors import ObjectStoreError, OutOfSpaceError

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_LOCAL = frozenset({"file", "local"})
NUM_REQUESTS = 8
"""Files asked of an object store at once; one stream alone does not fill a network."""
_READ_BLOCK_BYTES = 8 * 2**20
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_NO_ROOM = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"})


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
            with _reaching(self) as (files, key):
                return str(files.info(key)["type"])
        except FileNotFoundError:
            return None

    def stat(self) -> ObjectStatus:
        """Its size."""
        with _reaching(self) as (files, key):
            return ObjectStatus(int(files.info(key)["size"]))

    def modified_s(self) -> float:
        """When it was last written, by the object store's clock: seconds since 1970."""
        with _reaching(self) as (files, key):
            return files.modified(key).timestamp()

    def iterdir(self) -> Iterator["ObjectPath"]:
        """What is directly below this prefix, in one listing.

        Raises:
            FileNotFoundError: Nothing is.
        """
        with _reaching(self) as (files, key):
            listed = files.ls(key, detail=False)
        names = {str(name).rstrip("/").rpartition("/")[2] for name in listed if name != key}
        return (self / name for name in sorted(names))

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """What directly below this prefix has a name that fits; nothing where there is nothing."""
        try:
            found = list(self.iterdir())
        except FileNotFoundError:
            found = []
        return (path for path in found if PurePosixPath(path.name).match(pattern))

    def walk_files(self) -> Iterator["ObjectPath"]:
        """Every object below this prefix, at any depth, in one listing."""
        with _reaching(self) as (files, key):
            listed = [str(name) for name in files.find(key)]
        return (self / name.removeprefix(key).lstrip("/") for name in listed if name != key)

    @contextmanager
    def reading(self) -> Iterator[io.BufferedIOBase]:
        """A stream of its bytes for the length of the block."""
        with (
            _reaching(self) as (files, key),
            files.open(key, "rb", block_size=_READ_BLOCK_BYTES) as stream,
        ):
            yield stream

    def read_bytes(self) -> bytes:
        """All its bytes."""
        with _reaching(self) as (files, key):
            return files.cat_file(key)

    def write_bytes(self, data: bytes) -> None:
        """Put an object in the place of a former one: the new bytes or the old, never a mixture."""
        with _writing(self) as (files, key):
            files.pipe_file(key, data)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove it."""
        try:
            with _reaching(self) as (files, key):
                files.rm_file(key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def move_to(self, target: "ObjectPath") -> None:
        """Copy it within the object store, then remove it; killed between, both are there."""
        with _writing(self) as (files, key):
            files.cp_file(key, files._strip_protocol(target.url))  # noqa: SLF001 - no public way
            files.rm_file(key)

    def create(self, data: bytes) -> None:
        """Put an object where there is none.

        Raises:
            FileExistsError: There is one; it is left alone.
        """
        with _writing(self) as (files, key):
            files.pipe_file(key, data, mode="create")

    def upload(self, local: Path, *, exclusive: bool = False) -> None:
        """Put a local file's bytes; whole or not at all.

        Raises:
            FileExistsError: `exclusive`, and there is an object; it is left alone.
        """
        with _writing(self) as (files, key):
            files.put_file(str(local), key, mode="create" if exclusive else "overwrite")

    def download(self, local: Path) -> None:
        """Copy its bytes into a local file, which is overwritten."""
        with _reaching(self) as (files, key):
            files.get_file(key, str(local))


StorePath: TypeAlias = Path | ObjectPath


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


def read_all(paths: Sequence[StorePath]) -> list[bytes]:
    """The bytes of several small files of one store, those of an object store fetched at once.

    Raises:
        FileNotFoundError: One of them is missing.
    """
    remote = [path for path in paths if isinstance(path, ObjectPath)]
    if not remote:
        return [path.read_bytes() for path in paths]
    with _reaching(remote[0]) as (files, _):
        keys = [files._strip_protocol(path.url) for path in remote]  # noqa: SLF001 - no public way
        found = files.cat(keys)
    return [found[key] for key in keys]


@contextmanager
def _reaching(path: ObjectPath) -> Iterator[tuple[Any, str]]:
    """The file system of an object, its key there, and the errors of either as our own."""
    try:
        yield _file_system(path.url)
    except (FileNotFoundError, FileExistsError, ObjectStoreError):
        raise
    # Every file system of fsspec brings exceptions of its own, not all of them OSErrors.
    except Exception as error:
        raise _explained(path, error) from error


@contextmanager
def _writing(path: ObjectPath) -> Iterator[tuple[Any, str]]:
    try:
        with _reaching(path) as reached:
            yield reached
    except FileNotFoundError as error:
        raise ObjectStoreError(
            f"{path} cannot be written: {error}. Make the bucket first, or correct its name."
        ) from error


def _file_system(url: str) -> tuple[Any, str]:
    """Looked up at every use: fsspec keeps one for each process, and none survives a fork."""
    from fsspec.core import url_to_fs

    # A listing that fsspec remembers would hide what other processes commit.
    return url_to_fs(url, use_listings_cache=False)


def _explained(path: ObjectPath, error: Exception) -> Exception:
    code = _error_code(error)
    if code in _TAKEN:
        return FileExistsError(f"{path} exists")
    if code in _NO_ROOM:
        return OutOfSpaceError(
            f"no room to write {path} ({error}): the quota or the disks of the object store are "
            "full. Everything committed before is safe; free space and run the same command again."
        )
    return ObjectStoreError(f"{path}: {type(error).__name__}: {error}. {_advice(error)}")


def _error_code(error: BaseException | None) -> str | None:
    """What S3 and its like call the error: s3fs keeps their answer as the cause of its own."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code"))
        error = error.__cause__
    return None


def _advice(error: Exception) -> str:
    if isinstance(error, ImportError | ValueError):
        return "Install the fsspec package of this kind of URL, or correct the URL."
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return "Give credentials that may list, read and write there (docs/object-stores.md)."
    return (
        "Check the endpoint and the network (docs/object-stores.md); what is committed is safe, "
        "and the same command resumes."
    )
