"""The user's images, in files or objects: listed, checked for copies, read. Nothing here writes.

A listing depends on names, sizes and contents alone, so that two listings of the same files give
the same plan.
"""

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stores.copies import equal_files
from stores.errors import KeyCollisionError, SourceError
from stores.found import IMAGE_SUFFIXES, Found, explain, is_image_name, status_of
from stores.keys import key_of_name
from stores.listing import Listing, SourceItem
from stores.patterns import paths_of
from stores.places import is_url, without_file_scheme
from stores.records import Duplicate, Reject
from stores.source_files import entries, is_folder, read_part
from stores.tar_members import is_tar
from stores.threads import map_threads


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
            `*.tar`), or `@list.txt` (a path a line, relative to the list). Each may be a URL, too:
            `s3://bucket/faces`, `@s3://bucket/list.txt`.

    Raises:
        SourceError: A source does not exist, or has no image in it.
        KeyCollisionError: Two files of different sources have the same relative path.
        ObjectStoreError: An object store does not answer.
    """
    found = Found()
    for source in [without_file_scheme(os.fspath(source)) for source in sources]:
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
    """The bytes of an input: of its file or object, or of its stretch of a tar.

    Raises:
        SourceError: It is gone (`missing`), may not be read (`unreadable`), its tar was cut since
            the listing (`truncated`), or reading fails.
        ObjectStoreError: The object store does not answer: nothing is known of this input.
    """
    is_member = item.offset_bytes > 0
    try:
        data = read_part(item.path, item.offset_bytes, item.size_bytes if is_member else None)
    except OSError as error:
        raise SourceError(*explain(error, item.path)) from error
    if is_member and len(data) < item.size_bytes:
        raise SourceError("truncated", f"{item.path!r} was cut since it was listed; restore it")
    return data


def _scan_source(source: str, found: Found) -> None:
    if source.startswith("@"):
        _scan_list(source[1:], found)
        return
    for path, name in paths_of(source):
        is_path = path == source
        if is_folder(path):
            prefix = "" if is_path else f"{name}/"
            if is_url(path):
                _scan_objects(path.rstrip("/"), prefix, found)
            else:
                _scan_folder(path, prefix, found, ())
        elif is_tar(name):
            found.take_tar(path, name, status_of(path))
        elif is_path or is_image_name(name):
            found.take(path, name, status_of(path))


def _scan_folder(
    folder: str, prefix: str, found: Found, ancestors: tuple[tuple[int, int], ...]
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
                elif is_image_name(entry.name):
                    found.take(entry.path, prefix + entry.name, status_of(entry.path))
    except OSError as error:
        found.refuse(key_of_name(prefix or "."), *explain(error, folder))
        return
    for path, name in folders:
        _scan_folder(path, f"{prefix}{name}/", found, (*ancestors, place))


def _scan_objects(url: str, prefix: str, found: Found) -> None:
    """As `_scan_folder`, of an object store; each folder is one listing."""
    try:
        listed = list(entries(url))
    except OSError as error:
        found.refuse(key_of_name(prefix or "."), *explain(error, url))
        return
    for name, status in listed:
        if name.startswith("."):
            continue
        if status is None:
            _scan_objects(f"{url}/{name}", f"{prefix}{name}/", found)
        elif is_image_name(name):
            found.take(f"{url}/{name}", prefix + name, status)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself: `take` says so if it is named like an image
        return False


def _scan_list(path: str, found: Found) -> None:
    """Take in the files that a list names: relative ones from the list's folder."""
    path = without_file_scheme(path)
    try:
        lines = read_part(path).splitlines()
    except OSError as error:
        raise SourceError(
            "missing", f"the list {path!r} cannot be read: {error.strerror}"
        ) from error
    names = (without_file_scheme(os.fsdecode(line.strip())) for line in lines)
    listed = (_beside(path, name) for name in names if name)
    for (place, name), status in map_threads(lambda each: status_of(each[0]), listed):
        take = found.take_tar if is_tar(name) else found.take
        take(place, name, status)


def _beside(path: str, name: str) -> tuple[str, str]:
    """The path of what a list at `path` names, and what its key is made from."""
    if is_url(name):
        return name, posixpath.normpath(name.partition("://")[2])
    key_name = os.path.normpath(name).lstrip("/")
    if is_url(path) and not name.startswith("/"):
        return f"{path.rpartition('/')[0]}/{key_name}", key_name
    return str(Path(path).parent / name), key_name


def _set_copies_apart(found: Found) -> Scan:
    """Of files with the same bytes the first by key stays."""
    items = _one_a_key(found)
    kept = np.ones(len(items), dtype=bool)
    duplicates: list[Duplicate] = []

    def refuse(item: SourceItem, error: OSError) -> None:
        found.refuse(item.key, *explain(error, item.path))

    for first, *copies in equal_files(items, refuse):
        kept[copies] = False
        of_key = items[first].key
        duplicates += [Duplicate(items[copy].key, of_key) for copy in copies]
    refused = items.places(list(found.rejects))
    kept[refused[refused >= 0]] = False
    return Scan(items[kept], sorted(found.rejects.values()), sorted(duplicates), found.tars)


def _one_a_key(found: Found) -> Listing:
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


def _check_same(item: SourceItem, former: SourceItem, found: Found) -> None:
    if item.path != former.path and not _is_same_file(item.path, former.path):
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


def _is_same_file(path: str, other: str) -> bool:
    return not (is_url(path) or is_url(other)) and Path(path).samefile(other)
