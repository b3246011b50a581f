"""What can be wrong with one shard and its lists; `verify` reports it, `repair` acts on it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stores.cache import local_file
from stores.checksum import sha256_file
from stores.errors import ManifestError, ShardCorruptError
from stores.formats.common import decode_keys
from stores.formats.registry import format_of
from stores.manifest import ShardEntry
from stores.places import StorePath, name_below
from stores.schema import KEY, Schema
from stores.store import Store

_BLOCK_VALUES = 2**18
"""Values looked at together: few enough to stay in a processor's cache."""


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
    columns = open_shard(path, store.header.schema, entry.rows)
    try:
        return decode_keys(columns[KEY])
    except UnicodeDecodeError as error:
        raise ShardCorruptError(f"{path} has a key that is not text: {error}") from error


def check_shard(
    store: Store, entry: ShardEntry, *, full: bool, directions: Collection[str] = ()
) -> Iterator[Problem]:
    """Compare a shard's file with its entry.

    Args:
        store: The store.
        entry: What was committed.
        full: Read every byte; otherwise size and structure, of a remote shard the size alone.
        directions: Columns whose rows are directions, so that one of length 0 is damage.
    """
    path = store.layout.shard(entry.number)
    file = name_below(path, store.path)
    if not path.exists():
        yield Problem(file, "missing", f"{entry.rows} committed rows are gone")
        return
    if path.stat().st_size != entry.size_bytes:
        detail = f"{path.stat().st_size} bytes, committed with {entry.size_bytes}"
        yield Problem(file, "size", detail)
        return
    if full or isinstance(path, Path):
        with local_file(path) as local:
            yield from _check_rows(store, entry, local, directions if full else None)


def _check_rows(
    store: Store, entry: ShardEntry, path: Path, directions: Collection[str] | None
) -> Iterator[Problem]:
    """The bytes of a shard, at `path`; structure alone where `directions` is None."""
    file = name_below(store.layout.shard(entry.number), store.path)
    if directions is not None and sha256_file(path) != entry.sha256:
        yield Problem(file, "digest", f"the bytes changed since commit: not {entry.sha256}")
    try:
        columns = open_shard(path, store.header.schema, entry.rows)
        header = read_shard_header(path)
    except ShardCorruptError as error:
        yield Problem(file, "structure", str(error))
        return
    if header != store.header.to_json():
        yield Problem(file, "structure", "its header names another store, schema or fingerprints")
    if directions is not None:
        for name in store.header.schema.names:
            for detail in _bad_values(columns[name], is_direction=name in directions):
                yield Problem(file, "values", f"column {name} has {detail}")


def check_lists(store: Store, entry: ShardEntry, *, full: bool) -> Iterator[Problem]:
    """Compare a shard's lists of inputs and rejects with its entry."""
    expected = {
        store.layout.inputs(entry.number): entry.inputs_sha256,
        store.layout.rejects(entry.number): entry.rejects_sha256,
    }
    for path, digest in expected.items():
        file = name_below(path, store.path)
        if digest is None and path.exists():
            yield Problem(file, "extra", "the shard has no such list")
        elif digest is not None and not path.exists():
            yield Problem(file, "missing", f"the list of shard {entry.name} is gone")
        elif digest is not None and full and sha256_file(path) != digest:
            yield Problem(file, "digest", f"the bytes changed since commit: not {digest}")


def require_sound(store: Store, entry: ShardEntry) -> None:
    """Read a shard and its lists whole before they are copied elsewhere.

    Raises:
        ShardCorruptError: Something is not what was committed.
    """
    problems = [*check_shard(store, entry, full=True), *check_lists(store, entry, full=True)]
    if problems:
        raise ShardCorruptError(
            f"{store.path / problems[0].file}: {problems[0].kind}, {problems[0].detail}. Repair "
            f"the store first: deltaedit store repair {store.path}"
        )


def accounts_for_inputs(store: Store, entry: ShardEntry, keys: Collection[str]) -> bool:
    """Whether a shard's rows and rejects are together its inputs, each once.

    Raises:
        ManifestError: A list cannot be read.
    """
    inputs = [record.key for record in store.read_inputs(entry.number)]
    rejects = [r.key for r in store.read_rejects(entry.number)] if entry.rejects else []
    fates = {*keys, *rejects}
    return len(keys) + len(rejects) == len(fates) == len(inputs) and fates == set(inputs)


def check_accounts(store: Store, entry: ShardEntry, keys: Collection[str]) -> Iterator[Problem]:
    """Compare a shard's rows and rejects with its inputs."""
    try:
        if not accounts_for_inputs(store, entry, keys):
            file = name_below(store.layout.shard(entry.number), store.path)
            yield Problem(file, "account", "its keys and rejects are not its inputs, each once")
    except ManifestError:
        return  # `check_lists` has it as missing or changed


def _bad_values(column: np.ndarray, *, is_direction: bool) -> Iterator[str]:
    if column.dtype.kind != "f":
        return
    if len(column) and not _all_finite(column.reshape(len(column), -1)):
        yield "NaN or infinite values"
    elif is_direction and len(column):
        rows = column.reshape(len(column), -1).astype(np.float32, copy=False)
        num_zero = len(rows) - np.count_nonzero(np.einsum("nc,nc->n", rows, rows))
        if num_zero:
            yield f"{num_zero} rows of length 0, which have no direction"


def _all_finite(rows: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity in [N, K] floating-point values."""
    num_rows = max(1, _BLOCK_VALUES // rows.shape[1])
    starts = range(0, len(rows), num_rows)
    return all(np.isfinite(rows[start : start + num_rows]).all() for start in starts)
