"""Embeddings folders as clip-retrieval writes them, into a store and out of it.

The files are those of `stores.exchange.embeddings_files`. A store keeps embeddings and paths;
captions, text embeddings and other metadata are named and left out. Blocks of rows and all keys are
what is in memory.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from stores.atomic import make_folder, replacing
from stores.errors import KeyCollisionError, SourceError, StoreError
from stores.exchange.embeddings_files import (
    BLOCK_ROWS,
    COLUMN,
    LENGTH_TOLERANCE,
    PATHS,
    EmbeddingsFolder,
    Part,
    lengths,
    mapped,
)
from stores.manifest import ShardEntry
from stores.plan import ShardPlan, plan_shards
from stores.reader import StoreReader
from stores.sources import Scan, SourceItem
from stores.store import Store
from stores.writer import ShardWriter


def import_embeddings(
    embeddings: EmbeddingsFolder, store: Store, *, shard_rows: int
) -> Iterator[ShardEntry]:
    """Bring a store up to date with a folder, yielding each shard as soon as it is committed.

    Keys are the paths in the metadata. Rows with NaN or infinite values become rejects. What is
    committed is not read again.

    Args:
        embeddings: What `find_embeddings` found.
        store: A store of its schema and fingerprints.
        shard_rows: Rows of a full shard.

    Raises:
        KeyCollisionError: Two rows have the same path.
        SourceError: A row has no path, or a file changed since `find_embeddings`.
        StoreBusyError: Another run is writing to the store.
        OutOfSpaceError: There is no room; what is committed is safe.
    """
    places = _places(embeddings.parts)
    scan = Scan([SourceItem(key) for key in sorted(places)])
    with store.lock():
        store.consolidate()
        for shard in plan_shards(scan, store, shard_rows).shards:
            yield _import_shard(store, shard, embeddings, places)
        store.consolidate()


def export_embeddings(
    reader: StoreReader, folder: Path, *, as_stored: bool = False, rows_per_file: int = 1_000_000
) -> list[Path]:
    """Write the column clip of a store as an embeddings folder, rows in the order of the store.

    Args:
        reader: The store.
        folder: Made when absent; must hold none of the files that would be written.
        as_stored: Keep dtype and length of the embeddings. Otherwise rows are divided by their
            length and rounded to float16, as clip-retrieval writes them; those that have length 1
            already keep their values.
        rows_per_file: Rows of a full file.

    Returns:
        The files; each appears whole or not at all.

    Raises:
        StoreError: The store has no column clip, or a file is there already.
        OutOfSpaceError: There is no room.
    """
    if rows_per_file < 1:
        raise StoreError(f"rows_per_file must be at least 1, got {rows_per_file}")
    starts = range(0, len(reader), rows_per_file) or [0]
    num_digits = int(math.log10(len(starts))) + 1
    written: list[Path] = []
    for number, start in enumerate(starts):
        end = min(start + rows_per_file, len(reader))
        name = f"{number:0{num_digits}}"
        files = (
            folder / "img_emb" / f"img_emb_{name}.npy",
            folder / "metadata" / f"metadata_{name}.parquet",
        )
        for path in files:
            if path.exists():
                raise StoreError(f"{path} is there already; give a new or an empty folder")
            make_folder(path.parent)
        _write_embeddings(files[0], reader, range(start, end), as_stored=as_stored)
        _write_paths(files[1], reader.keys[start:end])
        written += files
    return written


def _places(parts: Sequence[Part]) -> dict[str, tuple[int, int]]:
    """Part and row of every key."""
    from pyarrow import parquet

    places: dict[str, tuple[int, int]] = {}
    for number, part in enumerate(parts):
        row = 0
        for batch in parquet.ParquetFile(part.metadata).iter_batches(columns=[PATHS]):
            for value in batch.column(0).to_pylist():
                key = "" if value is None else str(value)
                if not key:
                    raise SourceError("missing", f"{part.metadata}: row {row} has no {PATHS}")
                if key in places:
                    first = parts[places[key][0]].metadata
                    raise KeyCollisionError(
                        f"{key!r} is the {PATHS} of row {places[key][1]} of {first} and of row "
                        f"{row} of {part.metadata}; keys must differ: remove one of the two"
                    )
                places[key] = number, row
                row += 1
    return places


def _import_shard(
    store: Store,
    shard: ShardPlan,
    embeddings: EmbeddingsFolder,
    places: Mapping[str, tuple[int, int]],
) -> ShardEntry:
    writer = ShardWriter(store, shard)
    keys = [item.key for item in shard.items]
    for number, group in groupby(keys, key=lambda key: places[key][0]):
        chosen = list(group)
        part = embeddings.parts[number]
        array = mapped(part.embeddings)
        if array.shape != (part.num_rows, embeddings.dim):
            raise SourceError("changed", f"{part.embeddings} changed; run the same command again")
        rows = array[[places[key][1] for key in chosen]].astype(embeddings.dtype, copy=False)
        writer.add(chosen, {COLUMN: rows})
    return writer.commit()


def _write_embeddings(path: Path, reader: StoreReader, rows: range, *, as_stored: bool) -> None:
    column = reader.schema[COLUMN]
    dtype = np.dtype(column.value_dtype if as_stored else "float16")
    descr = dtype.newbyteorder("<").str
    header: dict[str, Any] = {
        "descr": descr,
        "fortran_order": False,
        "shape": (len(rows), *column.shape),
    }
    size_bytes = len(rows) * dtype.itemsize * int(np.prod(column.shape))
    with replacing(path, size_bytes=size_bytes) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(rows.start, rows.stop, BLOCK_ROWS):
            block = np.arange(start, min(start + BLOCK_ROWS, rows.stop))
            values = reader.rows(block, [COLUMN])[COLUMN]
            if not as_stored:
                values = _unit_rows(values)
            file.write(np.ascontiguousarray(values, descr).data)


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their lengths; those of length 1 or 0 as they are."""
    found = lengths(rows)
    is_unit = (np.abs(found - 1) <= LENGTH_TOLERANCE) | (found == 0)
    return np.where(is_unit[:, None], rows, rows / np.where(is_unit, 1, found)[:, None])


def _write_paths(path: Path, keys: Sequence[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with replacing(path) as temporary:
        parquet.write_table(pa.table({PATHS: pa.array(keys, pa.string())}), temporary)
