"""Batches of pairs, from rows in memory or read ahead: a few operations per batch, none per pair.

Batch `i` is the same pairs however the rows are held, so that a run gives the same weights when its
data outgrows the memory: bit for bit when rows are streamed, to a relative error of 2^-11 in the
codes when they are held as float16.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from pipeline.errors import PairError
from pipeline.pairs.graph import NeighbourGraph
from pipeline.pairs.sampling import PairConfig, PairSampler
from pipeline.shapes import Ints
from pipeline.training.gather import Condition, DeviceRows, HostGather, PairBatch
from pipeline.training.holding import RowStream
from pipeline.training.rows import RowBlock
from pipeline.training.streaming import PairStream

BATCHES_PER_DRAW = 32
"""Batches whose pairs are drawn at once. After a training step the sampler's code and tables have
left the processor's caches: drawing for one batch alone takes ten times its warm time."""


class Share(NamedTuple):
    """Which part of each batch is wanted, where several processes train one mapper."""

    part: int = 0
    """From 0."""
    parts: int = 1
    """Of equal size; the batch must divide by it."""


WHOLE = Share()


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
        self._drawn: dict[int, tuple[Ints, Ints]] = {}
        self._make = self._maker(rows)

    def batch(self, number: int) -> PairBatch:
        """Batch `number`, or this process's part of it; the same every time it is asked for."""
        return self._make(number)

    def pairs(self, number: int) -> tuple[Ints, Ints]:
        """Source and target positions of batch `number`, or of this process's part of it."""
        draw, place = divmod(number, BATCHES_PER_DRAW)
        if draw not in self._drawn:
            # Reading ahead asks for two draws in turn while it passes from one to the next.
            self._drawn = {n: pairs for n, pairs in self._drawn.items() if n == draw - 1}
            self._drawn[draw] = self._sampler.draw(draw, BATCHES_PER_DRAW * self.batch_size)
        length = self.batch_size // self._share.parts
        start = place * self.batch_size + self._share.part * length
        sources, targets = self._drawn[draw]
        return sources[start : start + length], targets[start : start + length]

    def _maker(self, rows: RowBlock | RowStream) -> Callable[[int], PairBatch]:
        """What makes a batch of its number."""
        num_pairs, condition = self.batch_size // self._share.parts, self._condition
        if isinstance(rows, RowStream):
            stream = PairStream(
                rows, self.pairs, num_pairs=num_pairs, condition=condition, device=self._device
            )
            return stream.batch
        if self._device.type == "cpu":
            gather = HostGather(rows, num_pairs, condition)
        else:
            gather = DeviceRows(rows, self._device, condition)
        return lambda number: gather(*self.pairs(number))


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
