from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ShapeError
from pipeline.pairs.deltas import edit_conditions, pair_conditions

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden/delta_mapper.npz"


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden is not on this machine")
def test_conditions_equal_those_of_the_published_training_set():
    with np.load(GOLDEN) as golden:
        first = golden["pair_first"] % len(golden["pair_c"])
        source, target = golden["pair_c"][first], golden["pair_c"][golden["pair_second"]]
        expected = golden["pair_out_cond"]
    condition = pair_conditions(source, target).numpy()
    # Pair 5 is clamped: its entries carry rounding noise, its length does not.
    assert np.abs(condition[:5] - expected[:5]).max() < 1e-6
    assert (condition[3, 512:] == 0).all()
    norm = np.linalg.norm(condition[5, 512:])
    assert norm == pytest.approx(np.linalg.norm(expected[5, 512:]), rel=0.02)
    assert norm < 0.6


def test_conditions_do_not_depend_on_the_length_of_the_embeddings():
    clip = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pair_conditions(*clip), pair_conditions(clip[0] * 7, clip[1] * 0.1))


def test_an_edit_has_the_condition_of_a_pair_with_the_same_direction():
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 1, 6, generator=generator)
    units = [row / row.norm() for row in (source, target)]
    direction = (units[1] - units[0])[0] * 12
    assert torch.allclose(
        edit_conditions(source, direction), pair_conditions(source, target), atol=1e-6
    )


def test_other_widths_are_refused():
    with pytest.raises(ShapeError, match="clip_target"):
        pair_conditions(np.ones((2, 4)), np.ones((2, 5)))
    with pytest.raises(ShapeError, match="direction"):
        edit_conditions(np.ones((2, 4)), np.ones(5))
