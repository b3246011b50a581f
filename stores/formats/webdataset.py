"""WebDataset shards: tar files that `webdataset` and `tar` read, mapped like any other shard.

Each row is a few members, `<key>.<column>.npy` and `<key>.json`. All rows of a shard take the same
number of bytes, since arrays of one column do and the JSON is padded: so the rows of a column lie
at one distance, and the file can be memory-mapped. Times and owners are 0: the same rows give the
same bytes. Nothing is pickled.
"""

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np

from stores.digested import NUM_BUFFERS, Sink
from stores.errors import SchemaMismatchError, ShardCorruptError
from stores.formats.common import (
    VERSION,
    check_columns,
    check_rows,
    check_version,
    decode_keys,
    key_array,
)
from stores.formats.tar import (
    BLOCK_BYTES,
    END,
    NAME_BYTES,
    as_bytes,
    content_size,
    member_header,
    padded,
    set_names,
)
from stores.layout import FORMAT
from stores.schema import KEY, Column, Schema

HEADER_MEMBER = "__header__"
"""The first member. `webdataset` passes over names that begin and end with two underscores."""

_NPY_BYTES = 128
_BUFFER_BYTES = 4 * 2**20
_LONGEST_COLUMN = 32
_HASH_DIGITS = 32


@dataclass(frozen=True, slots=True)
class _Member:
    """One member of every row; places are bytes from the row's first."""

    suffix: str
    """What follows the key in its name."""
    place: int
    """Of its tar header; its content follows that."""
    size_bytes: int
    """Of its content."""


def write_shard(
    file: Sink,
    keys: Sequence[str],
    rows: Mapping[str, np.ndarray],
    schema: Schema,
    header: Mapping[str, Any],
) -> None:
    """Write rows to an empty file; see `ShardFormat.write_shard`."""
    encoded = check_rows(keys, rows, schema)
    _check_names(schema)
    lines = [json.dumps({"key": key}).encode() for key in keys]
    members, row_bytes = _lay_out(schema, max(map(len, lines), default=0) + 1)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "header": header,
        "rows": len(keys),
        "row_bytes": row_bytes,
        "offsets": {c.name: _data_place(m) for c, m in zip(schema.columns, members, strict=False)},
        "keys": keys,
    }
    names = _member_names(encoded, schema)
    _write_member(file, HEADER_MEMBER, json.dumps(head).encode())
    for block in _blocks(names, lines, rows, schema, members, row_bytes):
        file.write(block)
    file.write(END)


def map_shard(path: Path, schema: Schema, num_rows: int) -> dict[str, np.ndarray]:
    """Map a shard into memory, as strided views of one memory map; see `ShardFormat.map_shard`."""
    try:
        with path.open("rb") as raw:
            buffer = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
        head, begin = _read_head(path, buffer)
        keys = key_array([key.encode() for key in head["keys"]])
        _check_size(path, buffer, head, begin)
        columns = {
            column.name: _view(buffer, column, begin + head["offsets"][column.name], head)
            for column in schema.columns
        }
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, ShardCorruptError):
            raise
        raise ShardCorruptError(f"{path} cannot be read as a shard: {error}") from error
    check_columns(path, columns | {KEY: keys}, schema, num_rows)
    _check_members(path, buffer, begin, decode_keys(keys), schema, head)
    return {KEY: keys} | columns


def read_header(path: Path) -> dict[str, Any]:
    """The store's header in the first member; see `ShardFormat.read_header`."""
    return dict(_first_member(path)["header"])


def count_rows(path: Path) -> int:
    """The rows that the first member speaks of; see `ShardFormat.count_rows`."""
    return int(_first_member(path)["rows"])


