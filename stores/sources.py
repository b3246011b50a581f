"""The user's image files: listed, checked for copies, read. Nothing here writes.

A listing depends on names, sizes and contents alone, so that two listings of the same files give
the same plan.
"""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stores.copies import equal_files
from stores.errors import KeyCollisionError, SourceError
from stores.keys import key_of_name
from stores.listing import Listing, SourceItem, Table
from stores.patterns import paths_of
from stores.records import Duplicate, Reject
from stores.tar_members import is_tar, tar_members

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
)
"""Names that end so, in any case, are taken for images when a folder or a tar is listed."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a listing found: every input is in exactly one of the three."""

    items: Sequence[SourceItem]
    """Inputs to work on, sorted by key: a `Listing`, as many of them as there may be."""
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
    return Scan(Listing.of(SourceItem(f"z/{seed}/{i}") for i in range(num_samples)))


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
        self.table = Table()
        self.rejects: dict[str, Reject] = {}
        self.tars: list[str] = []

    @property
    def num_taken(self) -> int:
        """Inputs that the sources named so far."""
        return len(self.table) + len(self.rejects)

    def take(self, path: str, name: str) -> None:
        """Take one file in: as an item, or as a reject that says why not."""
        key = key_of_name(name)
        status = self._regular(path, key)
        if status is not None:
            self.table.add(SourceItem(key, path, status.st_size, status.st_mtime_ns))

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
                    self.table.add(SourceItem(found.key, path, *place))
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
        place = (identity.st_dev, identity.st_ino)
        if place in ancestors:
            return
        folders: list[tuple[str, str]] = []
        with os.scandir(folder) as listing:
            for entry in listing:  # never all at once: a folder may have 10^7
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append((entry.path, entry.name))
                elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    found.take(entry.path, prefix + entry.name)
    except OSError as error:
        found.refuse(key_of_name(prefix or "."), *_explain(error, folder))
        return
    for path, name in folders:
        _scan_folder(path, f"{prefix}{name}/", found, (*ancestors, place))


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
    """Of files with the same bytes the first by key stays."""
    items = _one_a_key(found)
    kept = np.ones(len(items), dtype=bool)
    duplicates: list[Duplicate] = []

    def refuse(item: SourceItem, error: OSError) -> None:
        found.refuse(item.key, *_explain(error, item.path))

    for first, *copies in equal_files(items, refuse):
        kept[copies] = False
        of_key = items[first].key
        duplicates += [Duplicate(items[copy].key, of_key) for copy in copies]
    refused = items.places(list(found.rejects))
    kept[refused[refused >= 0]] = False
    return Scan(items[kept], sorted(found.rejects.values()), sorted(duplicates), found.tars)


def _one_a_key(found: _Found) -> Listing:
    """The items sorted by key; a file that several sources name is one, as are equal members.

    Raises:
        KeyCollisionError: Two different files have one key.
    """
    items = Listing.sorted(found.table)
    kept = np.ones(len(items), dtype=bool)
    former: SourceItem | None = None
    for place, item in enumerate(items):
        if former is None or item.key != former.key:
            former = item
            continue
        kept[place] = False
        _check_same(item, former, found)
    return items if kept.all() else items[kept]


def _check_same(item: SourceItem, former: SourceItem, found: _Found) -> None:
    if item.path != former.path and not Path(item.path).samefile(former.path):
        raise KeyCollisionError(
            f"{former.path!r} and {item.path!r} would both give the key {item.key!r}. Give "
            "their common parent folder (of tars: a pattern such as PARENT/*/*.tar) as the one "
            "source, or a folder with a symbolic link to each."
        )
    if former.offset_bytes != item.offset_bytes:
        found.refuse(
            item.key,
            "duplicate_member",
            f"{item.path!r} has two members of this name, at bytes {former.offset_bytes} and "
            f"{item.offset_bytes}; write the tar again with a name for each",
        )


def _explain(error: OSError, path: str) -> tuple[str, str]:
    """Reason and detail of a file that cannot be read."""
    if error.errno == errno.ELOOP or (error.errno == errno.ENOENT and Path(path).is_symlink()):
        return "broken_symlink", f"{path!r} is a symbolic link to nothing; repair or remove it"
    if error.errno == errno.ENOENT:
        return "missing", f"{path!r} does not exist (any more); restore it or list the source again"
    return "unreadable", f"{path!r}: {error.strerror}; check owner, permissions and the disk"
