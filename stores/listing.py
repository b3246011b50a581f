"""The inputs of a run in some forty bytes each beside their keys: listings have 10^7 and more."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from stores.keys import name_of_key


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One input."""

    key: str
    """Its row's key: unique in the listing, valid text, the same on every machine."""
    path: str = ""
    """Where to read it, as Python spells names that are not UTF-8 (surrogate escapes)."""
    size_bytes: int = 0
    """Its length."""
    mtime_ns: int = 0
    """Time of its last change in nanoseconds since 1970; of a member, that of its tar."""
    offset_bytes: int = 0
    """Where it begins in the file at `path`: above 0 for members of a tar, behind their headers."""


class Table:
    """Inputs in the order in which they were found, as columns of bytes and numbers."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("q", [0])
        self._homes = array("q")
        self._numbers: dict[str, int] = {}
        self.sizes = array("q")
        self.mtimes = array("q")
        self.offsets = array("q")

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, item: SourceItem) -> None:
        """Take an input in."""
        # A path ends in its key, and what is before is shared by a whole source; or it is a tar,
        # shared by its members; or, rarely, it is spelled in another way and kept whole.
        name = name_of_key(item.key)
        shared = item.path.removesuffix(name) + "\0" if item.path.endswith(name) else item.path
        self._homes.append(self._numbers.setdefault(shared, len(self._numbers)))
        self._text += item.key.encode()
        self._ends.append(len(self._text))
        self.sizes.append(item.size_bytes)
        self.mtimes.append(item.mtime_ns)
        self.offsets.append(item.offset_bytes)

    @cached_property
    def _shared(self) -> list[str]:
        return list(self._numbers)

    def key(self, row: int) -> bytes:
        """The key of an input as UTF-8, which sorts as the text does."""
        return bytes(self._text[self._ends[row] : self._ends[row + 1]])

    def item(self, row: int) -> SourceItem:
        """One input."""
        key = self.key(row).decode()
        shared = self._shared[self._homes[row]]
        path = shared[:-1] + name_of_key(key) if shared.endswith("\0") else shared
        return SourceItem(key, path, self.sizes[row], self.mtimes[row], self.offsets[row])


class Listing(Sequence[SourceItem]):
    """Inputs sorted by key. Parts of it share its memory."""

    def __init__(self, table: Table, rows: np.ndarray) -> None:
        self._table = table
        self._rows = rows

    @classmethod
    def of(cls, items: Iterable[SourceItem]) -> "Listing":
        """Inputs that come in any order."""
        table = Table()
        for item in items:
            table.add(item)
        return cls.sorted(table)

    @classmethod
    def sorted(cls, table: Table) -> "Listing":
        """All inputs of a table, which is not added to any more."""
        keys = [table.key(row) for row in range(len(table))]
        rows = sorted(range(len(keys)), key=keys.__getitem__)
        return cls(table, np.fromiter(rows, np.int64, len(rows)))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> SourceItem: ...
    @overload
    def __getitem__(self, place: slice | np.ndarray) -> "Listing": ...
    def __getitem__(self, place: int | slice | np.ndarray) -> "SourceItem | Listing":
        """One input, or those of a slice, a mask or places as a listing of their own."""
        if isinstance(place, slice | np.ndarray):
            return Listing(self._table, self._rows[place])
        return self._table.item(int(self._rows[place]))

    def __iter__(self) -> Iterator[SourceItem]:
        return (self._table.item(row) for row in self._rows.tolist())

    def __reduce__(self) -> tuple[Any, ...]:
        """In other processes a part comes alone, without the listing that it is a part of."""
        return Listing.of, (list(self),)

    def __eq__(self, other: object) -> bool:
        """As a list of the same inputs."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType] - compared by content, as a list

    @property
    def sizes(self) -> np.ndarray:
        """Lengths of the files: [N] int64."""
        return np.frombuffer(self._table.sizes, np.int64)[self._rows]

    def bisect(self, key: str, *, right: bool = False) -> int:
        """Where `key` belongs: before an equal one, or behind it."""
        wanted, low, high = key.encode(), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = self._table.key(int(self._rows[middle]))
            if found < wanted or (right and found == wanted):
                low = middle + 1
            else:
                high = middle
        return low

    def places(self, keys: Sequence[str]) -> np.ndarray:
        """The place of each key: [K] int64, -1 for one that is not here."""
        hashes, order = self._hashes
        encoded = [key.encode() for key in keys]
        near = np.searchsorted(hashes, np.fromiter(map(hash, encoded), np.int64, len(keys)))
        return np.fromiter(
            (self._at(key, start, hashes, order) for key, start in zip(encoded, near, strict=True)),
            np.int64,
            len(keys),
        )

    @cached_property
    def _hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the keys in rising order, and the place of each."""
        keys = map(self._table.key, self._rows.tolist())
        hashes = np.fromiter(map(hash, keys), np.int64, len(self))
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def _at(self, key: bytes, start: int, hashes: np.ndarray, order: np.ndarray) -> int:
        wanted = hash(key)
        for near in range(start, len(hashes)):
            if hashes[near] != wanted:
                break
            place = int(order[near])
            if self._table.key(int(self._rows[place])) == key:
                return place
        return -1
