"""A small run of a store's whole life, for tests that kill, starve or race it.

`main` lists a folder, plans, and commits rows that depend on the key and the content alone.
"""

import hashlib
from pathlib import Path

import numpy as np

from stores.checksum import sha256_bytes
from stores.layout import SHARD_SUFFIXES
from stores.plan import ShardPlan, plan_shards
from stores.schema import Column, Schema
from stores.sources import read_image_bytes, scan_images
from stores.store import Store
from stores.writer import ShardWriter

SCHEMA = Schema((Column("clip", (16,), "float32"), Column("s", (5, 40), "float32")))
FINGERPRINTS = {"clip": "c0ffee", "s": "beef"}
SHARD_FORMAT = "hdf5"
"""Of the stores that `main` makes; tests set it."""


def main(
    source: str, path: str, shard_rows: int, *, locked: bool = True, retry_rejects: bool = False
) -> None:
    store = Store.open_or_create(
        path,
        name="t",
        schema=SCHEMA,
        fingerprints=FINGERPRINTS,
        split_eval=0.25,
        shard_format=SHARD_FORMAT,
    )
    if not locked:
        commit_all(store, source, shard_rows)
        return
    with store.lock():
        store.consolidate()
        commit_all(store, source, shard_rows, retry_rejects=retry_rejects)


def shard_file(number: int) -> str:
    """The name of a shard's file in its store."""
    return f"shards/t-{number:06d}{SHARD_SUFFIXES[SHARD_FORMAT]}"


def commit_all(store: Store, source: str, shard_rows: int, *, retry_rejects: bool = False) -> None:
    plan = plan_shards(scan_images([source]), store, shard_rows, retry_rejects=retry_rejects)
    store.record_scan(plan.rejects, plan.duplicates, plan.num_pending - plan.num_retries)
    for shard in plan.shards:
        commit_shard(store, shard)
    store.consolidate()


def commit_shard(store: Store, shard: ShardPlan) -> None:
    writer = ShardWriter(store, shard)
    for item in shard.items:
        data = read_image_bytes(item)
        writer.note_digest(item.key, sha256_bytes(data))
        if data.startswith(b"bad"):
            writer.reject(item.key, "not_an_image", "it begins with bad")
        else:
            writer.add([item.key], row_of(item.key, data))
    writer.commit()


def row_of(key: str, data: bytes) -> dict[str, np.ndarray]:
    seed = int.from_bytes(hashlib.sha256(key.encode() + data).digest()[:8], "big")
    values = np.random.default_rng(seed).standard_normal(216).astype("float32")
    return {"clip": values[None, :16], "s": values[16:].reshape(1, 5, 40)}


def make_source(folder: Path, num_files: int) -> Path:
    """Files of which every 7th gives no row and every 10th is a copy."""
    for i in range(num_files):
        content = f"copy {i % 3}" if i % 10 == 9 else f"bad {i}" if i % 7 == 6 else f"image {i}"
        path = folder / f"{i % 4}" / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def digests(store: Path) -> dict[str, str]:
    """SHA-256 of every file of a store but its locks and leftovers."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.suffix not in {".lock", ".tmp"}
    }
