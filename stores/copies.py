"""Inputs with the same bytes, found without reading most of them."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from stores.checksum import sha256_part
from stores.listing import Listing, SourceItem
from stores.threads import map_threads

HEAD_BYTES = 65536
"""Enough to tell most files of one size apart."""


def equal_files(
    items: Listing, refuse: Callable[[SourceItem, OSError], None]
) -> Iterator[list[int]]:
    """Places of two and more inputs with the same bytes, in the order of the listing.

    Only inputs of one size are read: their first block, then all of those that agree in it. Empty
    ones are left alone, so that each is refused as empty and none as a copy.

    Args:
        items: The listing.
        refuse: Called with an input that cannot be read, and why.
    """

    def equal(places: list[int]) -> list[list[int]]:
        groups = [places]
        for most_bytes in (HEAD_BYTES, sys.maxsize):
            groups = [
                alike for group in groups for alike in _alike(items, group, most_bytes, refuse)
            ]
        return groups

    for _, groups in map_threads(equal, _same_size(items.sizes)):
        yield from groups


def _same_size(sizes: np.ndarray) -> Iterator[list[int]]:
    """Places of files that share their size, a size at a time."""
    order = np.argsort(sizes, kind="stable")
    ordered = sizes[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    ends = np.append(starts[1:], len(ordered))
    for at in np.flatnonzero((ends - starts > 1) & (ordered[starts] > 0)):
        yield order[starts[at] : ends[at]].tolist()


def _alike(
    items: Listing,
    places: Iterable[int],
    most_bytes: int,
    refuse: Callable[[SourceItem, OSError], None],
) -> list[list[int]]:
    """Groups of two and more that begin alike."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for place in places:
        item = items[place]
        try:
            size_bytes = min(item.size_bytes, most_bytes)
            groups[sha256_part(item.path, item.offset_bytes, size_bytes)].append(place)
        except OSError as error:
            refuse(item, error)
    return [group for group in groups.values() if len(group) > 1]
