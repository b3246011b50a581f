"""Where on its curve a method keeps as much as another one."""

import pytest

from flows.steps.edit_comparison import BY_CLIP, BY_TRUTH, Comparison, keep_as_much


def row(strength, threshold, preservation, success):
    return {
        "strength": strength,
        "threshold": threshold,
        "preservation": preservation,
        "success": success,
    }


CURVE = [
    row(1.0, 0.0, 0.9, 0.5),
    row(2.0, 0.0, 0.7, 0.9),
    row(1.0, 0.1, 0.95, 0.3),
    row(2.0, 0.1, 0.85, 0.7),
]


def test_the_strength_lies_between_those_that_keep_more_and_less():
    found = keep_as_much(CURVE[:2], 0.8, BY_TRUTH)
    assert (found.low, found.high) == ((1.0, 0.9), (2.0, 0.7))
    assert found.setting.strength == pytest.approx(1.5)
    assert found.setting.threshold == 0.0


def test_the_threshold_that_gains_most_is_taken():
    # At 0.88 a straight line gives success 0.54 without a mask and 0.58 with one.
    assert keep_as_much(CURVE, 0.88, BY_TRUTH).setting.threshold == 0.1
    assert keep_as_much(CURVE, 0.75, BY_TRUTH).setting.threshold == 0.0


def test_below_the_smallest_strength_the_line_starts_at_no_edit():
    found = keep_as_much(CURVE[:2], 0.95, BY_TRUTH)
    assert found.setting.strength == pytest.approx(0.5)


def test_a_method_that_always_keeps_more_is_taken_at_its_largest_strength():
    found = keep_as_much(CURVE[:2], 0.6, BY_TRUTH)
    assert found.setting.strength == 2.0
    assert found.narrowed(0.7).is_met


def test_measuring_narrows_the_bracket_until_the_tolerance_is_met():
    bracket = keep_as_much(CURVE[:2], 0.8, BY_TRUTH)
    steeper = bracket.narrowed(0.84)
    assert steeper.low == (1.5, 0.84)
    assert not steeper.is_met
    assert 1.5 < steeper.setting.strength < 2.0
    assert bracket.narrowed(0.76).high == (1.5, 0.76)
    assert bracket.narrowed(0.797).is_met


def test_without_a_reader_methods_are_compared_where_they_move_as_far():
    curve = [
        {"strength": 1.0, "threshold": 0.0, "distance": 0.5, "clip_score": 0.2},
        {"strength": 2.0, "threshold": 0.0, "distance": 1.0, "clip_score": 0.3},
    ]
    assert keep_as_much(curve, -0.75, BY_CLIP).setting.strength == pytest.approx(1.5)


def test_the_picture_shows_settings_that_no_other_beats():
    worse = row(3.0, 0.0, 0.6, 0.4)
    methods = [{"method": "run", "preservation": 0.8}]
    best = Comparison(BY_TRUTH, methods, {"run": CURVE}).picture()
    assert Comparison(BY_TRUTH, methods, {"run": [*CURVE, worse]}).picture() == best
    better = row(3.0, 0.0, 0.6, 0.95)
    assert Comparison(BY_TRUTH, methods, {"run": [*CURVE, better]}).picture() != best
