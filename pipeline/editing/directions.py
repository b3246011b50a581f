"""Text directions: two class names -> a difference of CLIP embeddings.

Averaging over sentences: Radford et al. 2021, section 3.1.4; the difference as an edit: Patashnik
et al. 2021 ("StyleCLIP"), Lyu et al. 2023 ("DeltaEdit"). Letters of shapes: pipeline/shapes.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from pipeline.editing.templates import TEMPLATES
from pipeline.errors import PromptError

MIN_NORM = 1e-3
"""Shortest accepted difference of two unit vectors (0 to 2); below it is rounding."""


class TextEncoder(Protocol):
    """What directions need of a CLIP model; `pipeline.models.clip.ClipModel` is one."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """N texts -> float32 [N, C], of any length."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Direction:
    """The way from a neutral text to a target text in CLIP space."""

    target: str
    """Text at the end of the way."""
    neutral: str
    """Text at its start."""
    raw: Tensor
    """[C] float32: target minus neutral; what DeltaEdit's relevance threshold (0.03) is about."""
    unit: Tensor
    """[C] float32: `raw` at length 1; what the Delta Mapper is given."""

    @property
    def norm(self) -> float:
        """Length of `raw`, 0 to 2."""
        return float(self.raw.norm())


def average_embedding(embeddings: Tensor) -> Tensor:
    """Embeddings [T, C] of T sentences on one thing -> unit [C]; all sentences weigh the same."""
    return F.normalize(F.normalize(embeddings.float(), dim=-1).mean(dim=0), dim=-1)


def class_embedding(clip: TextEncoder, name: str) -> Tensor:
    """Unit embedding [C] of a class name, averaged over `TEMPLATES`.

    Raises:
        PromptError: for an empty name, or one that does not fit the model's context.
    """
    if not name.strip():
        raise PromptError(f"the text {name!r} is empty; name a class such as 'face'")
    return average_embedding(clip.encode_texts([line.format(name) for line in TEMPLATES]))


def direction_between(
    target_C: Tensor, neutral_C: Tensor, *, target: str, neutral: str
) -> Direction:
    """Two unit embeddings [C] -> `Direction`.

    Raises:
        PromptError: if they are closer than `MIN_NORM`: the texts mean the same to the model.
    """
    raw = target_C - neutral_C
    norm = float(raw.norm())
    if norm < MIN_NORM:
        raise PromptError(
            f"target {target!r} and neutral {neutral!r} are {norm:.1e} apart, at least {MIN_NORM} "
            "is needed; describe the change in the target"
        )
    return Direction(target=target, neutral=neutral, raw=raw, unit=raw / norm)


def text_direction(clip: TextEncoder, target: str, neutral: str) -> Direction:
    """Direction from `neutral` (the domain's word, such as "face") to `target`.

    Raises:
        PromptError: for a text too long or empty, or for two that mean the same.
    """
    return direction_between(
        class_embedding(clip, target),
        class_embedding(clip, neutral),
        target=target,
        neutral=neutral,
    )
