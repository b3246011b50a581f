"""How well edits do what was asked, and nothing else.

Three kinds of measure: by the truth that a reader of attributes sees (`score_attributes`), by CLIP
(`score_clip`), and by the change of the codes (`score_codes`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.shapes import Floats, Ints, assert_shape

Readings = Mapping[str, Ints]
"""For each attribute the numbers [N] of the values that were read."""


class AttributeScore(NamedTuple):
    """What the reader says of N edited pictures; shares of 0 to 1."""

    success: float
    """Pictures that have what was asked for; NaN where nothing that a reader knows was."""
    preservation: float
    """Attribute values outside the request that are as before."""
    had_it: float
    """Pictures that had what was asked for before the edit."""
    preserved: dict[str, float]
    """Preservation by attribute; attributes that were never comparable are missing."""


def score_attributes(
    before: Readings,
    after: Readings,
    wanted: Mapping[str, Sequence[int]],
    *,
    hidden: Mapping[str, int],
) -> AttributeScore:
    """Compare what a reader sees before and after an edit.

    A value is compared where it can be seen in both pictures: a hat hides the hair, which is then
    neither kept nor lost.

    Args:
        before: readings of the N reconstructions, not of the originals: what the generator cannot
            draw is not the edit's fault.
        after: readings of the N edited pictures.
        wanted: for each attribute that the request is about, the values that fulfil it.
        hidden: for attributes that can be covered, the value that says so.

    Returns:
        The shares. A picture has what was asked for when every wanted attribute fits.
    """
    preserved: dict[str, float] = {}
    num_kept, num_compared = 0, 0
    for name in sorted(set(before) - set(wanted)):
        seen = np.ones(len(before[name]), dtype=bool)
        if name in hidden:
            seen = (before[name] != hidden[name]) & (after[name] != hidden[name])
        kept = before[name][seen] == after[name][seen]
        if len(kept):
            preserved[name] = float(kept.mean())
        num_kept, num_compared = num_kept + int(kept.sum()), num_compared + len(kept)
    return AttributeScore(
        success=_share_with(after, wanted),
        preservation=num_kept / num_compared if num_compared else float("nan"),
        had_it=_share_with(before, wanted),
        preserved=preserved,
    )


def has_wanted(readings: Readings, wanted: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Which of N pictures have one of the wanted values of every attribute: [N] bool."""
    fits = [np.isin(readings[name], list(values)) for name, values in wanted.items()]
    return np.all(fits, axis=0)


def _share_with(readings: Readings, wanted: Mapping[str, Sequence[int]]) -> float:
    return float(has_wanted(readings, wanted).mean()) if wanted else float("nan")


class ClipScore(NamedTuple):
    """What CLIP says of N edited pictures; mean cosines, -1 to 1."""

    clip_score: float
    """Edited picture and target text."""
    clip_score_before: float
    """Reconstruction and target text: what the edit starts from."""
    directional: float
    """Change of the picture and change of the text (Gal et al. 2021, "StyleGAN-NADA", eq. 2)."""


def score_clip(before: Floats, after: Floats, target: Floats, direction: Floats) -> ClipScore:
    """Compare embeddings of pictures and texts.

    Args:
        before: [N, C] float32 embeddings of the reconstructions, of any length.
        after: [N, C] float32 embeddings of the edited pictures.
        target: [C] float32 embedding of the target text.
        direction: [C] float32 difference of the texts.

    Raises:
        ShapeError: the shapes differ.
    """
    assert_shape(after, before.shape, "after")
    assert_shape(target, (before.shape[1],), "target")
    assert_shape(direction, (before.shape[1],), "direction")
    first, second = _unit(before), _unit(after)
    return ClipScore(
        clip_score=float((second @ _unit(target)).mean()),
        clip_score_before=float((first @ _unit(target)).mean()),
        directional=float((_unit(second - first) @ _unit(direction)).mean()),
    )


class CodeScore(NamedTuple):
    """How far N codes moved."""

    distance: float
    """Mean root mean square change of a channel, in standard deviations of that channel."""
    channels: float
    """Mean number of channels that changed."""


def score_codes(before: Floats, after: Floats, std: Floats) -> CodeScore:
    """Compare codes [N, S] before and after an edit.

    Args:
        before: [N, S] float32.
        after: [N, S] float32.
        std: [S] float32 standard deviation of each channel; channels of 0 do not count.
    """
    assert_shape(after, before.shape, "after")
    change = after - before
    scaled = np.divide(change, std, out=np.zeros_like(change), where=std > 0)
    return CodeScore(
        distance=float(np.sqrt(np.square(scaled).mean(axis=1)).mean()),
        channels=float(np.count_nonzero(change, axis=1).mean()),
    )


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
