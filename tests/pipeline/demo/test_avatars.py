import hashlib

import numpy as np
import pytest

from pipeline.demo.avatars import HATS, IMAGE_SIZE, draw_avatar


def test_an_avatar_depends_on_its_seed_and_index_alone():
    first = draw_avatar(3, 17)
    for other in range(5):
        draw_avatar(3, other)
    again = draw_avatar(3, 17)
    assert again.svg == first.svg
    assert again.attributes == first.attributes
    assert draw_avatar(4, 17).svg != first.svg


def test_pixels_are_the_same_on_every_machine():
    pixels = draw_avatar(0, 0).pixels()
    assert pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert pixels.dtype == np.uint8
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "f819a65b50f02b85"


@pytest.mark.parametrize("size", [32, 64, 200])
def test_pictures_come_in_any_size(size):
    assert draw_avatar(0, 1).pixels(size).shape == (size, size, 3)


def test_hidden_attributes_are_said_to_be_hidden():
    people = [draw_avatar(1, index).attributes for index in range(150)]
    for person in people:
        assert (person.hat in HATS) == (person.hair_style == "hidden")
        assert (person.glasses == "sunglasses") == (person.eyes == "hidden")
        assert (person.clothes == "suit") == (person.clothes_color == "hidden")
        if person.facial_hair != "none":
            assert person.hair_color != "hidden"


def test_skin_tones_differ_in_the_picture_as_in_the_attribute():
    brightness: dict[str, list[float]] = {}
    for index in range(120):
        avatar = draw_avatar(2, index)
        if avatar.attributes.facial_hair == "none":
            neck = avatar.pixels()[48:51, 29:35].mean()
            brightness.setdefault(avatar.attributes.skin_tone, []).append(float(neck))
    means = {tone: np.mean(values) for tone, values in brightness.items()}
    assert means["pale"] > means["light"] > means["tanned"] > means["brown"] > means["dark"]
