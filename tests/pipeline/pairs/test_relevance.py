import numpy as np
import pytest

from pipeline.errors import PairError, ShapeError
from pipeline.pairs.relevance import RelevanceConfig, regressed_relevance


def world(num_rows=4000):
    """Codes with correlated channels, and embeddings that three of ten channels move."""
    generator = np.random.default_rng(0)
    s = generator.standard_normal((num_rows, 10)) * np.geomspace(0.1, 50, 10)
    s[:, 1] += 0.8 * s[:, 0]
    s[:, 9] = 4.0
    effects = np.zeros((10, 16))
    for channel in (0, 3, 7):
        effects[channel] = generator.standard_normal(16) / s[:, channel].std()
    clip = 40 * np.eye(16)[0] + s @ effects
    return clip.astype(np.float32), s.astype(np.float32), effects


def test_relevance_points_where_rendering_one_channel_would_move_the_embedding():
    clip, s, effects = world()
    relevance = regressed_relevance(clip, s, RelevanceConfig(ridge=1e-3, block_rows=777))
    for channel in (0, 3, 7):
        # Lengths are lost in unit embeddings: the move along the mean embedding is, too.
        expected = effects[channel].copy()
        expected[0] = 0
        expected /= np.linalg.norm(expected)
        assert relevance[channel] @ expected > 0.98


def test_rows_are_unit_and_a_constant_channel_is_zero():
    clip, s, _ = world(500)
    lengths = np.linalg.norm(regressed_relevance(clip, s), axis=1)
    assert lengths[:9] == pytest.approx(1.0, abs=1e-5)
    assert lengths[9] == 0


def test_blocks_and_channel_units_do_not_change_the_result():
    clip, s, _ = world(500)
    whole = regressed_relevance(clip, s, RelevanceConfig(block_rows=500))
    parts = regressed_relevance(clip, s * 1000 + 5, RelevanceConfig(block_rows=33))
    assert np.abs(whole - parts)[:9].max() < 1e-3


def test_wrong_input_is_refused():
    clip, s, _ = world(10)
    with pytest.raises(ShapeError):
        regressed_relevance(clip, s[:5])
    with pytest.raises(PairError, match="at least 2 rows"):
        regressed_relevance(clip[:1], s[:1])
    with pytest.raises(PairError, match="ridge"):
        RelevanceConfig(ridge=0)
