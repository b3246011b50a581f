"""The user's files, on a disk or in an object store, behind the same few functions.

What is wrong with one object is an `OSError`, as with a file. An object store that does not answer
is an `ObjectStoreError`: it says nothing about any one input, and ends the run.
"""

import errno
import glob
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from stores.errors import ObjectStoreError
from stores.places import is_url
from stores.reach import error_code, reaching

_REFUSED = frozenset({"AccessDenied", "403", "InvalidObjectState"})
"""What S3 says of one object; other refusals, as of an expired token, concern all of them."""
_BEYOND_ITS_END = frozenset({"InvalidRange", "416"})
"""What S3 says to a stretch that begins at or behind an object's end."""
_TIMES = ("LastModified", "last_modified", "updated", "created")
"""What the file systems of fsspec call the time of the last change."""
_READ_BLOCK_BYTES = 8 * 2**20
"""Fetched at once: the headers of a tar are found by reading through it, not by a request each."""


class FileStatus(NamedTuple):
    """What a listing tells of a file."""

    size_bytes: int
    """Its length."""
    mtime_ns: int
    """Time of its last change, nanoseconds since 1970; of an object whole seconds, 0 if unknown."""
    is_regular: bool = True
    """Whether it can be read from start to end: no folder, pipe or device."""


class Entry(NamedTuple):
    """What is directly in a folder of an object store."""

    name: str
    """Its last part."""
    status: FileStatus | None
    """Of an object; None for a folder."""


@contextmanager
def _object(url: str) -> Iterator[tuple[Any, str]]:
    try:
        with reaching(url) as reached:
            yield reached
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such object", url) from error
    except ObjectStoreError as error:
        if error_code(error) not in _REFUSED:
            raise
        raise PermissionError(errno.EACCES, "the object store refuses it", url) from error


def exists(path: str) -> bool:
    """Whether there is such a file, folder or link, or an object or prefix of objects.

    Raises:
        ObjectStoreError: The object store does not answer.
    """
    if not is_url(path):
        return os.path.lexists(path)
    try:
        with _object(path) as (files, key):
            files.info(key)
    except FileNotFoundError:
        return False
    return True


def is_folder(path: str) -> bool:
    """Whether it is a folder, or a prefix of objects."""
    if not is_url(path):
        return Path(path).is_dir()
    with _object(path) as (files, key):
        return files.info(key)["type"] == "directory"


def file_status(path: str) -> FileStatus:
    """Length and time of a file or object.

    Raises:
        OSError: It is missing, or may not be asked for.
        ObjectStoreError: The object store does not answer.
    """
    if is_url(path):
        with _object(path) as (files, key):
            return _status(files.info(key))
    found = os.stat(path)  # noqa: PTH116 - a Path for each of 10^7 files takes five times as long
    return FileStatus(found.st_size, found.st_mtime_ns, stat.S_ISREG(found.st_mode))


def _status(info: dict[str, Any]) -> FileStatus:
    # Whole seconds: some object stores list finer times than they give of one object.
    time = next((info[name] for name in _TIMES if info.get(name)), None)
    return FileStatus(int(info["size"] or 0), _seconds(time) * 10**9, info["type"] == "file")


def _seconds(time: datetime | str | float | None) -> int:
    """A time as file systems spell it, in seconds since 1970; 0 for none."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    return int(time or 0)


def entries(url: str) -> Iterator[Entry]:
    """What is directly below a prefix of an object store, from one listing of it.

    Raises:
        OSError: Nothing is there, or it may not be listed.
        ObjectStoreError: The object store does not answer.
    """
    with _object(url) as (files, key):
        listed = files.ls(key, detail=True)
    for info in listed:
        name = info["name"].rstrip("/").rpartition("/")[2]
        is_mark = info["name"].rstrip("/") == key.rstrip("/")  # an empty object named as the folder
        if name and not is_mark:
            yield Entry(name, None if info["type"] == "directory" else _status(info))


def matches(pattern: str) -> list[str]:
    """The paths or URLs that a shell pattern stands for, sorted.

    Raises:
        ObjectStoreError: The object store does not answer.
    """
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - keeps names as spelled
    with _object(pattern) as (files, key):
        found = files.glob(key)
    scheme = pattern.partition("://")[0]
    return sorted(f"{scheme}://{name.lstrip('/')}" for name in found)


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file or object to seek and read in for the length of the block.

    Raises:
        OSError: It is missing, or may not be read.
        ObjectStoreError: The object store does not answer.
    """
    if not is_url(path):
        with open(path, "rb") as file:  # noqa: PTH123 - names that are not UTF-8
            yield file
        return
    with (
        _object(path) as (files, key),
        files.open(key, "rb", block_size=_READ_BLOCK_BYTES, cache_type="readahead") as stream,
    ):
        yield cast("BinaryIO", stream)


def read_part(path: str, offset_bytes: int = 0, size_bytes: int | None = None) -> bytes:
    """The bytes of a stretch of a file or object; fewer where it ends before.

    Args:
        path: The file.
        offset_bytes: Where the stretch begins.
        size_bytes: Its length; None for all that follows.

    Raises:
        OSError: It is missing, or may not be read.
        ObjectStoreError: The object store does not answer.
    """
    if not is_url(path):
        with open(path, "rb") as file:  # noqa: PTH123 - names that are not UTF-8
            file.seek(offset_bytes)
            return file.read() if size_bytes is None else file.read(size_bytes)
    if size_bytes == 0:
        return b""  # no request can ask for nothing
    end = None if size_bytes is None else offset_bytes + size_bytes
    try:
        with _object(path) as (files, key):
            return files.cat_file(key, start=offset_bytes, end=end)
    except ObjectStoreError as error:
        if error_code(error) in _BEYOND_ITS_END:
            return b""
        raise
