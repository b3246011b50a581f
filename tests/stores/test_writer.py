import numpy as np
import pytest

from stores.errors import SchemaMismatchError, StoreError
from stores.plan import ShardPlan
from stores.reader import StoreReader
from stores.sources import SourceItem
from stores.store import Store
from stores.verify import verify_store
from stores.writer import ShardWriter

pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)

KEYS = ("a", "b/ü", "c\nd", "../up", "x" * 500)


@pytest.fixture
def store(run, tmp_path) -> Store:
    return _create(run, tmp_path / "t.store")


def _create(run, path) -> Store:
    return Store.create(
        path,
        name="t",
        schema=run.SCHEMA,
        fingerprints=run.FINGERPRINTS,
        shard_format=run.SHARD_FORMAT,
    )


def _plan(number: int = 0, keys=KEYS) -> ShardPlan:
    return ShardPlan(number, tuple(SourceItem(key) for key in sorted(keys)))


def _rows(run, keys) -> dict[str, np.ndarray]:
    each = [run.row_of(key, b"") for key in keys]
    return {name: np.concatenate([rows[name] for rows in each]) for name in each[0]}


def test_rows_lie_in_the_order_of_the_plan_whatever_the_order_they_come_in(run, store, tmp_path):
    other = _create(run, tmp_path / "o.store")
    whole, parts = ShardWriter(store, _plan()), ShardWriter(other, _plan())
    whole.add(KEYS, _rows(run, KEYS))
    for keys in (KEYS[3:], KEYS[:1], KEYS[1:3]):
        parts.add(keys, _rows(run, keys))
    assert whole.commit() == parts.commit()
    assert run.digests(store.path) == run.digests(other.path)


def test_a_whole_shard_in_order_is_written_as_it_is_and_stays_the_callers(run, store, tmp_path):
    other = _create(run, tmp_path / "o.store")
    whole, parts = ShardWriter(store, _plan()), ShardWriter(other, _plan())
    keys = sorted(KEYS)
    rows = _rows(run, keys)
    rows["s"][1, 2] = np.nan
    before = {name: array.copy() for name, array in rows.items()}
    for array in rows.values():
        array.flags.writeable = False  # as those of a memory map
    whole.add(keys, rows)
    for row, key in enumerate(keys):
        parts.add([key], {name: array[row : row + 1] for name, array in rows.items()})
    assert whole.commit() == parts.commit()
    assert run.digests(store.path) == run.digests(other.path)
    assert [reject.key for reject in store.read_rejects(0)] == [keys[1]]
    for name, array in rows.items():
        np.testing.assert_array_equal(array, before[name])


def test_keys_of_any_text_come_back_with_their_rows(run, store):
    writer = ShardWriter(store, _plan())
    writer.add(KEYS, _rows(run, KEYS))
    writer.commit()
    reader = StoreReader(store.path)
    assert reader.keys == sorted(KEYS)
    for key in KEYS:
        row = reader.rows([reader.index_of(key)], ["s", "clip"])
        np.testing.assert_array_equal(row["s"], run.row_of(key, b"")["s"])
    assert verify_store(store.path, full=True) == []


def test_a_shard_of_rejects_alone_is_committed_without_rows(store):
    writer = ShardWriter(store, _plan())
    for key in KEYS:
        writer.reject(key, "truncated", "half")
    entry = writer.commit()
    assert (entry.rows, entry.rejects) == (0, len(KEYS))
    assert len(StoreReader(store.path)) == 0
    assert StoreReader(store.path).column("s").shape == (0, 5, 40)
    assert [reject.key for reject in store.read_rejects(0)] == sorted(KEYS)
    assert verify_store(store.path, full=True) == []


def test_values_that_are_not_finite_become_rejects(run, store):
    rows = _rows(run, KEYS)
    rows["s"][1, 2, 3] = np.nan
    rows["clip"][3, 0] = np.inf
    writer = ShardWriter(store, _plan())
    writer.add(KEYS, rows)
    assert writer.commit().rows == len(KEYS) - 2
    found = {reject.key: (reject.reason, reject.detail) for reject in store.read_rejects(0)}
    assert found == {
        KEYS[1]: ("not_finite", "column s has NaN or infinite values"),
        KEYS[3]: ("not_finite", "column clip has NaN or infinite values"),
    }


def test_wrong_rows_are_refused_and_leave_no_file(run, store):
    writer = ShardWriter(store, _plan())
    rows = _rows(run, KEYS)
    with pytest.raises(SchemaMismatchError):
        writer.add(KEYS, rows | {"s": rows["s"].astype("float64")})
    with pytest.raises(StoreError, match="4 keys for 5 rows"):
        writer.add(KEYS[:4], rows)
    with pytest.raises(StoreError, match="'z' is not planned"):
        writer.add([*KEYS[:4], "z"], rows)
    with pytest.raises(StoreError, match="came twice"):
        writer.add([*KEYS[:4], KEYS[0]], rows)
    with pytest.raises(StoreError, match="'z' is not planned"):
        writer.note_digest("z", "00")
    writer.reject(KEYS[0], "gone", "")
    with pytest.raises(StoreError, match="came twice: 'a'"):
        writer.add(KEYS, rows)
    with pytest.raises(StoreError, match="4 of 5 inputs have neither row nor reject"):
        writer.commit()
    assert list((store.path / "shards").iterdir()) == []


def test_a_key_that_is_not_text_is_refused_and_leaves_no_file(run, store):
    writer = ShardWriter(store, _plan(keys=["a\0b"]))
    writer.add(["a\0b"], _rows(run, ["a"]))
    with pytest.raises(SchemaMismatchError, match="no NUL"):
        writer.commit()
    assert list((store.path / "shards").iterdir()) == []


def test_a_shard_committed_twice_keeps_the_first(run, store):
    first, second = ShardWriter(store, _plan()), ShardWriter(store, _plan())
    first.add(KEYS, _rows(run, KEYS))
    second.add(KEYS, {name: rows + 1 for name, rows in _rows(run, KEYS).items()})
    entry = first.commit()
    before = run.digests(store.path)
    assert second.commit() == entry
    assert run.digests(store.path) == before
    assert list(store.path.rglob("*.tmp")) == []


def test_a_shard_committed_with_other_digests_of_the_same_inputs_is_the_same(run, store):
    first, second = ShardWriter(store, _plan()), ShardWriter(store, _plan())
    for writer in (first, second):
        writer.add(KEYS, _rows(run, KEYS))
    first.note_digest(KEYS[0], "00")
    assert first.commit() == second.commit()


def test_what_a_killed_commit_left_is_replaced(run, store):
    for path in (store.layout.shard(0), store.layout.inputs(0), store.layout.rejects(0)):
        path.write_text("left before the commit mark")
    writer = ShardWriter(store, _plan())
    writer.add(KEYS, _rows(run, KEYS))
    writer.commit()
    assert verify_store(store.path, full=True) == []
