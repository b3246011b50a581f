import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from stores.errors import KeyCollisionError, SourceError, StoreError
from stores.exchange.embeddings import export_embeddings, import_embeddings
from stores.exchange.embeddings_files import find_embeddings
from stores.plan import ShardPlan
from stores.reader import StoreReader
from stores.schema import Column, Schema
from stores.sources import SourceItem
from stores.store import Store
from stores.verify import verify_store
from stores.writer import ShardWriter

DIM = 32


def _unit(num_rows: int, seed: int, dtype: str = "float16") -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, DIM)).astype("float32")
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def _write_part(folder, name: str, rows: np.ndarray, **metadata: list) -> None:
    """As `OutputSink` of clip-retrieval writes a partition."""
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{name}.npy", rows)
    parquet.write_table(pa.table(metadata), folder / "metadata" / f"metadata_{name}.parquet")


@pytest.fixture
def folder(tmp_path):
    """Two partitions; paths in no order, as a data loader with workers leaves them."""
    for name, first, num_rows in (("0", 0, 30), ("1", 30, 17)):
        order = np.random.default_rng(first).permutation(num_rows) + first
        paths = [f"/data/{i % 3}/ü {i:03}.jpg" for i in order]
        captions = [f"a picture of {i}" for i in order]
        rows = _unit(num_rows, first)
        _write_part(tmp_path / "emb", name, rows, image_path=paths, caption=captions)
    return tmp_path / "emb"


def _import(folder, path, shard_rows: int = 10) -> StoreReader:
    found = find_embeddings(folder)
    store = Store.open_or_create(
        path, schema=found.schema, fingerprints=found.fingerprints("open_clip:ViT-B/32")
    )
    list(import_embeddings(found, store, shard_rows=shard_rows))
    return StoreReader(path)


def _rows_by_path(folder) -> dict[str, np.ndarray]:
    rows = {}
    for path in sorted((folder / "metadata").iterdir()):
        name = path.stem.replace("metadata", "img_emb")
        paths = parquet.read_table(path)["image_path"].to_pylist()
        rows |= dict(zip(paths, np.load(folder / "img_emb" / f"{name}.npy"), strict=True))
    return rows


def test_every_row_is_under_its_path_bit_for_bit(folder, tmp_path):
    reader = _import(folder, tmp_path / "a.store")
    expected = _rows_by_path(folder)
    assert sorted(reader.keys) == sorted(expected)
    assert len(reader) == 47
    for key, row in zip(reader.keys, reader.column("clip"), strict=True):
        assert row.dtype == np.float16
        np.testing.assert_array_equal(row, expected[key])
    assert verify_store(tmp_path / "a.store", full=True) == []


def test_the_store_says_that_rows_are_normalised_and_what_was_left_out(folder, tmp_path):
    (folder / "text_emb").mkdir()
    found = find_embeddings(folder)
    assert (found.is_normalised, found.num_rows) == (True, 47)
    assert sorted(found.left_out) == ["caption", "text_emb"]
    assert "float16 normalised" in found.fingerprints("x")["clip"]
    _write_part(tmp_path / "b", "0", _unit(3, 0, "float32") * 9, image_path=["a", "b", "c"])
    other = find_embeddings(tmp_path / "b")
    assert not other.is_normalised
    assert "float32 not normalised" in other.fingerprints("x")["clip"]


@pytest.mark.parametrize("as_stored", [False, True])
def test_a_folder_that_goes_through_a_store_is_the_same(folder, tmp_path, as_stored):
    reader = _import(folder, tmp_path / "a.store")
    files = export_embeddings(reader, tmp_path / "out", as_stored=as_stored, rows_per_file=20)
    assert [path.name for path in files[::2]] == [f"img_emb_{i}.npy" for i in range(3)]
    expected, found = _rows_by_path(folder), _rows_by_path(tmp_path / "out")
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key].dtype == row.dtype
        np.testing.assert_array_equal(found[key], row)
    assert find_embeddings(tmp_path / "out").left_out == ()


def _raw_store(path) -> StoreReader:
    schema = Schema((Column("clip", (DIM,), "float32"),))
    store = Store.create(path, schema=schema, fingerprints={"clip": "a"})
    rows = _unit(5, 3, "float32") * np.array([[9], [11], [0], [10], [1]], "float32")
    writer = ShardWriter(store, ShardPlan(0, tuple(SourceItem(key) for key in "abcde")))
    writer.add(list("abcde"), {"clip": rows})
    writer.commit()
    return StoreReader(path)


