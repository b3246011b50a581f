"""Shards through the frozen models, one after the other: read, encode, commit, overlapping."""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from threading import Semaphore
from typing import Any, NamedTuple

import numpy as np

from flows.steps.model_threads import ModelThreads
from flows.steps.progress import Stopwatch
from flows.steps.reading import Decoded, ImageReader, decode_ahead
from flows.steps.sampled import SampledSource
from pipeline.encoding import Encoders, StageClock, encode_sampled, encode_views
from stores.manifest import ShardEntry
from stores.plan import ShardPlan
from stores.store import Store
from stores.writer import ShardWriter

MAX_BATCH_BYTES = 256 * 2**20
"""Pixels that go to the models together at most; one image always may."""
BATCHES_AHEAD = 2
"""Batches of images decoded ahead of the models."""


class _Batch(NamedTuple):
    """Inputs of one shard that go to the models together."""

    writer: ShardWriter
    keys: list[str]
    is_last: bool
    """Whether the shard is complete with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEncoder:
    """Makes the rows of planned shards; the same plan gives the same rows, bit for bit."""

    encoders: Encoders
    """The frozen models."""
    columns: tuple[str, ...]
    """What to compute."""
    batch_size: int
    """Images per pass through the models at most (`ModelThreads.batch_size`)."""
    num_workers: int
    """Threads that read and decode."""
    num_processors: int
    """Threads that may decode or run models on processors at a time; waiting for a disk is free."""
    jpeg_device: str
    """What decodes JPEGs: cpu, or the models' CUDA device."""
    sampled: SampledSource | None
    """What draws the images; None where they are read."""
    watch: Stopwatch
    """Collects the seconds of each stage."""

    def encode(self, store: Store, shards: Sequence[ShardPlan]) -> Iterator[ShardEntry]:
        """Encode and commit shards, yielding each as soon as it is committed.

        Reading, models and commits run in threads of their own, each a bounded number of images
        ahead of the next, so that at most three shards are in memory.
        """
        processor = Semaphore(self.num_processors)
        models = ModelThreads(self.encoders.device, self.batch_size, processor)
        batches = self._batches(store, shards, models.batch_size, processor)
        with (
            closing(batches),
            closing(models.map(self._rows, batches)) as encoded,
            ThreadPoolExecutor(1, thread_name_prefix="commit") as committer,
        ):
            pending: Future[ShardEntry] | None = None
            for batch, rows in encoded:
                with self.watch.time("wait for models"):
                    columns = rows()
                if batch.keys:
                    batch.writer.add(batch.keys, columns)
                if not batch.is_last:
                    continue
                if pending is not None:
                    yield self._committed(pending)
                pending = committer.submit(self._commit, batch.writer)
            if pending is not None:
                yield self._committed(pending)

    def _rows(self, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
        """Views, or numbers of samples, through the models."""
        clock = StageClock(self.encoders.device)
        if self.sampled is None:
            rows = encode_views(inputs, self.encoders, self.columns, clock)
        else:
            seed, truncation = self.sampled.seed, self.sampled.truncation
            rows = encode_sampled(seed, inputs, truncation, self.encoders, self.columns, clock)
        self.watch.add(clock.seconds())
        return rows

    def _commit(self, writer: ShardWriter) -> ShardEntry:
        with self.watch.time("write"):
            return writer.commit()

    def _committed(self, pending: Future[ShardEntry]) -> ShardEntry:
        with self.watch.time("wait for disk"):
            return pending.result()

    def _batches(
        self,
        store: Store,
        shards: Sequence[ShardPlan],
        batch_size: int,
        processor: AbstractContextManager[object],
    ) -> Generator[tuple[_Batch, Sequence[Any]], None, None]:
        if self.sampled is not None:
            for shard in shards:
                yield from _sample_batches(ShardWriter(store, shard), shard, batch_size)
            return
        items = (item for shard in shards for item in shard.items)
        read = ImageReader(
            encoders=self.encoders,
            columns=self.columns,
            watch=self.watch,
            processor=processor,
            jpeg_device=self.jpeg_device,
        )
        depth = BATCHES_AHEAD * self.batch_size
        with closing(
            decode_ahead(items, read, num_workers=self.num_workers, depth=depth)
        ) as decoded:
            for shard in shards:
                writer = ShardWriter(store, shard)
                yield from self._image_batches(writer, len(shard.items), decoded, batch_size)

    def _image_batches(
        self, writer: ShardWriter, num_items: int, decoded: Iterator[Decoded], batch_size: int
    ) -> Iterator[tuple[_Batch, Sequence[Any]]]:
        """Batches of one shard: cut where the plan says, never by what happens to be ready."""
        keys: list[str] = []
        views: list[Any] = []
        size_bytes = 0
        for number in range(num_items):
            with self.watch.time("wait for images"):
                image = next(decoded)
            if image.sha256:
                writer.note_digest(image.item.key, image.sha256)
            if image.views is None:
                writer.reject(image.item.key, image.reason, image.detail)
            else:
                keys.append(image.item.key)
                views.append(image.views)
                size_bytes += image.views.nbytes
            is_last = number == num_items - 1
            if is_last or len(keys) == batch_size or size_bytes >= MAX_BATCH_BYTES:
                yield _Batch(writer, keys, is_last), views
                keys, views, size_bytes = [], [], 0


def _sample_batches(
    writer: ShardWriter, shard: ShardPlan, batch_size: int
) -> Iterator[tuple[_Batch, Sequence[Any]]]:
    for begin in range(0, len(shard.items), batch_size):
        keys = [item.key for item in shard.items[begin : begin + batch_size]]
        indices = [int(key.rsplit("/", 1)[1]) for key in keys]
        yield _Batch(writer, keys, begin + batch_size >= len(shard.items)), indices
