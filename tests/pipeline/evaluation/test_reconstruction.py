import numpy as np
import pytest

from pipeline.errors import ShapeError
from pipeline.evaluation.reconstruction import score_reconstructions


def test_the_ratio_is_the_mean_over_pictures():
    originals = np.full((2, 4, 4, 3), 100, dtype=np.uint8)
    found = originals.copy()
    found[0] += 255 // 51  # 5 of 255 levels everywhere: 34.15 dB
    found[1] -= 50  # 14.15 dB
    assert score_reconstructions(originals, found) == pytest.approx((34.151 + 14.151) / 2, abs=1e-3)


def test_equal_pictures_have_no_error():
    originals = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    assert score_reconstructions(originals, originals) == float("inf")
    with pytest.raises(ShapeError, match="reconstructions"):
        score_reconstructions(originals, originals[:, :1])
