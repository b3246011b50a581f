"""Reading and decoding images ahead of the models, in threads, in order, with bounded memory."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ImageError
from pipeline.images import decode_image
from stores.errors import SourceError
from stores.sources import SourceItem, read_image_bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """One input after reading: its pixels, or why there are none."""

    item: SourceItem
    pixels: np.ndarray | None
    """[H, W, 3] uint8."""
    reason: str = ""
    detail: str = ""


def read_and_decode(item: SourceItem) -> Decoded:
    """Read one input; whatever is wrong with it becomes its reason, never an exception."""
    try:
        return Decoded(item, decode_image(read_image_bytes(item)))
    except (ImageError, SourceError) as error:
        return Decoded(item, None, error.reason, error.detail)


def decode_ahead(items: Iterable[SourceItem], *, num_workers: int, depth: int) -> Iterator[Decoded]:
    """Decode `items` in order with `num_workers` threads, at most `depth` of them waiting."""
    waiting: deque[Future[Decoded]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read_and_decode, item))
                if len(waiting) >= depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
