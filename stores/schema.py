"""The columns of a store: names, shapes and dtypes, but not their meaning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stores.errors import SchemaMismatchError
from stores.scaling import Scaling

KEY = "key"
"""The name of the column that every shard has besides those of the schema."""

_BLOCK_VALUES = 2**18
"""Values looked at together: few enough to stay in a processor's cache."""

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
    scaling: Scaling | None = None
    """How float32 values become what is stored, for a float16 column that is kept z-scored."""

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
        if self.scaling is not None:
            self._check_scaling(self.scaling)

    def _check_scaling(self, scaling: Scaling) -> None:
        expected = 4 * int(np.prod(self.shape, dtype=np.int64))
        found = len(scaling.mean), len(scaling.scale)
        if self.dtype != "float16" or found != (expected, expected):
            raise SchemaMismatchError(
                f"column {self.name} {list(self.shape)} {self.dtype}: only float16 is kept scaled, "
                f"with a float32 mean and scale for each channel ({expected} bytes each; got "
                f"{found[0]} and {found[1]})"
            )

    @property
    def value_dtype(self) -> str:
        """The dtype that rows have before they are stored and after they are read."""
        return "float32" if self.scaling else self.dtype

    def to_stored(self, values: np.ndarray) -> np.ndarray:
        """Values [N, *shape] of `value_dtype` -> what is stored, of `dtype`."""
        return self.scaling.to_float16(values) if self.scaling else values

    def to_values(self, stored: np.ndarray) -> np.ndarray:
        """The inverse of `to_stored`, up to the rounding of float16."""
        return self.scaling.to_float32(stored) if self.scaling else stored

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's value."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """As written in the manifest."""
        scaling = {"scaling": self.scaling.to_json()} if self.scaling else {}
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype} | scaling

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Column":
        """The inverse of `to_json`."""
        scaling = Scaling.from_json(value["scaling"]) if "scaling" in value else None
        return cls(value["name"], tuple(value["shape"]), value["dtype"], scaling)


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

    @property
    def stored(self) -> "Schema":
        """The columns as shards hold them: without the scaling that readers undo."""
        return Schema(tuple(replace(column, scaling=None) for column in self.columns))

    def fits(self, other: "Schema") -> bool:
        """Whether rows of the one can be rows of the other: the numbers of scalings may differ."""
        return self.stored == other.stored and [bool(c.scaling) for c in self.columns] == [
            bool(c.scaling) for c in other.columns
        ]

    def to_stored(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows as `check` wants them -> rows as shards hold them."""
        return {name: self[name].to_stored(array) for name, array in rows.items()}

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
            rows: For each column an array [N, *shape] of its `value_dtype`.

        Raises:
            SchemaMismatchError: A column is missing, unknown, or has another length, shape or
                dtype; every fault is named at once.
        """
        faults = [f"{name}: not in the schema" for name in rows if name not in self.names]
        lengths = {len(array) for array in rows.values() if array.ndim}
        for column in self.columns:
            dtype = column.value_dtype
            expected = f"[N, {', '.join(map(str, column.shape))}] {dtype}"
            array = rows.get(column.name)
            if array is None:
                faults.append(f"{column.name}: missing, expected {expected}")
            elif array.shape[1:] != column.shape or array.ndim == 0 or array.dtype != dtype:
                faults.append(
                    f"{column.name}: expected {expected}, got {list(array.shape)} {array.dtype}"
                )
        if len(lengths) > 1:
            faults.append(f"columns of different lengths: {sorted(lengths)}")
        if faults:
            raise SchemaMismatchError("rows do not fit the schema: " + "; ".join(faults))
        return lengths.pop()

    def __str__(self) -> str:
        """For people: `clip [512] float32, s [6048] float16 (scaled)`."""
        return ", ".join(
            f"{c.name} {list(c.shape)} {c.dtype}{' (scaled)' if c.scaling else ''}"
            for c in self.columns
        )

    def to_json(self) -> list[dict[str, Any]]:
        """As written in the manifest."""
        return [column.to_json() for column in self.columns]

    @classmethod
    def from_json(cls, columns: Sequence[Mapping[str, Any]]) -> "Schema":
        """The inverse of `to_json`."""
        return cls(tuple(map(Column.from_json, columns)))


def all_finite(rows: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity in floating-point rows [N, *shape]."""
    return all(np.isfinite(rows[block]).all() for block in cached_blocks(rows))


def cached_blocks(rows: np.ndarray) -> Iterator[slice]:
    """Slices of rows [N, *shape] that stay in a processor's cache while they are worked on."""
    num_rows = max(1, _BLOCK_VALUES // max(1, int(np.prod(rows.shape[1:], dtype=np.int64))))
    return (slice(start, start + num_rows) for start in range(0, len(rows), num_rows))
