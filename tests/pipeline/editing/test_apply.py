import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.editing.apply import PUBLISHED_THRESHOLD, edit_codes, relevance_mask
from pipeline.errors import PipelineError, ShapeError

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden/inference.npz"
needs_golden = pytest.mark.skipif(
    not GOLDEN.exists(), reason="../shared/golden is not on this machine"
)


class Recorded:
    """A mapper whose answer is known beforehand."""

    def __init__(self, delta_s):
        self.delta_s = torch.as_tensor(delta_s)

    def predict(self, s, condition):
        assert condition.shape[1] % 2 == 0
        return self.delta_s.expand(len(s), -1).clone()


@pytest.fixture
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture
def published_rs():
    rows = np.random.RandomState(31).standard_normal((6048, 512))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@needs_golden
def test_the_mask_equals_the_published_one(golden, published_rs):
    mask = relevance_mask(published_rs, golden["dt"], threshold=PUBLISHED_THRESHOLD)
    assert (mask == (golden["suppressed"] == 0)).all()
    assert np.count_nonzero(mask) == golden["n_kept"]
    kept = np.flatnonzero(mask).astype("<i4").tobytes()
    assert zlib.crc32(kept) == golden["kept_index_crc32"]


@needs_golden
def test_masked_changes_equal_the_published_ones(golden, published_rs):
    mask = relevance_mask(published_rs, golden["dt"], threshold=PUBLISHED_THRESHOLD)
    s = np.zeros((1, 6048), dtype=np.float32)
    edited = edit_codes(
        Recorded(golden["delta_s"]), s, np.ones((1, 512), np.float32), golden["dt"], mask=mask
    )
    assert np.array_equal(edited[0].numpy(), golden["masked_delta_s"].ravel())


def test_top_k_keeps_the_most_relevant_channels_of_either_sign():
    rs = np.array([[1, 0], [0, 1], [-0.8, 0.6], [0.6, 0.8]], dtype=np.float32)
    direction = np.array([1.0, 0.0], dtype=np.float32)
    assert relevance_mask(rs, direction, top_k=2).tolist() == [True, False, True, False]
    assert relevance_mask(rs, direction).all()


def test_top_k_keeps_exactly_k_among_equals():
    mask = relevance_mask(np.ones((5, 2), np.float32), np.ones(2, np.float32), top_k=3)
    assert mask.tolist() == [True, True, True, False, False]


def test_strength_scales_the_change_and_the_mask_keeps_channels():
    s = torch.arange(6.0).reshape(2, 3)
    mapper = Recorded([1.0, 2.0, 3.0])
    clip, direction = torch.ones(2, 4), torch.ones(4)
    edited = edit_codes(
        mapper, s, clip, direction, strength=-2.0, mask=np.array([True, False, True])
    )
    assert torch.equal(edited - s, torch.tensor([-2.0, 0.0, -6.0]).expand(2, 3))
    assert torch.equal(edit_codes(mapper, s, clip, direction, strength=0.0), s)


def test_the_given_codes_are_left_as_they_were():
    s = np.zeros((1, 3), dtype=np.float32)
    edit_codes(Recorded([1.0, 2.0, 3.0]), s, np.ones((1, 4), np.float32), np.ones(4, np.float32))
    assert (s == 0).all()


@pytest.mark.parametrize(
    "limits",
    [{"threshold": 0.1, "top_k": 3}, {"threshold": -0.1}, {"top_k": 0}, {"top_k": 6}],
    ids=str,
)
def test_limits_out_of_range_are_refused(limits):
    with pytest.raises(PipelineError):
        relevance_mask(np.ones((5, 2), np.float32), np.ones(2, np.float32), **limits)


def test_other_widths_are_refused():
    with pytest.raises(ShapeError, match="direction_raw"):
        relevance_mask(np.ones((5, 2), np.float32), np.ones(3, np.float32))
    with pytest.raises(ShapeError, match="mask"):
        edit_codes(
            Recorded([1.0, 2.0]),
            torch.zeros(1, 2),
            torch.ones(1, 4),
            torch.ones(4),
            mask=np.ones(3, bool),
        )
