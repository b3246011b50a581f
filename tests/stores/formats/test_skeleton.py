import io

import h5py
import numpy as np
import pytest

from stores.formats.skeleton import lay_out, write_file


def test_a_file_put_together_from_its_structure_is_read_by_h5py(tmp_path):
    columns = {
        "small": np.arange(3, dtype="<i4"),
        "large": np.arange(5000, dtype="<f4").reshape(50, 100),
        "none": np.zeros((0, 4), "<f2"),
    }
    attributes = {f"a{i}": "x" * 1000 for i in range(20)} | {"version": 1}
    skeleton, offsets = lay_out(columns, attributes)
    with (tmp_path / "a.h5").open("wb") as file:
        write_file(file, skeleton, offsets, columns)
    with h5py.File(tmp_path / "a.h5") as file:
        assert {name: file.attrs[name] for name in attributes} == attributes
        for name, array in columns.items():
            np.testing.assert_array_equal(file[name][()], array)


def test_the_structure_is_small_however_many_rows_there_are_and_large_columns_begin_on_a_page():
    columns = {name: np.broadcast_to(np.float32(0), (10**6, 6048)) for name in ("a", "b")}
    skeleton, offsets = lay_out(columns, {})
    assert sum(len(piece) for _, piece in skeleton.pieces) < 10_000
    assert all(offset % 4096 == 0 for offset in offsets.values())
    assert skeleton.size_bytes > 2 * 10**6 * 6048 * 4


def test_a_disk_without_room_fails_in_python_and_not_in_hdf5():
    columns = {"a": np.zeros((100, 100), "<f4")}
    skeleton, offsets = lay_out(columns, {})

    class Full(io.BytesIO):
        def write(self, data) -> int:
            if self.tell() + len(data) > 20_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    with pytest.raises(OSError, match="No space left"):
        write_file(Full(), skeleton, offsets, columns)
