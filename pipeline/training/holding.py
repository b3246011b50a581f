"""How a run holds its training rows: in memory, in half the memory, or read when needed."""

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np

from pipeline.shapes import Floats, Ints
from pipeline.training.rows import (
    Affine,
    RowBlock,
    RowSource,
    SScaling,
    blocks_of,
    load_rows,
    load_units,
    measure_scaling,
    read_codes,
    read_units,
)

Residency = Literal["float32", "float16", "stream"]
"""How rows are held: all in memory as they are; all in memory, codes z-scored as float16; or read
again for every few batches."""


def choose_residency(num_rows: int, *, s_dim: int, clip_dim: int, budget_bytes: int) -> Residency:
    """The first of float32, float16 and stream whose rows take at most `budget_bytes`.

    Args:
        num_rows: rows of the training split.
        s_dim: S.
        clip_dim: C.
        budget_bytes: memory that the rows may take on the device that trains.
    """
    units = 4 * clip_dim
    if num_rows * (units + 4 * s_dim) <= budget_bytes:
        return "float32"
    return "float16" if num_rows * (units + 2 * s_dim) <= budget_bytes else "stream"


class RowStream:
    """Rows that are read when they are needed."""

    def __init__(
        self, source: RowSource, numbers: Ints, *, s_dim: int, wanted: SScaling | None
    ) -> None:
        """Describe the rows.

        Args:
            source: the store.
            numbers: N row numbers.
            s_dim: S.
            wanted: the scaling of the codes that batches are to have; None for raw ones.
        """
        self._source = source
        self._numbers = numbers
        self.s_dim = s_dim
        self._centre = None if wanted is None else wanted.centre
        self._scale = None if wanted is None else wanted.scale

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._numbers)

    def units(self) -> Floats:
        """Every unit CLIP row, [N, C] float32, for policies that look at all of them."""
        return load_units(self._source, self._numbers)

    def read(self, positions: Ints, codes: Floats) -> Floats:
        """Read rows; several threads may ask.

        Args:
            positions: [n], 0 to N - 1.
            codes: [n, S] float32, which takes up the codes.

        Returns:
            Unit CLIP rows [n, C] float32.
        """
        numbers = self._numbers[positions]
        stored = read_codes(self._source, numbers, self.s_dim)
        if self._centre is None or self._scale is None:
            codes[:] = stored
        else:  # as `SScaling.apply`, whose result would have to be copied
            np.subtract(stored, self._centre, out=stored)
            np.multiply(stored, self._scale, out=codes)
        return read_units(self._source, numbers)

    @cached_property
    def clip_dim(self) -> int:
        """C."""
        return read_units(self._source, self._numbers[:1]).shape[1]


def hold_rows(
    source: RowSource,
    numbers: Ints,
    *,
    s_dim: int,
    residency: Residency,
    z_score: bool,
    sign: Callable[[SScaling], SScaling],
) -> tuple[RowBlock | RowStream, SScaling]:
    """Read the training rows, or prepare to, and measure their scaling.

    Args:
        source: the store.
        numbers: N row numbers.
        s_dim: S.
        residency: how the rows are held.
        z_score: whether batches are to have scaled codes.
        sign: makes the scaling that is used out of the one that was measured.

    Returns:
        The rows, and the scaling that is used.

    Raises:
        PairError: fewer than two rows, or an embedding without direction.
        ShapeError: `s` has another width than `s_dim`.
    """
    if residency == "float32":
        block = load_rows(source, numbers, s_dim=s_dim)
        scaling = sign(measure_scaling(numbers, block.s.__getitem__))
        if z_score:
            scaling.apply(block.s)
        return block, scaling
    measured = measure_scaling(numbers, lambda part: read_codes(source, numbers[part], s_dim))
    scaling = sign(measured)
    wanted = scaling if z_score else None
    if residency == "float16":
        return load_half_rows(source, numbers, measured, wanted), scaling
    return RowStream(source, numbers, s_dim=s_dim, wanted=wanted), scaling


def load_half_rows(
    source: RowSource, numbers: Ints, scaling: SScaling, wanted: SScaling | None
) -> RowBlock:
    """Read `clip` and `s` with codes held as float16, which halves their memory.

    What is held is ``(s - mean) / std``: within +-65,504 for any real code, with a relative error
    of 2^-11 whatever a channel's size.

    Args:
        source: the store.
        numbers: N row numbers.
        scaling: mean and std of these rows.
        wanted: the scaling of the codes that batches are to have; None for raw ones.

    Raises:
        PairError: fewer than two rows, or an embedding without direction.
        ShapeError: `s` has another width than `scaling`.
    """
    s = np.empty((len(numbers), len(scaling.std)), dtype=np.float16)
    for block in blocks_of(numbers):
        codes = read_codes(source, numbers[block], s.shape[1])
        scaling.apply(codes)
        s[block] = codes
    if wanted is None:
        expansion = Affine(scaling.std, scaling.centre)
    else:
        expansion = Affine(
            (scaling.std > 0).astype(np.float32), (scaling.centre - wanted.centre) * wanted.scale
        )
    return RowBlock(load_units(source, numbers), s, expansion)
