"""Keys and shapes of the published files, and the weights behind the golden numbers."""

import zlib

import numpy as np
import pytest
import torch

from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.models.e4e import E4EConfig, Encoder
from pipeline.models.s_layout import layout_of_codes
from pipeline.models.stylegan2 import Generator


def listing_of(build, *arguments):
    with torch.device("meta"):
        return {key: list(v.shape) for key, v in build(*arguments).state_dict().items()}


def mapper_listing():
    return listing_of(DeltaMapper, DeltaMapperConfig(widths=layout_of_codes(6048).widths))


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_a_generator_has_the_published_entries(size, recipe):
    listed = recipe.document(f"state_dict_generator_{size}")
    assert listing_of(Generator, size) == listed["g_ema"]
    assert listed["latent_avg"] == [512]


def test_an_e4e_checkpoint_has_the_published_entries(recipe):
    listed = recipe.document("state_dict_e4e_checkpoint")
    encoder = listing_of(Encoder, E4EConfig(num_w=18))
    decoder = listing_of(Generator, 1024)
    ours = {f"encoder.{key}": shape for key, shape in encoder.items()}
    assert (
        ours | {f"decoder.{key}": shape for key, shape in decoder.items()} == listed["state_dict"]
    )
    assert listed["latent_avg"] == [18, 512]


def test_a_delta_mapper_has_the_published_entries(recipe):
    assert mapper_listing() == recipe.document("state_dict_delta_mapper")


@pytest.mark.parametrize("model", ["generator_1024", "e4e_1024", "delta_mapper"])
def test_the_recipe_gives_the_recorded_weights(model, recipe):
    shapes = {
        "generator_1024": lambda: listing_of(Generator, 1024),
        "e4e_1024": lambda: listing_of(Encoder, E4EConfig(num_w=18)),
        "delta_mapper": mapper_listing,
    }[model]()
    recorded = recipe.document("fill_check")["models"][model]
    assert len(recorded) > 30
    for key, record in recorded.items():
        assert shapes[key] == record["shape"]
        value = np.asarray(recipe.value(key, record["shape"]))
        assert value.ravel()[0] == record["first"]
        assert zlib.crc32(np.ascontiguousarray(value, "<f4").tobytes()) == record["crc32"], key
