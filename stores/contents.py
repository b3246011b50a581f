"""What a store's folder holds at this moment, put together from its files.

The commit marks decide what is committed; `manifest.json` saves reading each of them. A lost
manifest is made again from the marks and the header that every shard carries.
"""

from collections.abc import Iterator
from dataclasses import replace

from stores.atomic import TEMPORARY_SUFFIX
from stores.cache import local_file
from stores.errors import ManifestError, ShardCorruptError, StoreError
from stores.formats.registry import shard_format
from stores.layout import SHARD_SUFFIXES, Layout, manifest_path
from stores.manifest import Header, Manifest, in_order, parse_entry, parse_manifest
from stores.places import ObjectPath, StorePath, names_in, read_all


def read_contents(root: StorePath) -> Manifest:
    """The manifest of the store in folder `root`, with what was committed since it was written.

    A copy of a store that lacks the folder of commit marks is read by its manifest alone.

    Raises:
        ManifestError: There is no store, or its manifest or a commit mark cannot be read.
    """
    path = manifest_path(root)
    try:
        manifest = parse_manifest(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        header = _header_of_shards(root)
        if header is None:
            raise ManifestError(
                f"{root} is not a store: it has no manifest.json. Check the path, or make the "
                "store with `deltaedit precompute`."
            ) from error
        manifest = Manifest(header=header, shards={})
    layout = Layout(root, manifest.header.name, manifest.header.shard_format)
    try:
        names = set(names_in(layout.entries))
    except (FileNotFoundError, NotADirectoryError):
        return manifest
    listed = {f"{entry.name}.json": entry for entry in manifest.shards.values()}
    kept = [entry for name, entry in listed.items() if name in names]
    found = map(layout.number, names.difference(listed))
    marks = [layout.entry(number) for number in sorted(n for n in found if n is not None)]
    added = [parse_entry(data, mark) for mark, data in zip(marks, read_all(marks), strict=True)]
    return replace(manifest, shards=in_order([*kept, *added]))


def is_store(root: StorePath) -> bool:
    """Whether a folder holds a store, even one that lost its manifest."""
    return manifest_path(root).exists() or next((root / "entries").glob("*.json"), None) is not None


def leftovers(layout: Layout) -> Iterator[StorePath]:
    """Temporary files that killed runs left in the store's folders; object stores have none."""
    if isinstance(layout.root, ObjectPath):
        return
    for folder in (layout.root, *layout.folders):
        yield from folder.glob(f".*{TEMPORARY_SUFFIX}")


def refuse_foreign_files(layout: Layout) -> None:
    """See that a new store may be made here.

    A folder that a killed attempt left half made is fine; one with a user's files is not.

    Raises:
        StoreError: It is not, or there is a file in place of the folder.
    """
    root = layout.root
    if not root.exists():
        return
    if not root.is_dir():
        raise StoreError(f"{root} is a file; a store is a folder. Give another path.")
    if any(layout.shard(0).parent.glob("[!.]*")):
        raise StoreError(
            f"{root} holds shards but neither a manifest nor commit marks, so a new store would "
            "write over them. Run `deltaedit store repair` on it, or give another folder."
        )
    own = {folder.name for folder in layout.folders}
    own |= {layout.commit_lock.name, layout.driver_lock.name, manifest_path(root).name}
    own.add(layout.quarantine.name)
    foreign = [name for name in (p.name for p in root.iterdir()) if name not in own]
    foreign = [name for name in foreign if not name.startswith(".")]
    if foreign:
        raise StoreError(
            f"{root} is not a store and is not empty (it has {min(foreign)!r}); "
            "give a new or an empty folder"
        )


def _header_of_shards(root: StorePath) -> Header | None:
    """The header that the store's shards carry; None when no committed shard can be read."""
    for mark in sorted((root / "entries").glob("*.json")):
        for name, suffix in SHARD_SUFFIXES.items():
            try:
                with local_file(root / "shards" / f"{mark.stem}{suffix}") as shard:
                    return Header.from_json(shard_format(name).read_header(shard))
            except ShardCorruptError:
                continue  # `verify` names it; any other shard knows the header as well
    return None
