"""Reading and decoding images ahead of the models, in threads, in order, with bounded memory."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ImageError
from pipeline.images import decode_image
from stores.checksum import sha256_bytes
from stores.errors import SourceError
from stores.sources import SourceItem, read_image_bytes

MAX_WAITING_BYTES = 512 * 2**20
"""Decoded pixels that may wait for the models; fewer images wait when they are large."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One input after reading: its pixels, or why there are none."""

    item: SourceItem
    pixels: np.ndarray | None
    """[H, W, 3] uint8."""
    reason: str = ""
    detail: str = ""
    sha256: str = ""
    """Digest of the bytes that were read; empty where reading failed."""


def read_and_decode(item: SourceItem) -> Decoded:
    """Read one input; whatever is wrong with it becomes its reason, never an exception."""
    sha256 = ""
    try:
        data = read_image_bytes(item)
        sha256 = sha256_bytes(data)
        return Decoded(item, decode_image(data), sha256=sha256)
    except (ImageError, SourceError) as error:
        return Decoded(item, None, error.reason, error.detail, sha256)


def read_picture(path: Path) -> np.ndarray:
    """An image file that the user named, [H, W, 3] uint8.

    Raises:
        ImageError: it cannot be decoded; the message names the file.
        OSError: it cannot be read.
    """
    try:
        return decode_image(path.read_bytes())
    except ImageError as error:
        raise ImageError(error.reason, f"{path}: {error.detail}") from error


def decode_ahead(
    items: Iterable[SourceItem], *, num_workers: int, depth: int
) -> Generator[Decoded, None, None]:
    """Decode `items` in order with `num_workers` threads.

    At most `depth` images wait, and fewer when they are large: the limit follows the largest image
    seen so far, so that memory depends neither on the number nor on the size of the images.
    """
    waiting: deque[Future[Decoded]] = deque()
    largest_bytes = 0

    def take() -> Decoded:
        nonlocal largest_bytes
        decoded = waiting.popleft().result()
        if decoded.pixels is not None:
            largest_bytes = max(largest_bytes, decoded.pixels.nbytes)
        return decoded

    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                while len(waiting) >= _limit(depth, num_workers, largest_bytes):
                    yield take()
                waiting.append(pool.submit(read_and_decode, item))
            while waiting:
                yield take()
        finally:
            for future in waiting:
                future.cancel()


def _limit(depth: int, num_workers: int, largest_bytes: int) -> int:
    """How many images may wait; until one is seen, no more than the threads can work on."""
    room = MAX_WAITING_BYTES // largest_bytes if largest_bytes else num_workers
    return max(1, min(depth, max(num_workers, room)))
