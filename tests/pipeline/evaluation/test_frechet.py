"""The Frechet distance of two sets of features."""

import numpy as np
import pytest

from pipeline.errors import ShapeError
from pipeline.evaluation.frechet import frechet_distance


def test_sets_of_one_distribution_are_at_distance_nought():
    rows = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-9)


def test_a_shift_counts_with_its_square():
    rows = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    assert frechet_distance(rows, rows + np.array([3, 4, 0])) == pytest.approx(25, rel=1e-5)


def test_scaling_counts_as_the_difference_of_standard_deviations():
    rows = np.random.default_rng(0).standard_normal((4000, 2))
    rows = (rows - rows.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    # Uncorrelated with deviations (1, 1) and (2, 3): (1 - 2)^2 + (1 - 3)^2.
    assert frechet_distance(rows, rows * (2, 3)) == pytest.approx(5, rel=1e-6)


def test_covariances_that_do_not_commute_agree_with_the_general_square_root():
    from scipy.linalg import sqrtm

    random = np.random.default_rng(1)
    one, other = (random.standard_normal((60, 5)) @ random.standard_normal((5, 5)) for _ in "ab")
    first, second = np.cov(one.T), np.cov(other.T)
    mean = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    expected = mean + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


def test_fewer_rows_than_features_are_no_obstacle():
    rows = np.random.default_rng(0).standard_normal((8, 20)).astype(np.float32)
    assert frechet_distance(rows[:4], rows[4:]) > 0


def test_a_set_of_one_row_is_refused():
    with pytest.raises(ShapeError, match="1 and 3 rows: give at least 2"):
        frechet_distance(np.ones((1, 4)), np.ones((3, 4)))
