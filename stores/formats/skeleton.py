"""An HDF5 file without its rows: HDF5 lays the file out, and its bytes are written elsewhere.

HDF5 writes a shard's few kilobytes of structure into memory here, never onto a disk: when HDF5
itself meets a full disk, the file cannot be closed, stays open and fails again at every clean-up.
"""

import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from operator import itemgetter

import h5py
import numpy as np

from stores.digested import Sink

LIBRARY_VERSIONS = ("v108", "v108")
"""Oldest and newest HDF5 whose structures are used: readable by HDF5 1.8 and later."""
_ALIGNMENT_BYTES = 4096
_ALIGNMENT_THRESHOLD_BYTES = 512


class Skeleton(io.RawIOBase):
    """The file object that HDF5 writes to: keeps the pieces it writes and their places."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.size_bytes = 0
        self._place = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a place, which may lie beyond the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size_bytes}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """The present place."""
        return self._place

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride] - narrower buffers
        """Keep a piece."""
        self.pieces.append((self._place, bytes(data)))
        self._place += len(data)
        self.size_bytes = max(self.size_bytes, self._place)
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        """Set the length."""
        self.size_bytes = self._place if size is None else size
        return self.size_bytes


def lay_out(
    columns: Mapping[str, np.ndarray], attributes: Mapping[str, str | int]
) -> tuple[Skeleton, dict[str, int]]:
    """Make the structure of a file with one contiguous data set a column.

    Args:
        columns: Arrays by the name of their data set; only shape and dtype are used.
        attributes: Attributes of the file.

    Returns:
        The structure, and the offset in bytes at which each column's rows belong. Columns of 512
        bytes and more begin on a page.
    """
    # Dtypes of texts compare equal whatever their encoding, which only their metadata says.
    shapes = tuple((n, a.shape, a.dtype, str(a.dtype.metadata)) for n, a in columns.items())
    return _lay_out(shapes, tuple(attributes.items()))


@lru_cache(maxsize=4)  # the shards of a store are mostly alike
def _lay_out(
    columns: tuple[tuple[str, tuple[int, ...], np.dtype, str], ...],
    attributes: tuple[tuple[str, str | int], ...],
) -> tuple[Skeleton, dict[str, int]]:
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # a place is given at once, without rows
    skeleton = Skeleton()
    with h5py.File(
        skeleton,
        "w",
        libver=LIBRARY_VERSIONS,
        alignment_threshold=_ALIGNMENT_THRESHOLD_BYTES,
        alignment_interval=_ALIGNMENT_BYTES,
    ) as file:
        for name, value in attributes:
            file.attrs[name] = value
        offsets: dict[str, int] = {}
        for name, shape, dtype, _ in columns:
            dataset = file.create_dataset(
                name, shape, dtype, dcpl=early, fill_time="never", track_times=False
            )
            offsets[name] = dataset.id.get_offset() or 0  # None for a column of no rows
    return skeleton, offsets


def write_file(
    file: Sink,
    skeleton: Skeleton,
    offsets: Mapping[str, int],
    columns: Mapping[str, np.ndarray],
) -> None:
    """Write structure and rows from the first byte to the last.

    Raises:
        OSError: The disk is full, or the file cannot be written.
    """
    place = 0
    blocks = sorted(_rows(offsets, columns), key=itemgetter(0))
    for offset, data in (*blocks, (skeleton.size_bytes, b"")):
        for piece in (_structure(skeleton, place, offset), data):
            if piece:  # a write of nothing could wait for what is being written
                file.write(piece)
        place = offset + len(data)


def _structure(skeleton: Skeleton, begin: int, end: int) -> bytes:
    """The bytes from `begin` to `end`, where no rows are: what HDF5 wrote there last, else 0."""
    data = bytearray(end - begin)
    for offset, piece in skeleton.pieces:
        if begin <= offset < end:
            data[offset - begin : offset - begin + len(piece)] = piece[: end - offset]
    return bytes(data)


def _rows(
    offsets: Mapping[str, int], columns: Mapping[str, np.ndarray]
) -> Iterator[tuple[int, memoryview]]:
    for name, array in columns.items():
        if array.size:
            # Keys have a dtype with metadata, which has no buffer: they are viewed as bytes.
            yield offsets[name], np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
