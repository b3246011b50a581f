"""The Delta Mapper: S code and CLIP condition -> change of the S code.

Lyu et al. 2023, "DeltaEdit: Exploring Text-free Training for Text-Driven Image Manipulation",
section 3.3. State-dict keys are those of the published ``net_face.pth``. Three groups of layers
(coarse, medium, fine) have a style, a condition and a fusion network each; the layers of the coarse
and of the medium group share theirs, the fine layers are one flat vector.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pipeline.errors import ShapeError
from pipeline.models.layers import EqualLinear, PixelNorm
from pipeline.models.s_layout import COARSE_LAYERS, GROUPS, MEDIUM_LAYERS
from pipeline.shapes import assert_shape

NUM_LINEAR = 4
LR_MUL = 0.01

PixelNormAxis = Literal["layers", "channels"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaMapperConfig:
    """Sizes and variants of a Delta Mapper."""

    widths: tuple[int, ...]
    """Style channels of each layer of S, execution order (`SLayout.widths`)."""
    clip_dim: int = 512
    """C: width of the CLIP embedding; the condition has twice as many numbers."""
    pixelnorm_axis: PixelNormAxis = "layers"
    """What the coarse and medium style networks normalise over: ``layers`` as published (each
    channel across the 3 or 4 layers), or ``channels`` (each layer's own vector)."""
    linear_head: bool = False
    """Leave out the activation after the last layer, which weakens negative changes fivefold;
    published weights need False."""
    min_hidden: int = 0
    """Layers between are as wide as the codes of their group, as published, or this wide if that is
    more: the narrow layers of a small generator leave a mapper of their width too little room."""

    def __post_init__(self) -> None:
        shared = COARSE_LAYERS + MEDIUM_LAYERS
        if len(self.widths) < shared:
            raise ShapeError(
                f"{len(self.widths)} layers in S: the Delta Mapper needs {shared} or more "
                "(a generator of 32 px or larger)"
            )
        for name, members in (
            ("coarse", self.widths[:COARSE_LAYERS]),
            ("medium", self.widths[COARSE_LAYERS:shared]),
        ):
            if len(set(members)) > 1:
                raise ShapeError(
                    f"the {name} layers have widths {members}: they share one network, so they "
                    "must be equal; use a generator with equal channels up to 32 px"
                )
        if min(self.widths) < 1 or self.clip_dim < 1 or self.min_hidden < 0:
            raise ShapeError(
                f"widths {self.widths} and clip_dim {self.clip_dim} must be positive, min_hidden "
                f"{self.min_hidden} not negative"
            )
        if self.pixelnorm_axis not in get_args(PixelNormAxis):
            raise ShapeError(
                f"pixelnorm_axis {self.pixelnorm_axis!r}: expected one of {get_args(PixelNormAxis)}"
            )

    @property
    def s_dim(self) -> int:
        """S: length of a flat code."""
        return sum(self.widths)

    @property
    def groups(self) -> tuple[tuple[str, int, int], ...]:
        """(name, rows, width) of each group; fine is one row, absent at 32 px."""
        shared = COARSE_LAYERS + MEDIUM_LAYERS
        fine = sum(self.widths[shared:])
        groups = (
            (GROUPS[0], COARSE_LAYERS, self.widths[0]),
            (GROUPS[1], MEDIUM_LAYERS, self.widths[COARSE_LAYERS]),
            (GROUPS[2], 1, fine),
        )
        return groups if fine else groups[:2]


class _Network(nn.Module):
    """Four equalised linear layers, after an input normalisation if `norm_dim` is given."""

    def __init__(
        self,
        in_features: int,
        hidden: int,
        out_features: int,
        *,
        norm_dim: int | None,
        linear_head: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [] if norm_dim is None else [PixelNorm(norm_dim)]
        widths = [in_features, *[hidden] * (NUM_LINEAR - 1), out_features]
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            activated = not (linear_head and number == NUM_LINEAR)
            layers.append(EqualLinear(before, after, lr_mul=LR_MUL, activated=activated))
        self.mapping = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.mapping(x)


class DeltaMapper(nn.Module):
    """S and a condition -> the change of S that the condition asks for.

    The rule of the published 1024-px network at any layout: groups by layer index, one shared
    network for the layers of a group, the fine layers flattened.
    """

    def __init__(self, config: DeltaMapperConfig) -> None:
        super().__init__()
        self.config = config
        shared_axis = 1 if config.pixelnorm_axis == "layers" else -1
        for name, rows, width in config.groups:
            axis = shared_axis if rows > 1 else 1
            inner = max(width, config.min_hidden)
            style = _Network(width, inner, inner, norm_dim=axis)
            condition = _Network(2 * config.clip_dim, inner, inner, norm_dim=1)
            fusion = _Network(
                2 * inner, inner, width, norm_dim=None, linear_head=config.linear_head
            )
            self.add_module(f"sm_{name}", style)
            self.add_module(f"cm_{name}", condition)
            self.add_module(f"fm_{name}", fusion)

    def forward(self, s: Tensor, condition: Tensor) -> Tensor:
        """S [N, S] and conditions [N, 2C] -> changes of S [N, S], in the dtype of the weights.

        A condition is a unit CLIP vector followed by a unit CLIP direction.

        Raises:
            ShapeError: `s` or `condition` has another width.
        """
        assert_shape(s, (None, self.config.s_dim), "s")
        assert_shape(condition, (s.shape[0], 2 * self.config.clip_dim), "condition")
        changes, offset = [], 0
        for name, rows, width in self.config.groups:
            part = s[:, offset : offset + rows * width]
            changes.append(self._group(name, rows, part, condition))
            offset += rows * width
        return torch.cat(changes, dim=1)

    def _group(self, name: str, rows: int, s: Tensor, condition: Tensor) -> Tensor:
        """One group: [N, rows * width] -> the change of the same shape."""
        wanted = self.get_submodule(f"cm_{name}")(condition)
        if rows > 1:
            s = s.unflatten(1, (rows, -1))
            wanted = wanted[:, None].expand(-1, rows, -1)
        features = self.get_submodule(f"sm_{name}")(s)
        return self.get_submodule(f"fm_{name}")(torch.cat([features, wanted], dim=-1)).flatten(1)
