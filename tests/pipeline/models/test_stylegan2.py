import numpy as np
import pytest
import torch

from pipeline.errors import ShapeError
from pipeline.models.stylegan2 import Generator

SIZES = [64, 256, pytest.param(1024, marks=pytest.mark.slow)]
EDIT_SCALE = 0.1


@pytest.fixture(scope="module")
def generators(recipe):
    """Filled generators by size, made once."""
    made = {}

    def get(size):
        if size not in made:
            made.clear()  # one at a time: the large ones take room
            made[size] = recipe.fill(Generator(size))
        return made[size]

    return get


def codes(recipe, generator):
    """The recorded inputs: w, and W+ whose rows all differ."""
    w = generator.map(recipe.normal(123, (2, 512)))
    rows = generator.layout.num_w
    return w, w[:, None] + recipe.normal(11, (2, rows, 512), scale=0.5)


def moments(tensors):
    return np.array([[float(x.double().mean()), float(x.double().std())] for x in tensors])


def compare_images(compare, name, ours, golden):
    """Small images whole; large ones by block means, moments and 200 pixels."""
    if name in golden:
        compare(f"stylegan2 {name}", ours, golden[name])
        return
    size = ours.shape[-1]
    blocks = torch.nn.functional.avg_pool2d(ours, size // 64)
    y, x = golden["pixel_yx"].T
    compare(f"stylegan2_{size} {name}_64", blocks, golden[f"{name}_64"])
    compare(f"stylegan2_{size} {name}_mean", ours.mean(dim=(2, 3)), golden[f"{name}_mean"])
    compare(f"stylegan2_{size} {name}_std", moments_of_images(ours), golden[f"{name}_std"])
    compare(f"stylegan2_{size} {name}_pixels", ours[:, :, y, x], golden[f"{name}_pixels"])


def moments_of_images(images):
    return images.double().std(dim=(2, 3), correction=0)


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_codes_have_parity(size, generators, recipe, compare):
    golden = recipe.golden(f"stylegan2_{size}", whole=size != 64)
    generator = generators(size)
    w, w_plus = codes(recipe, generator)
    compare(f"stylegan2_{size} w", w, golden["w"])
    compare(f"stylegan2_{size} s", generator.to_s(w_plus), golden["s"])
    assert list(generator.layout.widths) == golden["split"].tolist()
    if "s_from_z" in golden:
        compare(
            f"stylegan2_{size} s_from_z", generator.to_s(generator.broadcast(w)), golden["s_from_z"]
        )


@pytest.mark.parametrize("size", SIZES)
def test_images_and_layers_have_parity(size, generators, recipe, compare):
    golden = recipe.golden(f"stylegan2_{size}", whole=size != 64)
    generator = generators(size)
    _, w_plus = codes(recipe, generator)
    layers, running = [], []
    hooks = [
        c.register_forward_hook(lambda *a: layers.append(a[2])) for c in generator.styled_convs
    ]
    hooks += [
        r.register_forward_hook(lambda *a: running.append(a[2])) for r in generator.rgb_layers
    ]
    image = generator(w_plus)
    for hook in hooks:
        hook.remove()
    compare_images(compare, "image", image, golden)
    compare(f"stylegan2_{size} layer_mean_std", moments(layers), golden["layer_mean_std"])
    compare(f"stylegan2_{size} rgb_mean_std", moments(running), golden["rgb_mean_std"])


@pytest.mark.parametrize("size", SIZES)
def test_edited_images_have_parity(size, generators, recipe, compare):
    golden = recipe.golden(f"stylegan2_{size}", whole=True)
    generator = generators(size)
    _, w_plus = codes(recipe, generator)
    s = generator.to_s(w_plus)
    edited = s + recipe.normal(7, s.shape, scale=EDIT_SCALE)
    compare_images(compare, "image_edit", generator.synthesize(edited, w_plus), golden)


def test_truncation_has_parity(generators, recipe, compare):
    golden = recipe.golden("stylegan2_64")
    generator = generators(64)
    w = generator.map(recipe.normal(123, (2, 512)))
    center = recipe.normal(13, (1, 512), scale=0.1)
    rows = generator.broadcast(w, center[0], 0.7)
    compare("stylegan2_64 w_trunc07", rows[:, 0], golden["w_trunc07"])
    assert torch.equal(rows[:, 0], rows[:, -1])


def test_rgb_styles_interleave_to_the_styleclip_list(generators, recipe, compare):
    golden = recipe.golden("stylegan2_64", whole=True)
    generator = generators(64)
    _, w_plus = codes(recipe, generator)
    convs = generator.layout.split(generator.to_s(w_plus))
    styles = []
    for index, rgb in enumerate(generator.rgb_styles(w_plus)):
        styles += [*convs[2 * index - 1 if index else 0 : 2 * index + 1], rgb]
    assert [style.shape[1] for style in styles] == golden["split_with_torgb"].tolist()
    compare("stylegan2_64 s_with_torgb", torch.cat(styles, dim=1), golden["s_with_torgb"])


def test_each_picture_of_a_batch_is_the_one_it_is_alone(recipe):
    generator = recipe.fill(Generator(32, (64,) * 4))
    _, w_plus = codes(recipe, generator)
    together = generator(w_plus)
    alone = torch.cat([generator(w_plus[:1]), generator(w_plus[1:])])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_images", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)], ids=["float16", "bfloat16"]
)
def test_half_precision_is_finite_and_close_for_styles_as_large_as_published(
    dtype, limit, num_images, recipe
):
    generator = recipe.fill(Generator(32, (64,) * 4))
    _, w_plus = codes(recipe, generator)
    w_plus = 40 * w_plus[:num_images]
    s = generator.to_s(w_plus)
    assert float(s.abs().max()) > 133
    expected = generator(w_plus)
    generator.compute_dtype = dtype
    found = generator(w_plus)
    error = float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    print(f"\nstylegan2_32 {dtype} rms error: {error:.1e}")  # noqa: T201 - for docs/parity.md
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert error < limit