def test_raw_embeddings_are_written_as_clip_retrieval_would_or_as_they_are(tmp_path):
    reader = _raw_store(tmp_path / "a.store")
    export_embeddings(reader, tmp_path / "unit")
    unit = _rows_by_path(tmp_path / "unit")
    assert {row.dtype.name for row in unit.values()} == {"float16"}
    lengths = [np.linalg.norm(row.astype("f4")) for row in unit.values()]
    np.testing.assert_allclose(lengths, [1, 1, 0, 1, 1], atol=1e-3)
    clip = reader.column("clip")
    np.testing.assert_allclose(unit["a"] * np.linalg.norm(clip[0]), clip[0], atol=5e-3)
    export_embeddings(reader, tmp_path / "raw", as_stored=True)
    raw = _rows_by_path(tmp_path / "raw")
    np.testing.assert_array_equal(np.stack(list(raw.values())), clip)


def test_an_import_that_stopped_goes_on(folder, tmp_path):
    found = find_embeddings(folder)
    prints = found.fingerprints("x")
    store = Store.create(tmp_path / "a", name="a", schema=found.schema, fingerprints=prints)
    work = import_embeddings(found, store, shard_rows=10)
    next(work)
    work.close()
    assert len(Store.open(tmp_path / "a").manifest.shards) == 1
    assert len(list(import_embeddings(found, Store.open(tmp_path / "a"), shard_rows=10))) == 4
    assert sorted(StoreReader(tmp_path / "a").keys) == sorted(_rows_by_path(folder))


def test_rows_that_are_not_finite_become_rejects(folder, tmp_path):
    rows = np.load(folder / "img_emb" / "img_emb_0.npy")
    rows[4, 0] = np.nan
    np.save(folder / "img_emb" / "img_emb_0.npy", rows)
    reader = _import(folder, tmp_path / "a.store")
    assert len(reader) == 46
    assert [reject.reason for reject in reader.rejects()] == ["not_finite"]
    assert find_embeddings(folder).is_normalised


def test_two_rows_of_one_path_are_refused_with_both_named(folder, tmp_path):
    _write_part(folder, "2", _unit(1, 9), image_path=["/data/1/ü 001.jpg"], caption=["x"])
    said = r"ü 001\.jpg.*metadata_0\.parquet.*row 0 of .*metadata_2\.parquet"
    with pytest.raises(KeyCollisionError, match=said):
        _import(folder, tmp_path / "a.store")


def test_folders_that_do_not_fit_are_refused_with_what_is_wrong(folder, tmp_path):
    with pytest.raises(SourceError, match="clip-retrieval inference"):
        find_embeddings(tmp_path)
    _write_part(folder, "2", _unit(2, 9), image_path=["a"])
    with pytest.raises(SourceError, match=r"img_emb_2\.npy has 2 rows, .*metadata_2\.parquet 1"):
        find_embeddings(folder)
    _write_part(folder, "2", _unit(1, 9, "float32"), image_path=["a"])
    with pytest.raises(SourceError, match="need one kind"):
        find_embeddings(folder)
    _write_part(folder, "2", _unit(1, 9), path=["a"])
    with pytest.raises(SourceError, match=r"no column image_path \(it has path\)"):
        find_embeddings(folder)
    _write_part(folder, "2", np.zeros((1, 2, 3)), image_path=["a"])
    with pytest.raises(SourceError, match=r"embeddings are \[N, C\]"):
        find_embeddings(folder)
    (folder / "metadata" / "metadata_2.parquet").write_bytes(b"x")
    _write_part(folder, "2", _unit(1, 9), image_path=[None])
    with pytest.raises(SourceError, match="row 0 has no image_path"):
        _import(folder, tmp_path / "a.store")
    (folder / "metadata" / "metadata_2.parquet").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"metadata_2\.parquet cannot be read"):
        find_embeddings(folder)
    (folder / "img_emb" / "img_emb_2.npy").write_bytes(b"\x80\x04N.")
    with pytest.raises(SourceError, match=r"cannot be read as \.npy"):
        find_embeddings(folder)


def test_files_that_are_there_are_not_overwritten(folder, tmp_path):
    reader = _import(folder, tmp_path / "a.store")
    before = (folder / "img_emb" / "img_emb_0.npy").read_bytes()
    with pytest.raises(StoreError, match="is there already"):
        export_embeddings(reader, folder)
    assert (folder / "img_emb" / "img_emb_0.npy").read_bytes() == before
