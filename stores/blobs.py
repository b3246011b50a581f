"""Files made from a store's rows: indexes, neighbour graphs, statistics.

Each is on record with its digest and what it was made from.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stores.atomic import replacing, write_atomic
from stores.cache import cached_copy
from stores.checksum import sha256_bytes, sha256_file
from stores.errors import ManifestError, ShardCorruptError, StoreError
from stores.layout import check_name
from stores.lock import exclusive
from stores.places import StorePath
from stores.store import Store


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """What is on record about one blob."""

    sha256: str
    """Digest of its bytes."""
    size_bytes: int
    """Its length."""
    made_from: Mapping[str, Any]
    """What it was made from, as its maker said: JSON."""


def write_blob(store: Store, name: str, data: bytes, made_from: Mapping[str, Any]) -> BlobRecord:
    """Put a blob into a store, in place of a former one of that name.

    The record is written before the file and keeps the former one's beside it, so that whichever
    file a crash leaves is on record.

    Args:
        store: The store.
        name: A file name, for instance `index.faiss`.
        data: The blob.
        made_from: What it was made from; values that JSON can hold.

    Raises:
        StoreError: The name cannot name a file.
        OutOfSpaceError: There is no room; the former blob stays.
    """
    check_name(name)
    record = BlobRecord(sha256_bytes(data), len(data), dict(made_from))
    path = store.layout.blobs / name
    with exclusive(store.layout.commit_lock, wait=True):
        with replacing(path, size_bytes=len(data)) as temporary:
            temporary.write_bytes(data)
            records = _read_records(store)
            former = _present(path, records.get(name, []))
            records[name] = [record] if former is None else [record, former]
            _write_records(store, records)
        records[name] = [record]
        _write_records(store, records)
    return record


def read_blob(store: Store, name: str) -> bytes:
    """A blob's bytes, compared with its digest.

    Raises:
        StoreError: There is no such blob; the message lists those there are.
        ShardCorruptError: The bytes are not those that were written.
    """
    data = blob_path(store, name).read_bytes()
    digest = sha256_bytes(data)
    if all(record.sha256 != digest for record in _read_records(store)[name]):
        raise _corrupt(store, name, f"digest {digest}")
    return data


def blob_path(store: Store, name: str) -> Path:
    """Where a blob is, for libraries that open files; its size is compared, its digest is not.

    On an object store it is a local copy, compared with its digest when it was made.

    Raises:
        StoreError: There is no such blob; the message lists those there are.
        ShardCorruptError: The file is missing or of another size.
    """
    records = _read_records(store)
    if name not in records:
        known = ", ".join(sorted(records)) or "none yet"
        raise StoreError(f"{store.path} has no blob {name!r}; it has: {known}")
    path = store.layout.blobs / name
    size = path.stat().st_size if path.exists() else None
    fitting = [record for record in records[name] if record.size_bytes == size]
    if not fitting:
        raise _corrupt(store, name, "no such file" if size is None else f"{size} bytes")
    if isinstance(path, Path):
        return path
    present = fitting[0] if len(fitting) == 1 else _present(path, fitting) or fitting[0]
    return cached_copy(path, present.sha256)


def remove_blob(store: Store, name: str) -> None:
    """Take a blob out of a store; one that is not there is fine.

    The record goes first, so that a crash leaves at most a file that nothing knows.
    """
    check_name(name)
    with exclusive(store.layout.commit_lock, wait=True):
        drop_blobs(store, [name])
        (store.layout.blobs / name).unlink(missing_ok=True)


def list_blobs(store: Store) -> dict[str, BlobRecord]:
    """The record of each blob by name.

    Raises:
        ManifestError: The list cannot be read.
    """
    return {name: records[0] for name, records in sorted(_read_records(store).items())}


def damaged_blobs(store: Store) -> dict[str, str]:
    """Blobs whose file is missing or not the one on record, with what was found.

    Raises:
        ManifestError: The list cannot be read.
    """
    found: dict[str, str] = {}
    for name, records in sorted(_read_records(store).items()):
        path = store.layout.blobs / name
        if not path.exists():
            found[name] = "missing"
        elif _present(path, records) is None:
            found[name] = f"the file has not the recorded digest {records[0].sha256}"
    return found


def drop_blobs(store: Store, names: Collection[str]) -> None:
    """Strike blobs off the record, so that the commands that made them make them again.

    The caller holds the commit lock and takes the files away.
    """
    records = _read_records(store)
    _write_records(store, {name: kept for name, kept in records.items() if name not in names})


def _present(path: StorePath, records: list[BlobRecord]) -> BlobRecord | None:
    """The record, if any, that the file at `path` agrees with."""
    if not records or not path.exists():
        return None
    digest = sha256_file(path)
    return next((record for record in records if record.sha256 == digest), None)


def _read_records(store: Store) -> dict[str, list[BlobRecord]]:
    path = store.layout.blob_list
    try:
        value = json.loads(path.read_bytes())
        if value["sha256"] != _digest(value["blobs"]):
            raise ManifestError(f"{path} was changed: its records have not its own digest")
        return {
            name: [BlobRecord(r["sha256"], r["bytes"], r["made_from"]) for r in records]
            for name, records in value["blobs"].items()
        }
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path} cannot be read as a list of blobs: {error!r}") from error


def _write_records(store: Store, records: Mapping[str, list[BlobRecord]]) -> None:
    value = {
        name: [{"sha256": r.sha256, "bytes": r.size_bytes, "made_from": r.made_from} for r in kept]
        for name, kept in sorted(records.items())
    }
    listed = {"sha256": _digest(value), "blobs": value}
    write_atomic(store.layout.blob_list, json.dumps(listed, indent=1).encode())


def _digest(value: Any) -> str:
    return sha256_bytes(json.dumps(value, sort_keys=True).encode())


def _corrupt(store: Store, name: str, found: str) -> ShardCorruptError:
    return ShardCorruptError(
        f"{store.layout.blobs / name} is not what was written ({found} found); run the command "
        "that made it again"
    )