def test_gradients_reach_the_codes():
    generator = Generator(32, (8, 8, 8, 8), style_dim=16, num_mapping=2)
    w_plus = torch.randn(1, 8, 16, requires_grad=True)
    generator(w_plus).square().mean().backward()
    assert w_plus.grad is not None
    assert float(w_plus.grad.abs().sum()) > 0


def test_other_noise_gives_another_image():
    generator = Generator(32, (8, 8, 8, 8), style_dim=16, num_mapping=2)
    torch.nn.init.constant_(generator.conv1.noise.weight, 1.0)
    w_plus = torch.randn(1, 8, 16)
    fields = [torch.randn_like(noise) for noise in generator.noises.buffers()]
    s = generator.to_s(w_plus)
    assert torch.equal(generator.synthesize(s, w_plus), generator(w_plus))
    assert not torch.allclose(generator.synthesize(s, w_plus, fields), generator(w_plus))


def test_codes_of_another_size_are_refused():
    generator = Generator(32, (8, 8, 8, 8), style_dim=16, num_mapping=2)
    with pytest.raises(ShapeError, match=r"w_plus has shape \[1, 18, 16\], expected \[\*, 8, 16\]"):
        generator.to_s(torch.randn(1, 18, 16))
    with pytest.raises(ShapeError, match="s has shape"):
        generator.synthesize(torch.randn(1, 9), torch.randn(1, 8, 16))


def test_pictures_can_be_computed_in_parts(generators):
    generator = generators(64)
    w_plus = torch.randn(2, generator.layout.num_w, generator.style_dim)
    with torch.no_grad():
        s = generator.to_s(w_plus)
        whole = generator.synthesize(s, w_plus)
        for cut in (0, 1, 4, 9):
            half = generator.advance(generator.begin(2), s, w_plus, stop=cut)
            kept = half.x.clone()
            rest = generator.advance(half, s, w_plus, stop=9)
            assert torch.equal(generator.finish(rest), whole)
            assert torch.equal(half.x, kept)
    with pytest.raises(AssertionError, match="advance it"):
        generator.finish(half._replace(done=3))
