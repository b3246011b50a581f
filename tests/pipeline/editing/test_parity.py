"""The published editing script, from a photograph to pictures, with stand-ins for CLIP."""

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.editing import PUBLISHED_THRESHOLD, edit_codes, relevance_mask, text_direction
from pipeline.encoding import Encoders, encode_images
from pipeline.images import to_uint8
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.models.e4e import E4E, E4EConfig, Encoder
from pipeline.models.s_layout import layout_of_codes
from pipeline.models.state_dicts import build_empty
from pipeline.models.stylegan2 import Generator
from pipeline.training import TrainedMapper


@pytest.fixture(scope="module")
def trained(recipe):
    config = DeltaMapperConfig(widths=layout_of_codes(6048).widths)
    return TrainedMapper(
        mapper=recipe.fill(build_empty(DeltaMapper, config)),
        s_centre=torch.zeros(config.s_dim),
        s_std=torch.ones(config.s_dim),
        z_score=False,
        step=0,
    )


@pytest.fixture(scope="module")
def rs(recipe):
    """The stand-in for fs3."""
    return recipe.unit(31, (6048, 512)).numpy()


def masked_change(trained, s, clip, direction, rs):
    """What an edit adds to S, and which channels it lets through."""
    mask = relevance_mask(rs, direction.raw.numpy(), threshold=PUBLISHED_THRESHOLD)
    edited = edit_codes(trained, s, clip, direction.unit, mask=mask)
    return edited - torch.as_tensor(s), mask


def test_relevance_and_masked_change_have_parity(recipe, stand_in_clip, trained, rs, compare):
    golden = recipe.golden("inference", whole=True)
    direction = text_direction(stand_in_clip, "face with smile", "face")
    compare("inference score", rs @ direction.raw.numpy(), golden["score"])
    s = recipe.normal(21, (4, 6048), scale=2.0, shift=1.0)[:1]
    clip = recipe.unit(22, (4, 512))[:1]
    change, mask = masked_change(trained, s, clip, direction, rs)
    np.testing.assert_array_equal(~mask, golden["suppressed"].astype(bool))
    kept = np.flatnonzero(mask).astype("<i4")
    assert (len(kept), zlib.crc32(kept.tobytes())) == (
        golden["n_kept"],
        golden["kept_index_crc32"],
    )
    whole = trained.predict(s, torch.cat([clip, direction.unit[None]], dim=1))[0]
    compare("inference delta_s", whole, golden["delta_s"])
    compare("inference masked_delta_s", change[0], golden["masked_delta_s"])


def test_global_directions_share_the_text_direction_and_the_score(
    recipe, stand_in_clip, rs, compare
):
    golden = recipe.golden("global_directions", whole=True)
    direction = text_direction(stand_in_clip, "face with smile", "face")
    compare("global_directions dt", direction.unit, golden["dt"])
    score = rs @ direction.unit.numpy()
    compare("global_directions score", score, golden["score"])
    mask = relevance_mask(rs, direction.unit.numpy(), threshold=0.1)
    assert mask.sum() == golden["num_c"]


@pytest.mark.slow
def test_a_photograph_is_edited_as_published(recipe, stand_in_clip, trained, rs, compare):
    golden = recipe.golden("pipeline", whole=True)
    generator = recipe.fill(Generator(1024))
    encoder = recipe.fill(build_empty(Encoder, E4EConfig(num_w=18)))
    e4e = E4E(encoder, recipe.normal(53, (18, 512), scale=0.5))
    photo = to_uint8(recipe.smooth_image(54, 256))[0].numpy()
    np.testing.assert_array_equal(photo[::8, ::8], golden["input_every8"])
    encoders = Encoders(clip=stand_in_clip, e4e=e4e, generator=generator, clip_pre="box7")
    rows = encode_images([photo], encoders, ("clip", "w_plus", "s"))
    compare("pipeline wplus", rows["w_plus"][0], golden["wplus"])
    compare("pipeline s", rows["s"][0], golden["s"])
    s, w_plus = torch.from_numpy(rows["s"]), torch.from_numpy(rows["w_plus"])
    pictures = [generator.synthesize(s, w_plus)]
    for number, text in enumerate(("face with smile", "face with eyeglasses")):
        direction = text_direction(stand_in_clip, text, "face")
        condition = torch.cat(
            [F.normalize(torch.from_numpy(rows["clip"])), direction.unit[None]], 1
        )
        compare(f"pipeline cond {number}", condition[0], golden["cond"][number])
        raw = trained.predict(s, condition)[0]
        compare(f"pipeline delta_s_raw {number}", raw, golden["delta_s_raw"][number])
        change, mask = masked_change(trained, rows["s"], rows["clip"], direction, rs)
        assert mask.sum() == golden["n_changed"][number]
        total = change.double().sum()
        compare(f"pipeline applied_delta_sum {number}", total, golden["applied_delta_sum"][number])
        pictures.append(generator.synthesize(s + change, w_plus))
    images = torch.cat(pictures)
    y, x = golden["pixel_yx"].T
    compare("pipeline image_64", F.avg_pool2d(images, 16), golden["image_64"])
    compare("pipeline image_mean", images.mean(dim=(2, 3)), golden["image_mean"])
    deviation = images.double().std(dim=(2, 3), correction=0)
    compare("pipeline image_std", deviation, golden["image_std"])
    compare("pipeline image_pixels", images[:, :, y, x], golden["image_pixels"])
