"""Work that waits for a disk or a network, done in threads where it does wait."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

from stores.places import NUM_REQUESTS

Item = TypeVar("Item")
Result = TypeVar("Result")

_BLOCK = 64 * NUM_REQUESTS
"""What is begun at once: memory does not grow with the number of items."""
QUICK_S = 2e-4
"""What takes no longer did not wait: threads that only pass Python's lock around cost more."""
_SLOW_IN_A_ROW = 2
"""A single slow one may be a hiccup."""


def map_threads(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in order.

    Items are done one after the other as long as they are quick, as where a disk's cache answers;
    where they turn slow, the rest of some thousand has `NUM_REQUESTS` under way at a time.
    """
    rest = iter(items)
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        while block := list(islice(rest, _BLOCK)):
            done = _until_slow(function, block)
            yield from zip(block, chain(done, pool.map(function, block[len(done) :])), strict=True)


def _until_slow(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """Results up to where they take long."""
    done: list[Result] = []
    num_slow = 0
    for item in items:
        begin = time.perf_counter()
        done.append(function(item))
        num_slow = num_slow + 1 if time.perf_counter() - begin > QUICK_S else 0
        if num_slow == _SLOW_IN_A_ROW:
            break
    return done
