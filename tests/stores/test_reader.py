import multiprocessing
import pickle

import h5py
import numpy as np
import pytest
import webdataset

from stores.errors import KeyNotFoundError, SchemaMismatchError, ShardCorruptError
from stores.reader import StoreReader
from stores.store import Store

pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)


@pytest.fixture(scope="module")
def path(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    source = run.make_source(folder / "in", 60)
    run.main(str(source), str(folder / "t.store"), 7)
    return folder / "t.store"


def test_every_row_is_the_one_that_was_written(run, path):
    reader = StoreReader(path)
    assert len(reader) == len(set(reader.keys)) == Store.open(path).manifest.counts.rows > 40
    for row, key in enumerate(reader.keys):
        number = int(key[-8:-4])
        data = f"copy {number % 3}" if number % 10 == 9 else f"image {number}"
        expected = run.row_of(key, data.encode())
        found = reader.rows([row], ["s", "clip"])
        np.testing.assert_array_equal(found["s"], expected["s"])
        np.testing.assert_array_equal(found["clip"], expected["clip"])


def test_rows_come_in_the_order_asked_for_repeated_or_not(path):
    reader = StoreReader(path)
    wanted = np.random.default_rng(1).integers(0, len(reader), 500)
    rows = reader.rows(wanted, ["s", "clip"])
    np.testing.assert_array_equal(rows["s"], reader.column("s")[wanted])
    np.testing.assert_array_equal(rows["clip"], reader.column("clip")[wanted])
    rows["s"][:] = 0  # copies: the store does not change
    assert reader.column("s").any()


def test_keys_of_some_rows_come_from_their_shards_alone(path):
    reader = StoreReader(path)
    wanted = np.array([len(reader) - 1, 3, 3, 0])
    assert reader.keys_of(wanted) == [reader.keys[row] for row in wanted]
    with pytest.raises(IndexError, match="asked for"):
        reader.keys_of([len(reader)])


def test_more_shards_than_can_be_mapped_at_once_give_the_same_rows(path):
    expected = StoreReader(path).column("s")
    reader = StoreReader(path, max_mapped_shards=2)
    wanted = np.random.default_rng(2).integers(0, len(reader), 300)
    np.testing.assert_array_equal(reader.rows(wanted, ["s"])["s"], expected[wanted])
    assert len(reader._shards._mapped) <= 2


def test_no_rows_are_rows_too(path):
    rows = StoreReader(path).rows([], ["s"])
    assert rows["s"].shape == (0, 5, 40)
    assert rows["s"].dtype == np.float32


def test_blocks_cover_all_rows_once(path):
    reader = StoreReader(path)
    blocks = list(reader.blocks(["clip"], 11))
    assert [start for start, _ in blocks] == list(range(0, len(reader), 11))
    joined = np.concatenate([block["clip"] for _, block in blocks])
    np.testing.assert_array_equal(joined, reader.column("clip"))


@pytest.mark.parametrize("wanted", [[-1], [10_000], [[1, 2]]])
def test_row_numbers_that_are_none_are_refused(path, wanted):
    with pytest.raises(IndexError):
        StoreReader(path).rows(wanted, ["s"])


def test_a_column_that_is_none_is_refused_with_those_there_are(path):
    with pytest.raises(SchemaMismatchError, match="this store has clip, s"):
        StoreReader(path).rows([0], ["w_plus"])
    with pytest.raises(SchemaMismatchError, match="this store has clip, s"):
        StoreReader(path).column("w_plus")


def test_a_key_finds_its_row_and_a_wrong_one_its_neighbours(path):
    reader = StoreReader(path)
    assert reader.keys[reader.index_of("1/0021.png")] == "1/0021.png"
    with pytest.raises(KeyNotFoundError, match=r"did you mean '1/0021\.png'"):
        reader.index_of("0021.png")
    with pytest.raises(KeyError, match="no key looks like it"):
        reader.index_of("?")


def test_a_few_keys_and_rows_open_only_their_own_shards(run, tmp_path):
    source = run.make_source(tmp_path / "in", 40)
    run.main(str(source), str(tmp_path / "t.store"), 7)
    whole = StoreReader(tmp_path / "t.store")
    keys, s = whole.keys, whole.column("s")
    first, *others = whole.manifest.shards
    num_rows = whole.manifest.shards[first].rows
    for number in others:  # what is opened needlessly would fail
        Store.open(tmp_path / "t.store").layout.shard(number).unlink()
    reader = StoreReader(tmp_path / "t.store")
    rows = [reader.index_of(key) for key in keys[:3]]
    assert rows == [0, 1, 2]
    np.testing.assert_array_equal(reader.rows(rows, ["s"])["s"], s[:3])
    assert reader.keys_of([2]) == [keys[2]]
    with pytest.raises(ShardCorruptError):
        reader.index_of(keys[num_rows])


def test_each_key_finds_its_row_however_many_are_asked_for(path):
    reader = StoreReader(path)
    keys = reader.keys
    assert [StoreReader(path).index_of(key) for key in keys[::9]] == list(range(len(keys)))[::9]
    assert [reader.index_of(key) for key in keys] == list(range(len(keys)))


def test_the_split_is_that_of_the_keys(path):
    reader = StoreReader(path)
    is_eval = reader.manifest.header.is_eval
    assert reader.eval_mask.tolist() == [is_eval(key) for key in reader.keys]
    assert 0 < reader.eval_mask.sum() < len(reader) / 2


def test_a_reader_keeps_what_it_opened_while_the_store_grows(run, tmp_path):
    source = run.make_source(tmp_path / "in", 20)
    run.main(str(source), str(tmp_path / "t.store"), 7)
    reader = StoreReader(tmp_path / "t.store")
    rows, keys = reader.column("s"), reader.keys
    (source / "new.png").write_text("one more")
    run.main(str(source), str(tmp_path / "t.store"), 7)
    assert reader.keys == keys
    np.testing.assert_array_equal(reader.column("s"), rows)
    assert len(StoreReader(tmp_path / "t.store")) == len(reader) + 1


def _total(reader: StoreReader) -> float:
    return float(reader.rows(np.arange(len(reader)), ["s"])["s"].sum())


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_readers_work_in_other_processes(start, path, tmp_path, method):
    reader = StoreReader(path)
    expected = _total(reader)
    if method == "fork":
        # As a data loader forks its workers: maps of the parent are open.
        context = multiprocessing.get_context("fork")
        said = context.SimpleQueue()
        process = context.Process(target=lambda: said.put(_total(reader)))
        process.start()
        found = said.get()
        process.join()
    elif method == "forkserver":
        code = (
            "open(said, 'w').write(repr(float(reader.rows(range(len(reader)), ['s'])['s'].sum())))"
        )
        process = start(code, reader=reader, said=str(tmp_path / "said"))
        process.join()
        found = float((tmp_path / "said").read_text())
    else:
        found = _total(pickle.loads(pickle.dumps(reader)))  # noqa: S301 - what spawn sends
    assert found == expected


def test_a_missing_or_cut_shard_is_named_when_it_is_read(run, tmp_path):
    source = run.make_source(tmp_path / "in", 30)
    run.main(str(source), str(tmp_path / "t.store"), 7)
    shards = sorted((tmp_path / "t.store" / "shards").iterdir())
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:5000])
    reader = StoreReader(tmp_path / "t.store")
    for shard in shards[:2]:
        row = 0 if shard == shards[0] else reader.manifest.shards[0].rows
        with pytest.raises(ShardCorruptError, match=shard.name):
            reader.rows([row], ["s"])
    assert reader.rows([len(reader) - 1], ["s"])["s"].any()


def test_a_stranger_reads_a_shard_with_h5py_or_webdataset_alone(run, path):
    reader = StoreReader(path)
    num_rows = reader.manifest.shards[0].rows
    if run.SHARD_FORMAT == "hdf5":
        with h5py.File(path / run.shard_file(0)) as file:
            keys, rows = file["key"].asstr()[()].tolist(), file["s"][()]
            assert file.attrs["fingerprint.clip"] == "c0ffee"
    else:
        shard = webdataset.WebDataset(str(path / run.shard_file(0)), shardshuffle=False)
        samples = list(shard.decode())
        keys, rows = [s["json"]["key"] for s in samples], np.stack([s["s.npy"] for s in samples])
    assert keys == reader.keys[:num_rows]
    np.testing.assert_array_equal(rows, reader.column("s")[:num_rows])
