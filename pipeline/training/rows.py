"""What training reads of a store: unit CLIP rows, style codes and their scaling."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PairError
from pipeline.pairs.rows import unit_rows
from pipeline.shapes import Floats, Ints, assert_shape

BLOCK_ROWS = 2048
"""Rows read at once, so that the source's copy never doubles the memory of a column. The blocks
are those of the sums behind `SScaling`, too: with others its last bits would differ."""


class RowSource(Protocol):
    """What training needs from a store: any rows of named columns."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def rows(
        self, indices: Sequence[int] | Ints, columns: Sequence[str]
    ) -> Mapping[str, NDArray[np.generic]]:
        """The named columns of the rows `indices`, in that order; several threads may ask."""
        ...


class SScaling(NamedTuple):
    """How raw style codes become the scaled ones that a mapper reads: ``(s - centre) / std``."""

    centre: Floats
    """[S] float32, subtracted: the mean of the training rows, moved by the layer signature."""
    std: Floats
    """[S] float32, of the training rows, population; 0 for a channel that never varies."""

    @property
    def scale(self) -> Floats:
        """[S] float32: 1 / std, and 0 for a channel that never varies."""
        return np.divide(1.0, self.std, out=np.zeros_like(self.std), where=self.std > 0)

    def signed(self, size: float, generator: np.random.Generator) -> "SScaling":
        """The same scaling with a normal random pattern of `size` left in every scaled code."""
        pattern = generator.standard_normal(len(self.std), dtype=np.float32)
        return self._replace(centre=self.centre - size * pattern * self.std)

    def apply(self, s: Floats) -> None:
        """Scale codes [N, S] in place."""
        np.subtract(s, self.centre, out=s)
        np.multiply(s, self.scale, out=s)


class Affine(NamedTuple):
    """What makes codes out of those that are held: ``held * gain + offset``."""

    gain: Floats
    """[S] float32."""
    offset: Floats
    """[S] float32."""


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows of one split, in memory."""

    units: Floats
    """[N, C] float32 unit CLIP rows."""
    s: np.ndarray
    """[N, S] style codes, float32, or float16 if `expansion` says how to expand them."""
    expansion: Affine | None = None
    """For float16 codes: what makes float32 codes of them."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.units)


def read_units(source: RowSource, numbers: Ints) -> Floats:
    """Unit CLIP rows [N, C] float32 of the rows `numbers`.

    Raises:
        PairError: an embedding has no direction.
    """
    return unit_rows(source.rows(numbers, ("clip",))["clip"].astype(np.float32, copy=False))


def read_codes(source: RowSource, numbers: Ints, s_dim: int) -> Floats:
    """Style codes [N, S] float32 of the rows `numbers`, which the caller may change.

    Raises:
        ShapeError: they have another width than `s_dim`.
    """
    codes = source.rows(numbers, ("s",))["s"]
    assert_shape(codes, (len(numbers), s_dim), "column s")
    return codes.astype(np.float32, copy=False)


def blocks_of(numbers: Ints) -> Iterator[slice]:
    """Consecutive slices of at most `BLOCK_ROWS` of the N `numbers`.

    Raises:
        PairError: there are fewer than two, which give no pair.
    """
    if len(numbers) < 2:  # noqa: PLR2004 - a pair has two rows
        raise PairError(f"a split of {len(numbers)} rows gives no pair: encode more images")
    for start in range(0, len(numbers), BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, len(numbers)))


def load_rows(source: RowSource, numbers: Ints, *, s_dim: int) -> RowBlock:
    """Read `clip` and `s` of the rows `numbers` into memory as float32.

    Raises:
        PairError: fewer than two rows, or an embedding without direction.
        ShapeError: `s` has another width than `s_dim`.
    """
    s = np.empty((len(numbers), s_dim), dtype=np.float32)
    for block in blocks_of(numbers):
        s[block] = read_codes(source, numbers[block], s_dim)
    return RowBlock(load_units(source, numbers), s)


def load_units(source: RowSource, numbers: Ints) -> Floats:
    """Unit CLIP rows [N, C] float32 of the rows `numbers`, read block by block.

    Raises:
        PairError: fewer than two rows, or an embedding without direction.
    """
    units: Floats | None = None
    for block in blocks_of(numbers):
        part = read_units(source, numbers[block])
        if units is None:
            units = np.empty((len(numbers), part.shape[1]), dtype=np.float32)
        units[block] = part
    assert units is not None
    return units


def measure_scaling(numbers: Ints, codes_of: Callable[[slice], Floats]) -> SScaling:
    """Mean and std of codes in one pass, summed in float64.

    Args:
        numbers: N row numbers.
        codes_of: gives the codes [n, S] float32 of a slice of `numbers`.

    Raises:
        PairError: there are fewer than two rows.
    """
    # A row of the data is near enough to the mean that few digits cancel, and the differences of a
    # channel that never varies are exactly 0.
    pivot = codes_of(slice(0, 1))[0].astype(np.float64)
    total, squares = np.zeros_like(pivot), np.zeros_like(pivot)
    for block in blocks_of(numbers):
        shifted = codes_of(block) - pivot
        total += shifted.sum(axis=0)
        squares += np.einsum("ns,ns->s", shifted, shifted)
    shift = total / len(numbers)
    variance = np.clip(squares / len(numbers) - shift**2, 0.0, None)
    return SScaling((pivot + shift).astype(np.float32), np.sqrt(variance).astype(np.float32))
