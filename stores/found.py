"""What sources name, one by one: an input with its size and time, or a reject that says why not."""

import errno
import os
from pathlib import Path

from stores.keys import key_of_name
from stores.listing import SourceItem, Table
from stores.records import Reject
from stores.source_files import FileStatus, file_status
from stores.tar_members import tar_members

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
)
"""Names that end so, in any case, are taken for images when a folder or a tar is listed."""


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - of 10^7 names


class Found:
    """What the sources gave so far."""

    def __init__(self) -> None:
        self.table = Table()
        self.rejects: dict[str, Reject] = {}
        self.tars: list[str] = []

    @property
    def num_taken(self) -> int:
        """Inputs that the sources named so far."""
        return len(self.table) + len(self.rejects)

    def take(self, path: str, name: str, status: FileStatus | OSError) -> None:
        """Take one file in: as an item, or as a reject that says why not."""
        key = key_of_name(name)
        found = self._regular(path, key, status)
        if found is not None:
            self.table.add(SourceItem(key, path, found.size_bytes, found.mtime_ns))

    def take_tar(self, path: str, name: str, status: FileStatus | OSError) -> None:
        """Take the images of a tar in; what is wrong with it, or with one of them, is a reject."""
        tar = self._regular(path, key_of_name(name), status)
        if tar is None:
            return
        try:
            for found in tar_members(path, name, IMAGE_SUFFIXES):
                if isinstance(found, Reject):
                    self.rejects[found.key] = found
                else:
                    place = (found.size_bytes, tar.mtime_ns, found.offset_bytes)
                    self.table.add(SourceItem(found.key, path, *place))
        except OSError as error:
            self.refuse(key_of_name(name), *explain(error, path))
        self.tars.append(key_of_name(name))

    def _regular(self, path: str, key: str, status: FileStatus | OSError) -> FileStatus | None:
        """Size and time of a regular file; anything else is refused."""
        if isinstance(status, OSError):
            self.refuse(key, *explain(status, path))
        elif not status.is_regular:
            self.refuse(key, "not_a_file", f"{path!r} is not a regular file")
        else:
            return status
        return None

    def refuse(self, key: str, reason: str, detail: str) -> None:
        """Record an input that cannot be read."""
        self.rejects[key] = Reject(key, reason, detail)


def status_of(path: str) -> FileStatus | OSError:
    """Size and time of a file, or why there are none."""
    try:
        return file_status(path)
    except OSError as error:
        return error


def explain(error: OSError, path: str) -> tuple[str, str]:
    """Reason and detail of a file that cannot be read."""
    if error.errno == errno.ELOOP or (error.errno == errno.ENOENT and Path(path).is_symlink()):
        return "broken_symlink", f"{path!r} is a symbolic link to nothing; repair or remove it"
    if error.errno == errno.ENOENT:
        return "missing", f"{path!r} does not exist (any more); restore it or list the source again"
    return "unreadable", f"{path!r}: {error.strerror}; check owner, permissions and the disk"
