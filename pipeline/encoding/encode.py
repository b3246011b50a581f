"""Batches through the frozen models: images or seeds -> columns `clip`, `w_plus`, `s`.

Images take two steps: `image_views` makes of each, in any thread, the small pictures that the
models look at, and `encode_views` takes a batch of those through the models. Every row depends on
its own image, or on its own seed and index, and never on the rest of its batch. Letters of shapes:
pipeline/shapes.py.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.encoding.stages import StageClock
from pipeline.images import fit_image, to_float
from pipeline.models.clip import ClipModel
from pipeline.models.clip_pre import CLIP_PRES, ClipPre, official_pixels
from pipeline.models.e4e import E4E
from pipeline.models.stylegan2 import Generator
from pipeline.rng import generator_for
from pipeline.shapes import Floats, Pixels

Model = TypeVar("Model")

COLUMNS = ("clip", "w_plus", "s")
"""Columns that this module fills, in the order of the returned dict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoders:
    """The frozen models of one run. A model that no wanted column needs may be None."""

    clip: ClipModel | None = None
    """Embeds images; for the column `clip`."""
    e4e: E4E | None = None
    """Inverts images to W+; for `w_plus` and `s` of images, and for `clip` with `box7`."""
    generator: Generator | None = None
    """Maps W+ to S and renders; for `s`, and for everything sampled. `latent_avg` as loaded."""
    clip_pre: ClipPre = "official"
    """CLIP's pre-processing; `box7` goes with the published DeltaEdit weights."""

    def __post_init__(self) -> None:
        if self.clip_pre not in CLIP_PRES:
            raise ValueError(
                f"clip_pre must be one of {', '.join(CLIP_PRES)}, got {self.clip_pre!r}"
            )

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        if self.clip is not None:
            return self.clip.device
        holder = self.e4e or self.generator
        return torch.device("cpu") if holder is None else holder.latent_avg.device

    def inverts(self, columns: Collection[str]) -> bool:
        """Whether W+ codes are made of images."""
        return "w_plus" in columns or "s" in columns

    def boxes(self, columns: Collection[str]) -> bool:
        """Whether CLIP sees what e4e sees."""
        return "clip" in columns and self.clip_pre == "box7"


@dataclass(frozen=True, slots=True)
class Views:
    """What the models look at of one image."""

    clip: Pixels | None = None
    """uint8 [H, W, 3] for CLIP with `official`: its input, or the whole image if a GPU resizes."""
    e4e: Pixels | None = None
    """uint8 [H, W, 3] of e4e's input size; also what CLIP sees with `box7`."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes to keep."""
        return sum(view.nbytes for view in (self.clip, self.e4e) if view is not None)


def image_views(pixels: Pixels, encoders: Encoders, columns: Collection[str]) -> Views:
    """One decoded image -> what the models need of it, much smaller than a photograph.

    W+ and S see the image through `fit_image` at e4e's input size. CLIP sees the image itself for
    `official`, and e4e's input for `box7`, as the published scripts do.

    Args:
        pixels: uint8 [H, W, 3].
        encoders: the models that `columns` need.
        columns: names out of `COLUMNS`.

    Raises:
        ValueError: for a column whose model is missing.
    """
    clip_view = e4e_view = None
    if encoders.inverts(columns) or encoders.boxes(columns):
        e4e = _need(encoders.e4e, "e4e", "w_plus, s and clip_pre box7")
        config = e4e.encoder.config
        e4e_view = fit_image(pixels, config.input_height, config.input_width)
    if "clip" in columns and not encoders.boxes(columns):
        clip = _need(encoders.clip, "clip", "the column clip")
        fits_gpu = clip.device.type == "cuda" and clip.recipe.resize_mode == "shortest"
        clip_view = pixels if fits_gpu else official_pixels(pixels, clip.recipe)
    return Views(clip_view, e4e_view)


@torch.no_grad()
def encode_views(
    views: Sequence[Views],
    encoders: Encoders,
    columns: Collection[str],
    clock: StageClock | None = None,
) -> dict[str, Floats]:
    """A batch of `image_views` through the models.

    Args:
        views: of N images, made with the same `encoders` and `columns`.
        encoders: the models that `columns` need.
        columns: names out of `COLUMNS`.
        clock: told when each stage begins.

    Returns:
        float32 arrays by column: `clip` [N, C], `w_plus` [N, L, D], `s` [N, S].

    Raises:
        ValueError: for an unknown column, no image, or a column whose model is missing.
    """
    _check(len(views), columns)
    clock = clock or StageClock(encoders.device)
    clock.begin("copy")
    fitted = None
    if encoders.inverts(columns) or encoders.boxes(columns):
        fitted = _upload([_need(view.e4e, "e4e", "w_plus and s") for view in views], encoders)
    rows: dict[str, Tensor] = {}
    if "clip" in columns:
        rows["clip"] = _clip_rows(views, fitted, encoders, clock)
    if fitted is not None and encoders.inverts(columns):
        clock.begin("e4e")
        rows |= _codes(fitted, encoders, columns)
    clock.begin("copy")
    arrays = _arrays(rows, columns)
    clock.begin("")
    return arrays


