"""Every kind of file that users have under an image's name, made as real bytes."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional as vision

from pipeline import images
from pipeline.errors import ImageError
from pipeline.images import (
    decode_image,
    encode_png,
    fit_image,
    nvjpeg_fault,
    to_float,
    to_square,
    to_uint8,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_that_claims(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in chunks)


def refused(data: bytes, **options) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    assert caught.value.reason in images.REASONS
    return caught.value


def test_png_comes_back_pixel_for_pixel():
    pixels = noise(7, 9)
    assert np.array_equal(decode_image(encode_png(pixels)), pixels)


def test_jpeg_is_rgb_of_its_size():
    pixels = decode_image(encoded(Image.new("RGB", (30, 20), RED), "JPEG", quality=95))
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - RED).max() <= 3


def smooth(height: int, width: int) -> Image.Image:
    small = Image.fromarray(noise(height // 8 + 1, width // 8 + 1))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 30},
        {"quality": 100, "subsampling": "4:4:4"},
        {"quality": 85, "subsampling": "4:2:2"},
        {"quality": 85, "progressive": True},
        {"quality": 85, "restart_marker_blocks": 3},
    ],
)
def test_jpegs_have_the_pixels_that_pil_gives_them(options):
    for shape in ((64, 64), (117, 203), (1, 9)):
        data = encoded(smooth(*shape), "JPEG", **options)
        assert np.array_equal(decode_image(data), np.array(Image.open(io.BytesIO(data))))


def test_jpegs_that_are_turned_or_gray_have_the_pixels_that_pil_gives_them():
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(smooth(40, 64), "JPEG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    assert np.array_equal(decode_image(turned), np.array(expected))
    gray = encoded(smooth(40, 64).convert("L"), "JPEG")
    assert np.array_equal(decode_image(gray), np.array(Image.open(io.BytesIO(gray)).convert("RGB")))


def test_damage_within_a_jpeg_is_judged_as_pil_judges_it():
    whole = bytearray(encoded(smooth(96, 96), "JPEG", quality=90))
    random = np.random.default_rng(3)
    for _ in range(60):
        data = bytearray(whole)
        for place in random.integers(200, len(data), 3):
            data[place] = random.integers(0, 256)
        try:
            expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        except OSError:
            expected = None
        if expected is None:
            assert refused(bytes(data)).reason in ("truncated", "not_an_image")
        else:
            assert np.array_equal(decode_image(bytes(data)), expected)


def test_zero_bytes_are_empty():
    error = refused(b"")
    assert error.reason == "empty"
    assert "0 bytes" in error.detail


def test_text_under_an_image_name_is_not_an_image():
    error = refused(b"dear diary, today I renamed a file")
    assert error.reason == "not_an_image"
    assert "dear dia" in error.detail


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_cut_off_files_are_truncated(kind, kept):
    data = encoded(Image.fromarray(noise(64, 64)), kind)
    assert refused(data[: int(kept * len(data))]).reason == "truncated"


def test_png_with_a_damaged_chunk_is_truncated():
    data = bytearray(encode_png(noise(32, 32)))
    data[len(data) // 2] ^= 0xFF
    assert refused(bytes(data)).reason == "truncated"


def test_cmyk_jpeg_has_the_colours_of_its_rgb_version():
    picture = Image.new("RGB", (16, 16), (200, 40, 90))
    pixels = decode_image(encoded(picture.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - (200, 40, 90)).max() <= 4


def test_16_bit_gray_is_rounded_and_not_clipped():
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    pixels = decode_image(encoded(Image.fromarray(levels), "PNG"))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (pixels == pixels[:, :, :1]).all()


def test_16_bit_rgb_keeps_its_levels():
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    body = zlib.compress(b"\0" + struct.pack(">HHH", 65535, 32896, 0))
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in chunks)
    assert decode_image(data).tolist() == [[[255, 128, 0]]]


def test_transparent_palette_entries_become_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    data = encoded(picture, "PNG", transparency=b"\x00\xff")
    assert decode_image(data).tolist() == [[[*WHITE], [*BLUE]]]


def test_half_transparent_pixels_are_blended_with_white():
    data = encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)), "PNG")
    assert decode_image(data).tolist() == [[[255, 127, 127]]]


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data)[2, 2].tolist() == [*GREEN]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_turns_the_picture_upright(kind):
    upright = Image.new("RGB", (48, 32), RED)
    upright.paste(BLUE, (0, 0, 24, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that 90 degrees clockwise makes it upright
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    pixels = decode_image(encoded(stored, kind, exif=exif))
    assert pixels.shape == (32, 48, 3)
    assert np.abs(pixels[16, 6].astype(int) - BLUE).max() < 10
    assert np.abs(pixels[16, 40].astype(int) - RED).max() < 10


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_agrees_with_pil(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(noise(5, 3)), "PNG", exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode_image(data), expected)


def test_unreadable_exif_does_not_cost_the_picture():
    picture = Image.fromarray(noise(8, 8))
    data = encoded(picture, "PNG", exif=b"Exif\x00\x00not a TIFF header")
    assert np.array_equal(decode_image(data), np.array(picture))


def test_one_pixel_is_a_picture():
    pixels = decode_image(encoded(Image.new("RGB", (1, 1), GREEN), "PNG"))
    assert pixels.tolist() == [[[*GREEN]]]
    assert (to_square(pixels, 8) == GREEN).all()


def test_bomb_is_refused_by_its_header():
    # Its pixels are missing: decoding them first would end as `truncated`.
    error = refused(png_that_claims(20_000, 20_000))
    assert error.reason == "too_large"
    assert "max_pixels" in error.detail


def test_size_between_the_two_limits_of_pil_is_refused_without_a_warning():
    assert refused(png_that_claims(10_000, 10_000)).reason == "too_large"


def test_limit_is_the_callers():
    data = encode_png(noise(10, 11))
    assert decode_image(data, max_pixels=110).shape == (10, 11, 3)
    error = refused(data, max_pixels=109)
    assert error.reason == "too_large"
    assert "11 x 10" in error.detail
    assert "109" in error.detail


def test_floating_point_pixels_are_unsupported():
    data = encoded(Image.new("F", (2, 2), 0.5), "TIFF")
    assert refused(data).reason == "unsupported"


def test_formats_that_start_programs_are_not_opened():
    data = encoded(Image.new("RGB", (4, 4)), "EPS")
    assert refused(data).reason == "not_an_image"


def test_phone_formats_are_named():
    error = refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    assert error.reason == "unsupported"
    assert "HEIC" in error.detail


def test_warnings_of_pil_stay_muted_in_threads_and_filters_come_back():
    before = list(warnings.filters)
    leaked: list[BaseException] = []

    def decode_often() -> None:
        for _ in range(30):
            try:
                decode_image(png_that_claims(10_000, 10_000))
            except ImageError:
                continue
            except Warning as warning:
                leaked.append(warning)

    threads = [threading.Thread(target=decode_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert leaked == []
    assert list(warnings.filters) == before


@pytest.mark.parametrize("shape", [(256, 256), (300, 200), (199, 301), (64, 64), (1, 1), (90, 7)])
def test_fit_is_the_published_resize_and_crop(shape):
    pixels = noise(*shape)
    picture = vision.center_crop(
        vision.resize(Image.fromarray(pixels), 128, vision.InterpolationMode.BILINEAR), 128
    )
    difference = np.abs(to_square(pixels, 128).astype(int) - np.array(picture).astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_fit_takes_sizes_that_are_not_square():
    assert fit_image(noise(100, 100), 96, 128).shape == (96, 128, 3)


def test_long_strip_is_fitted_without_being_blown_up():
    assert to_square(np.zeros((1, 500_000, 3), np.uint8), 256).shape == (256, 256, 3)


def test_levels_survive_the_way_to_floats_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    floats = to_float(levels)
    assert floats.shape == (1, 3, 16, 16)
    assert floats.dtype == torch.float32
    assert (floats.min().item(), floats.max().item()) == (-1.0, 1.0)
    assert np.array_equal(to_uint8(floats).numpy(), levels)


def test_values_outside_the_range_are_clamped():
    images_1 = torch.tensor([-7.0, 7.0, 0.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert to_uint8(images_1)[0, 0, :, 0].tolist() == [0, 255, 128]


def test_read_only_pixels_are_taken_without_a_warning():
    pixels = noise(2, 2)[None]
    pixels.flags.writeable = False
    assert to_float(pixels).shape == (1, 3, 2, 2)


@pytest.fixture
def asked_of_torchvision(monkeypatch):
    """Devices that torchvision was asked to decode on; a processor does it in their place."""
    asked, decode = [], torchvision.io.decode_jpeg

    def decode_here(data, mode, device):
        asked.append(device)
        return decode(data, mode=mode)

    monkeypatch.setattr(torchvision.io, "decode_jpeg", decode_here)
    return asked


def test_a_gpu_decodes_plain_jpegs_and_nothing_else(asked_of_torchvision):
    picture = Image.fromarray(noise(24, 40))
    jpeg = encoded(picture, "JPEG")
    on_gpu = decode_image(jpeg, jpeg_device="cuda:1")
    assert asked_of_torchvision == ["cuda:1"]
    assert np.array_equal(on_gpu, decode_image(jpeg))
    decode_image(encode_png(noise(8, 8)), jpeg_device="cuda:1")
    decode_image(encoded(picture.convert("CMYK"), "JPEG"), jpeg_device="cuda:1")
    assert asked_of_torchvision == ["cuda:1", "cpu"]


def test_a_jpeg_that_the_gpu_decodes_is_turned_upright(asked_of_torchvision):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(noise(24, 40)), "JPEG", exif=exif)
    assert decode_image(turned, jpeg_device="cuda:0").shape == (40, 24, 3)
    assert asked_of_torchvision == ["cuda:0"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(RuntimeError("unsupported"), "PIL"), (torch.OutOfMemoryError("full"), "raised")],
)
def test_what_a_gpu_refuses_is_left_to_pil_unless_its_memory_is_full(monkeypatch, error, outcome):
    def refuse(*_arguments, **_options):
        raise error

    jpeg = encoded(Image.fromarray(noise(24, 40)), "JPEG")
    wanted = decode_image(jpeg)
    monkeypatch.setattr(torchvision.io, "decode_jpeg", refuse)
    if outcome == "PIL":
        assert np.array_equal(decode_image(jpeg, jpeg_device="cuda:0"), wanted)
    else:
        with pytest.raises(torch.OutOfMemoryError):
            decode_image(jpeg, jpeg_device="cuda:0")


def test_where_there_is_no_gpu_nvjpeg_says_so():
    assert "the models are on cpu" in nvjpeg_fault("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="nvJPEG works where a GPU is")
def test_where_torchvision_cannot_decode_nvjpeg_says_so():
    assert "torchvision cannot decode there" in nvjpeg_fault("cuda")
