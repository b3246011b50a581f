from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ShapeError
from pipeline.evaluation.alignment import alignment, tsne

REAL = Path(__file__).resolve().parents[3] / "../shared/real/alignment"

# Cosine, gap, separability, recall of the published example features (512-d, 1,500 rows).
PUBLISHED = {
    ("celeba", ""): (0.255, 0.964, 1.0, 0.009),
    ("celeba", "delta"): (0.163, 0.084, 0.717, 0.075),
    ("cocoval", ""): (0.304, 0.826, 1.0, 0.474),
    ("cocoval", "delta"): (0.374, 0.025, 0.567, 0.973),
}


@pytest.mark.skipif(not REAL.exists(), reason="../shared/real is not on this machine")
@pytest.mark.parametrize(("data", "space"), PUBLISHED, ids=str)
def test_published_features_give_the_published_numbers(data, space):
    image, text = (np.load(REAL / f"cspace_{data}_{space}{letter}.npy") for letter in "it")
    found = alignment(image, text)
    assert tuple(found) == pytest.approx(PUBLISHED[data, space], abs=6e-4)


def test_equal_spaces_are_aligned_and_inseparable():
    rows = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    found = alignment(rows, rows * 3 - 2 * rows.mean(axis=0))
    assert found.modality_gap == pytest.approx(0, abs=1e-6)
    equal = alignment(rows, rows)
    assert equal.paired_cosine == pytest.approx(1)
    assert equal.recall_at_1 == 1
    assert equal.separability == pytest.approx(0.5)


def test_shifted_spaces_are_separable():
    rows = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    found = alignment(rows + 50, rows - 50)
    assert found.separability == 1
    assert found.modality_gap == pytest.approx(100 * np.sqrt(8), rel=1e-5)


def test_unpaired_or_missing_rows_are_refused():
    rows = np.ones((4, 3), dtype=np.float32)
    with pytest.raises(ShapeError, match="text"):
        alignment(rows, rows[:3])
    with pytest.raises(ShapeError, match="no rows"):
        alignment(rows[:0], rows[:0])


def test_tsne_separates_two_clusters_and_repeats():
    generator = np.random.default_rng(0)
    image = generator.standard_normal((20, 8)).astype(np.float32) + 20
    text = generator.standard_normal((15, 8)).astype(np.float32)
    points = tsne(image, text)
    assert points.shape == (35, 2)
    assert points.dtype == np.float32
    assert np.array_equal(points, tsne(image, text))
    centres = points[:20].mean(axis=0), points[20:].mean(axis=0)
    near = np.linalg.norm(points[:20] - centres[0], axis=1).mean()
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * near


def test_a_row_without_direction_is_refused_not_averaged():
    rows = np.eye(3, dtype=np.float32)
    still = rows.copy()
    still[1] = 0.0
    with pytest.raises(ShapeError, match="text row 1 has length 0"):
        alignment(rows, still)
