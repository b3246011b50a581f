"""Batches through the frozen models: images or seeds -> columns `clip`, `w_plus`, `s`.

Every row depends on its own image, or on its own seed and index, and never on the rest of its
batch. Letters of shapes: pipeline/shapes.py.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.images import fit_image, to_float
from pipeline.models.clip import ClipModel
from pipeline.models.clip_pre import CLIP_PRES, ClipPre
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


@torch.no_grad()
def encode_images(
    images: Sequence[Pixels], encoders: Encoders, columns: Collection[str]
) -> dict[str, Floats]:
    """Encode images of any sizes, each of which is decoded once and feeds all models.

    W+ and S see the image through `fit_image` at e4e's input size. CLIP sees the image itself for
    `official`, and e4e's input for `box7`, as the published scripts do.

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
    inverts = "w_plus" in columns or "s" in columns
    boxed = "clip" in columns and encoders.clip_pre == "box7"
    fitted = _fitted(images, encoders) if inverts or boxed else None
    rows: dict[str, Tensor] = {}
    if "clip" in columns:
        clip = _need(encoders.clip, "clip", "the column clip")
        if fitted is not None and boxed:
            rows["clip"] = clip.encode_images(fitted, "box7")
        else:
            rows["clip"] = clip.embed(_official_inputs(images, clip))
    if fitted is not None and inverts:
        rows |= _codes(fitted, encoders, columns)
    return _arrays(rows, columns)


@torch.no_grad()
def encode_sampled(
    seed: int,
    indices: Iterable[int],
    truncation: float,
    encoders: Encoders,
    columns: Collection[str],
) -> dict[str, Floats]:
    """Sample codes, render them once with the fixed noise, and embed the renders.

    Args:
        seed: of the whole run.
        indices: numbers of the samples; sample i is the same whatever else is asked for.
        truncation: psi, 1 for none (the DeltaEdit data), below 1 towards the mean of w.
        encoders: generator always, clip for the column `clip`.
        columns: names out of `COLUMNS`.

    Returns:
        float32 arrays by column: `clip` [N, C], `w_plus` [N, L, D], `s` [N, S].

    Raises:
        ValueError: for an unknown column, no index, or a column whose model is missing.
    """
    numbers = list(indices)
    _check(len(numbers), columns)
    generator = _need(encoders.generator, "generator", "sampled rows")
    z = torch.from_numpy(sample_z(seed, numbers, generator.style_dim))
    w = generator.map(z.to(generator.latent_avg.device))
    w_plus = generator.broadcast(w, truncation=truncation)
    s = generator.to_s(w_plus)
    rows = {"w_plus": w_plus, "s": s}
    if "clip" in columns:
        clip = _need(encoders.clip, "clip", "the column clip")
        rows["clip"] = clip.encode_generated(generator.synthesize(s, w_plus), encoders.clip_pre)
    return _arrays(rows, columns)


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


def _official_inputs(images: Sequence[Pixels], clip: ClipModel) -> Tensor:
    """uint8 images of any sizes -> CLIP inputs [N, 3, size, size]; one batch for each size."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, pixels in enumerate(images):
        groups[pixels.shape].append(row)
    inputs = torch.empty(len(images), 3, clip.image_size, clip.image_size, device=clip.device)
    for rows in groups.values():
        inputs[rows] = clip.prepare(np.stack([images[row] for row in rows]), "official")
    return inputs


def _fitted(images: Sequence[Pixels], encoders: Encoders) -> Pixels:
    """uint8 images of any sizes -> e4e's input [N, H, W, 3]."""
    config = _need(encoders.e4e, "e4e", "w_plus, s and clip_pre box7").encoder.config
    return np.stack([fit_image(p, config.input_height, config.input_width) for p in images])


def _codes(fitted: Pixels, encoders: Encoders, columns: Collection[str]) -> dict[str, Tensor]:
    """W+ and, where wanted, S, which is an affine map of it: nothing is rendered."""
    e4e = _need(encoders.e4e, "e4e", "w_plus and s")
    w_plus = e4e(to_float(fitted).to(e4e.latent_avg.device))
    if "s" not in columns:
        return {"w_plus": w_plus}
    generator = _need(encoders.generator, "generator", "the column s")
    return {"w_plus": w_plus, "s": generator.to_s(w_plus)}


def _arrays(rows: dict[str, Tensor], columns: Collection[str]) -> dict[str, Floats]:
    return {name: rows[name].float().cpu().numpy() for name in COLUMNS if name in columns}
