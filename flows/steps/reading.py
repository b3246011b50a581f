"""Reading and decoding images ahead of the models, in threads, in order, with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.steps.progress import Stopwatch
from pipeline.encoding import Encoders, Views, image_views
from pipeline.errors import ImageError
from pipeline.images import decode_image
from stores.checksum import sha256_bytes
from stores.errors import SourceError
from stores.sources import SourceItem, read_image_bytes

MAX_WAITING_BYTES = 512 * 2**20
"""Pictures that may wait for the models; fewer images wait when they are large."""

GROUP_ITEMS, GROUP_BYTES = 16, 64 * 2**10
"""Images and bytes of files that one thread reads at a time."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One input after reading: what the models see of it, or why there is nothing."""

    item: SourceItem
    views: Views | None
    reason: str = ""
    detail: str = ""
    sha256: str = ""
    """Digest of the bytes that were read; empty where reading failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageReader:
    """Reads one input for the models; whatever is wrong with it becomes its reason."""

    encoders: Encoders
    """The models that will look at it."""
    columns: tuple[str, ...]
    """What they will make."""
    watch: Stopwatch
    """Collects the seconds of reading (and digests) and of decoding, which includes resizing."""

    def __call__(self, item: SourceItem) -> Decoded:
        """Never raises for a bad input."""
        sha256 = ""
        try:
            with self.watch.time("read"):
                data = read_image_bytes(item)
                sha256 = sha256_bytes(data)
            with self.watch.time("decode"):
                views = image_views(decode_image(data), self.encoders, self.columns)
            return Decoded(item, views, sha256=sha256)
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
    items: Iterable[SourceItem],
    read: Callable[[SourceItem], Decoded],
    *,
    num_workers: int,
    depth: int,
) -> Generator[Decoded, None, None]:
    """Read `items` in order with `num_workers` threads.

    At most `depth` images wait, and fewer when they are large: the limit follows the largest image
    seen so far, so that memory depends neither on the number nor on the size of the images.
    """
    waiting: deque[tuple[int, Future[list[Decoded]]]] = deque()
    num_waiting = largest_bytes = 0

    def take() -> list[Decoded]:
        nonlocal num_waiting, largest_bytes
        size, group = waiting.popleft()
        decoded = group.result()
        num_waiting -= size
        sizes = (image.views.nbytes for image in decoded if image.views is not None)
        largest_bytes = max(largest_bytes, *sizes, 0)
        return decoded

    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        try:
            for group in groups(items, max(1, depth // (2 * num_workers))):
                limit = _limit(depth, num_workers, largest_bytes)
                while waiting and num_waiting + len(group) > limit:
                    yield from take()
                waiting.append((len(group), pool.submit(_read_all, read, group)))
                num_waiting += len(group)
            while waiting:
                yield from take()
        finally:
            for _, future in waiting:
                future.cancel()


def groups(items: Iterable[SourceItem], most_items: int) -> Iterator[list[SourceItem]]:
    """What one thread reads before it looks for more: one large image, or some small ones.

    Handing an image of a few kilobytes from thread to thread costs more than decoding it.
    """
    group: list[SourceItem] = []
    size_bytes = 0
    for item in items:
        group.append(item)
        size_bytes += item.size_bytes
        if len(group) >= min(most_items, GROUP_ITEMS) or size_bytes >= GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def _read_all(read: Callable[[SourceItem], Decoded], group: list[SourceItem]) -> list[Decoded]:
    return [read(item) for item in group]


def _limit(depth: int, num_workers: int, largest_bytes: int) -> int:
    """How many images may wait; until one is seen, no more than the threads can work on."""
    room = MAX_WAITING_BYTES // largest_bytes if largest_bytes else num_workers
    return max(1, min(depth, max(num_workers, room)))
