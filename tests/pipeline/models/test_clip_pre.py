"""CLIP's pre-processing against open_clip's own transform and against published numbers."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pipeline.models.clip_pre import (
    ClipInput,
    box7_input,
    box7_weights,
    official_input,
    official_pixels,
    resize_weights,
)

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden/clip_preprocess.npz"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(str(shape).encode())).integers(
        0, 256, shape, dtype=np.uint8
    )


def by_open_clip(pixels: np.ndarray, recipe: ClipInput) -> torch.Tensor:
    transform = image_transform_v2(
        PreprocessCfg(
            size=recipe.size,
            mean=recipe.mean,
            std=recipe.std,
            interpolation=recipe.interpolation,
            resize_mode=recipe.resize_mode,
        ),
        is_train=False,
    )
    return torch.stack([transform(Image.fromarray(image)) for image in pixels])


def smooth_image(number: int, size: int) -> torch.Tensor:
    """The golden recipe I(number, size): 12 cosines a channel plus white noise, [1, 3, H, W]."""
    random, terms = np.random.RandomState(number), 12
    fx, fy = random.randint(0, 6, (3, terms)), random.randint(0, 6, (3, terms))
    phase, height = random.uniform(0, 2 * np.pi, (3, terms)), random.standard_normal((3, terms))
    t = np.arange(size) / size
    waves = np.zeros((3, size, size))
    for channel, term in np.ndindex(3, terms):
        angle = fx[channel, term] * t + fy[channel, term] * t[:, None]
        wave = np.cos(2 * np.pi * angle + phase[channel, term])
        waves[channel] += height[channel, term] * wave
    out = 0.8 * waves / np.sqrt(terms) + 0.1 * random.standard_normal((3, size, size))
    return torch.from_numpy(np.clip(out, -1, 1).astype(np.float32)[None])


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (1, 1, 224),
        (64, 64, 64),
        (64, 64, 224),
        (224, 224, 224),
        (225, 224, 224),
        (256, 256, 224),
        (300, 200, 224),
        (199, 301, 224),
        (301, 199, 224),
        (512, 512, 224),
        (7, 500, 64),
        (2000, 2000, 64),
    ],
)
def test_official_is_open_clips_transform_bit_for_bit(height, width, size):
    pixels = noise(2, height, width, 3)
    recipe = ClipInput(size=size)
    ours = official_input(torch.from_numpy(pixels), recipe)
    assert torch.equal(ours, by_open_clip(pixels, recipe))


def test_official_follows_the_models_own_recipe():
    pixels = noise(2, 120, 96, 3)
    half = (0.5, 0.5, 0.5)
    recipe = ClipInput(size=32, mean=half, std=half, interpolation="bilinear", resize_mode="squash")
    ours = official_input(torch.from_numpy(pixels), recipe)
    assert torch.equal(ours, by_open_clip(pixels, recipe))


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (300, 200), (199, 301), (7, 500), (200, 9)])
def test_official_on_the_processor_is_open_clips_transform_bit_for_bit(shape, mode):
    pixels, recipe = noise(*shape, 3), ClipInput(size=64, resize_mode=mode)
    seen = official_pixels(pixels, recipe)
    assert official_pixels(seen, recipe) is seen
    ours = official_input(torch.from_numpy(seen[None]), recipe)
    assert torch.equal(ours, by_open_clip(pixels[None], recipe))


def test_official_of_an_image_does_not_depend_on_its_batch():
    pixels = torch.from_numpy(noise(5, 90, 70, 3))
    recipe = ClipInput(size=32)
    alone = torch.cat([official_input(pixels[i : i + 1], recipe) for i in range(5)])
    assert torch.equal(official_input(pixels, recipe), alone)


@pytest.mark.parametrize(
    ("field", "value"), [("interpolation", "lanczos"), ("resize_mode", "longest")]
)
def test_unknown_recipe_is_refused_with_the_place_to_mend_it(field, value):
    with pytest.raises(ValueError, match=rf"{field} .*'{value}'.*preprocess_cfg"):
        ClipInput(size=224, **{field: value})


def test_resize_weights_sum_to_one():
    weights = resize_weights(100, 37, slice(0, 37), "bicubic") / 2**22
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-5


@pytest.mark.parametrize(("size", "number"), [(1024, 41), (256, 42)])
def test_box7_gives_the_published_numbers(size, number):
    if not GOLDEN.is_file():
        pytest.skip(f"{GOLDEN.name} is not beside this checkout")
    golden = np.load(GOLDEN)
    image = smooth_image(number, size)
    step = 64 if size == 1024 else 16
    assert np.allclose(image[0, :, ::step, ::step], golden[f"in{size}_every{step}"], atol=1e-6)
    out = box7_input(image, 224)[0].numpy()
    y, x = golden["yx"].T
    scale = golden[f"out{size}_std"].mean()
    for ours, published in (
        (out[:, y, x], golden[f"out{size}_values"]),
        (out.mean(axis=(1, 2)), golden[f"out{size}_mean"]),
        (out.std(axis=(1, 2)), golden[f"out{size}_std"]),
        (out.mean(axis=2), golden[f"out{size}_rowmean"]),
    ):
        assert np.abs(ours - published).max() < 1e-4 * scale


@pytest.mark.parametrize("size", [64, 128, 256])
def test_box7_is_the_literal_enlarging_and_pooling(size):
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)).double()
    literal = F.avg_pool2d(F.interpolate(image, scale_factor=7, mode="nearest"), size // 32)
    assert (box7_input(image, 224) - literal).abs().max() < 1e-6


def test_box7_keeps_an_image_of_the_towers_size_and_values_beyond_the_range():
    image = 3 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(box7_input(image, 64), image)


def test_box7_weights_are_an_average_for_any_sizes():
    for length, target in ((1, 224), (225, 224), (1024, 64), (192, 224)):
        weights = box7_weights(length, target)
        assert weights.shape == (target, length)
        assert np.abs(weights.sum(axis=1) - 1).max() < 1e-12
        assert weights.min() >= 0


def test_box7_passes_gradients():
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    box7_input(image, 32).sum().backward()
    assert image.grad is not None
    assert torch.allclose(image.grad, torch.full_like(image, 0.25))
