"""Reading a store: rows by number, columns, blocks; at memory speed through memory maps."""

import difflib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path

import numpy as np

from stores.errors import KeyNotFoundError, ShardCorruptError
from stores.gather import MappedShards, RowGather
from stores.manifest import Manifest
from stores.places import NUM_REQUESTS, StorePath
from stores.records import Reject
from stores.schema import Schema
from stores.store import Store

_MAX_LOOKUPS = 16
"""Keys that are looked for shard by shard before a table of all is made."""


class StoreReader:
    """The committed rows of a store, in the order of shard numbers, then of rows in the shard.

    It shows the store as it was when it was opened; a run that goes on meanwhile does no harm.
    Files are opened when they are first read. Copies in forked and spawned processes, and
    pickled ones, open their own.
    """

    def __init__(self, path: StorePath | str, *, max_mapped_shards: int = 256) -> None:
        """Open a store.

        Args:
            path: Its folder.
            max_mapped_shards: Shards mapped at once; each holds a file descriptor, of which a
                process often has 1024.

        Raises:
            ManifestError: There is no store, or its manifest cannot be read.
        """
        self._store = Store.open(path)
        self._shards = MappedShards(self._store, max_mapped_shards)
        lengths = [entry.rows for entry in self.manifest.shards.values()]
        self._ends = np.fromiter(accumulate(lengths), dtype=np.int64, count=len(lengths))
        self._starts = self._ends - np.array(lengths, dtype=np.int64)
        self._numbers = list(self.manifest.shards)
        self._num_lookups = self._num_asked = 0

    @property
    def path(self) -> StorePath:
        """The store's folder."""
        return self._store.path

    @property
    def manifest(self) -> Manifest:
        """The table of contents that this reader shows."""
        return self._store.manifest

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self._store.header.schema

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests of everything that determined the values, by name."""
        return dict(self._store.header.fingerprints)

    def __len__(self) -> int:
        """Number of rows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @cached_property
    def keys(self) -> list[str]:
        """The key of each row."""
        return self._shards.keys(self._numbers)

    @cached_property
    def eval_mask(self) -> np.ndarray:
        """Which rows are held out for evaluation: [N] bool."""
        is_eval = self._store.header.is_eval
        return np.fromiter(map(is_eval, self.keys), dtype=bool, count=len(self))

    @cached_property
    def num_eval_rows(self) -> int:
        """How many rows are held out; of a remote store without fetching the rows.

        Raises:
            ManifestError: A list of inputs or rejects is missing or cannot be read.
        """
        if isinstance(self.path, Path):
            return int(self.eval_mask.sum())
        is_eval = self._store.header.is_eval
        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            return sum(
                sum(map(is_eval, keys)) for keys in pool.map(self._keys_by_lists, self._numbers)
            )

    def _keys_by_lists(self, number: int) -> set[str]:
        """The keys of a shard's rows by its lists: known without fetching the rows."""
        entry = self._store.manifest.shards[number]
        rejects = self._store.read_rejects(number) if entry.rejects else []
        keys = {item.key for item in self._store.read_inputs(number)}
        return keys - {item.key for item in rejects}

    def index_of(self, key: str) -> int:
        """The row of a key.

        Raises:
            KeyNotFoundError: There is none; the message lists keys that look like it.
        """
        self._num_lookups += 1
        row = None
        if self._num_lookups <= _MAX_LOOKUPS:
            row = self._row_by_range(key)
        if row is None:
            row = self._rows_of_keys.get(key)
        if row is None:
            near = _near(key, self.keys)
            hint = f"did you mean {', '.join(map(repr, near))}?" if near else "no key looks like it"
            raise KeyNotFoundError(f"no row of {self.path} has the key {key!r}; {hint}")
        return row

    def keys_of(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """The keys of some rows, in the order asked for; only their shards are opened.

        Raises:
            IndexError: A row number is negative or too large.
            ShardCorruptError: A file that is needed is missing or damaged.
        """
        wanted = self._check_indices(indices)
        shard = np.searchsorted(self._ends, wanted, side="right")
        keys: dict[int, str] = {}
        for place in np.unique(shard):
            of_shard = self._shards.keys([self._numbers[place]])
            rows = wanted[shard == place]
            keys |= {int(row): of_shard[row - self._starts[place]] for row in rows}
        return [keys[int(row)] for row in wanted]

    def rows(
        self, indices: Sequence[int] | np.ndarray, columns: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Copies of some rows, in the order asked for.

        Args:
            indices: K row numbers from 0, in any order, repeated or not.
            columns: Names of columns.

        Returns:
            For each column an array [K, *shape]; float32 of columns that are stored scaled.

        Raises:
            IndexError: A row number is negative or too large.
            SchemaMismatchError: A column does not exist.
            ShardCorruptError: A file that is needed is missing or damaged.
        """
        wanted = self._check_indices(indices)
        shard = np.searchsorted(self._ends, wanted, side="right")
        self._num_asked += len(wanted)
        # Mapping every shard pays when as many rows were asked for; the first few map their own.
        if len(wanted) and len(self._numbers) <= min(self._num_asked, self._shards.limit):
            gathers = {name: self._gather_of_all(name) for name in columns}
            if None not in gathers.values():
                schema = self.schema
                return {
                    name: schema[name].to_values(gather(wanted, shard))
                    for name, gather in gathers.items()
                    if gather
                }
        return self._rows_in_parts(wanted, shard, columns)

    def column(self, name: str) -> np.ndarray:
        """A copy of a whole column: [N, *shape].

        Raises:
            SchemaMismatchError: There is no such column.
            ShardCorruptError: A file is missing or damaged.
        """
        column = self.schema[name]
        result = np.empty((len(self), *column.shape), column.value_dtype)
        self._shards.fetch(self._numbers)
        for number, start, end in zip(self._numbers, self._starts, self._ends, strict=True):
            result[start:end] = column.to_values(self._shards[number][name])
        return result

    def blocks(
        self, columns: Sequence[str], block_rows: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """All rows in order, a block at a time, in bounded memory.

        Yields:
            The block's first row number, and arrays [at most block_rows, *shape].
        """
        for start in range(0, len(self), block_rows):
            end = min(start + block_rows, len(self))
            yield start, self.rows(np.arange(start, end), columns)

    def rejects(self) -> Iterator[Reject]:
        """Every input that gave no row, duplicates among them, with its reason."""
        return self._store.rejects()

    def _row_by_range(self, key: str) -> int | None:
        """The row of a key, looked for in the shards whose inputs it may be among.

        A few lookups then open a few shards, not all.
        """
        for number, start in zip(self._numbers, self._starts, strict=True):
            entry = self.manifest.shards[number]
            if entry.rows and entry.first_key <= key <= entry.last_key:
                keys = self._shards.keys([number])
                if key in keys:
                    return int(start) + keys.index(key)
        return None

    @cached_property
    def _rows_of_keys(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def _gather_of_all(self, name: str) -> RowGather | None:
        """Kept, since preparing one takes as long as a batch; None when a shard is damaged."""
        if name not in self._shards.gathers:
            try:
                self._shards.gathers[name] = self._gather(name, np.arange(len(self._numbers)))
            except ShardCorruptError:
                # Rows of the other shards can be had: `_rows_in_parts` maps those alone.
                self._shards.gathers[name] = None
        return self._shards.gathers[name]

    def _gather(self, name: str, places: np.ndarray) -> RowGather:
        column = self.schema[name].name
        self._shards.fetch(self._numbers[place] for place in places)
        blocks = [self._shards[self._numbers[place]][column] for place in places]
        return RowGather(blocks, self._starts[places].tolist())

    def _rows_in_parts(
        self, wanted: np.ndarray, shard: np.ndarray, columns: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As `rows`, from more shards than can be mapped at once: in parts, each with its own."""
        result = {
            column.name: np.empty((len(wanted), *column.shape), column.value_dtype)
            for column in map(self.schema.__getitem__, columns)
        }
        touched = np.unique(shard)
        for start in range(0, len(touched), self._shards.limit):
            part = touched[start : start + self._shards.limit]
            chosen = np.flatnonzero((shard >= part[0]) & (shard <= part[-1]))
            block = np.searchsorted(part, shard[chosen])
            for name, array in result.items():
                stored = self._gather(name, part)(wanted[chosen], block)
                array[chosen] = self.schema[name].to_values(stored)
        return result

    def _check_indices(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.ndim != 1:
            raise IndexError(f"row numbers come as a list, got an array of shape {wanted.shape}")
        # As unsigned numbers the negative ones are the largest: one look for both ends.
        if len(wanted) and wanted.view(np.uint64).max() >= len(self):
            raise IndexError(
                f"rows {wanted.min()} to {wanted.max()} asked for, {self.path} has {len(self)}"
            )
        return wanted


def _near(key: str, keys: Sequence[str]) -> list[str]:
    """Up to three keys that may have been meant: of the same file name, else spelt alike."""
    name = key.rpartition("/")[2]
    same_name = (other for other in keys if other.rpartition("/")[2] == name)
    # Comparing spellings takes some 50 microseconds a key.
    return list(islice(same_name, 3)) or difflib.get_close_matches(key, keys[:10_000], n=3)
