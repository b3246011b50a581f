"""Comparing a store with its table of contents: quick (sizes, structure) or full (every byte)."""

import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath

from stores.atomic import TEMPORARY_SUFFIX
from stores.blobs import damaged_blobs, list_blobs
from stores.checks import Problem, check_lists, check_shard, shard_keys
from stores.checksum import sha256_file
from stores.errors import ManifestError
from stores.layout import manifest_path
from stores.manifest import ShardEntry, parse_manifest
from stores.places import NUM_REQUESTS, ObjectPath, StorePath, name_below
from stores.repeats import KeyCensus
from stores.store import Store

_MAX_THREADS = 8
"""Shards read at once; digests and sums run outside of the interpreter's lock."""


def verify_store(
    path: StorePath | str, *, full: bool, directions: Collection[str] = ()
) -> list[Problem]:
    """Find what is missing, extra, cut, changed or contradictory. Changes nothing.

    Args:
        path: The store's folder.
        full: Read every byte: digests, finite values, unique keys. Otherwise sizes, structure and
            accounts, which takes milliseconds a shard.
        directions: Columns whose rows are directions: a full check refuses rows of length 0.

    Returns:
        Every problem; an empty list for a good store.
    """
    try:
        store = Store.open(path)
    except ManifestError as error:
        return [Problem("manifest.json", "structure", str(error))]
    problems = [*_check_manifest(store), *unaccounted_files(store, store.manifest.shards)]
    problems += _check_shards(store, full=full, directions=directions)
    problems += _check_scan(store)
    if full:
        problems += _check_blobs(store)
    return problems


def _check_shards(store: Store, *, full: bool, directions: Collection[str]) -> Iterator[Problem]:
    entries = store.manifest.shards
    census = KeyCensus[int](lambda number: shard_keys(store, entries[number]))

    def check(entry: ShardEntry) -> list[Problem]:
        found = check_shard(store, entry, full=full, directions=directions)
        if found.keys is not None:
            census.add(entry.number, found.keys)
        return [*found.problems, *check_lists(store, entry, full=full, keys=found.keys)]

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for problems in pool.map(check, entries.values()):
            yield from problems
    for key, numbers in census.repeated().items():
        first, *others = sorted(numbers)
        for number in others:
            detail = f"{key!r} is also in {_file(store, first)}"
            yield Problem(_file(store, number), "duplicate_key", detail)


def _file(store: Store, number: int) -> str:
    return name_below(store.layout.shard(number), store.path)


def _check_manifest(store: Store) -> Iterator[Problem]:
    """`manifest.json` against the commit marks that it copies."""
    path = manifest_path(store.path)
    if not path.exists():
        yield Problem("manifest.json", "missing", "a run makes it again from the shards")
        return
    data = path.read_bytes()
    manifest = parse_manifest(data, path)
    if manifest.to_bytes() != data:
        yield Problem("manifest.json", "structure", "its text was changed after it was written")
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        for problems in pool.map(partial(_check_mark, store), manifest.shards.values()):
            yield from problems


def _check_mark(store: Store, entry: ShardEntry) -> list[Problem]:
    file = name_below(store.layout.entry(entry.number), store.path)
    try:
        mark = store.committed(entry.number)
    except ManifestError as error:
        return [Problem(file, "structure", str(error))]
    if mark is None:
        detail = "the manifest lists this shard; its commit mark is gone"
        return [Problem(file, "missing", detail)]
    if mark != entry:
        return [Problem(file, "account", "the commit mark differs from the manifest's entry")]
    return []


def unaccounted_files(
    store: Store, numbers: Collection[int], known: Collection[StorePath] = ()
) -> Iterator[Problem]:
    """Files in a store's folder that belong to nothing; what `repair` set aside is not looked at.

    Args:
        store: The store.
        numbers: Shards whose files belong to it.
        known: Further files that do.
    """
    layout = store.layout
    set_apart = {layout.quarantine.name}
    if isinstance(store.path, ObjectPath):
        set_apart |= {layout.driver_lock.name, layout.commit_lock.name}  # leases are below them
    expected = {manifest_path(store.path), layout.scan, layout.blob_list, *known}
    expected |= {layout.driver_lock, layout.commit_lock, layout.run_status}
    expected |= {layout.blobs / name for name in _blob_names(store)}
    for number in numbers:
        expected |= {layout.shard(number), layout.entry(number)}
        expected |= {layout.inputs(number), layout.rejects(number)}
    for file in _files(store.path):
        name = name_below(file, store.path)
        if file in expected or PurePosixPath(name).parts[0] in set_apart:
            continue
        if file.name.endswith(TEMPORARY_SUFFIX):
            yield Problem(name, "leftover", "a killed run left it; nothing reads it, remove it")
        elif layout.number(file.name) is not None and file.parent != layout.entries:
            yield Problem(name, "leftover", "its shard was not committed; a run will replace it")
        else:
            yield Problem(name, "extra", "not a file of this store")


def _files(root: StorePath) -> Iterator[StorePath]:
    if isinstance(root, ObjectPath):
        yield from root.walk_files()
    else:
        yield from sorted(file for file in root.rglob("*") if not file.is_dir())


def _check_scan(store: Store) -> Iterator[Problem]:
    """The record of the listing against the counts in the manifest."""
    try:
        rejects, duplicates = store.scan_record()
    except ManifestError as error:
        yield Problem("rejects/scan.jsonl", "structure", str(error))
        return
    found = len(rejects), len(duplicates)
    listed = store.manifest.scan_rejects, store.manifest.scan_duplicates
    path = store.layout.scan
    digest = sha256_file(path) if path.exists() else None
    if (found, digest) != (listed, store.manifest.scan_sha256):
        # Not called damage: a run killed just after it wrote the record leaves the same picture.
        detail = f"{found} rejects and duplicates, digest {digest}; the manifest records {listed}"
        yield Problem("rejects/scan.jsonl", "account", detail)


def _check_blobs(store: Store) -> Iterator[Problem]:
    try:
        for name, found in damaged_blobs(store).items():
            kind = "missing" if found == "missing" else "digest"
            yield Problem(f"blobs/{name}", kind, f"{found}; run the command that made it again")
    except ManifestError as error:
        yield Problem("blobs/blobs.json", "structure", str(error))


def _blob_names(store: Store) -> list[str]:
    try:
        return list(list_blobs(store))
    except ManifestError:
        return []  # `_check_blobs` says why
