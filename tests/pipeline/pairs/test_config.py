import base64
from dataclasses import asdict

import numpy as np
import pytest

from pipeline.errors import PairError
from pipeline.pairs.config import EXACT_DIRECTION_ROWS, PairConfig, TextDirection

DIRECTION = TextDirection.of("face", "smiling face", np.arange(1, 9, dtype=np.float32))


def test_a_mixture_has_its_weights_as_shares():
    config = PairConfig(policy="random:3, nearest:1")
    assert config.mixture == {"random": 0.75, "nearest": 0.25}
    assert PairConfig(policy="band").mixture == {"band": 1.0}


@pytest.mark.parametrize("policy", ["", "tree", "random:1,tree:1", "random:1,random:2"])
def test_an_unknown_or_repeated_policy_is_refused_with_those_there_are(policy):
    with pytest.raises(PairError, match="random, nearest, band, direction"):
        PairConfig(policy=policy)


@pytest.mark.parametrize("weight", ["0", "-1", "much", "inf", "nan"])
def test_a_weight_that_is_no_positive_number_is_refused(weight):
    with pytest.raises(PairError, match=f"'{weight}' is not a positive number"):
        PairConfig(policy=f"random:1,nearest:{weight}")


def test_wrong_settings_are_refused_all_at_once():
    with pytest.raises(PairError, match=r"(?s)num_neighbours.*similarity bounds"):
        PairConfig(policy="band", num_neighbours=0, min_similarity=0.5, max_similarity=0.5)
    with pytest.raises(PairError, match="no least similarity"):
        PairConfig(policy="random", min_similarity=0.1)
    with pytest.raises(PairError, match="direction_share is 0"):
        PairConfig(policy="direction", direction=DIRECTION, direction_share=0.0)


def test_a_direction_goes_with_its_policy_and_no_other():
    with pytest.raises(PairError, match="needs a text to lead to"):
        PairConfig(policy="direction")
    with pytest.raises(PairError, match="the others take none"):
        PairConfig(policy="nearest", direction=DIRECTION)


def test_what_a_policy_needs_is_told_before_anything_is_read():
    follows = PairConfig(policy="random:1,direction:1", direction=DIRECTION)
    assert follows.needs_clip
    assert not follows.needs_graph(EXACT_DIRECTION_ROWS)
    assert follows.needs_graph(EXACT_DIRECTION_ROWS + 1)
    assert not PairConfig().needs_clip
    assert PairConfig(max_similarity=0.9).needs_clip
    assert PairConfig(policy="nearest").needs_graph(2)
    assert not PairConfig(policy="nearest").needs_clip


def test_a_direction_survives_the_way_through_plain_values():
    again = TextDirection(**asdict(DIRECTION))
    expected = np.arange(1, 9) / np.linalg.norm(np.arange(1, 9))
    np.testing.assert_allclose(again.unit, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "vector",
    ["%%%", base64.b64encode(b"abc").decode(), base64.b64encode(bytes(16)).decode(), ""],
    ids=["not base64", "not float32", "zero", "empty"],
)
def test_a_vector_that_is_none_is_refused(vector):
    with pytest.raises(PairError, match=r"not base64 of float32|has no length"):
        TextDirection(source="a", target="b", vector=vector)
