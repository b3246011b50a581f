"""The columns of a store: names, shapes and dtypes, but not their meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stores.errors import SchemaMismatchError

KEY = "key"
"""The name of the column that every shard has besides those of the schema."""

_DTYPES = ("float16", "float32", "float64", "uint8", "int32", "int64")


@dataclass(frozen=True, slots=True)
class Column:
    """One value of each row."""

    name: str
    """An identifier, for instance `w_plus`."""
    shape: tuple[int, ...]
    """The shape of one row's value, for instance (18, 512); without the row axis."""
    dtype: str
    """One of float16, float32, float64, uint8, int32, int64; stored little-endian."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype).name)
        if not self.name.isidentifier() or self.name == KEY:
            raise SchemaMismatchError(
                f"{self.name!r} cannot name a column: use an identifier other than {KEY!r}"
            )
        if min(self.shape, default=1) < 1:
            raise SchemaMismatchError(f"column {self.name}: shape {self.shape} has an empty axis")
        if self.dtype not in _DTYPES:
            raise SchemaMismatchError(
                f"column {self.name}: dtype {self.dtype} cannot be stored; choose from {_DTYPES}"
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's value."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """As written in the manifest."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a store, in the order in which they are written."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if not self.columns or len(set(self.names)) < len(self.columns):
            raise SchemaMismatchError(
                f"a schema needs columns of different names, got {self.names}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row without its key."""
        return sum(column.row_bytes for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        """The column called `name`.

        Raises:
            SchemaMismatchError: There is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise SchemaMismatchError(f"no column {name!r}; this store has {', '.join(self.names)}")

    def check(self, rows: Mapping[str, np.ndarray]) -> int:
        """Compare arrays with the schema and give the number of rows.

        Args:
            rows: For each column an array [N, *shape] of its dtype.

        Raises:
            SchemaMismatchError: A column is missing, unknown, or has another length, shape or
                dtype; every fault is named at once.
        """
        faults = [f"{name}: not in the schema" for name in rows if name not in self.names]
        lengths = {len(array) for array in rows.values() if array.ndim}
        for column in self.columns:
            expected = f"[N, {', '.join(map(str, column.shape))}] {column.dtype}"
            array = rows.get(column.name)
            if array is None:
                faults.append(f"{column.name}: missing, expected {expected}")
            elif array.shape[1:] != column.shape or array.ndim == 0 or array.dtype != column.dtype:
                faults.append(
                    f"{column.name}: expected {expected}, got {list(array.shape)} {array.dtype}"
                )
        if len(lengths) > 1:
            faults.append(f"columns of different lengths: {sorted(lengths)}")
        if faults:
            raise SchemaMismatchError("rows do not fit the schema: " + "; ".join(faults))
        return lengths.pop()

    def to_json(self) -> list[dict[str, Any]]:
        """As written in the manifest."""
        return [column.to_json() for column in self.columns]

    @classmethod
    def from_json(cls, columns: Sequence[Mapping[str, Any]]) -> "Schema":
        """The inverse of `to_json`."""
        return cls(tuple(Column(c["name"], tuple(c["shape"]), c["dtype"]) for c in columns))
