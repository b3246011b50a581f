"""How a flat S code is made of layers, at any generator size.

S holds the styles of the 3x3 convolutions in execution order; the styles of toRGB are left out
(DeltaEdit's convention). One code per convolution, ``2 log2(size) - 3`` of them; their widths are
the input channels of the convolutions. S space: Wu et al. 2021 ("StyleSpace Analysis").
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from torch import Tensor

from pipeline.errors import ShapeError

COARSE_LAYERS = 3
MEDIUM_LAYERS = 4
GROUPS = ("coarse", "medium", "fine")
SIZES = (32, 64, 128, 256, 512, 1024)
MULTIPLIERS = (2, 1)
"""Channel multipliers of published generators; config-f has 2."""


def group_of(index: int) -> str:
    """The group of layer `index`: coarse (0-2), medium (3-6) or fine (the rest)."""
    if index < COARSE_LAYERS:
        return GROUPS[0]
    return GROUPS[1] if index < COARSE_LAYERS + MEDIUM_LAYERS else GROUPS[2]


@dataclass(frozen=True, slots=True)
class SLayer:
    """One styled convolution's place in the flat S code."""

    index: int
    """Place in execution order, from 0."""
    resolution: int
    """Side of the layer's output in pixels."""
    width: int
    """Number of style channels (input channels of the convolution)."""
    offset: int
    """First channel of the layer in the flat code."""
    group: str
    """As `group_of` says."""

    @property
    def columns(self) -> slice:
        """The layer's slice of a flat [S] code."""
        return slice(self.offset, self.offset + self.width)

    @property
    def w_row(self) -> int:
        """The row of W+ that drives the layer."""
        return self.index


@dataclass(frozen=True)
class SLayout:
    """How a flat S code is made of layers: convolutions only, toRGB excluded, execution order."""

    size: int
    """Side of the generator's image in pixels."""
    widths: tuple[int, ...]
    """Style channels of each layer, execution order."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ShapeError(f"a generator of {self.size} px: expected one of {SIZES}")
        expected = 2 * int(math.log2(self.size)) - 3
        if len(self.widths) != expected:
            raise ShapeError(
                f"{len(self.widths)} layers in S for {self.size} px, expected {expected}"
            )

    @classmethod
    def of_channels(cls, size: int, channels: Sequence[int]) -> "SLayout":
        """Layout of a generator with `channels[i]` feature maps at 4 * 2**i pixels."""
        widths = [channels[0]]
        for before, here in pairwise(channels):
            widths += [before, here]
        return cls(size, tuple(widths))

    @cached_property
    def layers(self) -> tuple[SLayer, ...]:
        """The layers in execution order."""
        out, offset = [], 0
        for index, width in enumerate(self.widths):
            resolution = 4 << ((index + 1) // 2)
            out.append(SLayer(index, resolution, width, offset, group_of(index)))
            offset += width
        return tuple(out)

    @property
    def total(self) -> int:
        """S: length of a flat code (6048 for the 1024-px config-f generator)."""
        return sum(self.widths)

    @property
    def num_w(self) -> int:
        """L: rows of W+, ``2 log2(size) - 2``."""
        return len(self.widths) + 1

    def group(self, name: str) -> slice:
        """The slice of a flat code that holds a group (empty for fine at 32 px)."""
        members = [layer for layer in self.layers if layer.group == name]
        if not members:
            return slice(self.total, self.total)
        return slice(members[0].offset, members[-1].offset + members[-1].width)

    def split(self, s: Tensor) -> list[Tensor]:
        """[N, S] -> one [N, width] view per layer."""
        return list(s.split(list(self.widths), dim=-1))


def config_f_channels(size: int, multiplier: int = 2) -> tuple[int, ...]:
    """Feature maps per resolution of the published generators (config-f has multiplier 2)."""
    table = [512] * 4 + [(256 >> i) * multiplier for i in range(5)]
    return tuple(table[: int(math.log2(size)) - 1])


def published_layouts() -> Iterator[SLayout]:
    """The layouts of all published generators, config-f first, by size."""
    for multiplier in MULTIPLIERS:
        for size in SIZES:
            yield SLayout.of_channels(size, config_f_channels(size, multiplier))


def layout_of_codes(s_dim: int, num_w: int | None = None) -> SLayout:
    """The published layout that codes of these lengths have.

    Args:
        s_dim: S, length of a flat code.
        num_w: L, rows of W+; not compared if not given.

    Raises:
        ShapeError: no published generator has such codes; lists the lengths there are.
    """
    layouts = list(published_layouts())
    for layout in layouts:
        if layout.total == s_dim and num_w in (None, layout.num_w):
            return layout
    known = ", ".join(f"{x.total} and {x.num_w} ({x.size} px)" for x in layouts)
    rows = "" if num_w is None else f" beside W+ of {num_w} rows"
    raise ShapeError(
        f"S of {s_dim} channels{rows} belongs to no published StyleGAN2 generator; known are "
        f"{known}. Give the generator's own file for another one"
    )
