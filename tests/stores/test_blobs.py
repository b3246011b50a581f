import json

import pytest

from stores.blobs import blob_path, damaged_blobs, list_blobs, read_blob, remove_blob, write_blob
from stores.errors import ManifestError, ShardCorruptError, StoreError
from stores.schema import Column, Schema
from stores.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    schema = Schema((Column("clip", (4,), "float32"),))
    return Store.create(tmp_path / "a", schema=schema, fingerprints={})


def test_a_blob_comes_back_and_is_on_record(store):
    record = write_blob(store, "index.faiss", b"12345", {"kind": "flat"})
    assert (
        read_blob(store, "index.faiss") == blob_path(store, "index.faiss").read_bytes() == b"12345"
    )
    assert list_blobs(store) == {"index.faiss": record}
    assert (record.size_bytes, record.made_from) == (5, {"kind": "flat"})


def test_a_blob_is_replaced_with_its_record(store):
    write_blob(store, "a.bin", b"old", {"run": 1})
    write_blob(store, "a.bin", b"newer", {"run": 2})
    assert read_blob(store, "a.bin") == b"newer"
    assert list_blobs(store)["a.bin"].made_from == {"run": 2}


def test_a_removed_blob_is_neither_on_record_nor_on_disk(store):
    write_blob(store, "a.bin", b"old", {})
    write_blob(store, "b.bin", b"stays", {})
    for _ in range(2):
        remove_blob(store, "a.bin")
    assert list(list_blobs(store)) == ["b.bin"]
    assert not (store.path / "blobs" / "a.bin").exists()
    assert damaged_blobs(store) == {}


def test_a_blob_that_is_not_there_is_refused_with_those_there_are(store):
    write_blob(store, "a.bin", b"", {})
    with pytest.raises(StoreError, match=r"no blob 'b.bin'; it has: a.bin"):
        read_blob(store, "b.bin")
    with pytest.raises(StoreError, match="cannot name"):
        write_blob(store, "../a.bin", b"", {})


def test_changed_cut_and_missing_blobs_are_refused(store):
    write_blob(store, "a.bin", b"12345", {})
    path = blob_path(store, "a.bin")
    path.write_bytes(b"12349")
    with pytest.raises(ShardCorruptError, match="is not what was written"):
        read_blob(store, "a.bin")
    assert "digest" in damaged_blobs(store)["a.bin"]
    path.write_bytes(b"123")
    with pytest.raises(ShardCorruptError, match="3 bytes"):
        blob_path(store, "a.bin")
    path.unlink()
    with pytest.raises(ShardCorruptError, match="no such file"):
        blob_path(store, "a.bin")
    assert damaged_blobs(store) == {"a.bin": "missing"}


def test_a_damaged_list_of_blobs_is_refused(store):
    (store.path / "blobs" / "blobs.json").write_text('{"blobs": [1]}')
    with pytest.raises(ManifestError, match=r"blobs\.json cannot be read"):
        list_blobs(store)


def test_a_blob_killed_while_it_was_replaced_is_the_old_or_the_new(start, store):
    """Whatever instant the kill meets, the file is one that is on record."""
    code = """
from stores.blobs import write_blob
from stores.store import Store
store = Store.open(path)
for i in range(1000):
    write_blob(store, "a.bin", bytes([i % 256]) * 3000, {"run": i})
"""
    write_blob(store, "a.bin", b"first", {"run": -1})
    for i in range(6):
        process = start(code, path=str(store.path))
        process.join(0.15 + 0.037 * i)
        process.kill()
        process.join()
        assert process.exitcode == -9
        assert len(set(read_blob(store, "a.bin"))) in {1, 5}
        assert damaged_blobs(store) == {}
    records = json.loads((store.path / "blobs" / "blobs.json").read_bytes())["blobs"]["a.bin"]
    assert len(records) in {1, 2}
