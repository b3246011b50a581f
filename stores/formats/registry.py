"""The formats of shards: one small interface, and which module has it."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from stores.digested import Sink
from stores.layout import SHARD_SUFFIXES
from stores.places import StorePath
from stores.schema import Schema


class ShardFormat(Protocol):
    """What a module must have to be a format of shards."""

    def write_shard(
        self,
        file: Sink,
        keys: Sequence[str],
        rows: Mapping[str, np.ndarray],
        schema: Schema,
        header: Mapping[str, Any],
    ) -> None:
        """Write rows, as they are stored, to an empty file; the same rows give the same bytes.

        Args:
            file: Takes the bytes in their order. The caller makes the file appear whole.
            keys: The N rows' keys: text, not empty, without NUL.
            rows: For each column of the schema an array [N, *shape] of its `dtype`.
            schema: The columns, in the order in which they are written.
            header: What the shard belongs to; `read_header` gives it back.

        Raises:
            SchemaMismatchError: Keys, rows or columns do not fit; nothing is written.
            OSError: The disk is full, or the file cannot be written.
        """
        ...

    def map_shard(self, path: Path, schema: Schema, num_rows: int) -> dict[str, np.ndarray]:
        """Map a shard into memory, read only; rows are not read before they are touched.

        Args:
            path: The shard.
            schema: The columns that it must have.
            num_rows: The rows that it must have.

        Returns:
            `key` as bytes [N] (`stores.formats.common.decode_keys`) and each column as it is
            stored: [N, *shape], its rows whole and at one distance from each other.

        Raises:
            ShardCorruptError: The file is missing, cut, or not a shard of this schema and length.
        """
        ...

    def count_rows(self, path: Path) -> int:
        """How many rows a shard has, for one whose entry is lost.

        Raises:
            ShardCorruptError: The file is missing, cut or not a shard.
        """
        ...

    def read_header(self, path: Path) -> dict[str, Any]:
        """What a shard says it belongs to: the header of its store.

        Raises:
            ShardCorruptError: The file is missing, cut or not a shard.
        """
        ...


def shard_format(name: str) -> ShardFormat:
    """The format of a manifest's `shard_format`; h5py is imported only for stores that need it."""
    if name == "webdataset":
        from stores.formats import webdataset

        return webdataset
    from stores.formats import hdf5

    return hdf5


def format_of(path: StorePath) -> ShardFormat:
    """The format of a shard's file, by its suffix; of other files, one that refuses them."""
    names = {suffix: name for name, suffix in SHARD_SUFFIXES.items()}
    return shard_format(names.get(PurePosixPath(path.name).suffix, "hdf5"))
