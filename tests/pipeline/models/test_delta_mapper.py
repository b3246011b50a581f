import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import ShapeError
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.models.s_layout import SLayout, config_f_channels

NUM_PARAMETERS = {
    1024: 82_760_576,
    512: 77_094_656,
    256: 66_426_368,
    128: 47_744_000,
    64: 20_996_096,
    32: 7_352_320,
}
SMALL = (8,) * 7 + (8, 4)


def published_widths(size):
    return SLayout.of_channels(size, config_f_channels(size)).widths


@pytest.fixture(scope="module")
def published(recipe):
    return recipe.fill(DeltaMapper(DeltaMapperConfig(widths=published_widths(1024))))


def batch(recipe):
    """The recorded s, condition and target."""
    s = recipe.normal(21, (4, 6048), scale=2.0, shift=1.0)
    condition = torch.cat([recipe.unit(22, (4, 512)), recipe.unit(23, (4, 512))], dim=1)
    return s, condition, recipe.normal(24, (4, 6048), scale=0.5)


def losses(predicted, target):
    """Mean square, 1 - mean row cosine, and their sum (the published objective)."""
    square = F.mse_loss(predicted, target)
    cosine = 1 - F.cosine_similarity(predicted, target, dim=1).mean()
    return square, cosine, square + cosine


def test_output_and_losses_have_parity(published, recipe, compare):
    golden = recipe.golden("delta_mapper")
    s, condition, target = batch(recipe)
    out = published(s, condition)
    compare("delta_mapper out", out, golden["out"])
    for name, ours in zip(("loss_l2", "loss_cos", "loss"), losses(out, target), strict=True):
        compare(f"delta_mapper {name}", ours, golden[name])
    rows = F.cosine_similarity(out, target, dim=1)
    compare("delta_mapper cosine_per_row", rows, golden["cosine_per_row"])


def test_gradients_and_four_adam_steps_have_parity(recipe, compare):
    golden = recipe.golden("delta_mapper")
    s, condition, target = batch(recipe)
    mapper = recipe.fill(DeltaMapper(DeltaMapperConfig(widths=published_widths(1024))))
    mapper.requires_grad_(requires_grad=True)
    optimizer = torch.optim.Adam(mapper.parameters(), lr=0.5)
    trace = []
    for step in range(4):
        parts = losses(mapper(s, condition), target)
        trace.append([float(part.detach()) for part in parts])
        if step == 3:
            break
        optimizer.zero_grad()
        parts[-1].backward()
        if step == 0:
            names = [
                f"{kind}_{g}" for kind in ("sm", "cm", "fm") for g in ("coarse", "medium", "fine")
            ]
            norms = [gradient_norm(mapper.get_submodule(name)) for name in names]
            compare("delta_mapper grad_norm", norms, golden["grad_norm"])
        optimizer.step()
    compare("delta_mapper loss_trace", trace, golden["loss_trace"])


def gradient_norm(module):
    return float(torch.cat([p.grad.flatten().double() for p in module.parameters()]).norm())


@pytest.mark.parametrize(("size", "count"), NUM_PARAMETERS.items())
def test_the_general_rule_gives_the_known_parameter_counts(size, count):
    with torch.device("meta"):
        mapper = DeltaMapper(DeltaMapperConfig(widths=published_widths(size)))
    assert sum(parameter.numel() for parameter in mapper.parameters()) == count


def test_a_32_px_layout_has_no_fine_networks():
    mapper = DeltaMapper(DeltaMapperConfig(widths=(8,) * 7, clip_dim=6))
    assert not [key for key in mapper.state_dict() if "fine" in key]
    assert mapper(torch.randn(2, 56), torch.randn(2, 12)).shape == (2, 56)


def test_axis_layers_normalises_each_channel_across_the_layers():
    config = DeltaMapperConfig(widths=SMALL, clip_dim=6)
    other = DeltaMapperConfig(widths=SMALL, clip_dim=6, pixelnorm_axis="channels")
    mapper, channels = DeltaMapper(config), DeltaMapper(other)
    channels.load_state_dict(mapper.state_dict())
    s, condition = torch.randn(2, config.s_dim), torch.randn(2, 12)
    scaled = s.clone()
    scaled[:, 0:24:8] *= 3.0  # channel 0 of each coarse layer
    torch.testing.assert_close(
        mapper(s, condition)[:, :24], mapper(scaled, condition)[:, :24], rtol=1e-4, atol=1e-5
    )
    scaled = s.clone()
    scaled[:, 0:8] *= 3.0  # the first coarse layer
    torch.testing.assert_close(
        channels(s, condition)[:, :24], channels(scaled, condition)[:, :24], rtol=1e-4, atol=1e-5
    )


def test_a_linear_head_drops_only_the_last_activation():
    config = DeltaMapperConfig(widths=SMALL, clip_dim=6)
    curved = DeltaMapper(config)
    linear = DeltaMapper(DeltaMapperConfig(widths=SMALL, clip_dim=6, linear_head=True))
    linear.load_state_dict(curved.state_dict())
    s, condition = torch.randn(2, config.s_dim), torch.randn(2, 12)
    activated = F.leaky_relu(linear(s, condition), 0.2) * 2**0.5
    torch.testing.assert_close(activated, curved(s, condition))


def test_narrow_groups_get_wider_hidden_layers_and_wide_ones_stay_as_published():
    widths = (8,) * 7 + (40, 40)
    mapper = DeltaMapper(DeltaMapperConfig(widths=widths, clip_dim=6, min_hidden=32))
    shapes = {name: tuple(value.shape) for name, value in mapper.state_dict().items()}
    assert shapes["sm_coarse.mapping.1.weight"] == (32, 8)
    assert shapes["cm_coarse.mapping.1.weight"] == (32, 12)
    assert shapes["fm_coarse.mapping.0.weight"] == (32, 64)
    assert shapes["fm_coarse.mapping.3.weight"] == (8, 32)
    published = DeltaMapper(DeltaMapperConfig(widths=widths, clip_dim=6)).state_dict()
    fine = {name: tuple(v.shape) for name, v in published.items() if "_fine" in name}
    assert fine.items() <= shapes.items()
    change = mapper(torch.randn(3, sum(widths)), torch.randn(3, 12))
    assert change.shape == (3, sum(widths))


def test_layouts_that_cannot_share_networks_are_refused():
    with pytest.raises(ShapeError, match="medium layers have widths"):
        DeltaMapperConfig(widths=(8, 8, 8, 8, 4, 4, 4, 4))
    with pytest.raises(ShapeError, match="32 px or larger"):
        DeltaMapperConfig(widths=(8,) * 5)
    with pytest.raises(ShapeError, match="pixelnorm_axis"):
        DeltaMapperConfig(widths=SMALL, pixelnorm_axis="rows")


def test_wrong_widths_are_refused_by_name():
    mapper = DeltaMapper(DeltaMapperConfig(widths=SMALL, clip_dim=6))
    with pytest.raises(ShapeError, match=r"s has shape \[2, 9\], expected \[\*, 68\]"):
        mapper(torch.randn(2, 9), torch.randn(2, 12))
    with pytest.raises(ShapeError, match="condition has shape"):
        mapper(torch.randn(2, 68), torch.randn(2, 6))
