"""Shards through the frozen models, one after the other: read, encode, commit, overlapping."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from flows.steps.progress import Stopwatch
from flows.steps.reading import Decoded, decode_ahead
from flows.steps.sampled import SampledSource
from pipeline.encoding import Encoders, encode_images, encode_sampled
from stores.manifest import ShardEntry
from stores.plan import ShardPlan
from stores.store import Store
from stores.writer import ShardWriter

MAX_BATCH_BYTES = 256 * 2**20
"""Decoded pixels that go through the models together at most; one image always may."""
BATCHES_AHEAD = 2
"""Batches of images decoded ahead of the models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEncoder:
    """Makes the rows of planned shards; the same plan gives the same rows, bit for bit."""

    encoders: Encoders
    """The frozen models."""
    columns: tuple[str, ...]
    """What to compute."""
    batch_size: int
    """Images per pass through the models."""
    num_workers: int
    """Threads that read and decode."""
    sampled: SampledSource | None
    """What draws the images; None where they are read."""
    watch: Stopwatch
    """Collects the seconds of each stage."""

    def encode(self, store: Store, shards: Sequence[ShardPlan]) -> Iterator[ShardEntry]:
        """Encode and commit shards, yielding each as soon as it is committed.

        A commit runs behind the next shard's encoding, so two shards are in memory at most.
        """
        items = (item for shard in shards for item in shard.items)
        depth = BATCHES_AHEAD * self.batch_size
        with (
            closing(decode_ahead(items, num_workers=self.num_workers, depth=depth)) as decoded,
            ThreadPoolExecutor(1, thread_name_prefix="commit") as committer,
        ):
            pending: Future[ShardEntry] | None = None
            for shard in shards:
                writer = ShardWriter(store, shard)
                if self.sampled is None:
                    self._encode_images(writer, len(shard.items), decoded)
                else:
                    self._encode_samples(writer, shard, self.sampled)
                if pending is not None:
                    yield self._committed(pending)
                pending = committer.submit(writer.commit)
            if pending is not None:
                yield self._committed(pending)

    def _committed(self, pending: Future[ShardEntry]) -> ShardEntry:
        with self.watch.time("wait for disk"):
            return pending.result()

    def _encode_images(
        self, writer: ShardWriter, num_items: int, decoded: Iterator[Decoded]
    ) -> None:
        keys: list[str] = []
        batch: list[np.ndarray] = []
        for number in range(num_items):
            with self.watch.time("wait for images"):
                image = next(decoded)
            if image.sha256:
                writer.note_digest(image.item.key, image.sha256)
            if image.pixels is None:
                writer.reject(image.item.key, image.reason, image.detail)
            else:
                keys.append(image.item.key)
                batch.append(image.pixels)
            if batch and (self._is_full(batch) or number == num_items - 1):
                with self.watch.time("models"):
                    writer.add(keys, encode_images(batch, self.encoders, self.columns))
                keys, batch = [], []

    def _is_full(self, batch: Sequence[np.ndarray]) -> bool:
        size_bytes = sum(pixels.nbytes for pixels in batch)
        return len(batch) == self.batch_size or size_bytes >= MAX_BATCH_BYTES

    def _encode_samples(self, writer: ShardWriter, shard: ShardPlan, source: SampledSource) -> None:
        for begin in range(0, len(shard.items), self.batch_size):
            keys = [item.key for item in shard.items[begin : begin + self.batch_size]]
            indices = [int(key.rsplit("/", 1)[1]) for key in keys]
            with self.watch.time("models"):
                rows = encode_sampled(
                    source.seed, indices, source.truncation, self.encoders, self.columns
                )
            writer.add(keys, rows)
