"""The commit of one shard to an object store, where there are no locks and no renames.

Each object is created where there is none, the shard first and its mark last: without the mark
nothing of it counts. Whoever created the shard's object owns its number. Who would write other
bytes waits for the owner's mark; when it does not come in `PATIENCE_S`, the owner was killed, and
what it left is replaced. The same plan gives the same bytes, so all this is rare.
"""

import logging
import time
from pathlib import Path
from typing import NamedTuple

from stores.checksum import sha256_file
from stores.errors import ShardCorruptError
from stores.lease import EXPIRE_S
from stores.manifest import ShardEntry
from stores.places import ObjectPath
from stores.store import Store

PATIENCE_S = EXPIRE_S
"""How long the writer of another content may take from its upload to its mark."""
_LOOKS = 60
"""How often one looks for the mark in that time."""

_log = logging.getLogger(__name__)


class ShardFiles(NamedTuple):
    """What a shard consists of besides its mark."""

    shard: Path
    """The finished, synced file of rows, under a temporary name."""
    inputs: bytes
    """The list of its inputs."""
    rejects: bytes
    """The list of its rejects; empty when there are none."""


class _Claim(NamedTuple):
    """An object that a shard needs, exactly so, before it can be marked."""

    path: ObjectPath
    content: Path | bytes
    """Empty: there must be no such object."""
    sha256: str | None

    def stake(self) -> bool:
        """Create the object; whether it is there now with this content."""
        if not self.content:
            return not self.path.exists()
        try:
            if isinstance(self.content, Path):
                self.path.upload(self.content, exclusive=True)
            else:
                self.path.create(self.content)
        except FileExistsError:
            return self._is_there()
        return True

    def _is_there(self) -> bool:
        try:
            return sha256_file(self.path) == self.sha256
        except FileNotFoundError:
            return False


def commit_objects(
    store: Store, entry: ShardEntry, files: ShardFiles, *, patience_s: float = PATIENCE_S
) -> ShardEntry:
    """Make a finished shard part of a store, unless another process was first.

    Args:
        store: The store; its path is an `ObjectPath`.
        entry: What the mark will say.
        files: What the entry describes.
        patience_s: How long the mark may take of another writer, who uploaded other bytes.

    Returns:
        The shard's entry in the store: `entry`, or that of whoever was first.

    Raises:
        OutOfSpaceError: There is no room; nothing is left but files without a mark.
        ObjectStoreError: The object store cannot be reached, or refuses.
        ShardCorruptError: Two writers of different rows collided (docs/object-stores.md).
        StoreError: Another run drives the store since the shard was planned.
    """
    mark = store.layout.entry(entry.number)
    assert isinstance(mark, ObjectPath), "a folder has locks and renames"
    while True:
        committed = store.committed(entry.number)
        if committed is not None:
            return committed
        store.check_driver(entry.number)
        contested, begin = _stake_all(_claims(store, entry, files))
        if contested is not None:
            committed = _await_mark(store, entry.number, patience_s)
            if committed is not None:
                return committed
            _log.warning("replacing %s, which a killed run left", contested)
            contested.unlink(missing_ok=True)
        elif time.monotonic() - begin < patience_s / 2:  # else this process slept: look again
            break
    store.check_driver(entry.number)
    try:
        mark.create(entry.to_bytes())
    except FileExistsError:
        return _lost(store, entry)
    return entry


def _claims(store: Store, entry: ShardEntry, files: ShardFiles) -> list[_Claim]:
    """The shard first: its upload takes longest, and before it ends nobody waits."""
    layout, number = store.layout, entry.number
    contents = (
        (layout.shard(number), files.shard, entry.sha256),
        (layout.inputs(number), files.inputs, entry.inputs_sha256),
        (layout.rejects(number), files.rejects, entry.rejects_sha256),
    )
    return [
        _Claim(path, content, sha256)
        for path, content, sha256 in contents
        if isinstance(path, ObjectPath)
    ]


def _stake_all(claims: list[_Claim]) -> tuple[ObjectPath | None, float]:
    """The first object that has another content, if any, and when the first claim was staked."""
    begin = float("inf")
    for claim in claims:
        if not claim.stake():
            return claim.path, begin
        begin = min(begin, time.monotonic())
    return None, begin


def _await_mark(store: Store, number: int, patience_s: float) -> ShardEntry | None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        committed = store.committed(number)
        if committed is not None:
            return committed
        time.sleep(patience_s / _LOOKS)
    return None


def _lost(store: Store, entry: ShardEntry) -> ShardEntry:
    """Another writer's mark came between; with the same bytes it is as good as one's own."""
    committed = store.committed(entry.number)
    assert committed is not None, "the mark exists"
    if committed != entry:
        raise ShardCorruptError(
            f"shard {entry.number} of {store.path} was marked by a writer that had been silent for "
            "too long, after this one replaced its rows. Run `deltaedit store verify`; "
            "that shard alone has to be made again."
        )
    return committed
