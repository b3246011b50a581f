"""Inputs with the same bytes, found without reading most of them."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

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

    def digest(place: int, most_bytes: int) -> str | None:
        item = items[place]
        try:
            return sha256_part(item.path, item.offset_bytes, min(item.size_bytes, most_bytes))
        except OSError as error:
            refuse(item, error)
            return None

    sizes = items.sizes
    heads = map_threads(lambda place: digest(place, HEAD_BYTES), _of_shared_size(sizes))
    for size, same_size in groupby(heads, key=lambda found: sizes[found[0]]):
        for places in _alike(same_size):
            if size <= HEAD_BYTES:
                yield places
            else:
                yield from _alike(map_threads(lambda place: digest(place, sys.maxsize), places))


def _of_shared_size(sizes: np.ndarray) -> Iterator[int]:
    """Places of files that share their size, those of one size together."""
    order = np.argsort(sizes, kind="stable")
    ordered = sizes[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    ends = np.append(starts[1:], len(ordered))
    for at in np.flatnonzero((ends - starts > 1) & (ordered[starts] > 0)):
        yield from order[starts[at] : ends[at]].tolist()


def _alike(digests: Iterable[tuple[int, str | None]]) -> list[list[int]]:
    """Places of two and more with one digest; those without one, which cannot be read, are out."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for place, digest in digests:
        if digest is not None:
            groups[digest].append(place)
    return [group for group in groups.values() if len(group) > 1]
