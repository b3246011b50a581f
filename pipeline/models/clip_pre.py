"""CLIP's input from pixels, in batches on any device: the `official` and the `box7` recipe.

Both are separable: one matrix per axis, ``Y = A X B^T``. Rows of such a matrix are zero outside a
short band, so it is applied in blocks of rows that read only their own columns of the input.
Letters of shapes: pipeline/shapes.py.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.shapes import Pixels

Doubles = NDArray[np.float64]
"""float64 weights, before they go to the device."""

ClipPre = Literal["official", "box7"]
CLIP_PRES = get_args(ClipPre)

# Pillow's Resample.c: weights are integers of 22 fractional bits, each pass rounds to 8-bit levels.
WEIGHT_BITS = 22
LOW_BITS = 11
BLOCK_ROWS = 16
MAX_ASPECT = 4
EXACT_TAPS = 64  # bound on taps * 2**10 * 255 < 2**24, where float32 stops counting in ones


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipInput:
    """What the `official` recipe of a model is made of (open_clip's ``preprocess_cfg``)."""

    size: int
    """Side of the square input in pixels."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Subtracted per channel from levels in 0..1; default: OpenAI's."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    """Divides per channel after the mean is subtracted; default: OpenAI's."""
    interpolation: str = "bicubic"
    """`bicubic` or `bilinear`, antialiased as PIL does it."""
    resize_mode: str = "shortest"
    """`shortest`: the short side to `size`, then a centre crop; `squash`: both sides to `size`."""

    def __post_init__(self) -> None:
        if self.interpolation not in _KERNELS:
            raise ValueError(
                f"interpolation must be one of {', '.join(_KERNELS)}, got {self.interpolation!r}; "
                "correct preprocess_cfg in the model's config"
            )
        if self.resize_mode not in ("shortest", "squash"):
            raise ValueError(
                f"resize_mode must be shortest or squash, got {self.resize_mode!r}; "
                "correct preprocess_cfg in the model's config"
            )


def _cubic(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Keys' kernel with a = -0.5, as in PIL and unlike torch's -0.75."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))  # noqa: PLR2004 - the kernel's radius


def _triangle(x: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.maximum(1 - np.abs(x), 0.0)


_KERNELS = {"bicubic": (_cubic, 2.0), "bilinear": (_triangle, 1.0)}


def resize_weights(length: int, target: int, kept: slice, interpolation: str) -> Doubles:
    """PIL's antialiased resampling of one axis: float64 [rows, length] of integers / 2**22.

    Args:
        length: pixels of the input.
        target: pixels of the resized axis.
        kept: rows of the resized axis that survive the crop.
        interpolation: `bicubic` or `bilinear`.
    """
    kernel, radius = _KERNELS[interpolation]
    scale = length / target
    stretch = max(scale, 1.0)
    weights = np.zeros((kept.stop - kept.start, length))
    for row, index in enumerate(range(kept.start, kept.stop)):
        centre = (index + 0.5) * scale
        first = max(int(centre - radius * stretch + 0.5), 0)
        last = min(int(centre + radius * stretch + 0.5), length)
        taps = kernel((np.arange(first, last) - centre + 0.5) / stretch)
        taps = taps / taps.sum() * 2**WEIGHT_BITS
        weights[row, first:last] = np.trunc(taps + np.copysign(0.5, taps))
    return weights


def box7_weights(length: int, target: int) -> Doubles:
    """Nearest upsampling and average pooling in closed form: [target, length], rows sum to 1.

    The published recipe (DeltaEdit, StyleCLIP) enlarges by 7 and pools by ``length / 32`` for a
    224-px input: output i is the mean of the input over ``[i, i + 1] * length / target``, pixels
    weighted by the part of them that lies inside. The enlarged image is never made.
    """
    edges = np.arange(target + 1) * (length / target)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(overlap, 0.0) * (target / length)


@dataclass(frozen=True, slots=True)
class _Block:
    """`BLOCK_ROWS` rows of a banded matrix and the columns that they read."""

    columns: slice
    transposed: Tensor


def _blocks(weights: NDArray[np.floating], device: torch.device) -> tuple[_Block, ...]:
    blocks = []
    for start in range(0, len(weights), BLOCK_ROWS):
        rows = weights[start : start + BLOCK_ROWS]
        used = np.flatnonzero(rows.any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        band = np.ascontiguousarray(rows[:, columns].T)
        blocks.append(_Block(columns, torch.from_numpy(band).to(device)))
    return tuple(blocks)


@lru_cache(maxsize=256)
def _box7_blocks(length: int, target: int, device: torch.device) -> tuple[_Block, ...]:
    return _blocks(box7_weights(length, target).astype(np.float32), device)


@lru_cache(maxsize=256)
def _resize_blocks(
    length: int, target: int, start: int, stop: int, interpolation: str, device: torch.device
) -> tuple[tuple[_Block, ...], int]:
    """Bands of integer weights and the number of parts each is split in.

    Sums of 22-bit weights times 8-bit levels do not fit float32's 24 bits. Split into high and low
    halves they do, side by side in one product; very long bands fall back to float64.
    """
    weights = resize_weights(length, target, slice(start, stop), interpolation)
    taps = int((weights != 0).sum(axis=1).max())
    if taps > EXACT_TAPS:
        return _blocks(weights, device), 1
    high = np.round(weights / 2**LOW_BITS)
    low = weights - high * 2**LOW_BITS
    split = []
    for number, block in enumerate(_blocks(weights, device)):
        rows = slice(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)
        parts = [part[rows, block.columns].T for part in (high, low)]
        both = np.concatenate(parts, axis=1).astype(np.float32)
        split.append(_Block(block.columns, torch.from_numpy(both).to(device)))
    return tuple(split), 2


def _filtered(x: Tensor, blocks: tuple[_Block, ...]) -> list[Tensor]:
    """[..., length] -> per block [..., rows of the block], in the blocks' float type."""
    return [x[..., block.columns].to(block.transposed.dtype) @ block.transposed for block in blocks]


def _resized_axis(x: Tensor, target: int, kept: slice, interpolation: str) -> Tensor:
    """uint8 [..., length] -> uint8 [..., kept]; equal to PIL's pass over one axis, bit for bit."""
    length = x.shape[-1]
    if length == target:
        return x[..., kept]
    blocks, num_parts = _resize_blocks(
        length, target, kept.start, kept.stop, interpolation, x.device
    )
    levels = []
    for out in _filtered(x, blocks):
        if num_parts == 1:
            total = out.round_().long()
        else:
            high, low = out.int().chunk(2, dim=-1)
            total = (high << LOW_BITS) + low
        rounded = (total + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS
        levels.append(rounded.clamp_(0, 255).to(torch.uint8))
    return torch.cat(levels, dim=-1)


def _resized_size(height: int, width: int, recipe: ClipInput) -> tuple[int, int]:
    """Height and width that `official` resizes to before it crops."""
    size = recipe.size
    if recipe.resize_mode == "squash":
        return size, size
    short = min(height, width)
    return size * height // short, size * width // short


def official_pixels(pixels: Pixels, recipe: ClipInput) -> Pixels:
    """uint8 [H, W, 3] -> uint8 [size, size, 3]: the resize and crop of `official` by PIL itself.

    On a processor it takes half the time of the products that stand for it in `official_levels`.
    """
    size = recipe.size
    height, width = pixels.shape[:2]
    target_h, target_w = _resized_size(height, width, recipe)
    if max(target_h, target_w) > MAX_ASPECT * size:  # do not blow a strip up before it is cropped
        levels = official_levels(torch.from_numpy(pixels[None].copy()), recipe)[0]
        return levels.permute(1, 2, 0).contiguous().numpy()
    if (target_h, target_w) == (height, width) == (size, size):
        return pixels
    top, left = round((target_h - size) / 2), round((target_w - size) / 2)
    resampling = Image.Resampling[recipe.interpolation.upper()]
    resized = Image.fromarray(pixels).resize((target_w, target_h), resampling)
    return np.array(resized.crop((left, top, left + size, top + size)))


def official_levels(pixels: Tensor, recipe: ClipInput) -> Tensor:
    """uint8 [N, H, W, 3] -> uint8 [N, 3, size, size]: the resize and crop of `official`.

    Equal to open_clip's transform on PIL images, bit for bit, as long as float32 products are not
    lowered to TF32 (torch's default). With `squash` an image that shrinks along one axis and grows
    along the other may differ: new versions of PIL then change the order of the two passes.
    """
    height, width = pixels.shape[1:3]
    size = recipe.size
    target_h, target_w = _resized_size(height, width, recipe)
    top, left = round((target_h - size) / 2), round((target_w - size) / 2)
    x = pixels.permute(0, 3, 1, 2).contiguous()
    x = _resized_axis(x, target_w, slice(left, left + size), recipe.interpolation)
    x = x.transpose(-1, -2)
    x = _resized_axis(x, target_h, slice(top, top + size), recipe.interpolation)
    return x.transpose(-1, -2)


def official_input(pixels: Tensor, recipe: ClipInput) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, size, size]: PIL's resize, crop, mean and std."""
    levels = official_levels(pixels, recipe)
    mean = torch.tensor(recipe.mean, device=pixels.device)[:, None, None]
    std = torch.tensor(recipe.std, device=pixels.device)[:, None, None]
    return levels.float().div_(255).sub_(mean).div_(std)


def box7_input(images: Tensor, size: int) -> Tensor:
    """Float [N, 3, H, W] in -1..1 -> float32 [N, 3, size, size], neither clamped nor normalised.

    DeltaEdit's and StyleCLIP's published recipe, on which their weights depend. Differentiable.
    """
    height, width = images.shape[-2:]
    x = torch.cat(_filtered(images.float(), _box7_blocks(width, size, images.device)), dim=-1)
    x = x.transpose(-1, -2)
    x = torch.cat(_filtered(x, _box7_blocks(height, size, images.device)), dim=-1)
    return x.transpose(-1, -2)
