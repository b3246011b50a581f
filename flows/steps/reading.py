"""Reading and decoding images ahead of the models, in threads, in order, with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.steps.model_threads import UNLIMITED
from flows.steps.progress import Stopwatch
from pipeline.encoding import Encoders, Views, image_views
from pipeline.errors import ImageError
from pipeline.images import QUIET_PILLOW, decode_image
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
    """Reads inputs for the models; whatever is wrong with one becomes its reason."""

    encoders: Encoders
    """The models that will look at them."""
    columns: tuple[str, ...]
    """What they will make."""
    watch: Stopwatch
    """Collects the seconds of reading (and digests) and of decoding, which includes resizing."""
    processor: AbstractContextManager[object] = UNLIMITED
    """Held while decoding and not while waiting for a disk: see `ModelThreads`."""
    jpeg_device: str = "cpu"
    """What decodes JPEGs (`decode_image`)."""

    def __call__(self, items: Sequence[SourceItem]) -> list[Decoded]:
        """Each input, in order; never raises for a bad one."""
        with self.watch.time("read"):
            files = [self._read(item) for item in items]
        with self.processor, self.watch.time("decode"), QUIET_PILLOW:
            return [
                file if isinstance(file, Decoded) else self._decode(item, *file)
                for item, file in zip(items, files, strict=True)
            ]

    def _read(self, item: SourceItem) -> tuple[bytes, str] | Decoded:
        """The bytes of an input and their digest."""
        try:
            data = read_image_bytes(item)
        except SourceError as error:
            return Decoded(item, None, error.reason, error.detail)
        return data, sha256_bytes(data)

    def _decode(self, item: SourceItem, data: bytes, sha256: str) -> Decoded:
        try:
            pixels = decode_image(data, jpeg_device=self.jpeg_device)
            views = image_views(pixels, self.encoders, self.columns)
        except ImageError as error:
            return Decoded(item, None, error.reason, error.detail, sha256)
        return Decoded(item, views, sha256=sha256)


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
    read: Callable[[Sequence[SourceItem]], list[Decoded]],
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
                waiting.append((len(group), pool.submit(read, group)))
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


def _limit(depth: int, num_workers: int, largest_bytes: int) -> int:
    """How many images may wait; until one is seen, no more than the threads can work on."""
    room = MAX_WAITING_BYTES // largest_bytes if largest_bytes else num_workers
    return max(1, min(depth, max(num_workers, room)))
