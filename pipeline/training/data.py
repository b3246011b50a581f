"""Batches of pairs from columns held in memory: a few operations per batch, none per pair."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import PairError
from pipeline.pairs.deltas import MIN_DISTANCE
from pipeline.pairs.index import NeighbourGraph, neighbour_graph, unit_rows
from pipeline.pairs.sampling import PairConfig, PairSampler
from pipeline.shapes import Floats, Ints, assert_shape

BLOCK_ROWS = 8192
"""Rows read at once, so that the source's copy never doubles the memory of a column."""
BATCHES_PER_DRAW = 32
"""Batches whose pairs are drawn at once. After a training step the sampler's code and tables have
left the processor's caches: drawing for one batch alone takes ten times its warm time."""


class RowSource(Protocol):
    """What training needs from a store: any rows of named columns."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def rows(
        self, indices: Sequence[int] | Ints, columns: Sequence[str]
    ) -> Mapping[str, NDArray[np.generic]]:
        """The named columns of the rows `indices`, in that order."""
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


class RowBlock(NamedTuple):
    """Rows of one split, resident in memory."""

    units: Floats
    """[N, C] float32 unit CLIP rows."""
    s: Floats
    """[N, S] float32 style codes."""

    def scaling(self) -> SScaling:
        """Mean and std of the codes, summed in float64."""
        mean = self.s.mean(axis=0, dtype=np.float64)
        total = np.zeros_like(mean)
        for start in range(0, len(self.s), BLOCK_ROWS):
            total += np.square(self.s[start : start + BLOCK_ROWS] - mean).sum(axis=0)
        std = np.sqrt(total / len(self.s))
        return SScaling(mean.astype(np.float32), std.astype(np.float32))

    def rescale(self, scaling: SScaling) -> None:
        """Scale the codes in place."""
        np.subtract(self.s, scaling.centre, out=self.s)
        np.multiply(self.s, scaling.scale, out=self.s)


class PairBatch(NamedTuple):
    """Pairs ready for the mapper. `PairBatches` on a CPU reuses the memory for the next batch."""

    s: Tensor
    """[B, S] float32 codes of the sources."""
    condition: Tensor
    """[B, 2C] float32 conditions."""
    delta_s: Tensor
    """[B, S] float32 changes that lead to the targets."""


def load_rows(source: RowSource, numbers: Ints, *, s_dim: int) -> RowBlock:
    """Read `clip` and `s` of the rows `numbers` into memory as float32.

    Raises:
        PairError: fewer than two rows, or an embedding without direction.
        ShapeError: `s` has another width than `s_dim`.
    """
    if len(numbers) < 2:  # noqa: PLR2004 - a pair has two rows
        raise PairError(f"a split of {len(numbers)} rows gives no pair: encode more images")
    units: Floats | None = None
    s = np.empty((len(numbers), s_dim), dtype=np.float32)
    for start in range(0, len(numbers), BLOCK_ROWS):
        block = slice(start, min(start + BLOCK_ROWS, len(numbers)))
        columns = source.rows(numbers[block], ("clip", "s"))
        assert_shape(columns["s"], (block.stop - start, s_dim), "column s")
        if units is None:
            units = np.empty((len(numbers), columns["clip"].shape[1]), dtype=np.float32)
        units[block] = unit_rows(columns["clip"].astype(np.float32, copy=False))
        s[block] = columns["s"]
    assert units is not None
    return RowBlock(units, s)


class PairBatches:
    """Batch `i` of a training run, for any `i`, from resident rows.

    On a CPU rows are gathered by `numpy.take` into buffers made once: `torch.index_select` waits at
    a thread barrier and is several times slower on a busy machine. Elsewhere the columns live on
    the device and torch gathers there.
    """

    def __init__(
        self,
        rows: RowBlock,
        config: PairConfig,
        *,
        batch_size: int,
        neighbours: NeighbourGraph | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Prepare the sampler and the buffers.

        Args:
            rows: the split to pair; its codes may be z-scored.
            config: the policy.
            batch_size: B.
            neighbours: graph of exactly these rows; built here if `nearest` needs one.
            device: where batches are wanted.

        Raises:
            PairError: the policy cannot be carried out on these rows.
        """
        if config.policy == "nearest" and neighbours is None:
            k = min(config.num_neighbours, len(rows.units) - 1)
            neighbours = neighbour_graph(rows.units, k)
        self.batch_size = batch_size
        self._sampler = PairSampler(
            config, len(rows.units), neighbours=neighbours, units=rows.units
        )
        self._drawn = (-1, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        self._rows = rows
        self._device = torch.device(device)
        width, clip_dim = rows.s.shape[1], rows.units.shape[1]
        if self._device.type == "cpu":
            self._s = np.empty((batch_size, width), dtype=np.float32)
            self._delta_s = np.empty_like(self._s)
            self._source_units = np.empty((batch_size, clip_dim), dtype=np.float32)
            self._condition = np.empty((batch_size, 2, clip_dim), dtype=np.float32)
        else:
            self._resident_s = torch.from_numpy(rows.s).to(self._device)
            self._resident_units = torch.from_numpy(rows.units).to(self._device)

    def batch(self, number: int) -> PairBatch:
        """Batch `number`, the same every time it is asked for."""
        sources, targets = self.pairs(number)
        if self._device.type == "cpu":
            return self._gather_into_buffers(sources, targets)
        return self._gather_on_device(sources, targets)

    def pairs(self, number: int) -> tuple[Ints, Ints]:
        """Source and target positions of batch `number`, [B] int64 each."""
        draw, place = divmod(number, BATCHES_PER_DRAW)
        if self._drawn[0] != draw:
            drawn = self._sampler.draw(draw, BATCHES_PER_DRAW * self.batch_size)
            self._drawn = (draw, *drawn)
        part = slice(place * self.batch_size, (place + 1) * self.batch_size)
        return self._drawn[1][part], self._drawn[2][part]

    def _gather_into_buffers(self, sources: Ints, targets: Ints) -> PairBatch:
        s, units, delta_s = self._rows.s, self._rows.units, self._delta_s
        # Without mode="clip" numpy gathers into a temporary and copies.
        s.take(sources, axis=0, out=self._s, mode="clip")
        s.take(targets, axis=0, out=delta_s, mode="clip")
        np.subtract(delta_s, self._s, out=delta_s)
        source, direction = self._condition[:, 0], self._condition[:, 1]
        units.take(sources, axis=0, out=self._source_units, mode="clip")
        source[:] = self._source_units
        np.subtract(units.take(targets, axis=0, mode="clip"), source, out=direction)
        lengths = np.sqrt(np.vecdot(direction, direction))[:, None]
        np.divide(direction, np.maximum(lengths, MIN_DISTANCE), out=direction)
        return PairBatch(
            torch.from_numpy(self._s),
            torch.from_numpy(self._condition).flatten(1),
            torch.from_numpy(delta_s),
        )

    def _gather_on_device(self, sources: Ints, targets: Ints) -> PairBatch:
        source = torch.from_numpy(sources).to(self._device, non_blocking=True)
        target = torch.from_numpy(targets).to(self._device, non_blocking=True)
        s, unit = self._resident_s[source], self._resident_units[source]
        difference = self._resident_units[target] - unit
        lengths = difference.norm(dim=1, keepdim=True).clamp_min(MIN_DISTANCE)
        condition = torch.cat([unit, difference / lengths], dim=1)
        return PairBatch(s, condition, self._resident_s[target] - s)
