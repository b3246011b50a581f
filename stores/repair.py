"""Making a store whole again from what is left of it, without giving up a sound row."""

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from stores.atomic import make_folder, write_atomic
from stores.blobs import damaged_blobs, drop_blobs
from stores.checks import read_shard_header
from stores.checksum import sha256_file
from stores.errors import ManifestError, ShardCorruptError, StoreError
from stores.layout import Layout, manifest_path
from stores.lock import exclusive
from stores.manifest import Header, Manifest, ShardEntry, in_order, parse_entry, parse_manifest
from stores.places import StorePath, name_below, store_path
from stores.quarantine import set_aside, shard_reason
from stores.salvage import Salvage, examine, settle_repeats
from stores.store import Store
from stores.verify import unaccounted_files

_MAX_THREADS = 8


@dataclass(kw_only=True, slots=True)
class RepairReport:
    """What a repair did, or with `dry_run` would do."""

    rows: int = 0
    """Rows of the repaired store."""
    rebuilt: list[str] = field(default_factory=list)
    """Files made again, relative to the store."""
    quarantined: dict[str, list[str]] = field(default_factory=dict)
    """Shards with their lists, and other files, moved to `quarantine/`; each with its reasons."""
    unproven: list[str] = field(default_factory=list)
    """Shards that were kept although nothing is left that vouches for their bytes."""
    recompute: dict[str, list[str]] = field(default_factory=dict)
    """Inputs that the next precompute makes again, by shard; [] where the list is lost too."""
    num_dropped: int = 0
    """Inputs of kept shards whose outcome was on a lost list; the next precompute decides anew."""
    foreign: list[str] = field(default_factory=list)
    """Files that are not the store's: left alone."""

    @property
    def changed(self) -> bool:
        """Whether anything had to be done."""
        return bool(self.rebuilt or self.quarantined)


def repair_store(
    path: StorePath | str, *, dry_run: bool = False, directions: Collection[str] = ()
) -> RepairReport:
    """Rebuild a store's manifest, commit marks and lists; set aside what is damaged.

    Every byte is read. Shards with a problem go to `quarantine/` with their lists and the reason;
    nothing is deleted. The next precompute makes their inputs again, and only those.

    Args:
        path: The store's folder.
        dry_run: Change nothing; only report.
        directions: Columns whose rows are directions, so that one of length 0 is damage.

    Raises:
        StoreBusyError: A run is at work on the store.
        ManifestError: Neither the manifest nor any shard can be read: there is nothing to repair
            from.
        OutOfSpaceError: There is no room; run it again when there is.
    """
    root = store_path(path)
    store = Store(root, Manifest(header=_find_header(root), shards={}))
    with nullcontext() if dry_run else _alone(store):
        manifest = _read_manifest(store)
        found = settle_repeats(store, _examine_all(store, manifest, directions))
        spoilt = _spoilt_files(store)
        target = _target(store, manifest, found)
        report = _report(store, found, spoilt, target)
        if not dry_run:
            _set_aside(store, found, spoilt)
            _write(store, found, target)
    return report


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Neither a driver nor a commit beside the repair."""
    with store.lock(), exclusive(store.layout.commit_lock, wait=True):
        yield


def _find_header(root: StorePath) -> Header:
    """The header that most shards carry; the manifest's where no shard can be read.

    Shards first: one changed letter in the manifest must not make strangers of all of them.
    """
    votes: Counter[str] = Counter()
    shards = root / "shards"
    for file in sorted(shards.iterdir()) if shards.is_dir() else ():
        try:
            votes[json.dumps(read_shard_header(file))] += 1
        except ShardCorruptError:
            continue  # examined later, with its entry
    for text, _ in votes.most_common():
        try:
            return Header.from_json(json.loads(text))
        except (KeyError, TypeError, StoreError):
            continue  # a shard of some other program
    path = manifest_path(root)
    try:
        return parse_manifest(path.read_bytes(), path).header
    except (OSError, ManifestError) as error:
        raise ManifestError(
            f"{root}: neither a shard nor the manifest can be read, so nothing says what this "
            "store was. Check the path; if it is right, make the store again with "
            "`deltaedit precompute` in a new folder."
        ) from error


def _read_manifest(store: Store) -> Manifest | None:
    """The manifest; None when it is lost, damaged or another store's."""
    path = manifest_path(store.path)
    try:
        manifest = parse_manifest(path.read_bytes(), path)
    except (OSError, ManifestError):
        return None
    return manifest if manifest.header == store.header else None


def _examine_all(
    store: Store, manifest: Manifest | None, directions: Collection[str]
) -> list[Salvage]:
    candidates = _candidates(store, manifest)
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        return list(
            pool.map(
                lambda number: examine(store, number, candidates[number], directions=directions),
                sorted(candidates),
            )
        )


