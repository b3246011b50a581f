"""What every format of shards does alike: keys as bytes, and what is checked on opening."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores.errors import SchemaMismatchError, ShardCorruptError
from stores.layout import FORMAT
from stores.schema import KEY, Schema

VERSION = 1
"""Version of the layout of a shard, checked before anything else is read."""


def check_rows(keys: Sequence[str], rows: Mapping[str, np.ndarray], schema: Schema) -> list[bytes]:
    """Compare what is to be written with the schema, and give the keys as UTF-8.

    Raises:
        SchemaMismatchError: A column or a key does not fit.
    """
    num_rows = schema.stored.check(rows)
    if num_rows != len(keys):
        raise SchemaMismatchError(f"{len(keys)} keys for {num_rows} rows")
    try:
        encoded = [key.encode() for key in keys]
    except UnicodeEncodeError as error:
        raise SchemaMismatchError(f"key {error.object!r} is not valid Unicode text") from error
    for key in encoded:
        if not key or b"\0" in key:
            raise SchemaMismatchError(f"key {key!r}: a key is not empty and has no NUL character")
    return encoded


def key_array(keys: Sequence[bytes]) -> np.ndarray:
    """Keys as one array [N] of fixed-length bytes, padded with NUL."""
    return np.array(keys, dtype=f"S{max(map(len, keys), default=1)}")


def decode_keys(keys: np.ndarray) -> list[str]:
    """Keys as text, from the column `key` of a mapped shard."""
    return [key.decode() for key in keys.tolist()]


def check_version(path: Path, found: tuple[Any, Any]) -> None:
    """Refuse a file that does not say that it is a shard of this version.

    Raises:
        ShardCorruptError: It says something else.
    """
    if found != (FORMAT, VERSION):
        raise ShardCorruptError(
            f"{path} is not a shard of format {FORMAT} version {VERSION}: it says {found}. "
            "A store of a newer version needs a newer deltaedit."
        )


def check_columns(
    path: Path, columns: Mapping[str, np.ndarray], schema: Schema, num_rows: int
) -> None:
    """Compare a mapped shard with what it must hold.

    Raises:
        ShardCorruptError: It has other columns or another number of rows.
    """
    try:
        found = schema.stored.check({name: columns[name] for name in schema.names})
    except SchemaMismatchError as error:
        raise ShardCorruptError(f"{path}: {error}") from error
    if found != num_rows or len(columns[KEY]) != num_rows:
        raise ShardCorruptError(
            f"{path} has {found} rows and {len(columns[KEY])} keys; "
            f"its manifest entry says {num_rows}"
        )
