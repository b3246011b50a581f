"""Pairs of rows -> one batch: gathered and differenced in a few operations."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.pairs.deltas import MIN_DISTANCE
from pipeline.shapes import Floats, Ints
from pipeline.training.rows import Affine, RowBlock

Condition = Literal["delta", "target"]
"""What a condition has after the source's unit embedding: the unit difference to the target's, as
published, or the target's unit embedding itself, the ablation that text cannot drive."""


class PairBatch(NamedTuple):
    """Pairs ready for the mapper. `PairBatches` on a CPU reuses the memory for the next batch."""

    s: Tensor
    """[B, S] float32 codes of the sources."""
    condition: Tensor
    """[B, 2C] float32 conditions."""
    delta_s: Tensor
    """[B, S] float32 changes that lead to the targets."""


class HostGather:
    """Gathers pairs of rows in memory, into buffers that every batch uses again.

    By `numpy.take`: `torch.index_select` waits at a thread barrier and is several times slower on a
    busy machine.
    """

    def __init__(self, num_pairs: int, condition: Condition = "delta") -> None:
        """Set B, the pairs of every batch, and what the condition says of the target."""
        self._num_pairs = num_pairs
        self._condition_kind = condition
        self._widths = (-1, -1)

    def __call__(self, block: RowBlock, sources: Ints, targets: Ints) -> PairBatch:
        """The pairs of `sources` and `targets`, [B] positions in `block` each."""
        self._prepare(block)
        s, delta_s = self._s, self._delta_s
        if block.expansion is None:
            # Without mode="clip" numpy gathers into a temporary and copies.
            block.s.take(sources, axis=0, out=s, mode="clip")
            block.s.take(targets, axis=0, out=delta_s, mode="clip")
        else:
            _expand(block.s, sources, block.expansion, out=s)
            _expand(block.s, targets, block.expansion, out=delta_s)
        np.subtract(delta_s, s, out=delta_s)
        source, direction = self._condition[:, 0], self._condition[:, 1]
        block.units.take(sources, axis=0, out=self._source_units, mode="clip")
        source[:] = self._source_units
        target_units = block.units.take(targets, axis=0, mode="clip")
        if self._condition_kind == "target":
            direction[:] = target_units
            return self._batch()
        np.subtract(target_units, source, out=direction)
        lengths = np.sqrt(np.vecdot(direction, direction))[:, None]
        np.divide(direction, np.maximum(lengths, MIN_DISTANCE), out=direction)
        return self._batch()

    def _batch(self) -> PairBatch:
        return PairBatch(
            torch.from_numpy(self._s),
            torch.from_numpy(self._condition).flatten(1),
            torch.from_numpy(self._delta_s),
        )

    def _prepare(self, block: RowBlock) -> None:
        s_dim, clip_dim = widths = block.s.shape[1], block.units.shape[1]
        if widths != self._widths:
            self._widths = widths
            self._s = np.empty((self._num_pairs, s_dim), dtype=np.float32)
            self._delta_s = np.empty_like(self._s)
            self._source_units = np.empty((self._num_pairs, clip_dim), dtype=np.float32)
            self._condition = np.empty((self._num_pairs, 2, clip_dim), dtype=np.float32)


def _expand(held: np.ndarray, positions: Ints, expansion: Affine, *, out: Floats) -> None:
    np.multiply(held.take(positions, axis=0, mode="clip"), expansion.gain, out=out)
    np.add(out, expansion.offset, out=out)


class DeviceRows:
    """Rows on an accelerator, gathered there."""

    def __init__(
        self, block: RowBlock, device: torch.device, condition: Condition = "delta"
    ) -> None:
        """Copy the rows to the device."""
        self._condition_kind = condition
        self._units = torch.from_numpy(block.units).to(device)
        self._s = torch.from_numpy(block.s).to(device)
        self._expansion = block.expansion and tuple(
            torch.from_numpy(values).to(device) for values in block.expansion
        )

    def __call__(self, sources: Ints, targets: Ints) -> PairBatch:
        """The pairs of `sources` and `targets`, [B] positions each."""
        device = self._s.device
        source = torch.from_numpy(sources).to(device, non_blocking=True)
        target = torch.from_numpy(targets).to(device, non_blocking=True)
        s, unit, wanted = self._codes(source), self._units[source], self._units[target]
        if self._condition_kind == "delta":
            wanted = wanted - unit
            wanted = wanted / wanted.norm(dim=1, keepdim=True).clamp_min(MIN_DISTANCE)
        return PairBatch(s, torch.cat([unit, wanted], dim=1), self._codes(target) - s)

    def _codes(self, positions: Tensor) -> Tensor:
        held = self._s[positions]
        if self._expansion is None:
            return held
        gain, offset = self._expansion
        return torch.addcmul(offset, held, gain)
