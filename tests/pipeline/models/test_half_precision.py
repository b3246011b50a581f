"""Half precision against the golden numbers: how far off, and finite everywhere.

Errors are root mean squares over that of the reference; `pytest -s` prints those of docs/parity.md.
"""

import numpy as np
import pytest
import torch

from pipeline.models.clip import load_clip
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.models.e4e import E4E, E4EConfig, Encoder
from pipeline.models.registry import MODEL_SETS
from pipeline.models.s_layout import layout_of_codes
from pipeline.models.stylegan2 import Generator

HALVES = [torch.float16, torch.bfloat16]
PUBLISHED_PEAK = 133
"""Largest |S| of the published codes."""


def error(name, ours, reference):
    """Root mean square and largest error, relative; printed."""
    reference = np.asarray(reference, dtype=np.float64)
    ours = np.asarray(ours.float(), dtype=np.float64)
    assert np.isfinite(ours).all()
    scale = np.sqrt((reference**2).mean())
    rms = np.sqrt(((ours - reference) ** 2).mean()) / scale
    print(f"\n{name}: {rms:.1e} ({np.abs(ours - reference).max() / scale:.0e})")  # noqa: T201
    return rms


def golden_w_plus(recipe, generator):
    w = generator.map(recipe.normal(123, (2, 512)))
    return w[:, None] + recipe.normal(11, (2, generator.layout.num_w, 512), scale=0.5)


@pytest.mark.parametrize(("dtype", "limit"), zip(HALVES, (3e-3, 2e-2), strict=True), ids=str)
def test_images_are_close_to_the_golden_ones(dtype, limit, recipe):
    golden = recipe.golden("stylegan2_64")
    generator = recipe.fill(Generator(64))
    w_plus = golden_w_plus(recipe, generator)[:1]
    generator.compute_dtype = dtype
    assert error(f"stylegan2_64 {dtype}", generator(w_plus), golden["image"][:1]) < limit


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "limit"), zip(HALVES, (3e-3, 2e-2), strict=True), ids=str)
def test_large_images_are_close_to_the_golden_ones(dtype, limit, recipe):
    golden = recipe.golden("stylegan2_1024", whole=True)
    generator = recipe.fill(Generator(1024))
    w_plus = golden_w_plus(recipe, generator)[:1]
    generator.compute_dtype = dtype
    y, x = golden["pixel_yx"].T
    pixels = generator(w_plus)[:, :, y, x]
    assert error(f"stylegan2_1024 {dtype}", pixels, golden["image_pixels"][:1]) < limit


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_activation_is_finite_for_styles_as_large_as_published(dtype, recipe):
    generator = recipe.fill(Generator(32))
    w_plus = golden_w_plus(recipe, generator)[:1]
    s = generator.to_s(w_plus)
    s *= PUBLISHED_PEAK / float(s.abs().max())
    peaks = []
    hooks = [
        module.register_forward_hook(lambda *call: peaks.append(call[2].abs().max()))
        for module in (*generator.styled_convs, *generator.rgb_layers)
    ]
    generator.compute_dtype = dtype
    generator.synthesize(s, w_plus)
    for hook in hooks:
        hook.remove()
    assert len(peaks) == 7 + 4
    assert torch.isfinite(torch.stack([peak.float() for peak in peaks])).all()


@pytest.mark.parametrize(("dtype", "limit"), zip(HALVES, (4e-3, 3e-2), strict=True), ids=str)
def test_changes_of_s_are_close_to_the_golden_ones(dtype, limit, recipe):
    golden = recipe.golden("delta_mapper")
    mapper = recipe.fill(DeltaMapper(DeltaMapperConfig(widths=layout_of_codes(6048).widths)))
    num_rows = len(golden["out"])
    s = recipe.normal(21, (4, 6048), scale=2.0, shift=1.0)[:num_rows]
    condition = torch.cat([recipe.unit(22, (4, 512)), recipe.unit(23, (4, 512))], 1)[:num_rows]
    with torch.autocast("cpu", dtype=dtype):
        out = mapper(s, condition)
    assert error(f"delta_mapper {dtype}", out, golden["out"]) < limit


@pytest.mark.slow
def test_codes_are_close_to_the_golden_ones(recipe):
    """In bfloat16 alone: float16 convolutions take minutes on CPUs without units for them."""
    golden = recipe.golden("e4e_64")
    encoder = recipe.fill(Encoder(E4EConfig(num_w=10)))
    e4e = E4E(encoder, torch.zeros(10, 512), precision="bfloat16")
    codes = e4e(recipe.smooth_image(5, 256))[0]
    assert error("e4e_64 bfloat16", codes, golden["codes"]) < 4e-2


@pytest.mark.parametrize(("dtype", "limit"), zip(HALVES, (4e-3, 4e-2), strict=True), ids=str)
def test_embeddings_are_close_to_those_in_float32(dtype, limit, recipe):
    """There are no golden embeddings; weights and pictures are those of the bundled world."""
    known = MODEL_SETS["avatar"]
    weights = known.clip_path(known.clip_config.parent)
    pixels = ((recipe.smooth_image(5, 64) + 1) * 127.5).permute(0, 2, 3, 1).round().byte()
    load = {"name": known.clip_name, "weights": weights, "model_config": known.clip_config}
    exact = load_clip(**load, precision="float32").encode_images(pixels, "official")
    half = load_clip(**load, precision=str(dtype).removeprefix("torch."))
    assert error(f"clip {dtype}", half.encode_images(pixels, "official"), exact) < limit
