"""What can be wrong with one shard and its lists; `verify` reports it, `repair` acts on it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stores.cache import local_file
from stores.checksum import sha256_bytes, sha256_file
from stores.errors import ManifestError, ShardCorruptError
from stores.formats.common import decode_keys
from stores.formats.registry import format_of
from stores.manifest import ShardEntry
from stores.places import StorePath, name_below
from stores.records import keys_of_lines
from stores.schema import KEY, Schema, all_finite
from stores.store import Store


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a store."""

    file: str
    """The file, relative to the store."""
    kind: str
    """One of `missing`, `extra`, `leftover` (harmless), `size`, `digest`, `structure`, `values`,
    `duplicate_key`, `account`."""
    detail: str
    """What was expected and found."""


def open_shard(path: StorePath, schema: Schema, num_rows: int) -> dict[str, np.ndarray]:
    """The columns of a shard, `key` among them, mapped read only.

    Raises:
        ShardCorruptError: It is missing, cut, or has another schema or number of rows.
    """
    with local_file(path) as local:  # what is mapped stays readable when its name is gone
        return format_of(path).map_shard(local, schema, num_rows)


def read_shard_header(path: StorePath) -> dict[str, Any]:
    """What a shard says about the store it belongs to.

    Raises:
        ShardCorruptError: It is missing, cut or no shard.
    """
    with local_file(path) as local:
        return format_of(path).read_header(local)


def count_shard_rows(path: StorePath) -> int:
    """How many rows a shard says it has.

    Raises:
        ShardCorruptError: It is missing, cut or no shard.
    """
    with local_file(path) as local:
        return format_of(path).count_rows(local)


def shard_keys(store: Store, entry: ShardEntry) -> list[str]:
    """The keys of a committed shard's rows.

    Raises:
        ShardCorruptError: The shard cannot be read, or a key is not text.
    """
    path = store.layout.shard(entry.number)
    return _decoded(path, open_shard(path, store.header.schema, entry.rows)[KEY])


def _decoded(path: StorePath, keys: np.ndarray) -> list[str]:
    try:
        return decode_keys(keys)
    except UnicodeDecodeError as error:
        raise ShardCorruptError(f"{path} has a key that is not text: {error}") from error


class Checked(NamedTuple):
    """What a look at one shard found."""

    problems: list[Problem]
    """What is wrong with its file; empty for a sound one."""
    keys: list[str] | None
    """The keys of its rows; None where only sizes and structure were looked at, or nothing could be
    read."""


def check_shard(
    store: Store, entry: ShardEntry, *, full: bool, directions: Collection[str] = ()
) -> Checked:
    """Compare a shard's file with its entry; a remote one is fetched once.

    Args:
        store: The store.
        entry: What was committed.
        full: Read every byte; otherwise size and structure, of a remote shard the size alone.
        directions: Columns whose rows are directions, so that one of length 0 is damage.
    """
    path = store.layout.shard(entry.number)
    file = name_below(path, store.path)
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return Checked([Problem(file, "missing", f"{entry.rows} committed rows are gone")], None)
    if size_bytes != entry.size_bytes:
        detail = f"{size_bytes} bytes, committed with {entry.size_bytes}"
        return Checked([Problem(file, "size", detail)], None)
    if not full and not isinstance(path, Path):
        return Checked([], None)
    with local_file(path) as local:
        faults = [] if not full or sha256_file(local) == entry.sha256 else [_changed(entry.sha256)]
        try:
            columns = open_shard(local, store.header.schema, entry.rows)
            header = read_shard_header(local)
            keys = _decoded(path, columns[KEY]) if full else None
        except ShardCorruptError as error:
            faults.append(("structure", str(error)))
            return Checked([Problem(file, *fault) for fault in faults], None)
        if header != store.header.to_json():
            faults.append(("structure", "its header names another store, schema or fingerprints"))
        if full:
            faults += _bad_columns(columns, store.header.schema, directions)
    return Checked([Problem(file, *fault) for fault in faults], keys)


def check_lists(
    store: Store, entry: ShardEntry, *, full: bool, keys: Collection[str] | None = None
) -> Iterator[Problem]:
    """Compare a shard's lists of inputs and rejects with its entry, each read once.

    Args:
        store: The store.
        entry: What was committed.
        full: Read the lists; otherwise only whether they are there.
        keys: Of the shard's rows, in a full check: rows and rejects are compared with the inputs.
    """
    sound: list[tuple[bytes, StorePath]] = []
    for path, digest in (
        (store.layout.inputs(entry.number), entry.inputs_sha256),
        (store.layout.rejects(entry.number), entry.rejects_sha256),
    ):
        file = name_below(path, store.path)
        data = _content(path, full=full)
        if digest is None and data is not None:
            yield Problem(file, "extra", "the shard has no such list")
        elif digest is not None and data is None:
            yield Problem(file, "missing", f"the list of shard {entry.name} is gone")
        elif digest is not None and full and sha256_bytes(data or b"") != digest:
            yield Problem(file, *_changed(digest))
        else:
            sound.append((data or b"", path))
    if keys is not None and len(sound) == 2:  # noqa: PLR2004 - both lists
        file = name_below(store.layout.shard(entry.number), store.path)
        try:
            inputs, rejects = (keys_of_lines(*lines) for lines in sound)
        except ManifestError as error:
            yield Problem(file, "structure", str(error))
            return
        if not _is_account(inputs, rejects, keys):
            yield Problem(file, "account", "its keys and rejects are not its inputs, each once")


def require_sound(store: Store, entry: ShardEntry) -> None:
    """Read a shard and its lists whole before they are copied elsewhere.

    Raises:
        ShardCorruptError: Something is not what was committed.
    """
    problems = [
        *check_shard(store, entry, full=True).problems,
        *check_lists(store, entry, full=True),
    ]
    if problems:
        raise ShardCorruptError(
            f"{store.path / problems[0].file}: {problems[0].kind}, {problems[0].detail}. Repair "
            f"the store first: deltaedit store repair {store.path}"
        )


def _content(path: StorePath, *, full: bool) -> bytes | None:
    """A list's bytes, or nothing of them where they are not asked for; None without a list."""
    try:
        return path.read_bytes() if full else b"" if path.exists() else None
    except FileNotFoundError:
        return None


def _is_account(inputs: list[str], rejects: list[str], keys: Collection[str]) -> bool:
    """Whether rows and rejects are together the inputs, each once."""
    fates = {*keys, *rejects}
    return len(keys) + len(rejects) == len(fates) == len(inputs) and fates == set(inputs)


def _changed(sha256: str) -> tuple[str, str]:
    return "digest", f"the bytes changed since commit: not {sha256}"


def _bad_columns(
    columns: Mapping[str, np.ndarray], schema: Schema, directions: Collection[str]
) -> Iterator[tuple[str, str]]:
    for name in schema.names:
        for detail in _bad_values(columns[name], is_direction=name in directions):
            yield "values", f"column {name} has {detail}"


def _bad_values(column: np.ndarray, *, is_direction: bool) -> Iterator[str]:
    if column.dtype.kind != "f":
        return
    if not all_finite(column):
        yield "NaN or infinite values"
    elif is_direction and len(column):
        rows = column.reshape(len(column), -1).astype(np.float32, copy=False)
        num_zero = len(rows) - np.count_nonzero(np.einsum("nc,nc->n", rows, rows))
        if num_zero:
            yield f"{num_zero} rows of length 0, which have no direction"