def encode_images(
    images: Sequence[Pixels], encoders: Encoders, columns: Collection[str]
) -> dict[str, Floats]:
    """Encode images of any sizes; `image_views` and `encode_views` in one.

    Args:
        images: N arrays uint8 [H, W, 3].
        encoders: the models that `columns` need.
        columns: names out of `COLUMNS`.

    Returns:
        float32 arrays by column: `clip` [N, C], `w_plus` [N, L, D], `s` [N, S].

    Raises:
        ValueError: for an unknown column, no image, or a column whose model is missing.
    """
    _check(len(images), columns)
    views = [image_views(pixels, encoders, columns) for pixels in images]
    return encode_views(views, encoders, columns)


@torch.no_grad()
def encode_sampled(
    seed: int,
    indices: Iterable[int],
    truncation: float,
    encoders: Encoders,
    columns: Collection[str],
    clock: StageClock | None = None,
) -> dict[str, Floats]:
    """Sample codes, render them once with the fixed noise, and embed the renders.

    Args:
        seed: of the whole run.
        indices: numbers of the samples; sample i is the same whatever else is asked for.
        truncation: psi, 1 for none (the DeltaEdit data), below 1 towards the mean of w.
        encoders: generator always, clip for the column `clip`.
        columns: names out of `COLUMNS`.
        clock: told when each stage begins.

    Returns:
        float32 arrays by column: `clip` [N, C], `w_plus` [N, L, D], `s` [N, S].

    Raises:
        ValueError: for an unknown column, no index, or a column whose model is missing.
    """
    numbers = list(indices)
    _check(len(numbers), columns)
    generator = _need(encoders.generator, "generator", "sampled rows")
    clock = clock or StageClock(encoders.device)
    clock.begin("generator")
    z = torch.from_numpy(sample_z(seed, numbers, generator.style_dim))
    w = generator.map(z.to(generator.latent_avg.device))
    w_plus = generator.broadcast(w, truncation=truncation)
    s = generator.to_s(w_plus)
    rows = {"w_plus": w_plus, "s": s}
    if "clip" in columns:
        clip = _need(encoders.clip, "clip", "the column clip")
        images = generator.synthesize(s, w_plus)
        clock.begin("clip")
        rows["clip"] = clip.encode_generated(images, encoders.clip_pre)
    clock.begin("copy")
    arrays = _arrays(rows, columns)
    clock.begin("")
    return arrays


def sample_z(seed: int, indices: Sequence[int], style_dim: int) -> Floats:
    """Standard normal float32 [N, D]; each row has its own counter-based generator (Philox)."""
    rows = [generator_for(seed, "z", index).standard_normal(style_dim) for index in indices]
    return np.stack(rows).astype(np.float32)


def _check(num_rows: int, columns: Collection[str]) -> None:
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown or not columns:
        raise ValueError(f"columns must be some of {', '.join(COLUMNS)}, got {sorted(columns)}")
    if num_rows == 0:
        raise ValueError("a batch needs at least one row, got none")


def _need(model: Model | None, field: str, use: str) -> Model:
    if model is None:
        raise ValueError(f"Encoders.{field} is None, but {use} cannot be made without; load it")
    return model


def _upload(images: Sequence[Pixels], encoders: Encoders) -> Tensor:
    """uint8 images of one size -> [N, H, W, 3] on the models' device, behind the program there."""
    if encoders.device.type != "cuda":
        return torch.from_numpy(np.stack(images))
    shape = (len(images), *images[0].shape)
    pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    np.stack(images, out=pinned.numpy())
    return pinned.to(encoders.device, non_blocking=True)


def _clip_rows(
    views: Sequence[Views], fitted: Tensor | None, encoders: Encoders, clock: StageClock
) -> Tensor:
    """[N, C]; images of one size are resized together where that is left to the device."""
    clip = _need(encoders.clip, "clip", "the column clip")
    if encoders.clip_pre == "box7":
        clock.begin("clip")
        return clip.encode_images(_need(fitted, "e4e", "clip_pre box7"), "box7")
    images = [_need(view.clip, "clip", "the column clip") for view in views]
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, pixels in enumerate(images):
        groups[pixels.shape].append(row)
    inputs = torch.empty(len(images), 3, clip.image_size, clip.image_size, device=clip.device)
    for rows in groups.values():
        clock.begin("copy")
        pixels = _upload([images[row] for row in rows], encoders)
        clock.begin("clip")
        inputs[rows] = clip.prepare(pixels, "official")
    return clip.embed(inputs)


def _codes(fitted: Tensor, encoders: Encoders, columns: Collection[str]) -> dict[str, Tensor]:
    """W+ and, where wanted, S, which is an affine map of it: nothing is rendered."""
    e4e = _need(encoders.e4e, "e4e", "w_plus and s")
    w_plus = e4e(to_float(fitted))
    if "s" not in columns:
        return {"w_plus": w_plus}
    generator = _need(encoders.generator, "generator", "the column s")
    return {"w_plus": w_plus, "s": generator.to_s(w_plus)}


def _arrays(rows: dict[str, Tensor], columns: Collection[str]) -> dict[str, Floats]:
    return {name: rows[name].float().cpu().numpy() for name in COLUMNS if name in columns}
