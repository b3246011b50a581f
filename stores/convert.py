"""A store in another format or precision: the same keys, inputs, rejects, split and fingerprints.

Shard by shard, each checked against its digest before and committed as any shard is, so that a
conversion that was killed goes on where it was.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stores.blobs import list_blobs, read_blob, write_blob
from stores.checks import require_sound
from stores.contents import is_store
from stores.errors import StoreError
from stores.formats.common import decode_keys
from stores.gather import MappedShards
from stores.manifest import ShardEntry
from stores.plan import ShardPlan
from stores.scaling import Moments
from stores.schema import KEY, Column, Schema
from stores.sources import SourceItem
from stores.store import Store
from stores.writer import ShardWriter


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What a conversion did."""

    rows: int
    """Rows of the new store."""
    shards_made: int
    """Shards that this run converted; the others were there."""
    is_lossless: bool
    """Whether the new store holds the very values of the old one."""
    blobs_kept: tuple[str, ...]
    """Blobs that were carried over: those that were not made from the rows."""
    blobs_dropped: tuple[str, ...]
    """Blobs made from the rows of the old store, to be made again from the new one."""


def convert_store(
    source: Path | str,
    out: Path | str,
    *,
    shard_format: str,
    scaled: Collection[str] | None = None,
    on_shard: Callable[[int, int], None] = lambda _done, _total: None,
) -> Conversion:
    """Write the committed shards of one store into another.

    Args:
        source: The store to read; it is not changed.
        out: The folder of the new store. One that an earlier conversion of `source` left is
            continued, also after `source` grew.
        shard_format: `hdf5` or `webdataset`.
        scaled: Columns to keep as z-scored float16; other columns that are so become float32.
            Everything stays as it is when None. Means and deviations are those of the rows that
            are there when the new store is made.
        on_shard: Called after each shard with the number of shards done and their total.

    Raises:
        StoreError: `out` is something else than a conversion of `source`, or is `source`.
        SchemaMismatchError: `out` has other columns, or `scaled` names one that cannot be.
        ShardCorruptError: A file of `source` is not what was committed.
        StoreBusyError: Another run writes to `out`.
        OutOfSpaceError: There is no room; what is committed is safe.
    """
    old = Store.open(source)
    if Path(out).resolve() == old.path.resolve():
        raise StoreError(f"{out} is the store itself; give the conversion another folder")
    new = Store.open_or_create(
        out,
        name=old.header.name,
        schema=_target_schema(old, Path(out), scaled),
        fingerprints=old.header.fingerprints,
        split_eval=old.header.eval_fraction,
        shard_format=shard_format,
    )
    made = 0
    with new.lock():
        new.consolidate()
        _refuse_other_rows(old, new)
        mapped = MappedShards(old, limit=1)
        for done, entry in enumerate(old.manifest.shards.values()):
            if entry.number not in new.manifest.shards:
                _convert_shard(old, new, entry, mapped)
                made += 1
            on_shard(done + 1, len(old.manifest.shards))
        new.record_scan(*old.scan_record(), old.manifest.counts.pending)
        kept, dropped = _carry_blobs(old, new)
    is_lossless = _is_lossless(old.header.schema, new.header.schema)
    return Conversion(
        rows=new.manifest.counts.rows,
        shards_made=made,
        is_lossless=is_lossless,
        blobs_kept=kept,
        blobs_dropped=dropped,
    )


def _target_schema(old: Store, out: Path, scaled: Collection[str] | None) -> Schema:
    """The new store's columns; scalings that it has already are not measured again."""
    schema = old.header.schema
    if scaled is None:
        return schema
    for name in scaled:
        if schema[name].value_dtype != "float32":
            raise StoreError(f"column {name} is {schema[name].dtype}; only float32 can be scaled")
    moments = {name: Moments(schema[name].shape) for name in scaled if not schema[name].scaling}
    if moments and not is_store(out):  # else the numbers are those that it has
        mapped = MappedShards(old, limit=1)
        for number in old.manifest.shards:
            for name, found in moments.items():
                found.add(mapped[number][name])

    def convert(column: Column) -> Column:
        if column.name in moments:
            return replace(column, dtype="float16", scaling=moments[column.name].scaling())
        if column.scaling and column.name not in scaled:
            return Column(column.name, column.shape, "float32")
        return column

    return Schema(tuple(map(convert, schema.columns)))


def _refuse_other_rows(old: Store, new: Store) -> None:
    for number, entry in new.manifest.shards.items():
        theirs = old.manifest.shards.get(number)
        if theirs is None or theirs.inputs_sha256 != entry.inputs_sha256:
            raise StoreError(
                f"shard {entry.name} of {new.path} does not come from {old.path}; give the "
                "conversion another folder"
            )


def _convert_shard(old: Store, new: Store, entry: ShardEntry, mapped: MappedShards) -> None:
    require_sound(old, entry)
    inputs, rejects = old.read_inputs(entry.number), old.read_rejects(entry.number)
    items = tuple(SourceItem(i.key, "", i.size_bytes, i.mtime_ns) for i in inputs)
    writer = ShardWriter(new, ShardPlan(entry.number, items, entry.retries))
    for record in inputs:
        if record.sha256:
            writer.note_digest(record.key, record.sha256)
    for reject in rejects:
        writer.reject(*reject)
    columns = mapped[entry.number]
    keys = decode_keys(columns[KEY])
    # Rows that lie scaled alike in both are copied: scaling anew may round a second time.
    writer.add_stored(
        keys,
        {
            column.name: _restore(columns[column.name], column, new.header.schema[column.name])
            for column in old.header.schema.columns
        },
    )
    writer.commit()


def _restore(stored: np.ndarray, old: Column, new: Column) -> np.ndarray:
    if old == new:
        return stored
    restored = new.to_stored(old.to_values(stored))
    if not np.isfinite(restored).all():
        raise StoreError(
            f"column {old.name} has values too far from the mean for float16: the scaling was "
            "measured before they came. Convert into another folder, which measures it anew."
        )
    return restored


def _carry_blobs(old: Store, new: Store) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy the blobs that do not depend on the rows; the others name the old store's digest."""
    blobs = list_blobs(old)
    kept = tuple(name for name, record in blobs.items() if not record.made_from)
    for name in kept:
        write_blob(new, name, read_blob(old, name), {})
    return kept, tuple(name for name in blobs if name not in kept)


def _is_lossless(old: Schema, new: Schema) -> bool:
    return all(a == b or not b.scaling for a, b in zip(old.columns, new.columns, strict=True))
