"""Comparing a store with its table of contents: quick (sizes, structure) or full (every byte)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stores.atomic import TEMPORARY_SUFFIX
from stores.blobs import damaged_blobs, list_blobs
from stores.cache import local_file
from stores.checksum import sha256_file
from stores.errors import ManifestError, ShardCorruptError
from stores.formats import hdf5
from stores.layout import Layout, manifest_path
from stores.manifest import ShardEntry, parse_manifest
from stores.places import ObjectPath, StorePath, name_below
from stores.schema import KEY
from stores.store import Store


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a store."""

    file: str
    """The file, relative to the store."""
    kind: str
    """One of `missing`, `extra`, `leftover` (harmless), `size`, `digest`, `structure`, `values`,
    `duplicate_key`, `account`."""
    detail: str
    """What was expected and found."""


def verify_store(path: StorePath | str, *, full: bool) -> list[Problem]:
    """Find what is missing, extra, cut, changed or contradictory. Changes nothing.

    Args:
        path: The store's folder.
        full: Read every byte: digests, finite values, unique keys. Otherwise sizes, structure and
            accounts, which takes milliseconds a shard.

    Returns:
        Every problem; an empty list for a good store.
    """
    try:
        store = Store.open(path)
    except ManifestError as error:
        return [Problem("manifest.json", "structure", str(error))]
    problems = [*_check_manifest(store), *_check_extra_files(store)]
    for entry in store.manifest.shards.values():
        problems += _check_shard(store, entry, full=full)
        problems += _check_lists(store, entry, full=full)
    problems += _check_scan(store)
    if full:
        problems += _check_keys(store)
        problems += _check_blobs(store)
    return problems


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
    for number, entry in manifest.shards.items():
        file = name_below(store.layout.entry(number), store.path)
        try:
            mark = store.committed(number)
        except ManifestError as error:
            yield Problem(file, "structure", str(error))
            continue
        if mark is None:
            yield Problem(file, "missing", "the manifest lists this shard; its commit mark is gone")
        elif mark != entry:
            yield Problem(file, "account", "the commit mark differs from the manifest's entry")


def _check_extra_files(store: Store) -> Iterator[Problem]:
    """Files that no entry accounts for."""
    layout = store.layout
    expected = {manifest_path(store.path), layout.scan, layout.blob_list}
    expected |= {layout.driver_lock, layout.commit_lock}
    expected |= {layout.blobs / name for name in _blob_names(store)}
    for number in store.manifest.shards:
        expected |= {layout.shard(number), layout.entry(number)}
        expected |= {layout.inputs(number), layout.rejects(number)}
    for file in _files(store.path):
        if file in expected or _is_lease(file, layout):
            continue
        name = name_below(file, store.path)
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


def _is_lease(file: StorePath, layout: Layout) -> bool:
    """Whether an object is one of those by which an object store's drivers know each other."""
    return isinstance(file, ObjectPath) and file.parent in {layout.driver_lock, layout.commit_lock}


def _check_shard(store: Store, entry: ShardEntry, *, full: bool) -> Iterator[Problem]:
    path = store.layout.shard(entry.number)
    file = name_below(path, store.path)
    if not path.exists():
        yield Problem(file, "missing", f"{entry.rows} committed rows are gone")
        return
    if path.stat().st_size != entry.size_bytes:
        detail = f"{path.stat().st_size} bytes, committed with {entry.size_bytes}"
        yield Problem(file, "size", detail)
        return
    if isinstance(path, Path) or full:
        with local_file(path) as local:
            yield from _check_rows(store, entry, file, local, full=full)


def _check_rows(
    store: Store, entry: ShardEntry, file: str, path: Path, *, full: bool
) -> Iterator[Problem]:
    """The bytes of a shard; those of a remote one were fetched to `path`."""
    if full and sha256_file(path) != entry.sha256:
        yield Problem(file, "digest", f"the bytes changed since commit: not {entry.sha256}")
    try:
        columns = hdf5.map_shard(path, store.header.schema, entry.rows)
        header = hdf5.read_header(path)
    except ShardCorruptError as error:
        yield Problem(file, "structure", str(error))
        return
    if header != store.header.to_json():
        yield Problem(file, "structure", "its header names another store, schema or fingerprints")
    if full:
        for name in store.header.schema.names:
            if columns[name].dtype.kind == "f" and not np.isfinite(columns[name]).all():
                yield Problem(file, "values", f"column {name} has NaN or infinite values")


def _check_lists(store: Store, entry: ShardEntry, *, full: bool) -> Iterator[Problem]:
    """The lists of inputs and rejects of a shard against its entry."""
    expected = {
        store.layout.inputs(entry.number): entry.inputs_sha256,
        store.layout.rejects(entry.number): entry.rejects_sha256,
    }
    for path, digest in expected.items():
        file = name_below(path, store.path)
        if digest is None and path.exists():
            yield Problem(file, "extra", "the shard has no such list")
        elif digest is not None and not path.exists():
            yield Problem(file, "missing", f"the list of shard {entry.name} is gone")
        elif digest is not None and full and sha256_file(path) != digest:
            yield Problem(file, "digest", f"the bytes changed since commit: not {digest}")


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


def _check_keys(store: Store) -> Iterator[Problem]:
    """Every input of a shard has a row or a reject, and no key has two rows."""
    shard_of_key: dict[str, str] = {}
    for number, entry in store.manifest.shards.items():
        path = store.layout.shard(number)
        try:
            with local_file(path) as local:
                columns = hdf5.map_shard(local, store.header.schema, entry.rows)
                keys = hdf5.decode_keys(columns[KEY])
            inputs = {record.key for record in store.read_inputs(number)}
            rejects = {reject.key for reject in store.read_rejects(number)}
        except (ManifestError, ShardCorruptError, UnicodeDecodeError):
            continue  # on the list already, as missing or damaged
        file = name_below(path, store.path)
        if inputs != {*keys, *rejects} or len(inputs) != len(keys) + len(rejects):
            yield Problem(file, "account", "its keys and rejects are not its inputs, each once")
        for key in keys:
            if key in shard_of_key:
                yield Problem(file, "duplicate_key", f"{key!r} is also in {shard_of_key[key]}")
            shard_of_key[key] = file


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
