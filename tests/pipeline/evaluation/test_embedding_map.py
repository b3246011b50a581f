import numpy as np
import pytest

from pipeline.errors import ShapeError
from pipeline.evaluation import arrange


def groups(count=20, number=4):
    random = np.random.default_rng(0)
    centres = 10 * np.eye(number, 16)
    rows = np.repeat(centres, count, axis=0) + 0.1 * random.standard_normal((count * number, 16))
    return rows.astype(np.float32), np.repeat(np.arange(number), count)


def test_every_row_has_a_cell_of_its_own_in_the_smallest_square():
    rows, _ = groups(count=7, number=3)
    cells = arrange(rows)
    assert len({tuple(cell) for cell in cells}) == 21
    assert cells.min() == 0
    assert cells.max(axis=0).tolist() == [4, 4]


def test_like_stands_beside_like():
    rows, labels = groups()
    cells = arrange(rows)
    places = {tuple(cell): label for cell, label in zip(cells.tolist(), labels, strict=True)}
    alike = [
        places[row, column] == places[row, column + 1]
        for row, column in places
        if (row, column + 1) in places
    ]
    assert np.mean(alike) > 0.7  # a quarter by chance
    np.testing.assert_array_equal(cells, arrange(rows))


def test_two_rows_are_no_map():
    with pytest.raises(ShapeError, match="at least 3"):
        arrange(np.eye(2, dtype=np.float32))
