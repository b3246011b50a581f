"""Several stores into one: every input once, with the best outcome that any of them has."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from stores.checks import open_shard, require_sound, shard_keys
from stores.checksum import sha256_bytes
from stores.errors import (
    FingerprintMismatchError,
    SchemaMismatchError,
    StoreError,
)
from stores.manifest import Counts
from stores.places import StorePath, store_path
from stores.plan import ShardPlan
from stores.records import Duplicate, Input, Reject, inputs_to_bytes
from stores.repeats import KeyCensus
from stores.sources import SourceItem
from stores.store import Store
from stores.writer import ShardWriter

SCAN = -1
"""Stands for a store's record of the listing where places are (store, shard number)."""
_NUM_NAMED = 5

Place: TypeAlias = tuple[int, int]
"""A store's place among those that are merged, and a shard's number in it, or `SCAN`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport:
    """What a merge made."""

    counts: Counts
    """Accounts of the merged store."""
    inputs: dict[str, int]
    """Inputs of each store; together those of the merged store and `num_repeated`."""
    num_repeated: int
    """Times that a store had an input that an earlier one had too, and which counts once."""
    different: list[str]
    """Keys of which the stores have different rows; the first store's was kept."""


def merge_stores(
    paths: Sequence[StorePath | str],
    into: StorePath | str,
    *,
    keep_first: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> MergeReport:
    """Make a store with the rows of several; these stay as they are.

    Shards are committed one by one as by any run: a merge that was killed goes on when it is
    called again. Each shard of the stores becomes one, less what another has already. Of an input
    that several stores know, a row counts before being a duplicate, and that before a reject.

    Args:
        paths: The stores, the most trusted first.
        into: The merged store; made, or continued if an earlier call was stopped.
        keep_first: Where rows of one key differ, keep that of the first store that has it.
        on_progress: Called with the shards done and all there are.

    Raises:
        SchemaMismatchError: The stores have different columns.
        FingerprintMismatchError: The stores were made by different models or settings.
        StoreError: Their splits differ, rows of one key differ (the keys are named), or `into`
            holds something else.
        StoreBusyError: Another run is writing to `into`.
    """
    stores = [Store.open(path) for path in paths]
    _check_alike(stores)
    if store_path(into).resolve() in {store.path.resolve() for store in stores}:
        raise StoreError(f"{into} is one of the stores to merge; give a new folder")
    repeated = _repeated_inputs(stores)
    holders, different = _settle(stores, repeated)
    if different and not keep_first:
        named = ", ".join(map(repr, different[:_NUM_NAMED]))
        raise StoreError(
            f"{len(different)} keys have different rows in {' and '.join(map(str, paths))} "
            f"({named}{', ...' if len(different) > _NUM_NAMED else ''}). If they are the same "
            "inputs, merge with --keep first; if not, rename the files of one and encode them anew."
        )
    header = stores[0].header
    target = Store.open_or_create(
        into,
        schema=header.schema,
        fingerprints=header.fingerprints,
        split_eval=header.eval_fraction,
        shard_format=header.shard_format,
    )
    with target.lock():
        target.consolidate()
        _check_target(stores, holders, target)
        target.record_scan(*_merged_scan(stores, holders))
        _copy_shards(stores, holders, target, on_progress)
        counts = target.consolidate().counts
    parts = {str(store.path): store.manifest.counts for store in stores}
    inputs = {path: part.inputs - part.pending for path, part in parts.items()}
    return MergeReport(
        counts=counts,
        inputs=inputs,
        num_repeated=sum(inputs.values()) - counts.inputs,
        different=different,
    )


def _check_alike(stores: Sequence[Store]) -> None:
    first = stores[0]
    for store in stores[1:]:
        pair = f"{first.path} and {store.path}"
        if store.header.schema != first.header.schema:
            raise SchemaMismatchError(
                f"{pair} cannot be merged: they have different columns, or scale them by different "
                f"numbers: {first.header.schema} and {store.header.schema}"
            )
        ours, theirs = first.header.fingerprints, store.header.fingerprints
        names = [n for n in sorted({*ours, *theirs}) if ours.get(n) != theirs.get(n)]
        if names:
            found = "; ".join(f"{n}: {ours.get(n)} and {theirs.get(n)}" for n in names)
            raise FingerprintMismatchError(
                f"{pair} were made by other models or settings ({found}); values of two kinds "
                "never mix in one store"
            )
        if store.header.eval_fraction != first.header.eval_fraction:
            raise StoreError(
                f"{pair} hold out different shares of their keys: {first.header.eval_fraction} "
                f"and {store.header.eval_fraction}; a row held out in one would be trained on"
            )


def _keys_at(stores: Sequence[Store], place: Place) -> list[str]:
    """Keys of inputs on record at a place."""
    store, number = stores[place[0]], place[1]
    if number != SCAN:
        return [record.key for record in store.read_inputs(number)]
    rejects, duplicates = store.scan_record()
    return [line.key for line in (*rejects, *duplicates)]


def _repeated_inputs(stores: Sequence[Store]) -> dict[str, list[Place]]:
    """Keys on record at several places, with these."""
    census = KeyCensus[Place](lambda place: _keys_at(stores, place))
    for which, store in enumerate(stores):
        for place in ((which, SCAN), *((which, number) for number in store.manifest.shards)):
            census.add(place, _keys_at(stores, place))
    return census.repeated()


def _settle(
    stores: Sequence[Store], repeated: Mapping[str, list[Place]]
) -> tuple[dict[str, Place], list[str]]:
    """The one place that keeps each repeated key, and the keys whose rows differ.

    A row comes before a duplicate, that before a reject; among equals the first store's.
    """
    involved = {place for places in repeated.values() for place in places}
    fates = {place: _fates(stores, place) for place in sorted(involved)}
    holders = {
        key: min(places, key=lambda place, key=key: (fates[place][key], place))
        for key, places in repeated.items()
    }
    pairs: defaultdict[tuple[Place, Place], list[str]] = defaultdict(list)
    for key, places in repeated.items():
        holder = holders[key]
        for place in places:
            if place != holder and fates[place][key] == _ROW:
                pairs[holder, place].append(key)
    different: set[str] = set()
    for (one, other), keys in pairs.items():
        different.update(_different_rows(stores, one, other, keys))
    return holders, sorted(different)


_ROW, _DUPLICATE, _REJECT = range(3)


def _fates(stores: Sequence[Store], place: Place) -> dict[str, int]:
    """What became of the inputs on record at a place: smaller is better."""
    store, number = stores[place[0]], place[1]
    if number == SCAN:
        rejects, duplicates = store.scan_record()
        fates = {reject.key: _REJECT for reject in rejects}
        return fates | {duplicate.key: _DUPLICATE for duplicate in duplicates}
    fates = dict.fromkeys(_keys_at(stores, place), _ROW)
    return fates | {reject.key: _REJECT for reject in store.read_rejects(number)}


def _different_rows(
    stores: Sequence[Store], one: Place, other: Place, keys: Sequence[str]
) -> Iterator[str]:
    """Keys whose rows in two shards are not the same, bit for bit."""
    tables = []
    for which, number in (one, other):
        store = stores[which]
        entry = store.manifest.shards[number]
        columns = open_shard(store.layout.shard(number), store.header.schema, entry.rows)
        rows = {key: row for row, key in enumerate(shard_keys(store, entry))}
        tables.append((columns, rows))
    (columns, rows), (others, other_rows) = tables
    for key in keys:
        if any(
            columns[name][rows[key]].tobytes() != others[name][other_rows[key]].tobytes()
            for name in stores[0].header.schema.names
        ):
            yield key


def _merged_scan(
    stores: Sequence[Store], holders: Mapping[str, Place]
) -> tuple[list[Reject], list[Duplicate]]:
    """What the stores recorded while listing, less what another place keeps."""
    rejects: list[Reject] = []
    duplicates: list[Duplicate] = []
    for which, store in enumerate(stores):
        here = (which, SCAN)
        refused, copies = store.scan_record()
        rejects += [line for line in refused if holders.get(line.key, here) == here]
        duplicates += [line for line in copies if holders.get(line.key, here) == here]
    return rejects, duplicates


def _merged_shards(
    stores: Sequence[Store], holders: Mapping[str, Place]
) -> Iterator[tuple[Store, int, list[Input]]]:
    """Store, number and kept inputs of each shard that the merged store will have, in order."""
    for which, store in enumerate(stores):
        for number in store.manifest.shards:
            here = (which, number)
            records = [r for r in store.read_inputs(number) if holders.get(r.key, here) == here]
            if records:
                yield store, number, records


def _check_target(stores: Sequence[Store], holders: Mapping[str, Place], target: Store) -> None:
    """Go on with what an earlier call of the same merge made, and with nothing else."""
    if not target.manifest.shards:
        return
    digests = [_digest(records) for _, _, records in _merged_shards(stores, holders)]
    for number, entry in target.manifest.shards.items():
        if number >= len(digests) or entry.inputs_sha256 != digests[number]:
            raise StoreError(
                f"{target.path} holds something else than a part of this merge (shard {number}); "
                "give a new folder, or the stores of the merge that was begun there"
            )


def _copy_shards(
    stores: Sequence[Store],
    holders: Mapping[str, Place],
    target: Store,
    on_progress: Callable[[int, int], None],
) -> None:
    total = sum(len(store.manifest.shards) for store in stores)
    for new, (store, number, records) in enumerate(_merged_shards(stores, holders)):
        if new not in target.manifest.shards:
            _copy_shard(store, number, records, target, new)
        on_progress(new + 1, total)


def _digest(records: Sequence[Input]) -> str:
    return sha256_bytes(inputs_to_bytes(records))


def _copy_shard(
    store: Store, number: int, records: Sequence[Input], target: Store, new_number: int
) -> None:
    """Commit one shard's rows and rejects, those of `records`, under a new number.

    Raises:
        ShardCorruptError: The shard or its lists are not those that were committed.
    """
    entry, schema = store.manifest.shards[number], store.header.schema
    require_sound(store, entry)
    wanted = {record.key for record in records}
    items = tuple(SourceItem(r.key, "", r.size_bytes, r.mtime_ns) for r in records)
    writer = ShardWriter(target, ShardPlan(new_number, items))
    for record in records:
        if record.sha256:
            writer.note_digest(record.key, record.sha256)
    for reject in store.read_rejects(number):
        if reject.key in wanted:
            writer.reject(*reject)
    keys = shard_keys(store, entry)
    rows = np.array([row for row, key in enumerate(keys) if key in wanted], dtype=np.int64)
    stored = open_shard(store.layout.shard(number), schema, entry.rows)
    chosen = {name: stored[name][rows] for name in schema.names}
    writer.add_stored([keys[row] for row in rows], chosen)
    writer.commit()
