"""The bundled models do on avatars that nobody trained on what the documentation says."""

from functools import cache

import numpy as np
import pytest
import torch

from pipeline.demo.avatars import draw_avatar
from pipeline.demo.reader import labels_of, load_reader
from pipeline.demo.train_autoencoder import detail_weights, psnr
from pipeline.editing import class_embedding
from pipeline.images import to_float, to_uint8
from pipeline.models.clip import load_clip
from pipeline.models.registry import BUNDLED_FOLDER, model_set
from pipeline.models.weights import load_e4e, load_generator

HELD_OUT_SEED = 31
COUNT = 200
MAX_BYTES = 40_000_000

ZERO_SHOT = {
    "glasses": {
        "none": "face with no glasses",
        "eyeglasses": "face with eyeglasses",
        "sunglasses": "face with sunglasses",
    },
    "hat": {
        "none": "face with no hat",
        "hat": "face with a hat",
        "winter hat": "face with a beanie",
    },
    "beard": {"no": "face with no beard", "yes": "face with a beard"},
    "hair_color": {
        color: f"face with {color} hair"
        for color in ("black", "brown", "blond", "red", "gray", "pink")
    },
    "skin_tone": {
        tone: f"face with {tone} skin" for tone in ("pale", "light", "tanned", "brown", "dark")
    },
}


@cache
def held_out():
    avatars = [draw_avatar(HELD_OUT_SEED, index) for index in range(COUNT)]
    return np.stack([a.pixels() for a in avatars]), [a.attributes for a in avatars]


@cache
def clip():
    known = model_set("avatar")
    path = known.clip_path(BUNDLED_FOLDER)
    assert known.clip_name is not None
    assert path is not None
    return load_clip(known.clip_name, path, model_config=known.clip_config)


@cache
def image_embeddings():
    pixels, _people = held_out()
    with torch.no_grad():
        return torch.nn.functional.normalize(clip().encode_images(pixels, "official"), dim=1)


def visible(person, attribute):
    """The value of an attribute as a name in ZERO_SHOT; None where it cannot be seen."""
    if attribute == "beard":
        return {"none": "no", "moustache": None}.get(person.facial_hair, "yes")
    if attribute == "hair_color" and person.hair_style in ("hidden", "bald"):
        return None
    return getattr(person, attribute)


@pytest.mark.parametrize("attribute", ZERO_SHOT)
def test_clip_reads_the_attribute_without_training_on_it(attribute):
    names = list(ZERO_SHOT[attribute])
    with torch.no_grad():
        texts = torch.stack([class_embedding(clip(), t) for t in ZERO_SHOT[attribute].values()])
    guesses = (image_embeddings() @ texts.T).argmax(dim=1).tolist()
    truth = [visible(person, attribute) for person in held_out()[1]]
    hits = [names[g] == t for g, t in zip(guesses, truth, strict=True) if t is not None]
    assert len(hits) > COUNT / 2
    assert np.mean(hits) >= 0.95


@cache
def reconstructions():
    known = model_set("avatar")
    generator, _ = load_generator(known.generator_path(BUNDLED_FOLDER))
    e4e, _ = load_e4e(known.encoder_path(BUNDLED_FOLDER), generator)
    with torch.no_grad():
        return generator(e4e(to_float(held_out()[0])))


def test_the_encoder_and_generator_reconstruct_held_out_avatars():
    assert psnr(reconstructions(), to_float(held_out()[0])) >= 25.0


def readings_right(pixels):
    """Attribute -> share of the held-out avatars that the reader reads right in `pixels`."""
    truth = labels_of(held_out()[1])
    found = load_reader(BUNDLED_FOLDER / "reader.safetensors").read(pixels)
    return {name: float((found[name] == truth[name]).float().mean()) for name in truth}


def test_the_reader_reads_drawings():
    right = readings_right(held_out()[0])
    assert min(right.values()) >= 0.98


def test_reconstructions_show_the_attributes():
    right = readings_right(np.asarray(to_uint8(reconstructions())))
    assert np.mean(list(right.values())) >= 0.93


def test_colours_are_in_s_where_edits_reach_them():
    generator, _ = load_generator(model_set("avatar").generator_path(BUNDLED_FOLDER))
    w_plus = torch.randn(2, generator.layout.num_w, generator.style_dim)
    assert all(torch.equal(*style) for style in generator.rgb_styles(w_plus))


def test_every_attribute_weighs_the_same_however_few_pixels_show_it():
    labels = {"mouth": torch.arange(12) % 2, "clothes": torch.arange(12) // 2 % 3}
    images = torch.full((12, 3, 64, 64), 128, dtype=torch.uint8)
    images[labels["mouth"] == 1, :, 40:42, 30:34] = 255
    images[labels["clothes"] == 2, :, 50:, :] = 0
    weights = detail_weights(images, labels)
    assert float(weights.mean()) == pytest.approx(1)
    mouth, clothes = weights[40:42, 30:34].sum(), weights[50:].sum()
    assert float(mouth) == pytest.approx(float(clothes), rel=1e-4)
    assert float(mouth + clothes) == pytest.approx(64 * 64, rel=1e-4)


def test_sampled_codes_give_pictures_as_varied_as_avatars():
    generator, _ = load_generator(model_set("avatar").generator_path(BUNDLED_FOLDER))
    z = torch.randn(128, generator.style_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sampled = generator(generator.broadcast(generator.map(z))).clamp(-1, 1)
    real = to_float(held_out()[0][:128])
    assert abs(sampled.mean() - real.mean()) < 0.1
    ratio = sampled.std(dim=0).mean() / real.std(dim=0).mean()
    assert 0.7 < ratio < 1.3


def test_the_weights_together_stay_below_forty_megabytes():
    sizes = [path.stat().st_size for path in BUNDLED_FOLDER.iterdir()]
    assert len(sizes) >= 4
    assert sum(sizes) < MAX_BYTES
