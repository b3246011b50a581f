import numpy as np
import pytest

from stores.gather import RowGather


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
@pytest.mark.parametrize("shape", [(3,), (2, 5), ()])
def test_rows_of_many_blocks_are_those_of_their_concatenation(dtype, shape):
    rng = np.random.default_rng(0)
    lengths = (4, 1, 9)
    blocks = [rng.integers(0, 200, (n, *shape)).astype(dtype) for n in lengths]
    block = rng.integers(0, 3, 100)
    row = rng.integers(0, np.array(lengths)[block])
    starts = np.array([0, 4, 5])
    rows = starts[block] + row
    found = RowGather(blocks, starts.tolist())(rows, block)
    np.testing.assert_array_equal(found, np.concatenate(blocks)[rows])
    assert found.dtype == dtype
    assert found.flags.writeable


def test_blocks_at_any_place_in_a_file_are_read(tmp_path):
    """Data sets of other writers need not begin at a multiple of their item size."""
    (tmp_path / "a").write_bytes(b"\1" + np.arange(12, dtype="<f4").tobytes())
    blocks = [
        np.memmap(tmp_path / "a", "<f4", "r", offset=1, shape=(4, 3)),
        np.arange(12, 18, dtype="<f4").reshape(2, 3),
    ]
    found = RowGather(blocks, [0, 4])(np.array([5, 3, 4]), np.array([1, 0, 1]))
    np.testing.assert_array_equal(found, [[15, 16, 17], [9, 10, 11], [12, 13, 14]])


def test_blocks_without_rows_are_passed_over():
    blocks = [np.zeros((0, 3), "float32"), np.ones((1, 3), "float32"), np.zeros((0, 3), "float32")]
    gather = RowGather(blocks, [0, 0, 1])
    assert gather(np.array([0, 0]), np.array([1, 1])).tolist() == [[1, 1, 1], [1, 1, 1]]
    none = np.zeros(0, dtype=np.int64)
    assert gather(none, none).shape == (0, 3)


def test_rows_at_any_distance_from_each_other_are_read():
    """Rows of tar shards lie between other members, at another distance in each shard."""
    rng = np.random.default_rng(0)
    blocks = [
        rng.integers(0, 200, (n, wide)).astype("float32")[:, 2:5] for n, wide in ((4, 9), (6, 5))
    ]
    rows = rng.integers(0, 10, 50)
    found = RowGather(blocks, [0, 4])(rows, (rows >= 4).astype(np.int64))
    np.testing.assert_array_equal(found, np.concatenate(blocks)[rows])
