"""Work that mostly waits for a disk or a network, done in threads."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from stores.places import NUM_REQUESTS

Item = TypeVar("Item")
Result = TypeVar("Result")

_BLOCK = 64 * NUM_REQUESTS
"""What is begun at once: memory does not grow with the number of items."""


def map_threads(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in order, `NUM_REQUESTS` under way at a time."""
    rest = iter(items)
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        while block := list(islice(rest, _BLOCK)):
            yield from zip(block, pool.map(function, block), strict=True)
