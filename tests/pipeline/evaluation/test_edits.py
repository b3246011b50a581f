import numpy as np
import pytest

from pipeline.errors import ShapeError
from pipeline.evaluation.edits import has_wanted, score_attributes, score_clip, score_codes


def readings(**values):
    return {name: np.array(numbers) for name, numbers in values.items()}


def test_success_counts_pictures_that_have_everything_asked_for():
    before = readings(hat=[0, 0, 1, 0], mouth=[0, 0, 0, 0])
    after = readings(hat=[1, 1, 1, 0], mouth=[0, 2, 0, 2])
    score = score_attributes(before, after, {"hat": [1], "mouth": [2, 3]}, hidden={})
    assert (score.success, score.had_it) == (0.25, 0.0)
    assert np.isnan(score.preservation)
    one = score_attributes(before, after, {"hat": [1]}, hidden={})
    assert (one.success, one.had_it, one.preservation) == (0.75, 0.25, 0.5)


def test_what_is_covered_is_neither_kept_nor_lost():
    before = readings(hat=[0, 0, 0, 0], hair=[1, 2, 9, 1], skin=[0, 1, 2, 3])
    after = readings(hat=[1, 1, 1, 1], hair=[9, 2, 1, 3], skin=[0, 1, 2, 0])
    score = score_attributes(before, after, {"hat": [1]}, hidden={"hair": 9})
    assert score.preserved == {"hair": 0.5, "skin": 0.75}
    assert score.preservation == pytest.approx(4 / 6)


def test_a_request_that_no_reader_knows_has_no_success():
    before = readings(hat=[0, 1])
    score = score_attributes(before, before, {}, hidden={})
    assert np.isnan(score.success)
    assert score.preservation == 1.0


def test_wanted_values_are_alternatives_and_attributes_conditions():
    seen = readings(hat=[0, 1, 2], mouth=[1, 1, 0])
    assert has_wanted(seen, {"hat": [1, 2], "mouth": [1]}).tolist() == [False, True, False]


def test_clip_scores_are_those_of_the_formulas():
    before = np.array([[2.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    after = np.array([[0.0, 3.0], [0.0, 5.0]], dtype=np.float32)
    target = np.array([0.0, 7.0], dtype=np.float32)
    direction = np.array([-1.0, 1.0], dtype=np.float32)
    score = score_clip(before, after, target, direction)
    assert score.clip_score == pytest.approx(1.0)
    assert score.clip_score_before == pytest.approx(0.5)
    # The first picture follows the direction, the second did not change.
    assert score.directional == pytest.approx(0.5)
    with pytest.raises(ShapeError, match="after"):
        score_clip(before, after[:1], target, direction)


def test_code_distance_is_in_standard_deviations_of_channels_that_vary():
    before = np.zeros((2, 4), dtype=np.float32)
    after = np.array([[2.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    std = np.array([1.0, 1.0, 1.0, 0.0], dtype=np.float32)
    score = score_codes(before, after, std)
    assert score.distance == pytest.approx((1.0 + 0.0) / 2)
    assert score.channels == 1.0
