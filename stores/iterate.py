"""Samples of a store one after the other, as `webdataset` gives them, from either format.

What `webdataset.WebDataset(tars).decode()` does for tar shards, without parsing a tar, with keys as
they are, and with scaled columns as float32. Shards are dealt out to the readers of a cluster, so
that each sample is seen once; then shards and samples are shuffled by a seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stores.errors import StoreError
from stores.formats.common import decode_keys
from stores.gather import MappedShards
from stores.schema import KEY
from stores.store import Store

_BLOCK_ROWS = 256
"""Rows that are unscaled at once: a few megabytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IterateConfig:
    """One pass over a store, or one reader's part of it."""

    columns: tuple[str, ...] | None = None
    """The columns to give; all if None."""
    seed: int | None = None
    """Of the order of shards and samples; the order of the store if None."""
    epoch: int = 0
    """Each has an order of its own under one seed."""
    buffer_rows: int = 4096
    """Samples held to draw the next one from, when there is a seed."""
    reader: int = 0
    """Which part to give: for data loaders, `node * workers of a node + worker`."""
    num_readers: int = 1
    """The parts; a store of fewer shards leaves some readers without samples."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            StoreError: A number is out of range.
        """
        if not 0 <= self.reader < self.num_readers:
            raise StoreError(
                f"reader is 0 to num_readers - 1, got {self.reader} of {self.num_readers}"
            )
        if self.buffer_rows < 1:
            raise StoreError(f"buffer_rows must be at least 1, got {self.buffer_rows}")


def iterate_samples(path: Path | str, config: IterateConfig) -> Iterator[dict[str, Any]]:
    """The committed rows of a store as samples, in memory that does not grow with the store.

    Args:
        path: The store's folder; opened when the first sample is asked for.
        config: Which samples, in which order. The same config gives the same samples in the same
            order, as long as the store does not grow.

    Yields:
        `{"__key__": key, "__url__": file of the shard, "clip.npy": array, ...}`; arrays are
        writable copies.

    Raises:
        ManifestError: There is no store, or its manifest cannot be read.
        SchemaMismatchError: A column does not exist.
        ShardCorruptError: A shard is missing or damaged.
    """
    samples = _read(Store.open(path), config)
    return samples if config.seed is None else _shuffle(samples, config)


def _generator(config: IterateConfig, *words: int) -> np.random.Generator:
    return np.random.default_rng([*words, config.epoch, *divmod(config.seed or 0, 2**32)])


def _read(store: Store, config: IterateConfig) -> Iterator[dict[str, Any]]:
    columns = [store.header.schema[name] for name in config.columns or store.header.schema.names]
    numbers: Sequence[int] = list(store.manifest.shards)
    if config.seed is not None:
        # The same for all readers, which then take every so many: each shard has one reader.
        numbers = _generator(config, 0).permutation(numbers).tolist()
    mapped = MappedShards(store, limit=1)
    for number in numbers[config.reader :: config.num_readers]:
        shard, url = mapped[number], str(store.layout.shard(number))
        keys = decode_keys(shard[KEY])
        for start in range(0, len(keys), _BLOCK_ROWS):
            block = {
                f"{column.name}.npy": column.to_values(
                    shard[column.name][start : start + _BLOCK_ROWS]
                )
                for column in columns
            }
            for row, key in enumerate(keys[start : start + _BLOCK_ROWS]):
                arrays = {name: values[row].copy() for name, values in block.items()}
                yield {"__key__": key, "__url__": url} | arrays


def _shuffle(samples: Iterator[dict[str, Any]], config: IterateConfig) -> Iterator[dict[str, Any]]:
    """Draw from a buffer that is kept full, as webdataset does."""
    draws = _generator(config, 1, config.reader)
    buffer: list[dict[str, Any]] = []
    for sample in samples:
        if len(buffer) < config.buffer_rows:
            buffer.append(sample)
            continue
        place = int(draws.integers(len(buffer)))
        drawn, buffer[place] = buffer[place], sample
        yield drawn
    for place in draws.permutation(len(buffer)):
        yield buffer[place]
