"""The user's image files: listed, checked for copies, read. Nothing here writes.

A listing depends on names, sizes and contents alone, so that two listings of the same files give
the same plan.
"""

import errno
import os
import stat
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from stores.checksum import sha256_part
from stores.errors import KeyCollisionError, SourceError
from stores.keys import key_of_name
from stores.patterns import paths_of
from stores.records import Duplicate, Reject
from stores.tar_members import is_tar, tar_members

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
)
"""Names that end so, in any case, are taken for images when a folder or a tar is listed."""
_by_key = attrgetter("key")
HEAD_BYTES = 65536
"""Enough to tell most files of one size apart."""


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One input."""

    key: str
    """Its row's key: unique in the listing, valid text, the same on every machine."""
    path: str = ""
    """Where to read it, as Python spells names that are not UTF-8 (surrogate escapes)."""
    size_bytes: int = 0
    """Its length."""
    mtime_ns: int = 0
    """Time of its last change in nanoseconds since 1970; of a member, that of its tar."""
    offset_bytes: int = 0
    """Where it begins in the file at `path`: above 0 for members of a tar, behind their headers."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a listing found: every input is in exactly one of the three."""

    items: list[SourceItem]
    """Inputs to work on, sorted by key."""
    rejects: list[Reject] = field(default_factory=list)
    """Inputs that cannot be read, sorted by key."""
    duplicates: list[Duplicate] = field(default_factory=list)
    """Inputs with the same bytes as one of `items`, sorted by key."""
    tars: list[str] = field(default_factory=list)
    """Tars: inputs only where a reject says what is wrong with the tar as a whole."""


def scan_images(sources: Sequence[str | os.PathLike[str]]) -> Scan:
    """List the images of some sources.

    Args:
        sources: Folders (listed with their sub-folders; names with a leading dot are skipped and
            links followed), image files, tars of images, patterns of such paths (`a-{00..19}.tar`,
            `*.tar`), or `@list.txt` (a path a line, relative to the list).

    Raises:
        SourceError: A source does not exist, or has no image in it.
        KeyCollisionError: Two files of different sources have the same relative path.
    """
    found = _Found()
    for source in [os.fspath(source) for source in sources]:
        before = found.num_taken
        _scan_source(source, found)
        if found.num_taken == before:
            raise SourceError(
                "empty",
                f"the source {source!r} has no image in it: expected files ending in "
                f"{' '.join(sorted(IMAGE_SUFFIXES))} (name the tars of a folder as FOLDER/*.tar)",
            )
    return _set_copies_apart(found)


def sampled_items(num_samples: int, seed: int) -> Scan:
    """`num_samples` inputs that are drawn and not read: keys `z/<seed>/<index>`.

    Raises:
        SourceError: `num_samples` is not positive.
    """
    if num_samples < 1:
        raise SourceError("empty", f"sampled:{num_samples} asks for no sample; ask for 1 or more")
    return Scan(sorted((SourceItem(f"z/{seed}/{i}") for i in range(num_samples)), key=_by_key))


def read_image_bytes(item: SourceItem) -> bytes:
    """The bytes of an input: of its file, or of its stretch of a tar.

    Raises:
        SourceError: It is gone (`missing`), may not be read (`unreadable`), its tar was cut since
            the listing (`truncated`), or reading fails.
    """
    try:
        with open(item.path, "rb") as file:  # noqa: PTH123 - names that are not UTF-8
            if not item.offset_bytes:
                return file.read()
            file.seek(item.offset_bytes)
            data = file.read(item.size_bytes)
    except OSError as error:
        raise SourceError(*_explain(error, item.path)) from error
    if len(data) < item.size_bytes:
        raise SourceError("truncated", f"{item.path!r} was cut since it was listed; restore it")
    return data


