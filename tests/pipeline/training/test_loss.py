from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ShapeError
from pipeline.models.delta_mapper import DeltaMapperConfig
from pipeline.training.loss import LossWeights, delta_loss, fit_by_group, group_slices

SHARED = Path(__file__).resolve().parents[3] / "../shared"
GOLDEN = SHARED / "golden/delta_mapper.npz"
REAL = SHARED / "real/sspace_img_feat.npy"
WIDTHS_1024 = (512,) * 10 + (256, 256, 128, 128, 64, 64, 32)


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden is not on this machine")
def test_losses_equal_the_published_ones():
    with np.load(GOLDEN) as golden:
        prediction, target = (torch.from_numpy(golden[name]) for name in ("out", "target"))
        expected = [golden[name].item() for name in ("loss", "loss_l2", "loss_cos")]
    assert [term.item() for term in delta_loss(prediction, target)] == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.skipif(not REAL.exists(), reason="../shared/real is not on this machine")
def test_the_zero_predictor_has_its_known_error_on_real_codes():
    s = torch.from_numpy(np.load(REAL)).reshape(20, 6048)
    first, second = np.array(list(combinations(range(20), 2))).T
    delta_s = s[second] - s[first]
    fits = fit_by_group(
        torch.zeros_like(delta_s), delta_s, group_slices(DeltaMapperConfig(widths=WIDTHS_1024))
    )
    expected = {"all": 3.91, "coarse": 3.35, "medium": 4.94, "fine": 3.39}
    for group, fit in fits.items():
        assert fit.zero_mse == fit.mse == pytest.approx(expected[group], abs=5e-3)
        assert fit.explained == 0
        assert fit.cosine == 0
    assert float(delta_s.norm(dim=1).mean()) == pytest.approx(152, abs=0.5)
    assert float(s.std(dim=0, correction=0).median()) == pytest.approx(1.19, abs=0.05)
    assert float(s.abs().max()) == pytest.approx(133, abs=0.5)
    energy = delta_s.square().sum(0)
    shares = [
        float(energy[part].sum() / energy.sum())
        for part in (slice(0, 1536), slice(1536, 3584), slice(3584, None))
    ]
    assert shares == pytest.approx([0.22, 0.43, 0.35], abs=6e-3)


def test_weights_scale_their_terms():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 5, 7, generator=generator)
    loss = delta_loss(prediction, target, LossWeights(mse=2.0, cosine=0.5))
    assert loss.total.item() == pytest.approx(2 * loss.mse.item() + 0.5 * loss.cosine.item())


def test_groups_cover_all_channels_in_order():
    slices = group_slices(DeltaMapperConfig(widths=WIDTHS_1024))
    assert slices == {
        "all": slice(0, 6048),
        "coarse": slice(0, 1536),
        "medium": slice(1536, 3584),
        "fine": slice(3584, 6048),
    }


def test_a_perfect_prediction_explains_everything_and_half_of_it_three_quarters():
    target = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    groups = {"all": slice(0, 4)}
    assert fit_by_group(target, target, groups)["all"].explained == 1
    half = fit_by_group(target / 2, target, groups)["all"]
    assert half.explained == pytest.approx(0.75)
    assert half.cosine == pytest.approx(1)


def test_predictions_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="prediction"):
        delta_loss(torch.zeros(2, 3), torch.zeros(2, 4))
