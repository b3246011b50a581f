import pytest
import torch

from pipeline.errors import ShapeError
from pipeline.models.e4e import E4E, E4EConfig, Encoder

SMALL = {"stage_units": (1, 1, 1, 1), "stage_widths": (16, 16, 24, 32), "style_dim": 8}


@pytest.fixture(scope="module")
def small_generator_encoder(recipe):
    return recipe.fill(Encoder(E4EConfig(num_w=10)))


@pytest.fixture(scope="module")
def largest_encoder(recipe):
    return recipe.fill(Encoder(E4EConfig(num_w=18)))


def test_codes_for_a_64_px_generator_have_parity(small_generator_encoder, recipe, compare):
    golden = recipe.golden("e4e_64")
    image = recipe.smooth_image(5, 256)
    compare("e4e_64 input", image[0, :, ::8, ::8], golden["input_every8"], 1e-6)
    compare("e4e_64 codes", small_generator_encoder(image)[0], golden["codes"])
    latent_avg = recipe.normal(53, (10, 512), scale=0.5)
    e4e = E4E(small_generator_encoder, latent_avg)  # another order of the weights in memory
    compare("e4e_64 codes of E4E", e4e(image)[0] - latent_avg, golden["codes"])


def test_half_precision_is_of_the_encoder_alone():
    torch.manual_seed(0)
    encoder = Encoder(E4EConfig(num_w=4, input_height=32, input_width=32, **SMALL)).eval()
    far = torch.full((4, 8), 1000.0)  # bfloat16 would round it by up to 4
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        exact, half = (
            E4E(encoder, far, precision=precision)(images) for precision in ("float32", "bfloat16")
        )
    assert half.dtype == torch.float32
    difference = (half - exact).abs().max()
    assert 0 < difference < 0.05 * (exact - far).std()


@pytest.mark.slow
def test_codes_for_256_and_1024_px_have_parity(largest_encoder, recipe, compare):
    codes = largest_encoder(recipe.smooth_image(5, 256))[0]
    compare("e4e_1024 codes", codes, recipe.golden("e4e_1024", whole=True)["codes"])
    compare("e4e_256 codes", codes[:14], recipe.golden("e4e_256", whole=True)["codes"])
    golden = recipe.golden("e4e_1024", whole=True)
    other = largest_encoder(recipe.smooth_image(6, 256))[0].sum(dim=1)
    compare("e4e_1024 codes_image6_sum", other, golden["codes_image6_sum"])


@pytest.mark.slow
def test_feature_maps_have_parity(largest_encoder, recipe, compare):
    golden = recipe.golden("e4e_1024", whole=True)
    taps = {}
    hooks = [
        largest_encoder.body[index].register_forward_hook(
            lambda *call, name=name: taps.update({name: call[2]})
        )
        for name, index in {"c1": 6, "c2": 20}.items()
    ]
    c3, p2, p1 = largest_encoder.features(recipe.smooth_image(5, 256))
    for hook in hooks:
        hook.remove()
    for name, features in {**taps, "c3": c3, "p2": p2, "p1": p1}.items():
        assert features.shape[1:] == tuple(golden[f"{name}_shape"][-3:])
        channel, row, column = golden[f"{name}_chw"].T
        compare(f"e4e_1024 {name}", features[0, channel, row, column], golden[f"{name}_values"])
        compare(f"e4e_1024 {name} mean", features.mean(), golden[f"{name}_mean"])
        compare(f"e4e_1024 {name} std", features.std(correction=0), golden[f"{name}_std"])


@pytest.mark.slow
def test_progressive_stages_have_parity(largest_encoder, recipe, compare):
    golden = recipe.golden("e4e_1024", whole=True)
    image = recipe.smooth_image(5, 256)
    largest_encoder.num_deltas = 0
    compare("e4e_1024 stage 0", largest_encoder(image)[0, 5], golden["codes_stage0_row0"])
    largest_encoder.num_deltas = 3
    stage = largest_encoder(image)[0].sum(dim=1)
    compare("e4e_1024 stage 3", stage, golden["codes_stage3_sum"])
    largest_encoder.num_deltas = 17


def test_the_car_variant_takes_192_x_256_px_and_gives_16_codes():
    encoder = Encoder(E4EConfig(num_w=16, input_height=192, **SMALL)).eval()
    assert encoder(torch.randn(1, 3, 192, 256)).shape == (1, 16, 8)
    with pytest.raises(ShapeError, match=r"\[1, 3, 256, 256\], expected \[\*, 3, 192, 256\]"):
        encoder(torch.randn(1, 3, 256, 256))


def test_sizes_that_the_heads_cannot_reduce_to_a_pixel_are_refused():
    with pytest.raises(ShapeError, match="power of two"):
        E4EConfig(input_width=224)
    with pytest.raises(ShapeError, match="input_height 128"):
        E4EConfig(input_height=128)
