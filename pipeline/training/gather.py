"""Pairs of rows -> one batch: gathered and differenced in a few operations."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.pairs.deltas import MIN_DISTANCE
from pipeline.shapes import Floats, Ints
from pipeline.training.rows import RowBlock

Condition = Literal["delta", "target"]
"""What a condition has after the source's unit embedding: the unit difference to the target's, as
published, or the target's unit embedding itself, the ablation that text cannot drive."""


class PairBatch(NamedTuple):
    """Pairs ready for the mapper. `PairBatches` on a CPU reuses the memory for later batches."""

    s: Tensor
    """[B, S] float32 codes of the sources."""
    condition: Tensor
    """[B, 2C] float32 conditions."""
    delta_s: Tensor
    """[B, S] float32 changes that lead to the targets."""


class PairBuffers:
    """Memory of one batch, as tensors and as the arrays that it is filled through."""

    def __init__(self, num_pairs: int, s_dim: int, clip_dim: int, *, pinned: bool = False) -> None:
        """Take memory for B pairs; `pinned` where a CUDA device copies from it."""

        def make(width: int) -> Tensor:
            return torch.empty(num_pairs, width, dtype=torch.float32, pin_memory=pinned)

        self.batch = PairBatch(make(s_dim), make(2 * clip_dim), make(s_dim))
        self.s: Floats = self.batch.s.numpy()
        self.delta_s: Floats = self.batch.delta_s.numpy()
        self.condition: Floats = self.batch.condition.numpy().reshape(num_pairs, 2, clip_dim)
        """[B, 2, C]: unit embedding of the source, and what leads to the target."""
        self._copied: torch.cuda.Event | None = None

    def batch_on(self, device: torch.device) -> PairBatch:
        """The batch on a device: itself on a CPU, elsewhere a copy that may still be under way."""
        if device.type == "cpu":
            return self.batch
        on_cuda = device.type == "cuda"
        batch = PairBatch(*(tensor.to(device, non_blocking=on_cuda) for tensor in self.batch))
        if on_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(device))
        return batch

    def wait(self) -> None:
        """Return when no copy reads this memory any more."""
        if self._copied is not None:
            self._copied.synchronize()


class HostGather:
    """Gathers pairs of rows in memory, into buffers that every batch uses again.

    By `numpy.take`: `torch.index_select` waits at a thread barrier and is several times slower on a
    busy machine.
    """

    def __init__(self, block: RowBlock, num_pairs: int, condition: Condition = "delta") -> None:
        """Set the rows, B, the pairs of every batch, and what the condition says of the target."""
        self._block = block
        self._condition_kind: Condition = condition
        self._out = PairBuffers(num_pairs, block.s.shape[1], block.units.shape[1])
        self._source_units = np.empty((num_pairs, block.units.shape[1]), dtype=np.float32)
        self._expansion = block.expansion and tuple(map(torch.from_numpy, block.expansion))

    def __call__(self, sources: Ints, targets: Ints) -> PairBatch:
        """The pairs of `sources` and `targets`, [B] positions each."""
        out, units = self._out, self._block.units
        self._codes(sources, out.s)
        self._codes(targets, out.delta_s)
        np.subtract(out.delta_s, out.s, out=out.delta_s)
        # Without mode="clip" numpy gathers into a temporary and copies.
        units.take(sources, axis=0, out=self._source_units, mode="clip")
        target_units = units.take(targets, axis=0, mode="clip")
        fill_conditions(out.condition, self._source_units, target_units, self._condition_kind)
        return out.batch

    def _codes(self, positions: Ints, out: Floats) -> None:
        if self._expansion is None:
            self._block.s.take(positions, axis=0, out=out, mode="clip")
            return
        gain, offset = self._expansion
        held = torch.from_numpy(self._block.s.take(positions, axis=0, mode="clip"))
        # numpy takes several times as long to make float32 of float16.
        torch.from_numpy(out).copy_(held).mul_(gain).add_(offset)


def fill_conditions(out: Floats, source: Floats, target: Floats, kind: Condition) -> None:
    """Write conditions [B, 2, C] of unit rows [B, C] of sources and targets."""
    out[:, 0] = source
    direction = out[:, 1]
    if kind == "target":
        direction[:] = target
        return
    np.subtract(target, source, out=direction)
    lengths = np.sqrt(np.vecdot(direction, direction))[:, None]
    np.divide(direction, np.maximum(lengths, MIN_DISTANCE), out=direction)


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
