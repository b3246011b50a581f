"""Batches of pairs, from rows in memory or read ahead: a few operations per batch, none per pair.

Batch `i` is the same pairs however the rows are held, so that a run gives the same weights when its
data outgrows the memory: bit for bit when rows are streamed, to a relative error of 2^-11 in the
codes when they are held as float16.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from pipeline.errors import PairError
from pipeline.pairs.graph import NeighbourGraph
from pipeline.pairs.sampling import PairConfig, PairSampler
from pipeline.shapes import Ints
from pipeline.training.gather import Condition, DeviceRows, HostGather, PairBatch
from pipeline.training.holding import RowStream
from pipeline.training.rows import RowBlock

BATCHES_PER_DRAW = 32
"""Batches whose pairs are drawn at once. After a training step the sampler's code and tables have
left the processor's caches: drawing for one batch alone takes ten times its warm time. Streamed
rows are read for as many batches at once, each row once and in the order of the store."""


class Share(NamedTuple):
    """Which part of each batch is wanted, where several processes train one mapper."""

    part: int = 0
    """From 0."""
    parts: int = 1
    """Of equal size; the batch must divide by it."""


WHOLE = Share()


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The pairs of `BATCHES_PER_DRAW` batches."""

    sources: Ints
    """Positions in the split."""
    targets: Ints
    """Likewise."""
    gather: Callable[[Ints, Ints], PairBatch]
    """Makes a batch of some of these pairs."""


class PairBatches:
    """Batch `i` of a training run, for any `i`.

    Off the CPU the rows live on the device and are gathered there.
    """

    def __init__(
        self,
        rows: RowBlock | RowStream,
        config: PairConfig,
        *,
        batch_size: int,
        neighbours: NeighbourGraph | None = None,
        device: torch.device | str = "cpu",
        share: Share = WHOLE,
        condition: Condition = "delta",
    ) -> None:
        """Prepare the sampler and the buffers.

        Args:
            rows: the split to pair.
            config: the policy.
            batch_size: B, of all parts together.
            neighbours: graph of exactly these rows; see `PairSampler`.
            device: where batches are wanted.
            share: the part of each batch that is wanted.
            condition: what conditions say of the targets.

        Raises:
            PairError: the policy cannot be carried out on these rows, or the batch size does not
                divide by the number of parts.
        """
        if batch_size % share.parts:
            raise PairError(
                f"a batch of {batch_size} pairs cannot be shared by {share.parts} processes: give "
                f"a batch size that divides by {share.parts}"
            )
        self.batch_size = batch_size
        self._share = share
        self._condition: Condition = condition
        self._device = torch.device(device)
        self._sampler = _sampler(rows, config, neighbours)
        self._host = HostGather(batch_size // share.parts, condition)
        self._resident = self._placed(rows) if isinstance(rows, RowBlock) else None
        self._stream = rows if isinstance(rows, RowStream) else None
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._coming: dict[int, Future[_Drawn]] = {}
        self._drawn: tuple[int, _Drawn] | None = None

    def batch(self, number: int) -> PairBatch:
        """Batch `number`, or this process's part of it; the same every time it is asked for."""
        sources, targets = self.pairs(number)
        assert self._drawn is not None
        return self._drawn[1].gather(sources, targets)

    def pairs(self, number: int) -> tuple[Ints, Ints]:
        """Source and target positions of batch `number`, or of this process's part of it."""
        draw, place = divmod(number, BATCHES_PER_DRAW)
        if self._drawn is None or self._drawn[0] != draw:
            self._drawn = draw, self._take(draw)
        length = self.batch_size // self._share.parts
        start = place * self.batch_size + self._share.part * length
        part = slice(start, start + length)
        return self._drawn[1].sources[part], self._drawn[1].targets[part]

    def _take(self, draw: int) -> _Drawn:
        """A draw; streamed ones are read while the batches of the one before are trained on."""
        if self._resident is not None:
            return _Drawn(*self._draw(draw), self._resident)
        coming = self._coming.pop(draw, None) or self._ahead.submit(self._read, draw)
        self._coming = {draw + 1: self._ahead.submit(self._read, draw + 1)}
        return coming.result()

    def _read(self, draw: int) -> _Drawn:
        assert self._stream is not None
        sources, targets = self._draw(draw)
        needed = np.unique(np.concatenate([sources, targets]))
        gather = self._placed(self._stream.read(needed))
        return _Drawn(
            sources,
            targets,
            lambda some, others: gather(
                np.searchsorted(needed, some), np.searchsorted(needed, others)
            ),
        )

    def _draw(self, draw: int) -> tuple[Ints, Ints]:
        return self._sampler.draw(draw, BATCHES_PER_DRAW * self.batch_size)

    def _placed(self, block: RowBlock) -> Callable[[Ints, Ints], PairBatch]:
        if self._device.type == "cpu":
            return lambda sources, targets: self._host(block, sources, targets)
        return DeviceRows(block, self._device, self._condition)


def _sampler(
    rows: RowBlock | RowStream, config: PairConfig, neighbours: NeighbourGraph | None
) -> PairSampler:
    builds_graph = config.needs_graph(len(rows)) and neighbours is None
    units = None
    if isinstance(rows, RowBlock):
        units = rows.units
    elif config.needs_clip or builds_graph:
        units = rows.units()
    return PairSampler(config, len(rows), neighbours=neighbours, units=units)
