"""Encoding with tiny models of the real classes."""

import copy
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from pipeline.encoding import (
    Encoders,
    StageClock,
    encode_images,
    encode_sampled,
    encode_views,
    image_views,
    sample_z,
)
from pipeline.images import to_float, to_square
from pipeline.models.clip import load_clip
from pipeline.models.e4e import E4E, E4EConfig, Encoder
from pipeline.models.stylegan2 import Generator

CLIP_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
STYLE_DIM = 32


def tiny_clip(folder: Path):
    torch.manual_seed(1)
    save_file(open_clip.CLIP(**CLIP_CONFIG).state_dict(), folder / "clip.safetensors")
    config = folder / "encode-test-clip.json"
    config.write_text(json.dumps(CLIP_CONFIG))
    return load_clip(
        config.stem, folder / "clip.safetensors", model_config=config, precision="float32"
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    clip = tiny_clip(tmp_path_factory.mktemp("clip"))
    torch.manual_seed(2)
    generator = Generator(64, (16, 16, 16, 16, 8), style_dim=STYLE_DIM).eval()
    generator.latent_avg.copy_(torch.randn(STYLE_DIM))
    config = E4EConfig(
        num_w=generator.layout.num_w,
        style_dim=STYLE_DIM,
        stage_units=(1, 1, 1, 1),
        stage_widths=(16, 16, 16, 16),
        input_height=64,
        input_width=64,
    )
    average = generator.latent_avg.expand(config.num_w, -1).clone()
    return {"clip": clip, "e4e": E4E(Encoder(config), average).eval(), "generator": generator}


@pytest.fixture(params=["official", "box7"])
def encoders(request, models) -> Encoders:
    return Encoders(**models, clip_pre=request.param)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    shapes = [(64, 64), (90, 70), (64, 64), (33, 120), (1, 1), (90, 70)]
    random = np.random.default_rng(6)
    return [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


ALL = ("clip", "w_plus", "s")


def test_columns_have_the_shapes_of_their_models(encoders, photos):
    rows = encode_images(photos, encoders, ALL)
    assert {name: column.shape for name, column in rows.items()} == {
        "clip": (6, 24),
        "w_plus": (6, 10, STYLE_DIM),
        "s": (6, encoders.generator.layout.total),
    }
    assert all(column.dtype == np.float32 for column in rows.values())


def test_rows_do_not_depend_on_the_batch(encoders, photos):
    together = encode_images(photos, encoders, ALL)
    for row, photo in enumerate(photos):
        alone = encode_images([photo], encoders, ALL)
        for name, column in alone.items():
            np.testing.assert_allclose(together[name][row], column[0], rtol=1e-4, atol=1e-5)


def test_w_plus_and_s_are_those_of_the_models(encoders, photos):
    rows = encode_images(photos[1:2], encoders, ("w_plus", "s"))
    with torch.no_grad():
        w_plus = encoders.e4e(to_float(to_square(photos[1], 64)[None]))
        s = encoders.generator.to_s(w_plus)
    np.testing.assert_allclose(rows["w_plus"], w_plus.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rows["s"], s.numpy(), rtol=1e-5, atol=1e-6)


def test_official_clip_sees_the_image_itself_and_box7_what_e4e_sees(models, photos):
    clip = models["clip"]
    official = encode_images(photos[1:2], Encoders(**models, clip_pre="official"), ["clip"])
    boxed = encode_images(photos[1:2], Encoders(**models, clip_pre="box7"), ["clip"])
    whole = clip.encode_images(photos[1][None], "official").numpy()
    fitted = clip.encode_images(to_square(photos[1], 64)[None], "box7").numpy()
    np.testing.assert_allclose(official["clip"], whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(boxed["clip"], fitted, rtol=1e-4, atol=1e-5)


def test_only_the_models_of_the_wanted_columns_are_needed(models, photos):
    rows = encode_images(photos, Encoders(clip=models["clip"]), ["clip"])
    assert list(rows) == ["clip"]
    rows = encode_images(photos, Encoders(e4e=models["e4e"]), ["w_plus"])
    assert list(rows) == ["w_plus"]


def test_views_are_all_that_the_models_need(encoders):
    photo = np.random.default_rng(6).integers(0, 256, (500, 400, 3), dtype=np.uint8)
    views = image_views(photo, encoders, ALL)
    assert views.nbytes < 20_000
    clock = StageClock(torch.device("cpu"))
    rows = encode_views([views], encoders, ALL, clock)
    for name, column in encode_images([photo], encoders, ALL).items():
        np.testing.assert_array_equal(rows[name], column)
    assert clock.seconds().keys() == {"copy", "clip", "e4e"}
    assert min(clock.seconds().values()) > 0


@pytest.mark.gpu
def test_rows_on_a_gpu_are_those_of_the_processor(encoders, photos):
    on_gpu = Encoders(
        clip=copy.deepcopy(encoders.clip),
        e4e=copy.deepcopy(encoders.e4e).to("cuda"),
        generator=copy.deepcopy(encoders.generator).to("cuda"),
        clip_pre=encoders.clip_pre,
    )
    on_gpu.clip._towers.to("cuda")
    clock = StageClock(on_gpu.device)
    views = [image_views(photo, on_gpu, ALL) for photo in photos]
    rows = encode_views(views, on_gpu, ALL, clock)
    for name, column in encode_images(photos, encoders, ALL).items():
        np.testing.assert_allclose(rows[name], column, rtol=1e-3, atol=1e-4)
    assert min(clock.seconds().values()) > 0


def test_missing_model_is_named(models, photos):
    with pytest.raises(ValueError, match=r"Encoders\.generator is None.*column s"):
        encode_images(photos, Encoders(e4e=models["e4e"]), ["s"])
    with pytest.raises(ValueError, match=r"Encoders\.e4e is None.*box7"):
        encode_images(photos, Encoders(clip=models["clip"], clip_pre="box7"), ["clip"])


def test_unknown_column_and_empty_batch_are_refused(encoders, photos):
    with pytest.raises(ValueError, match=r"clip, w_plus, s, got \['z'\]"):
        encode_images(photos, encoders, ["z"])
    with pytest.raises(ValueError, match="at least one row"):
        encode_images([], encoders, ["clip"])


def test_unknown_preprocessing_is_refused():
    with pytest.raises(ValueError, match="official, box7"):
        Encoders(clip_pre="bicubic_raw")


def test_sampled_row_depends_on_seed_and_index_alone(encoders):
    together = encode_sampled(7, [3, 0, 1_000_000_007, 5], 0.7, encoders, ALL)
    for row, index in enumerate([3, 0, 1_000_000_007, 5]):
        alone = encode_sampled(7, [index], 0.7, encoders, ALL)
        for name, column in alone.items():
            np.testing.assert_allclose(together[name][row], column[0], rtol=1e-4, atol=1e-5)
    other = encode_sampled(8, [3], 0.7, encoders, ["w_plus"])
    assert np.abs(other["w_plus"][0] - together["w_plus"][0]).max() > 1e-2


def test_sampled_z_is_standard_normal_and_replays():
    z = sample_z(1, range(400), 64)
    assert z.dtype == np.float32
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    assert np.array_equal(z[17], sample_z(1, [17], 64)[0])


def test_sampled_clip_is_that_of_one_render_from_s(encoders):
    rows = encode_sampled(7, [2], 1.0, encoders, ALL)
    w_plus, s = torch.from_numpy(rows["w_plus"]), torch.from_numpy(rows["s"])
    with torch.no_grad():
        render = encoders.generator.synthesize(s, w_plus)
        expected = encoders.clip.encode_generated(render, encoders.clip_pre)
    np.testing.assert_allclose(rows["clip"], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_truncation_zero_gives_the_mean_of_w(models):
    rows = encode_sampled(7, [2, 3], 0.0, Encoders(generator=models["generator"]), ["w_plus"])
    mean = models["generator"].latent_avg.numpy()
    np.testing.assert_allclose(rows["w_plus"], np.broadcast_to(mean, (2, 10, STYLE_DIM)), atol=1e-6)