def member_name(key: bytes, max_bytes: int) -> str:
    """A key as the beginning of its members' names.

    Everything but letters, digits, `_` and `-` is percent-encoded, so that `webdataset`, which cuts
    a name at its first dot, gives the whole of it, and no name leads out of a folder. A name that
    is too long for a tar header is cut, and made unique by `~` and half of the key's SHA-256.
    """
    name = quote_from_bytes(key, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(name) <= max_bytes:
        return name
    digest = sha256(key).hexdigest()[:_HASH_DIGITS]
    return f"{name[: max_bytes - len(digest) - 1]}~{digest}"


def _check_names(schema: Schema) -> None:
    for name in schema.names:
        if not name.isascii() or name != name.lower() or len(name) > _LONGEST_COLUMN:
            raise SchemaMismatchError(
                f"column {name!r} cannot be told apart in a WebDataset tar: use at most "
                f"{_LONGEST_COLUMN} lower-case ASCII letters, digits and underscores, or the "
                "format hdf5"
            )


def _lay_out(schema: Schema, json_bytes: int) -> tuple[list[_Member], int]:
    """The members of a row, those of the columns first, and the bytes from row to row."""
    suffixes = [*(f".{name}.npy" for name in schema.names), ".json"]
    sizes = [*(_NPY_BYTES + column.row_bytes for column in schema.columns), json_bytes]
    places = list(accumulate((BLOCK_BYTES + padded(size) for size in sizes), initial=0))
    return [_Member(*m) for m in zip(suffixes, places, sizes, strict=False)], places[-1]


def _data_place(member: _Member) -> int:
    return member.place + BLOCK_BYTES + _NPY_BYTES


def _member_names(keys: Sequence[bytes], schema: Schema) -> list[str]:
    longest = max(len(f".{name}.npy") for name in schema.names)
    return [member_name(key, NAME_BYTES - longest) for key in keys]


def _blocks(
    names: Sequence[str],
    lines: Sequence[bytes],
    rows: Mapping[str, np.ndarray],
    schema: Schema,
    members: Sequence[_Member],
    row_bytes: int,
) -> Iterator[memoryview]:
    """The rows' bytes, some rows at a time: made from one row that all are alike but for values.

    Buffers take turns, since a block is still read while the next ones are made.
    """
    template = _template(schema, members, row_bytes)
    num_rows = max(1, _BUFFER_BYTES // row_bytes)
    buffers = cycle([np.tile(template, (min(num_rows, len(names)), 1)) for _ in range(NUM_BUFFERS)])
    for start in range(0, len(names), num_rows):
        end = min(start + num_rows, len(names))
        block = next(buffers)[: end - start]
        for member in members:
            headers = block[:, member.place : member.place + BLOCK_BYTES]
            set_names(headers, [name + member.suffix for name in names[start:end]])
        for column, member in zip(schema.columns, members, strict=False):
            little_endian = np.dtype(column.dtype).newbyteorder("<")
            data = np.ascontiguousarray(rows[column.name][start:end], little_endian)
            place = _data_place(member)
            block[:, place : place + column.row_bytes] = as_bytes(data.reshape(len(block), -1))
        text = members[-1]
        texts = [line.ljust(text.size_bytes - 1) + b"\n" for line in lines[start:end]]
        place = text.place + BLOCK_BYTES
        block[:, place : place + text.size_bytes] = as_bytes(np.array(texts)[:, None])
        yield block.reshape(-1).data


def _template(schema: Schema, members: Sequence[_Member], row_bytes: int) -> np.ndarray:
    """One row without names, checksums, values and JSON."""
    row = bytearray(row_bytes)
    for member in members:
        row[member.place : member.place + BLOCK_BYTES] = member_header("", member.size_bytes)
    for column, member in zip(schema.columns, members, strict=False):
        row[_data_place(member) - _NPY_BYTES : _data_place(member)] = _npy_header(column)
    return np.frombuffer(bytes(row), np.uint8)


def _npy_header(column: Column) -> bytes:
    """The header of a `.npy` file of version 1.0 that holds one row's value."""
    descr = np.dtype(column.dtype).newbyteorder("<").str
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {column.shape}, }}"
    length = _NPY_BYTES - 10
    if len(text) >= length:
        raise SchemaMismatchError(f"column {column.name}: shape {column.shape} is too long for npy")
    return b"\x93NUMPY\1\0" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def _write_member(file: Sink, name: str, data: bytes) -> None:
    file.write(member_header(name, len(data)))
    file.write(data.ljust(padded(len(data)), b"\0"))


def _first_member(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            first = file.read(BLOCK_BYTES)
            return _read_head(path, first + file.read(_size_of(path, first)))[0]
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, ShardCorruptError):
            raise
        raise ShardCorruptError(f"{path} cannot be read as a shard: {error}") from error


def _size_of(path: Path, first: bytes) -> int:
    """The content's size in the header of the first member."""
    if first[: len(HEADER_MEMBER) + 1] != HEADER_MEMBER.encode() + b"\0":
        raise ShardCorruptError(
            f"{path} cannot be read as a shard: it is cut, or its first member is not "
            f"{HEADER_MEMBER}"
        )
    return content_size(first)


def _read_head(path: Path, data: bytes | mmap.mmap) -> tuple[dict[str, Any], int]:
    """The content of the first member, and where the first row begins."""
    size = _size_of(path, data[:BLOCK_BYTES])
    head = json.loads(data[BLOCK_BYTES : BLOCK_BYTES + size])
    check_version(path, (head.get("format"), head.get("version")))
    if not {"header", "rows", "row_bytes", "offsets", "keys"} <= head.keys():
        raise ShardCorruptError(f"{path} cannot be read as a shard: its first member lacks a part")
    return head, BLOCK_BYTES + padded(size)


def _check_size(path: Path, buffer: mmap.mmap, head: Mapping[str, Any], begin: int) -> None:
    """Tar files have no length of their own: one cut between members would read as whole."""
    expected = begin + head["rows"] * head["row_bytes"] + len(END)
    if len(buffer) != expected:
        raise ShardCorruptError(
            f"{path} cannot be read as a shard: {len(buffer)} bytes, but {head['rows']} rows take "
            f"{expected}"
        )


def _view(buffer: mmap.mmap, column: Column, place: int, head: Mapping[str, Any]) -> np.ndarray:
    """Rows of one column: [N, *shape], their distance being that of the tar's rows."""
    dtype = np.dtype(column.dtype).newbyteorder("<")
    inner = np.empty(column.shape, dtype).strides
    if not head["rows"]:
        return np.empty((0, *column.shape), dtype)
    return np.ndarray(
        (head["rows"], *column.shape), dtype, buffer, place, (head["row_bytes"], *inner)
    )


def _check_members(
    path: Path,
    buffer: mmap.mmap,
    begin: int,
    keys: list[str],
    schema: Schema,
    head: Mapping[str, Any],
) -> None:
    """Look whether the first and the last row are where the first member says."""
    names = _member_names([key.encode() for key in keys[:1] + keys[-1:]], schema)
    for name, row in zip(names, (0, len(keys) - 1), strict=False):
        for column in schema.columns:
            place = begin + row * head["row_bytes"] + head["offsets"][column.name]
            found = buffer[place - _NPY_BYTES - BLOCK_BYTES : place]
            expected = member_header(
                f"{name}.{column.name}.npy", _NPY_BYTES + column.row_bytes
            ) + _npy_header(column)
            if found != expected:
                raise ShardCorruptError(
                    f"{path} cannot be read as a shard: row {row} has no {column.name} of shape "
                    f"{column.shape} and dtype {column.dtype} where it should be"
                )
