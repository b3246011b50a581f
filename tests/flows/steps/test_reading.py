import numpy as np
import pytest

from flows.steps import reading
from flows.steps.reading import decode_ahead, read_and_decode, read_picture
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


def test_images_come_in_order_whatever_the_number_of_threads(items):
    decoded = list(decode_ahead(items, num_workers=4, depth=3))
    assert [image.item for image in decoded] == items
    values = [image.pixels[0, 0, 0] for image in decoded if image.pixels is not None]
    assert values == [number for number in range(12) if number != 5]


def test_a_bad_file_becomes_a_reason(items):
    bad = read_and_decode(items[5])
    assert (bad.pixels, bad.reason) == (None, "not_an_image")


@pytest.mark.parametrize(("depth", "room", "most"), [(5, 10**9, 5), (100, 3 * 192, 3)])
def test_few_images_wait_and_fewer_when_they_are_large(items, monkeypatch, depth, room, most):
    monkeypatch.setattr(reading, "MAX_WAITING_BYTES", room)
    taken = 0

    def counted():
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    for given, _image in enumerate(decode_ahead(counted(), num_workers=1, depth=depth)):
        assert taken - given <= most + 1


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path):
    (tmp_path / "me.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"me\.png: the file has 0 bytes"):
        read_picture(tmp_path / "me.png")
