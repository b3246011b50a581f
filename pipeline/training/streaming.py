"""Batches of pairs whose rows are read when they are needed, by threads, before they are."""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import torch

from pipeline.shapes import Ints
from pipeline.training.gather import Condition, PairBatch, PairBuffers, fill_conditions
from pipeline.training.holding import RowStream

READERS = 8
"""Threads that read: a page that is not in memory is waited for, and only other threads keep the
disk busy meanwhile."""
CHUNK_PAIRS = 64
"""Pairs that a thread reads at once: with fewer, calls cost more than the bytes."""


class PairStream:
    """Batches that are asked for one after the other; some later ones are always being read."""

    def __init__(
        self,
        rows: RowStream,
        pairs: Callable[[int], tuple[Ints, Ints]],
        *,
        num_pairs: int,
        condition: Condition,
        device: torch.device,
    ) -> None:
        """Read nothing yet.

        Args:
            rows: the split to pair.
            pairs: source and target positions, [B] each, of a batch.
            num_pairs: B.
            condition: what conditions say of the targets.
            device: where batches are wanted.
        """
        self._rows, self._pairs = rows, pairs
        self._condition: Condition = condition
        self._device, self._num_pairs = device, num_pairs
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="rows")
        self._num_ahead = 1 + math.ceil(READERS * CHUNK_PAIRS / num_pairs)
        self._coming: dict[int, _Coming] = {}
        self._spare: list[PairBuffers] = []
        self._in_use: PairBuffers | None = None

    def batch(self, number: int) -> PairBatch:
        """Batch `number`; on a CPU its memory is used again once the next is asked for."""
        if self._in_use is not None:
            self._spare.append(self._in_use)
        wanted = range(number, number + self._num_ahead + 1)
        for other in self._coming.keys() - set(wanted):
            self._spare.append(self._coming.pop(other).give_up())
        for other in wanted:
            if other not in self._coming:
                self._coming[other] = self._start(other)
        self._in_use = self._coming.pop(number).result()
        return self._in_use.batch_on(self._device)

    def _start(self, number: int) -> "_Coming":
        buffers = self._spare.pop() if self._spare else self._new_buffers()
        buffers.wait()
        sources, targets = self._pairs(number)
        chunks = (slice(i, i + CHUNK_PAIRS) for i in range(0, self._num_pairs, CHUNK_PAIRS))
        submit = self._readers.submit
        parts = [submit(self._read, buffers, c, sources[c], targets[c]) for c in chunks]
        return _Coming(buffers, parts)

    def _new_buffers(self) -> PairBuffers:
        pinned = self._device.type == "cuda"
        return PairBuffers(self._num_pairs, self._rows.s_dim, self._rows.clip_dim, pinned=pinned)

    def _read(self, out: PairBuffers, chunk: slice, sources: Ints, targets: Ints) -> None:
        s, delta_s = out.s[chunk], out.delta_s[chunk]
        source_units = self._rows.read(sources, s)
        target_units = self._rows.read(targets, delta_s)
        np.subtract(delta_s, s, out=delta_s)
        fill_conditions(out.condition[chunk], source_units, target_units, self._condition)


class _Coming:
    """A batch that is being read."""

    def __init__(self, buffers: PairBuffers, parts: list[Future[None]]) -> None:
        self._buffers, self._parts = buffers, parts

    def result(self) -> PairBuffers:
        """Wait for all of it.

        Raises:
            Exception: what reading raised.
        """
        wait(self._parts)
        for part in self._parts:
            part.result()
        return self._buffers

    def give_up(self) -> PairBuffers:
        """Its memory, which nothing writes any more."""
        wait([part for part in self._parts if not part.cancel()])
        return self._buffers
