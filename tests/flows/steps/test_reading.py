import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from flows.steps import reading
from flows.steps.progress import Stopwatch
from flows.steps.reading import ImageReader, decode_ahead, groups, read_picture
from pipeline.encoding import Encoders
from pipeline.errors import ImageError
from pipeline.images import encode_png
from stores.sources import scan_images


@pytest.fixture
def items(tmp_path):
    for number in range(12):
        pixels = np.full((8, 8, 3), number, dtype=np.uint8)
        (tmp_path / f"{number:02}.png").write_bytes(encode_png(pixels))
    (tmp_path / "05.png").write_bytes(b"no image at all")
    return scan_images([tmp_path]).items


@pytest.fixture
def read():
    return ImageReader(encoders=small_encoders(), columns=("w_plus",), watch=Stopwatch())


def small_encoders():
    """Of 32-px images."""
    from pipeline.models.e4e import E4E, E4EConfig, Encoder

    config = E4EConfig(
        num_w=8,
        style_dim=8,
        stage_units=(1, 1, 1, 1),
        stage_widths=(16, 16, 16, 16),
        input_height=32,
        input_width=32,
    )
    return Encoders(e4e=E4E(Encoder(config), torch.zeros(8, 8)))


def test_images_come_in_order_whatever_the_number_of_threads(items, read):
    decoded = list(decode_ahead(items, read, num_workers=4, depth=3))
    assert [image.item for image in decoded] == items
    values = [image.views.e4e[0, 0, 0] for image in decoded if image.views is not None]
    assert values == [number for number in range(12) if number != 5]


def test_a_bad_file_becomes_a_reason(items, read):
    (bad,) = read([items[5]])
    assert (bad.views, bad.reason) == (None, "not_an_image")


def test_decoding_holds_a_processor_and_reading_does_not(items, read, monkeypatch):
    processor = threading.BoundedSemaphore(1)
    free_while = {"reading": [], "decoding": []}

    def noted(step, function):
        def call(argument, **options):
            free_while[step].append(processor._value)
            return function(argument, **options)

        return call

    monkeypatch.setattr(reading, "read_image_bytes", noted("reading", reading.read_image_bytes))
    monkeypatch.setattr(reading, "decode_image", noted("decoding", reading.decode_image))
    held = replace(read, processor=processor)
    assert [image.item for image in held(items[:6])] == items[:6]
    assert free_while == {"reading": [1] * 6, "decoding": [0] * 6}
    assert processor._value == 1


def test_of_an_image_only_what_the_models_see_is_kept(items, read):
    (image,) = read([items[0]])
    assert image.views.e4e.shape == (32, 32, 3)
    assert image.views.nbytes == 32 * 32 * 3
    assert read.watch.seconds.keys() == {"read", "decode"}


@pytest.mark.parametrize(
    ("depth", "room", "limits"),
    [(5, 10**9, (10**9, 5)), (100, 3 * 3072, (1, 3)), (100, 3 * 3072, (10**9, 12))],
)
def test_few_images_wait_and_fewer_when_they_are_large(
    items, read, monkeypatch, depth, room, limits
):
    group_bytes, most = limits
    monkeypatch.setattr(reading, "MAX_WAITING_BYTES", room)
    monkeypatch.setattr(reading, "GROUP_BYTES", group_bytes)
    taken = 0

    def counted():
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    for given, _image in enumerate(decode_ahead(counted(), read, num_workers=1, depth=depth)):
        assert taken - given <= most + 1


@pytest.mark.parametrize(("size_bytes", "sizes"), [(100, [5, 5, 2]), (10**6, [1] * 12)])
def test_small_files_are_read_together_and_large_ones_alone(items, size_bytes, sizes):
    sized = [replace(item, size_bytes=size_bytes) for item in items]
    found = list(groups(sized, most_items=5))
    assert [len(group) for group in found] == sizes
    assert [item for group in found for item in group] == sized


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path):
    (tmp_path / "me.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"me\.png: the file has 0 bytes"):
        read_picture(tmp_path / "me.png")