def _candidates(store: Store, manifest: Manifest | None) -> dict[int, list[ShardEntry]]:
    """Entries that were found for each shard: its commit mark's and the manifest's.

    A shard that only its own file tells of was never committed, unless the manifest is lost too.
    """
    layout = store.layout
    found: dict[int, list[ShardEntry]] = {n: [] for n in _numbers(layout, layout.entry)}
    for number, candidates in found.items():
        mark = layout.entry(number)
        try:
            candidates.append(parse_entry(mark.read_bytes(), mark))
        except ManifestError:
            continue  # its mark is damaged; the manifest may have a copy
    if manifest is None:
        for number in _numbers(layout, layout.shard):
            found.setdefault(number, [])
    for number, entry in manifest.shards.items() if manifest else ():
        if entry not in found.setdefault(number, []):
            found[number].append(entry)
    return {
        number: [entry for entry in entries if entry.number == number]
        for number, entries in found.items()
    }


def _numbers(layout: Layout, path_of: Callable[[int], StorePath]) -> list[int]:
    """Numbers of which there is the file that `path_of` names."""
    folder = path_of(0).parent
    files = list(folder.iterdir()) if folder.is_dir() else []
    numbers = ((layout.number(file.name), file) for file in files)
    return [number for number, file in numbers if number is not None and path_of(number) == file]


def _spoilt_files(store: Store) -> dict[StorePath, str]:
    """Files beside the shards that cannot be used as they are."""
    spoilt: dict[StorePath, str] = {}
    try:
        store.scan_record()
    except ManifestError as error:
        spoilt[store.layout.scan] = str(error)
    try:
        for name, what in damaged_blobs(store).items():
            spoilt[store.layout.blobs / name] = what
    except ManifestError as error:
        spoilt[store.layout.blob_list] = str(error)
    return spoilt


def _target(store: Store, manifest: Manifest | None, found: list[Salvage]) -> Manifest:
    """The manifest that the store will have."""
    try:
        rejects, duplicates = store.scan_record()
        scan = sha256_file(store.layout.scan) if store.layout.scan.exists() else None
    except ManifestError:
        rejects, duplicates, scan = [], [], None
    target = Manifest(
        header=store.header,
        shards=in_order(item.entry for item in found if item.entry is not None),
        scan_rejects=len(rejects),
        scan_duplicates=len(duplicates),
        scan_sha256=scan,
    )
    lost = sum(len(item.keys) + item.num_dropped for item in found)
    planned = manifest.num_planned if manifest else target.counts.inputs + lost
    return replace(target, num_planned=planned)


def _report(
    store: Store, found: list[Salvage], spoilt: Mapping[StorePath, str], target: Manifest
) -> RepairReport:
    layout = store.layout
    report = RepairReport(rows=target.counts.rows)
    for item in found:
        name = layout.stem(item.number)
        if item.entry is None:
            report.quarantined[name] = item.problems
            report.recompute[name] = list(item.keys)
            continue
        report.num_dropped += item.num_dropped
        if not item.is_proven:
            report.unproven.append(name)
        files = [layout.inputs(item.number), layout.rejects(item.number)] if item.lists else []
        if not _holds(layout.entry(item.number), item.entry.to_bytes()):
            files.append(layout.entry(item.number))
        report.rebuilt += [name_below(file, store.path) for file in files]
    for file, problem in spoilt.items():
        report.quarantined[name_below(file, store.path)] = [problem]
    if not _holds(manifest_path(store.path), target.to_bytes()):
        report.rebuilt.append("manifest.json")
    numbers = {item.number for item in found}
    report.foreign = [
        problem.file for problem in unaccounted_files(store, numbers, frozenset(spoilt))
    ]
    return report


def _set_aside(store: Store, found: list[Salvage], spoilt: Mapping[StorePath, str]) -> None:
    layout = store.layout
    for item in found:
        number, stem = item.number, layout.stem(item.number)
        lists = [layout.inputs(number), layout.rejects(number)]
        if item.entry is None:
            # The commit mark goes last: a damaged shard without one could be taken for a whole
            # one by the repair after a repair that was killed in between.
            files = [layout.shard(number), *lists, layout.entry(number)]
            set_aside(layout, stem, files, shard_reason(number, item.problems, item.keys))
        elif item.lists is not None and any(file.exists() for file in lists):
            set_aside(layout, f"lists-of-{stem}", lists, {"problems": ["not those on record"]})
    blobs = [file.name for file in spoilt if file.parent == layout.blobs]
    for file, problem in spoilt.items():
        set_aside(layout, file.stem, [file], {"problems": [problem]})
    if blobs and layout.blob_list not in spoilt:
        drop_blobs(store, blobs)


def _write(store: Store, found: list[Salvage], target: Manifest) -> None:
    layout = store.layout
    for folder in layout.folders:
        make_folder(folder)
    for item in found:
        if item.entry is None:
            continue
        if item.lists is not None:
            for file, data in zip(
                (layout.inputs(item.number), layout.rejects(item.number)), item.lists, strict=True
            ):
                if data:
                    write_atomic(file, data)
        if not _holds(layout.entry(item.number), item.entry.to_bytes()):
            write_atomic(layout.entry(item.number), item.entry.to_bytes())
    if not _holds(manifest_path(store.path), target.to_bytes()):
        write_atomic(manifest_path(store.path), target.to_bytes())


def _holds(path: StorePath, data: bytes) -> bool:
    return path.exists() and path.read_bytes() == data
