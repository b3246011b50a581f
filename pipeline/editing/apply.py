"""Apply a trained mapper to style codes: predicted change, relevance mask, strength.

DeltaEdit (Lyu et al. 2023), section 3.4; the mask follows StyleCLIP (Patashnik et al.
2021, section 6).
"""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.pairs.deltas import FloatRows, edit_conditions
from pipeline.shapes import Floats, assert_shape

PUBLISHED_THRESHOLD = 0.03
"""On the direction as the text difference gives it, not normalised."""


class Mapper(Protocol):
    """What editing needs of a trained mapper."""

    def predict(self, s: FloatRows, condition: FloatRows) -> Tensor:
        """Raw codes [N, S] and conditions [N, 2C] -> changes [N, S]."""
        ...


def relevance_mask(
    rs: Floats,
    direction_raw: Floats,
    *,
    threshold: float | None = None,
    top_k: int | None = None,
) -> NDArray[np.bool_]:
    """Choose the style channels that may change.

    A channel's relevance is ``|Rs_c . direction|``. The published threshold of 0.03 is meant for
    the raw difference of two text embeddings: on a unit direction it equals 0.03 / |difference|.

    Args:
        rs: [S, C] float32 relevance matrix, unit rows.
        direction_raw: [C] float32 text difference, not normalised.
        threshold: keep channels of at least this relevance.
        top_k: keep this many channels, the most relevant ones; the lower channel wins a tie.

    Returns:
        [S] bool, True where a channel is kept; all True if neither limit is given.

    Raises:
        PipelineError: both limits are given, or one is out of range.
        ShapeError: the widths differ.
    """
    assert_shape(rs, (None, None), "rs")
    assert_shape(direction_raw, (rs.shape[1],), "direction_raw")
    num_channels = len(rs)
    if threshold is not None and top_k is not None:
        raise PipelineError("threshold and top_k are both given: choose one")
    if threshold is not None and threshold < 0:
        raise PipelineError(f"threshold is {threshold}: relevance is 0 or more")
    if top_k is not None and not 0 < top_k <= num_channels:
        raise PipelineError(f"top_k is {top_k}: 1 to the {num_channels} channels of S")
    relevance = np.abs(rs @ direction_raw)
    if threshold is not None:
        return relevance >= np.float32(threshold)
    mask = np.ones(num_channels, dtype=bool)
    if top_k is not None:
        mask[np.argsort(-relevance, kind="stable")[top_k:]] = False
    return mask


def apply_change(
    s: Floats, change: Floats, mask: NDArray[np.bool_] | None, strength: float
) -> Floats:
    """``s + strength * mask * change`` [N, S] float32; without a mask every channel changes."""
    kept = change if mask is None else np.where(mask, change, np.float32(0))
    return s + np.float32(strength) * kept


def edit_codes(
    mapper: Mapper,
    s: FloatRows,
    clip: FloatRows,
    direction: FloatRows,
    *,
    strength: float = 1.0,
    mask: NDArray[Any] | Tensor | None = None,
) -> Tensor:
    """Move style codes along one direction of CLIP space.

    ``s + strength * mask * mapper(s, [n(clip), n(direction)])``

    Args:
        mapper: a trained mapper.
        s: [N, S] float32 raw codes.
        clip: [N, C] float32 CLIP embeddings of the same rows, of any length.
        direction: [C] float32, of any length.
        strength: multiple of the predicted change; 1 as published, negative for the opposite.
        mask: [S] bool, True where a channel may change; None for all.

    Returns:
        [N, S] float32 edited codes, on the device of the mapper.

    Raises:
        ShapeError: widths or numbers of rows differ.
    """
    assert_shape(clip, (s.shape[0], None), "clip")
    delta_s = mapper.predict(s, edit_conditions(clip, direction))
    if mask is not None:
        assert_shape(mask, (s.shape[1],), "mask")
        delta_s = delta_s * torch.as_tensor(mask, dtype=delta_s.dtype, device=delta_s.device)
    codes = torch.as_tensor(s, dtype=delta_s.dtype, device=delta_s.device)
    return codes + strength * delta_s