class _Found:
    """What the sources gave so far."""

    def __init__(self) -> None:
        self.items: dict[str, SourceItem] = {}
        self.rejects: dict[str, Reject] = {}
        self.tars: list[str] = []
        self.num_repeated = 0

    @property
    def num_taken(self) -> int:
        """Inputs that the sources named so far."""
        return len(self.items) + len(self.rejects) + self.num_repeated

    def take(self, path: str, name: str) -> None:
        """Take one file in: as an item, or as a reject that says why not."""
        key = key_of_name(name)
        status = self._regular(path, key)
        if status is not None:
            self._add(SourceItem(key, path, status.st_size, status.st_mtime_ns))

    def take_tar(self, path: str, name: str) -> None:
        """Take the images of a tar in; what is wrong with it, or with one of them, is a reject."""
        status = self._regular(path, key_of_name(name))
        if status is None:
            return
        try:
            for found in tar_members(path, name, IMAGE_SUFFIXES):
                if isinstance(found, Reject):
                    self.rejects[found.key] = found
                else:
                    place = (found.size_bytes, status.st_mtime_ns, found.offset_bytes)
                    self._add(SourceItem(found.key, path, *place))
        except OSError as error:
            self.refuse(key_of_name(name), *_explain(error, path))
        self.tars.append(key_of_name(name))

    def _regular(self, path: str, key: str) -> os.stat_result | None:
        """Size and time of a regular file; anything else is refused."""
        try:
            status = Path(path).stat()
        except OSError as error:
            self.refuse(key, *_explain(error, path))
            return None
        if stat.S_ISREG(status.st_mode):
            return status
        self.refuse(key, "not_a_file", f"{path!r} is not a regular file")
        return None

    def _add(self, item: SourceItem) -> None:
        former = self.items.setdefault(item.key, item)
        if former is item:
            return
        if not Path(item.path).samefile(former.path):
            raise KeyCollisionError(
                f"{former.path!r} and {item.path!r} would both give the key {item.key!r}. Give "
                "their common parent folder (of tars: a pattern such as PARENT/*/*.tar) as the one "
                "source, or a folder with a symbolic link to each."
            )
        if former.offset_bytes == item.offset_bytes:
            self.num_repeated += 1
        else:
            self.refuse(
                item.key,
                "duplicate_member",
                f"{item.path!r} has two members of this name, at bytes {former.offset_bytes} and "
                f"{item.offset_bytes}; write the tar again with a name for each",
            )

    def refuse(self, key: str, reason: str, detail: str) -> None:
        """Record an input that cannot be read."""
        self.rejects[key] = Reject(key, reason, detail)


def _scan_source(source: str, found: _Found) -> None:
    if source.startswith("@"):
        _scan_list(source[1:], found)
        return
    for path, name in paths_of(source):
        is_path = path == source
        if Path(path).is_dir():
            _scan_folder(path, "" if is_path else f"{name}/", found, ())
        elif is_tar(name):
            found.take_tar(path, name)
        elif is_path or Path(name).suffix.lower() in IMAGE_SUFFIXES:
            found.take(path, name)


def _scan_folder(
    folder: str, prefix: str, found: _Found, ancestors: tuple[tuple[int, int], ...]
) -> None:
    """List a folder; `ancestors` (device, inode) ends loops of symbolic links."""
    try:
        identity = Path(folder).stat()
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        found.refuse(key_of_name(prefix or "."), *_explain(error, folder))
        return
    place = (identity.st_dev, identity.st_ino)
    if place in ancestors:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            _scan_folder(entry.path, f"{prefix}{entry.name}/", found, (*ancestors, place))
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            found.take(entry.path, prefix + entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself: `take` says so if it is named like an image
        return False


def _scan_list(path: str, found: _Found) -> None:
    """Take in the files that a list names: relative ones from the list's folder."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - names that are not UTF-8
            lines = file.read().splitlines()
    except OSError as error:
        raise SourceError(
            "missing", f"the list {path!r} cannot be read: {error.strerror}"
        ) from error
    folder = Path(path).parent
    for line in lines:
        name = os.fsdecode(line.strip())
        if name:
            take = found.take_tar if is_tar(name) else found.take
            take(str(folder / name), os.path.normpath(name).lstrip("/"))


def _set_copies_apart(found: _Found) -> Scan:
    """Of files with the same bytes the first by key stays.

    Only files of one size are read: their first block, then all of those that agree in it. Empty
    files are left alone, so that each is refused as empty and none as a copy.
    """
    items = sorted(found.items.values(), key=_by_key)
    groups = _alike(
        found, (item for item in items if item.size_bytes), lambda item: item.size_bytes
    )
    for most_bytes in (HEAD_BYTES, sys.maxsize):

        def digest(item: SourceItem, most_bytes: int = most_bytes) -> str:
            return sha256_part(item.path, item.offset_bytes, min(item.size_bytes, most_bytes))

        groups = [alike for group in groups for alike in _alike(found, group, digest)]
    duplicates = [Duplicate(item.key, first.key) for first, *copies in groups for item in copies]
    left_out = {duplicate.key for duplicate in duplicates} | found.rejects.keys()
    return Scan(
        [item for item in items if item.key not in left_out],
        sorted(found.rejects.values()),
        sorted(duplicates),
        found.tars,
    )


def _alike(
    found: _Found, items: Iterable[SourceItem], trait: Callable[[SourceItem], object]
) -> list[list[SourceItem]]:
    """Groups of two and more items that share a trait; items that cannot be read are refused."""
    groups: defaultdict[object, list[SourceItem]] = defaultdict(list)
    for item in items:
        try:
            groups[trait(item)].append(item)
        except OSError as error:
            found.refuse(item.key, *_explain(error, item.path))
    return [group for group in groups.values() if len(group) > 1]


def _explain(error: OSError, path: str) -> tuple[str, str]:
    """Reason and detail of a file that cannot be read."""
    if error.errno == errno.ELOOP or (error.errno == errno.ENOENT and Path(path).is_symlink()):
        return "broken_symlink", f"{path!r} is a symbolic link to nothing; repair or remove it"
    if error.errno == errno.ENOENT:
        return "missing", f"{path!r} does not exist (any more); restore it or list the source again"
    return "unreadable", f"{path!r}: {error.strerror}; check owner, permissions and the disk"
