"""Encoded bytes <-> uint8 pixels [H, W, 3] <-> float32 batches [N, 3, H, W] in -1..1.

`decode_image` is the only door for pictures from outside: every file either becomes plain RGB or
raises `ImageError` with one of the reasons in `REASONS`. Letters of shapes: pipeline/shapes.py.
"""

import io
import math
import struct
import sys
import threading
import warnings
import zlib
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.errors import ImageError
from pipeline.shapes import Pixels

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Decoders in use. A closed list: others of PIL start programs (EPS) or guess at raw bytes."""

REASONS = ("empty", "not_an_image", "truncated", "too_large", "unsupported")
"""Every value of `ImageError.reason`; `truncated` covers all damage behind a valid header."""

MAX_PIXELS = 178_956_970 // 2
"""Default limit on width times height: PIL's own, 89 million pixels, 268 MB of RGB."""

_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
)
# What PIL's decoders raise on damaged data, beside OSError.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
)
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _QuietPillow:
    """Mutes PIL's warnings while at least one thread decodes.

    `warnings.catch_warnings` alone would restore another thread's filters half-way through, so the
    filters are saved by the first thread in and restored by the last one out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._active == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._active += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._active -= 1
            if self._active == 0:
                self._saved.__exit__(kind, error, trace)


QUIET_PILLOW = _QuietPillow()
"""Around the decoding of many images: changing filters for each costs a fifth of a small one."""


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, jpeg_device: str = "cpu") -> Pixels:
    """Encoded image -> uint8 RGB [H, W, 3], upright.

    EXIF orientation is applied, transparency is composited on white, 16-bit gray is rounded to 8
    bits, CMYK and palettes are converted, and an animation gives its first frame.

    Args:
        data: the whole file.
        max_pixels: largest accepted width times height; read from the header, before any pixel is
            decoded. Above twice PIL's own limit (`MAX_PIXELS`) PIL refuses whatever is given here.
        jpeg_device: what decodes plain JPEGs: cpu (libjpeg-turbo, PIL's pixels), or a CUDA device
            (nvJPEG, whose pixels differ by a few levels). Pixels come back to the processor.

    Raises:
        ImageError: `reason` is one of `REASONS`, `detail` says what was found and what to do.
    """
    if not data:
        raise ImageError("empty", "the file has 0 bytes; fetch or export it again")
    with QUIET_PILLOW:
        picture = _open(data)
        if picture.width * picture.height > max_pixels:
            raise _too_large(f"{picture.width} x {picture.height} px", max_pixels)
        try:
            plain = _plain_jpeg(picture, data, jpeg_device)
            if plain is None:
                picture.load()
            turn = _UPRIGHT.get(_orientation(picture))
            if plain is not None and turn is None:
                return plain
            rgb = _to_rgb(picture) if plain is None else Image.fromarray(plain)
        except ImageError:
            raise
        except _DAMAGE as error:
            raise ImageError(
                "truncated",
                f"{picture.format} of {picture.width} x {picture.height} px with {len(data)} bytes "
                f"cannot be decoded to its end ({error}); fetch or export it again",
            ) from error
        return np.array(rgb if turn is None else rgb.transpose(turn))


def _open(data: bytes) -> Image.Image:
    """Parse the header only; pixels stay undecoded."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(str(error), 2 * MAX_PIXELS) from error
    except _DAMAGE as error:
        if data.startswith(_SIGNATURES) or (data[:4], data[8:12]) == (b"RIFF", b"WEBP"):
            raise ImageError(
                "truncated",
                f"the header is damaged or cut off ({len(data)} bytes); fetch or export it again",
            ) from error
        if data[4:8] == b"ftyp":  # ISO media: HEIC, AVIF, video
            raise ImageError(
                "unsupported", f"HEIC, AVIF or video ({data[8:12]!r}); convert it to JPEG or PNG"
            ) from error
        raise ImageError(
            "not_an_image",
            f"the content starts with {data[:8]!r}, which is none of {', '.join(FORMATS)}",
        ) from error


def _plain_jpeg(picture: Image.Image, data: bytes, device: str) -> Pixels | None:
    """Pixels of a JPEG of three colour components, undisturbed by EXIF; None for any other file.

    torchvision's libjpeg-turbo gives PIL's pixels, bit for bit, in three quarters of the time: PIL
    widens rows to four bytes a pixel and `np.array` narrows them again. What it or nvJPEG stumbles
    over is left to PIL, whose judgement counts.
    """
    if (picture.format, picture.mode) != ("JPEG", "RGB") or "torch" not in sys.modules:
        return None  # a process that looks at a few pictures need not load torch for them
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        # A copy, for torch has no tensors that cannot be written to.
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    except torch.OutOfMemoryError:
        raise  # says nothing about the file: PIL's pixels would be others than the next run's
    except RuntimeError:
        return None
    assert isinstance(pixels, torch.Tensor), "one file gives one tensor"
    return pixels.permute(1, 2, 0).cpu().numpy()


@cache
def nvjpeg_fault(device: str) -> str | None:
    """Why nvJPEG cannot decode on a device; None where it does.

    To be asked once before many images: what nvJPEG refuses is left to PIL one by one, and a
    torchvision without it would leave everything.
    """
    import torch
    from torchvision.io import decode_jpeg

    if torch.device(device).type != "cuda":
        return f"the models are on {device}, and nvJPEG decodes on a CUDA device"
    sample = io.BytesIO()
    Image.new("RGB", (16, 16)).save(sample, format="JPEG")
    try:
        decode_jpeg(torch.frombuffer(sample.getbuffer(), dtype=torch.uint8), device=device)
    except RuntimeError as error:
        return f"torchvision cannot decode there ({error})"
    return None


def _too_large(found: str, limit: int) -> ImageError:
    return ImageError(
        "too_large", f"{found} is above the limit of {limit} px; resize it or raise max_pixels"
    )


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation 1 to 8; unreadable EXIF counts as upright, since the pixels are sound."""
    try:
        return picture.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode of PIL -> mode RGB."""
    if picture.mode == "F" or (picture.mode == "I" and picture.format == "TIFF"):
        raise ImageError(
            "unsupported",
            f"{picture.format} with 32 bits a channel has no defined white; export it with 8 or 16",
        )
    if picture.mode.startswith("I"):
        wide = np.asarray(picture).astype(np.uint32)
        # 65535 = 255 * 257, so this is round(value / 257); PIL's own conversion clips at 255.
        gray = ((wide + 128) // 257).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def fit_image(pixels: Pixels, height: int, width: int) -> Pixels:
    """uint8 [H, W, 3] -> uint8 [height, width, 3]: resize to cover, then crop the centre.

    The filter is PIL's antialiased bilinear one, which the published real-image scripts of e4e and
    DeltaEdit use (torchvision ``Resize``); an image of the right size comes back as it is.
    """
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels
    covering = max(width, height * columns // rows), max(height, width * rows // columns)
    left, top = round((covering[0] - width) / 2), round((covering[1] - height) / 2)
    # The crop is taken in the source: a 1 x 1,000,000 strip must not be blown up before it is cut.
    x, x_box = _span(left, width, columns / covering[0], columns)
    y, y_box = _span(top, height, rows / covering[1], rows)
    part = Image.fromarray(np.ascontiguousarray(pixels[y, x]))
    box = (x_box[0], y_box[0], x_box[1], y_box[1])
    return np.array(part.resize((width, height), Image.Resampling.BILINEAR, box))


def _span(start: int, length: int, scale: float, limit: int) -> tuple[slice, tuple[float, float]]:
    """Where `length` pixels from `start` on come from along one axis of the source.

    Args:
        start: first kept pixel of the resized axis.
        length: number of kept pixels.
        scale: source pixels per resized pixel.
        limit: pixels of the source.

    Returns:
        The pixels of the source that the filter reads, and the kept part's bounds among them.
    """
    first, last = start * scale, min((start + length) * scale, limit)
    reach = math.ceil(max(scale, 1.0)) + 1
    read = slice(max(int(first) - reach, 0), min(math.ceil(last) + reach, limit))
    return read, (first - read.start, last - read.start)


def to_square(pixels: Pixels, size: int) -> Pixels:
    """uint8 [H, W, 3] -> uint8 [size, size, 3]; `fit_image` of a square."""
    return fit_image(pixels, size, size)


def pixel_tensor(pixels: "Pixels | Tensor") -> "Tensor":
    """uint8 array or tensor of any shape -> tensor on its own memory where that is writable."""
    import torch

    if isinstance(pixels, torch.Tensor):
        return pixels
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def to_float(pixels: "Pixels | Tensor") -> "Tensor":
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W], 0 to -1 and 255 to 1."""
    return pixel_tensor(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_uint8(images: "Tensor") -> "Tensor":
    """Float [N, 3, H, W] in -1..1 -> uint8 [N, H, W, 3], clamped and rounded."""
    import torch

    levels = images.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def encode_png(pixels: Pixels) -> bytes:
    """uint8 [H, W, 3] -> the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
