import itertools

import numpy as np
import pytest

from stores.blobs import list_blobs, read_blob, write_blob
from stores.convert import convert_store
from stores.errors import SchemaMismatchError, ShardCorruptError, StoreError
from stores.reader import StoreReader
from stores.store import Store
from stores.verify import verify_store

OTHER = {"hdf5": "webdataset", "webdataset": "hdf5"}
pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)


@pytest.fixture
def source(run, tmp_path):
    files = run.make_source(tmp_path / "in", 60)
    (files / "dead.png").symlink_to("nowhere")
    run.main(str(files), str(tmp_path / "a.store"), 8)
    store = Store.open(tmp_path / "a.store")
    write_blob(store, "models.json", b"{}", {})
    write_blob(store, "index.faiss", b"123", {"store": store.manifest.digest})
    return tmp_path / "a.store"


def _tables(path) -> list:
    store = Store.open(path)
    reader = StoreReader(path)
    return [
        reader.keys,
        reader.eval_mask.tolist(),
        reader.fingerprints,
        store.manifest.counts,
        list(reader.rejects()),
        [store.read_inputs(number) for number in store.manifest.shards],
    ]


def test_a_store_converted_there_and_back_is_the_same_byte_for_byte(run, source, tmp_path):
    other, back = tmp_path / "b.store", tmp_path / "c.store"
    done = convert_store(source, other, shard_format=OTHER[run.SHARD_FORMAT])
    assert (done.is_lossless, done.blobs_kept) == (True, ("models.json",))
    assert done.blobs_dropped == ("index.faiss",)
    assert _tables(other) == _tables(source)
    for name in ("clip", "s"):
        np.testing.assert_array_equal(
            StoreReader(other).column(name), StoreReader(source).column(name)
        )
    assert verify_store(other, full=True) == []
    assert read_blob(Store.open(other), "models.json") == b"{}"
    assert list(list_blobs(Store.open(other))) == ["models.json"]
    convert_store(other, back, shard_format=run.SHARD_FORMAT)
    expected = {n: d for n, d in run.digests(source).items() if not n.startswith("blobs/")}
    found = {n: d for n, d in run.digests(back).items() if not n.startswith("blobs/")}
    assert found == expected


def test_float16_loses_little_once_and_nothing_after(run, source, tmp_path):
    half, other, wide = tmp_path / "b.store", tmp_path / "c.store", tmp_path / "d.store"
    done = convert_store(source, half, shard_format=run.SHARD_FORMAT, scaled=["s"])
    assert not done.is_lossless
    assert _tables(half) == _tables(source)
    rows, found = StoreReader(source).column("s"), StoreReader(half).column("s")
    np.testing.assert_allclose(found, rows, atol=2e-3)
    assert (found != rows).any()
    done = convert_store(half, other, shard_format=OTHER[run.SHARD_FORMAT])
    assert done.is_lossless
    np.testing.assert_array_equal(StoreReader(other).column("s"), found)
    done = convert_store(other, wide, shard_format=run.SHARD_FORMAT, scaled=[])
    assert done.is_lossless
    assert Store.open(wide).header.schema == Store.open(source).header.schema
    np.testing.assert_array_equal(StoreReader(wide).column("s"), found)


def test_a_conversion_that_stopped_anywhere_goes_on(run, source, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == len(Store.open(source).manifest.shards)
        if done == stop_at:
            raise StoppedError

    options = {"shard_format": OTHER[run.SHARD_FORMAT], "scaled": ["s"]}
    convert_store(source, tmp_path / "whole" / "a.store", **options)
    expected = run.digests(tmp_path / "whole" / "a.store")
    for stop_at in (1, 3):
        path = tmp_path / str(stop_at) / "a.store"
        with pytest.raises(StoppedError):
            convert_store(source, path, **options, on_shard=stop)
        done = convert_store(source, path, **options)
        assert done.shards_made == len(Store.open(source).manifest.shards) - stop_at
        assert run.digests(path) == expected


def test_a_conversion_killed_at_random_instants_goes_on(run, start, source, tmp_path):
    convert_store(source, tmp_path / "b.store", shard_format="webdataset")
    expected = run.digests(tmp_path / "b.store")
    code = (
        "from stores.convert import convert_store\n"
        "convert_store(source, out, shard_format='webdataset')\n"
    )
    out = tmp_path / "c.store"
    for delay_s in itertools.count(0.02, 0.03):
        process = start(code, source=str(source), out=str(out))
        process.join(delay_s)
        if not process.is_alive():
            break
        process.kill()
        process.join()
    assert run.digests(out) == expected


def test_a_store_that_grew_is_converted_further(run, source, tmp_path):
    options = {"shard_format": OTHER[run.SHARD_FORMAT], "scaled": ["s"]}
    convert_store(source, tmp_path / "b.store", **options)
    scaling = Store.open(tmp_path / "b.store").header.schema["s"].scaling
    (tmp_path / "in" / "new.png").write_text("one more")
    run.main(str(tmp_path / "in"), str(source), 8)
    assert convert_store(source, tmp_path / "b.store", **options).shards_made == 1
    assert _tables(tmp_path / "b.store") == _tables(source)
    assert Store.open(tmp_path / "b.store").header.schema["s"].scaling == scaling


def test_a_damaged_shard_is_not_converted(run, source, tmp_path):
    shard = source / run.shard_file(2)
    data = bytearray(shard.read_bytes())
    data[-2000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardCorruptError, match="t-000002"):
        convert_store(source, tmp_path / "b.store", shard_format=OTHER[run.SHARD_FORMAT])
    assert sorted(Store.open(tmp_path / "b.store").manifest.shards) == [0, 1]


def test_a_folder_that_is_something_else_is_refused(run, source, tmp_path):
    other_format = OTHER[run.SHARD_FORMAT]
    with pytest.raises(StoreError, match="is the store itself"):
        convert_store(source, source, shard_format=other_format)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="is not empty"):
        convert_store(source, tmp_path / "thesis", shard_format=other_format)
    run.main(str(run.make_source(tmp_path / "in2", 30)), str(tmp_path / "b.store"), 4)
    with pytest.raises(StoreError, match="does not come from"):
        convert_store(source, tmp_path / "b.store", shard_format=run.SHARD_FORMAT)
    with pytest.raises(StoreError, match=f"has {run.SHARD_FORMAT} shards"):
        convert_store(source, tmp_path / "b.store", shard_format=other_format)
    with pytest.raises(SchemaMismatchError, match="scaled"):
        convert_store(source, tmp_path / "b.store", shard_format=run.SHARD_FORMAT, scaled=["s"])
    with pytest.raises(SchemaMismatchError, match="this store has clip, s"):
        convert_store(source, tmp_path / "c.store", shard_format=other_format, scaled=["x"])


def test_a_store_without_rows_is_converted(run, tmp_path):
    files = tmp_path / "in"
    files.mkdir()
    (files / "a.png").write_text("bad")
    run.main(str(files), str(tmp_path / "a.store"), 4)
    convert_store(
        tmp_path / "a.store", tmp_path / "b.store", shard_format="webdataset", scaled=["s"]
    )
    assert _tables(tmp_path / "b.store") == _tables(tmp_path / "a.store")
