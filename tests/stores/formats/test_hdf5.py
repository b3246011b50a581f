import io
import time

import h5py
import numpy as np
import pytest

from stores.errors import SchemaMismatchError, ShardCorruptError
from stores.formats import hdf5
from stores.formats.common import decode_keys
from stores.formats.hdf5 import map_shard, pack_arrays, read_header, unpack_arrays
from stores.schema import Column, Schema

SCHEMA = Schema(
    (
        Column("clip", (7,), "float32"),
        Column("w_plus", (2, 600), "float16"),
        Column("seed", (), "int64"),
    )
)
HEADER = {"name": "a", "fingerprints": {"clip": "aa", "w_plus": "bb"}}
KEYS = ["a.png", "ü/線.png", "line\nbreak", "x" * 500]


def write_shard(path, *arguments) -> None:
    buffer = io.BytesIO()
    hdf5.write_shard(buffer, *arguments)
    path.write_bytes(buffer.getvalue())


def _rows(num_rows: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "clip": rng.standard_normal((num_rows, 7)).astype("float32"),
        "w_plus": rng.standard_normal((num_rows, 2, 600)).astype("float16"),
        "seed": rng.integers(0, 2**60, num_rows),
    }


@pytest.mark.parametrize("num_rows", [0, 1, 4])
def test_rows_come_back_mapped_and_by_h5py(tmp_path, num_rows):
    rows = _rows(num_rows)
    write_shard(tmp_path / "a.h5", KEYS[:num_rows], rows, SCHEMA, HEADER)
    columns = map_shard(tmp_path / "a.h5", SCHEMA, num_rows)
    assert decode_keys(columns["key"]) == KEYS[:num_rows]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["key"].asstr()[()].tolist() == KEYS[:num_rows]
        for name, expected in rows.items():
            np.testing.assert_array_equal(columns[name], expected)
            np.testing.assert_array_equal(file[name][()], expected)
            assert file[name].chunks is None
            assert not columns[name].flags.writeable


def test_the_same_rows_give_the_same_bytes_at_another_time(tmp_path):
    write_shard(tmp_path / "a.h5", KEYS, _rows(), SCHEMA, HEADER)
    time.sleep(1.1)  # the clock of HDF5's time stamps ticks in seconds
    write_shard(tmp_path / "b.h5", KEYS, _rows(), SCHEMA, HEADER)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_arrays_of_any_byte_order_and_stride_are_stored_by_value(tmp_path):
    rows = _rows()
    odd = {
        "clip": np.asfortranarray(rows["clip"]),
        "w_plus": rows["w_plus"][::-1][::-1],
        "seed": np.repeat(rows["seed"], 2)[::2],
    }
    write_shard(tmp_path / "a.h5", KEYS, rows, SCHEMA, HEADER)
    write_shard(tmp_path / "b.h5", KEYS, odd, SCHEMA, HEADER)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_shard_says_what_it_belongs_to(tmp_path):
    write_shard(tmp_path / "a.h5", KEYS, _rows(), SCHEMA, HEADER)
    assert read_header(tmp_path / "a.h5") == HEADER
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["fingerprint.w_plus"] == "bb"
        assert (file.attrs["format"], file.attrs["version"]) == ("deltaedit-store", 1)


def test_wrong_shape_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(SchemaMismatchError, match="clip"):
        write_shard(tmp_path / "a.h5", KEYS, _rows() | {"clip": np.zeros((4, 8))}, SCHEMA, HEADER)
    with pytest.raises(SchemaMismatchError, match="3 keys for 4 rows"):
        write_shard(tmp_path / "a.h5", KEYS[:3], _rows(), SCHEMA, HEADER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "a\0b", "\udce9"])
def test_keys_that_are_not_text_are_refused_and_leave_no_file(tmp_path, key):
    with pytest.raises(SchemaMismatchError, match="key"):
        write_shard(tmp_path / "a.h5", [key, *KEYS[1:]], _rows(), SCHEMA, HEADER)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_shard_is_refused_at_every_length(tmp_path):
    path = tmp_path / "a.h5"
    write_shard(path, KEYS, _rows(), SCHEMA, HEADER)
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(ShardCorruptError, match=r"a\.h5 cannot be read"):
            map_shard(path, SCHEMA, 4)
        with pytest.raises(ShardCorruptError, match=r"a\.h5 cannot be read"):
            read_header(path)


def test_shards_that_are_not_what_was_expected_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(ShardCorruptError, match="cannot be read"):
        map_shard(path, SCHEMA, 4)
    write_shard(path, KEYS, _rows(), SCHEMA, HEADER)
    with pytest.raises(ShardCorruptError, match="4 rows and 4 keys; its manifest entry says 5"):
        map_shard(path, SCHEMA, 5)
    with pytest.raises(ShardCorruptError, match="clip: expected"):
        map_shard(path, Schema((Column("clip", (8,), "float32"),)), 4)
    with pytest.raises(ShardCorruptError, match="cannot be read"):
        map_shard(path, Schema((Column("s", (8,), "float32"),)), 4)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(ShardCorruptError, match="newer version needs a newer deltaedit"):
        map_shard(path, SCHEMA, 4)


def test_chunked_data_sets_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    write_shard(path, KEYS, _rows(), SCHEMA, HEADER)
    with h5py.File(path, "r+") as file:
        del file["clip"]
        file.create_dataset("clip", data=_rows()["clip"], chunks=(2, 7))
    with pytest.raises(ShardCorruptError, match="clip is not a contiguous data set"):
        map_shard(path, SCHEMA, 4)


def test_arrays_survive_being_packed():
    arrays = {"ids": np.arange(12, dtype="int32").reshape(3, 4), "sims": np.ones((3, 4), "float32")}
    data = pack_arrays(arrays, {"metric": "cosine"})
    assert data == pack_arrays(arrays, {"metric": "cosine"})
    found, attributes = unpack_arrays(data)
    assert attributes == {"metric": "cosine"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ShardCorruptError, match="not a whole HDF5 file"):
        unpack_arrays(data[:-10])
