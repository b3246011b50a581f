"""Writing one shard: rows in, in any order; one commit out."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np

from stores.atomic import publish, staged, sync_file, sync_folder
from stores.checksum import sha256_bytes
from stores.commit import ShardFiles, commit_objects
from stores.digested import DigestedFile
from stores.errors import StoreError
from stores.formats.registry import shard_format
from stores.lock import exclusive
from stores.manifest import ShardEntry
from stores.places import ObjectPath, StorePath
from stores.plan import ShardPlan
from stores.records import Input, Reject, inputs_to_bytes, listing_to_bytes, rejects_to_bytes
from stores.schema import all_finite, cached_blocks
from stores.store import Store

Rows: TypeAlias = Mapping[str, np.ndarray]

_NUM_SYNCS = 3
"""Small files and folders of one commit that are synced at once; a disk takes them as one."""


class ShardWriter:
    """Collects the rows of one planned shard in memory and commits them together.

    Rows lie in the order of the plan whatever the order in which they come, so the same values
    give the same file. Nothing is on disk before `commit`; dropping a writer leaves no trace.
    """

    def __init__(self, store: Store, plan: ShardPlan) -> None:
        self._store = store
        self._plan = plan
        self._items = list(plan.items)  # a listing makes its items anew each time
        self._place = {item.key: place for place, item in enumerate(self._items)}
        self._filled = np.zeros(len(self._items), dtype=bool)
        self._rejects: dict[str, Reject] = {}
        self._digests: dict[str, str] = {}
        self._is_checked = True
        self._columns = {
            column.name: np.empty((len(self._items), *column.shape), column.dtype)
            for column in store.header.schema.columns
        }

    def add(self, keys: Sequence[str], rows: Rows) -> None:
        """Take rows over; the arrays must stay as they are until `commit`.

        A row with NaN or infinite values, or with values beyond the range of a scaled column,
        becomes a reject `not_finite`: it would poison whatever is computed from the store.

        Args:
            keys: Keys of N inputs of the plan, each not added or rejected before.
            rows: For each column of the schema an array [N, *shape] of its `value_dtype`.

        Raises:
            SchemaMismatchError: The arrays do not fit; nothing is taken over.
            StoreError: A key is not in the plan or has an outcome already.
        """
        schema = self._store.header.schema
        schema.check(rows)
        self.add_stored(keys, schema.to_stored(rows))

    def add_stored(self, keys: Sequence[str], rows: Rows) -> None:
        """As `add`, of rows that are scaled already: of each column's `dtype`."""
        num_rows = self._store.header.schema.stored.check(rows)
        if num_rows != len(keys):
            raise StoreError(f"{len(keys)} keys for {num_rows} rows")
        self._check_new(keys)
        places = np.array([self._place[key] for key in keys], dtype=np.int64)
        self._filled[places] = True
        if len(keys) == len(self._items) and (np.diff(places) == 1).all():
            # A whole shard, in order: nothing to collect; `commit` checks it.
            self._columns, self._is_checked = dict(rows), False
            return
        for name, array in rows.items():
            self._reject_not_finite(name, places[_copy(array, self._columns[name], places)])

    def _reject_not_finite(self, name: str, places: np.ndarray) -> None:
        detail = f"column {name} has NaN or infinite values{self._range(name)}"
        for place in places.tolist():
            self._filled[place] = False
            key = self._items[place].key
            self._rejects[key] = Reject(key, "not_finite", detail)

    def _range(self, name: str) -> str:
        scaled = self._store.header.schema[name].scaling is not None
        return ", or values too far from the mean for float16" if scaled else ""

    def reject(self, key: str, reason: str, detail: str) -> None:
        """Record that an input gives no row.

        Args:
            key: The input.
            reason: One word, for tables.
            detail: What was found, for people.

        Raises:
            StoreError: The key is not in the plan or has an outcome already.
        """
        self._check_new([key])
        self._rejects[key] = Reject(key, reason, detail)

    def note_digest(self, key: str, sha256: str) -> None:
        """Record the digest of the bytes that an input was read from.

        With it a later run can tell a copied or touched file from a changed one.

        Raises:
            StoreError: The key is not in the plan.
        """
        if key not in self._place:
            raise StoreError(f"key {key!r} is not planned for shard {self._plan.number}")
        self._digests[key] = sha256

    def commit(self) -> ShardEntry:
        """Make the shard part of the store, whole or not at all.

        The order is what makes it safe to be killed anywhere: every file is written and synced
        under a temporary name; then, one process at a time, the lists of inputs and rejects, the
        shard's rename, and last the commit mark. Without the mark nothing of it counts. If
        another process committed this shard in the meantime, its entry is returned and this
        writer's rows are dropped. On an object store the order is that of `stores.commit`.

        Raises:
            StoreError: Inputs are left without row or reject, the shard was committed from other
                inputs, or another run drives the store since it was planned.
            OutOfSpaceError: There is no room; nothing is left behind.
        """
        self._check_complete()
        try:
            return self._write_and_commit()
        except _NotFiniteError:
            return self._write_and_commit()

    def _write_and_commit(self) -> ShardEntry:
        header = self._store.header
        keys = [item.key for item in self._items if item.key not in self._rejects]
        size_bytes = len(keys) * header.schema.row_bytes
        objects = isinstance(self._store.path, ObjectPath)
        with (
            staged(self._store.layout.shard(self._plan.number), size_bytes=size_bytes) as shard,
            DigestedFile(shard, sync=not objects) as file,
        ):
            write_shard = shard_format(header.shard_format).write_shard
            write_shard(file, keys, self._rows(), header.schema, header.to_json())
            if not objects:
                file.end()
            # Not while writing goes on: a third busy thread takes its time from the digest's.
            self._check_finite()
            if objects:
                return self._commit_to_objects(shard, file)
            return self._commit_to_folder(shard, file)

    def _commit_to_objects(self, shard: Path, file: DigestedFile) -> ShardEntry:
        files = ShardFiles(shard, *self._lists())
        file.wait_written()
        entry = self._account(files, file.sha256())
        return self._same_inputs(commit_objects(self._store, entry, files), entry)

    def _commit_to_folder(self, shard: Path, file: DigestedFile) -> ShardEntry:
        """The order of `commit`; what needs none is made, synced and hashed side by side."""
        layout, number = self._store.layout, self._plan.number
        files = ShardFiles(shard, *self._lists())
        file.wait_written()  # a full disk shows here, under the name of the shard
        with ExitStack() as lists, ThreadPoolExecutor(_NUM_SYNCS) as pool:
            data = {layout.inputs(number): files.inputs, layout.rejects(number): files.rejects}
            written = {p: lists.enter_context(_written(p, data[p])) for p in data if data[p]}
            mark = lists.enter_context(staged(layout.entry(number)))
            syncs = [pool.submit(sync_file, path) for path in written.values()]
            entry = self._account(files, file.sha256())
            mark.write_bytes(entry.to_bytes())
            mark_synced = pool.submit(sync_file, mark)
            for sync in syncs:
                sync.result()
            file.wait_synced()
            with exclusive(layout.commit_lock, wait=True):
                committed = self._store.committed(number)
                if committed is not None:
                    return self._same_inputs(committed, entry)
                self._store.check_driver(number)
                mark_synced.result()
                self._put_in_place(written | {layout.shard(number): shard}, pool)
                publish(mark, layout.entry(number))
        return entry

    def _put_in_place(self, files: Mapping[StorePath, Path], pool: Executor) -> None:
        """Give synced files their names, lists before the shard.

        What a killed attempt left goes first: a shard that is there always fits its lists, even
        where its commit mark was lost.
        """
        layout, number = self._store.layout, self._plan.number
        for path in (layout.shard(number), layout.rejects(number)):
            path.unlink(missing_ok=True)
        for path, temporary in files.items():
            temporary.replace(str(path))
        for _ in pool.map(sync_folder, {path.parent for path in files}):
            pass

    def _check_finite(self) -> None:
        """Look at a whole shard that came at once.

        Raises:
            _NotFiniteError: Some of its rows are rejects now.
        """
        if self._is_checked:
            return
        self._is_checked = True
        for name, array in self._columns.items():
            self._reject_not_finite(name, np.array(_not_finite(array), dtype=np.int64))
        if not self._filled.all():
            raise _NotFiniteError

    def _rows(self) -> Rows:
        """The rows that were added, in the plan's order; without a copy when none is missing."""
        if self._filled.all():
            return self._columns
        return {name: array[self._filled] for name, array in self._columns.items()}

    def _lists(self) -> tuple[bytes, bytes]:
        """The list of inputs and that of rejects."""
        inputs = inputs_to_bytes(
            Input(item.key, item.size_bytes, item.mtime_ns, self._digests.get(item.key))
            for item in self._items
        )
        return inputs, rejects_to_bytes(self._rejects[key] for key in sorted(self._rejects))

    def _account(self, files: ShardFiles, sha256: str) -> ShardEntry:
        """The entry of a written file with that digest, and of its lists."""
        items = self._items
        listing: bytes | None = None
        if self._digests:
            listing = listing_to_bytes(Input(i.key, i.size_bytes, i.mtime_ns) for i in items)
        return ShardEntry(
            name=self._store.layout.stem(self._plan.number),
            number=self._plan.number,
            rows=len(items) - len(self._rejects),
            rejects=len(self._rejects),
            inputs=len(items),
            retries=self._plan.num_retries,
            size_bytes=files.shard.stat().st_size,
            sha256=sha256,
            inputs_sha256=sha256_bytes(files.inputs),
            rejects_sha256=sha256_bytes(files.rejects) if files.rejects else None,
            first_key=items[0].key,
            last_key=items[-1].key,
            listing_sha256=sha256_bytes(listing) if listing else None,
        )

    def _same_inputs(self, committed: ShardEntry, entry: ShardEntry) -> ShardEntry:
        if committed.listing_digest != entry.listing_digest:
            raise StoreError(
                f"shard {entry.number} of {self._store.path} was committed by another run from "
                "other inputs. Nothing is lost: run the same command again to plan what is left."
            )
        return committed

    def _check_new(self, keys: Sequence[str]) -> None:
        unknown = [key for key in keys if key not in self._place]
        if unknown:
            raise StoreError(f"key {unknown[0]!r} is not planned for shard {self._plan.number}")
        twice = [k for k in keys if k in self._rejects or self._filled[self._place[k]]]
        if twice or len(set(keys)) < len(keys):
            raise StoreError(
                f"a key of shard {self._plan.number} came twice: {(twice or keys)[0]!r}"
            )

    def _check_complete(self) -> None:
        missing = [
            key
            for key, place in self._place.items()
            if not self._filled[place] and key not in self._rejects
        ]
        if missing:
            raise StoreError(
                f"shard {self._plan.number}: {len(missing)} of {len(self._place)} inputs have "
                f"neither row nor reject, the first is {missing[0]!r}; add or reject every input"
            )


class _NotFiniteError(Exception):
    """What is being written has rows that must not be in it."""


def _copy(rows: np.ndarray, column: np.ndarray, places: np.ndarray) -> list[int]:
    """Copy rows [N, *shape] to `places` [N] of a column; those with NaN or infinite values."""
    faults: list[int] = []
    for block in cached_blocks(rows):
        column[places[block]] = rows[block]
        faults += [block.start + row for row in _not_finite(rows[block])]
    return faults


def _not_finite(rows: np.ndarray) -> list[int]:
    """Rows of [N, *shape] with NaN or infinite values."""
    if rows.dtype.kind != "f" or all_finite(rows):
        return []
    return np.flatnonzero(~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))).tolist()


@contextmanager
def _written(path: StorePath, data: bytes) -> Iterator[Path]:
    """A temporary file beside `path` that holds `data`, for the length of the block."""
    with staged(path, size_bytes=len(data)) as temporary:
        temporary.write_bytes(data)
        yield temporary
