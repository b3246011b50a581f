"""DeltaEdit's published layout of vectors, into a store and out of it, without loss.

The files are those of `stores.exchange.official_files`. Blocks of rows are all that is ever in
memory.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stores.atomic import make_folder, replacing
from stores.errors import SourceError, StoreError
from stores.exchange.official_files import NUM_AXES, Features, FeatureSet, mapped
from stores.manifest import ShardEntry
from stores.plan import ShardPlan, plan_shards
from stores.reader import StoreReader
from stores.schema import Column
from stores.sources import Scan, SourceItem
from stores.store import Store
from stores.writer import ShardWriter

EXAMPLES = "img"
"""The set whose W+ file begins with `wplus`; that of the others begins with `wspace`."""
BLOCK_ROWS = 1024

_MADE_KEY = re.compile(r"([A-Za-z0-9]+)/\d{9,}")
_SET_NAME = re.compile(r"[A-Za-z0-9]+")


def import_features(features: Features, store: Store, *, shard_rows: int) -> Iterator[ShardEntry]:
    """Bring a store up to date with the files, yielding each shard as soon as it is committed.

    Rows with NaN or infinite values become rejects. What is committed is not read again.

    Args:
        features: the files.
        store: a store of their schema and fingerprints.
        shard_rows: rows of a full shard.

    Raises:
        SourceError: a file changed its shape since `find_features`, or a list of keys is wrong.
        StoreBusyError: another run is writing to the store.
        OutOfSpaceError: the disk is full; what is committed is safe.
    """
    items = features.items()
    scan = Scan([SourceItem(key) for key in sorted(items)])
    with store.lock():
        store.consolidate()
        for shard in plan_shards(scan, store, shard_rows).shards:
            yield _import_shard(store, shard, items)
        store.consolidate()


def export_features(reader: StoreReader, folder: Path, *, name: str) -> list[Path]:
    """Write a store's clip, w_plus and s in the published layout, rows sorted by key.

    Rows that `import_features` named go back to their sets, all others make up one.

    Args:
        reader: the store.
        folder: made when absent; must hold none of the files that would be written.
        name: set of rows whose keys do not name one.

    Returns:
        The files, which appear together at the end.

    Raises:
        StoreError: the store has none of the columns, a file is there already, or `name` is none.
        OutOfSpaceError: the disk is full; no file is left.
    """
    if not _SET_NAME.fullmatch(name):
        raise StoreError(f"{name!r} cannot name a set: use letters and digits, such as ffhq")
    columns = [column for column in NUM_AXES if column in reader.schema.names]
    if not columns:
        raise StoreError(
            f"{reader.path} has no column of {', '.join(NUM_AXES)} (it has "
            f"{', '.join(reader.schema.names)}); there is nothing to export"
        )
    sets = _sets_of(reader.keys, name)
    paths = {
        (part, column): folder / _file_name(part, column) for part in sets for column in columns
    }
    lists = {part: folder / f"keys_{part}.jsonl" for part in sets}
    written = [*paths.values(), *lists.values()]
    present = [path for path in written if path.exists()]
    if present:
        raise StoreError(f"{present[0]} is there already; give a new or an empty folder")
    make_folder(folder)
    with ExitStack() as stack:
        for part, rows in sets.items():
            names = stack.enter_context(_writing(lists[part], 0))
            names.writelines(f"{json.dumps(reader.keys[row])}\n".encode() for row in rows)
            files = {}
            for column in columns:
                described = reader.schema[column]
                size_bytes = len(rows) * described.row_bytes
                files[column] = stack.enter_context(_writing(paths[part, column], size_bytes))
                _write_header(files[column], described, len(rows))
            for start in range(0, len(rows), BLOCK_ROWS):
                block = reader.rows(rows[start : start + BLOCK_ROWS], columns)
                for column, file in files.items():
                    file.write(np.ascontiguousarray(block[column]).data)
    return written


def _import_shard(
    store: Store, shard: ShardPlan, items: Mapping[str, tuple[FeatureSet, int]]
) -> ShardEntry:
    writer = ShardWriter(store, shard)
    keys = [item.key for item in shard.items]
    for _name, group in groupby(keys, key=lambda key: items[key][0].name):
        chosen = list(group)
        part = items[chosen[0]][0]
        rows = np.array([items[key][1] for key in chosen])
        writer.add(chosen, {c.name: _rows_of(part, c, rows) for c in store.header.schema.columns})
    return writer.commit()


def _rows_of(part: FeatureSet, column: Column, rows: np.ndarray) -> np.ndarray:
    """Some rows of one file; mapped afresh, so that pages of former rows can be given back."""
    array = mapped(part.files[column.name], column.name)
    if array.shape != (part.num_rows, *column.shape):
        raise SourceError(
            "changed",
            f"{part.files[column.name]} is {list(array.shape)} now, it was "
            f"{[part.num_rows, *column.shape]} when the import began; import it again",
        )
    return array[rows].astype(column.dtype, copy=False)


def _sets_of(keys: list[str], name: str) -> dict[str, list[int]]:
    """Row numbers by set, in the order of their keys."""
    sets: defaultdict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(keys)), key=keys.__getitem__):
        match = _MADE_KEY.fullmatch(keys[row])
        sets[match[1] if match else name].append(row)
    return dict(sets)


def _file_name(part: str, column: str) -> str:
    prefix = {"clip": "cspace", "s": "sspace"}.get(column)
    return f"{prefix or ('wplus' if part == EXAMPLES else 'wspace')}_{part}_feat.npy"


@contextmanager
def _writing(path: Path, size_bytes: int) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends without error."""
    with replacing(path, size_bytes=size_bytes) as temporary, temporary.open("wb") as file:
        yield file


def _write_header(file: BinaryIO, column: Column, num_rows: int) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(column.value_dtype).newbyteorder("<"))
    shape = (num_rows, *column.shape)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
