"""Conditions of the Delta Mapper: where an embedding is, and in which direction it should move.

DeltaEdit (Lyu et al. 2023), section 3.2. Training takes the direction from a second image, editing
from two texts; the mapper cannot tell which.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.shapes import assert_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MIN_DISTANCE = 1e-5
"""The published clamp: a shorter difference is divided by this instead of by its length."""

FloatRows: TypeAlias = "Tensor | NDArray[Any]"
"""A tensor, or a numpy array that is read as float32."""


def pair_conditions(clip_source: FloatRows, clip_target: FloatRows) -> "Tensor":
    """Join each unit source with the unit direction from it to its target.

    ``d = n(target) - n(source); condition = [n(source), d / max(|d|, 1e-5)]`` with
    ``n(v) = v / |v|``.

    Args:
        clip_source: [N, C] float32, of any length.
        clip_target: [N, C] float32, of any length.

    Returns:
        [N, 2C] float32 on the device of the source.

    Raises:
        ShapeError: the two differ in shape.
    """
    import torch

    assert_shape(clip_source, (None, None), "clip_source")
    assert_shape(clip_target, tuple(clip_source.shape), "clip_target")
    source, target = unit(clip_source), unit(clip_target)
    return torch.cat([source, unit_direction(target - source)], dim=1)


def edit_conditions(clip_source: FloatRows, direction: FloatRows) -> "Tensor":
    """Join each unit source with one direction for all of them.

    Args:
        clip_source: [N, C] float32, of any length.
        direction: [C] float32, such as the difference of two text embeddings, of any length.

    Returns:
        [N, 2C] float32 on the device of the source.

    Raises:
        ShapeError: the widths differ.
    """
    import torch

    assert_shape(clip_source, (None, None), "clip_source")
    assert_shape(direction, (clip_source.shape[1],), "direction")
    source = unit(clip_source)
    towards = unit_direction(torch.as_tensor(direction, dtype=torch.float32).to(source.device))
    return torch.cat([source, towards.expand_as(source)], dim=1)


def unit(rows: FloatRows) -> "Tensor":
    """Rows divided by their length: [..., C] -> [..., C] float32."""
    import torch

    rows = torch.as_tensor(rows, dtype=torch.float32)
    return rows / rows.norm(dim=-1, keepdim=True)


def unit_direction(difference: "Tensor") -> "Tensor":
    """A difference divided by ``max(length, 1e-5)``: [..., C] -> [..., C]."""
    return difference / difference.norm(dim=-1, keepdim=True).clamp_min(MIN_DISTANCE)
