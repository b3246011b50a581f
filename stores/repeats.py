"""Keys that occur more than once among very many, in eight bytes a key."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

import numpy as np

Place = TypeVar("Place", bound=Hashable)


class KeyCensus(Generic[Place]):
    """Counts keys by place and finds the repeated ones.

    Only a 64-bit hash of each key is kept; the few places in which hashes meet are read again, so
    that two keys of one hash are never taken for one.
    """

    def __init__(self, keys_of: Callable[[Place], Collection[str]]) -> None:
        """Start empty.

        Args:
            keys_of: Gives the keys of a place once more.
        """
        self._keys_of = keys_of
        self._hashes: dict[Place, np.ndarray] = {}

    def add(self, place: Place, keys: Collection[str]) -> None:
        """Count the keys of a place, each place once."""
        self._hashes[place] = np.fromiter(map(hash, keys), np.int64, len(keys))

    def repeated(self) -> dict[str, list[Place]]:
        """Keys that were counted more than once, with their places in the order of counting."""
        if not self._hashes:
            return {}
        ordered = np.sort(np.concatenate(list(self._hashes.values())))
        suspects = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not len(suspects):
            return {}
        wanted = set(suspects.tolist())
        found: defaultdict[str, list[Place]] = defaultdict(list)
        for place, hashes in self._hashes.items():
            if np.isin(hashes, suspects).any():
                for key in self._keys_of(place):
                    if hash(key) in wanted:
                        found[key].append(place)
        return {key: places for key, places in found.items() if len(places) > 1}
