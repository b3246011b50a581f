"""Pieces of tar files (POSIX ustar), made in bulk: `tarfile` takes a Python call for each."""

from collections.abc import Sequence

import numpy as np

BLOCK_BYTES = 512
"""A tar file is made of blocks: a header for each member, then its content, padded."""
END = bytes(2 * BLOCK_BYTES)
"""What ends a tar file."""
NAME_BYTES = 100
"""Longest name of a member in a plain header."""

_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_CHECKSUM_SHIFTS = np.arange(15, -1, -3)
"""Of the six octal digits of a checksum."""


def padded(size_bytes: int) -> int:
    """The bytes that a content of some size takes."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def member_header(name: str, size_bytes: int) -> bytes:
    """A ustar header of a regular file, mode 0644, of nobody, at the beginning of 1970."""
    header = bytearray(BLOCK_BYTES)
    header[: len(name)] = name.encode()
    header[100:124] = b"0000644\0" + b"0000000\0" * 2
    header[_SIZE] = b"%011o\0" % size_bytes
    header[136:148] = b"00000000000\0"
    header[_CHECKSUM] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def content_size(header: bytes) -> int:
    """The size in a member's header.

    Raises:
        ValueError: It is not an octal number.
    """
    return int(header[_SIZE].rstrip(b"\0 "), 8)


def set_names(headers: np.ndarray, names: Sequence[str]) -> None:
    """Put names into N headers alike, and then the checksums.

    Args:
        headers: [N, 512] uint8, changed in place.
        names: N names of at most 100 ASCII characters.
    """
    headers[:, :NAME_BYTES] = as_bytes(np.array(names, f"S{NAME_BYTES}")[:, None])
    headers[:, _CHECKSUM] = ord(" ")  # as which a checksum counts itself
    sums = headers.sum(axis=1, dtype=np.int64)
    headers[:, 148:154] = (sums[:, None] >> _CHECKSUM_SHIFTS & 7) + ord("0")
    headers[:, 154] = 0


def as_bytes(array: np.ndarray) -> np.ndarray:
    """[N, K] of anything -> [N, bytes of K] uint8."""
    return array.view(np.uint8)
