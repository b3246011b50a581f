"""Every file name of a store. Nothing else spells a path inside one.

```
ffhq.store/
  manifest.json                 header, and a copy of every entry
  shards/ffhq-000000.h5         rows; .tar in a store of the format webdataset
  entries/ffhq-000000.json      the commit mark of one shard
  inputs/ffhq-000000.jsonl      what the shard was made from: key, size, modification time
  rejects/ffhq-000000.jsonl     inputs of the shard that gave no row; absent when there are none
  rejects/scan.jsonl            rejects and duplicates found while listing the sources
  blobs/                        files made from the store; blobs/blobs.json lists them
  quarantine/ffhq-000003.1/     damaged files that `repair` set aside, and why; absent without any
  run/status.json               progress of the last run, for those who watch; decides nothing
  driver.lock  commit.lock      held by the running driver, and during one commit
```
"""

import re
from dataclasses import dataclass

from stores.errors import StoreError
from stores.places import StorePath

FORMAT = "deltaedit-store"
"""What manifests and shards say that they are."""

SHARD_SUFFIXES = {"hdf5": ".h5", "webdataset": ".tar"}
"""What the names of shards end in, by the formats there are."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_NUMBERED = re.compile(r"-(\d{6,})$")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of the store in folder `root` whose files begin with `name`."""

    root: StorePath
    """The store's folder."""
    name: str
    """What its shards are called: letters, digits, `_`, `.`, `-`."""
    shard_format: str = "hdf5"
    """A key of `SHARD_SUFFIXES`."""

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def folders(self) -> tuple[StorePath, ...]:
        """The folders that every store has."""
        names = ("shards", "entries", "inputs", "rejects", "blobs", "run")
        return tuple(self.root / name for name in names)

    @property
    def entries(self) -> StorePath:
        """The folder of commit marks."""
        return self.root / "entries"

    @property
    def scan(self) -> StorePath:
        """Rejects and duplicates found while listing the sources."""
        return self.root / "rejects" / "scan.jsonl"

    @property
    def blobs(self) -> StorePath:
        """The folder of files made from the store."""
        return self.root / "blobs"

    @property
    def blob_list(self) -> StorePath:
        """What each blob is made from, with its digest."""
        return self.root / "blobs" / "blobs.json"

    @property
    def quarantine(self) -> StorePath:
        """Damaged files that were set aside: one folder a case, each with its `reason.json`."""
        return self.root / "quarantine"

    @property
    def run_status(self) -> StorePath:
        """How far the last run is."""
        return self.root / "run" / "status.json"

    @property
    def driver_lock(self) -> StorePath:
        """Held by the one run that plans and consolidates."""
        return self.root / "driver.lock"

    @property
    def commit_lock(self) -> StorePath:
        """Held for the milliseconds of one commit."""
        return self.root / "commit.lock"

    def shard(self, number: int) -> StorePath:
        """The rows of shard `number`."""
        return self.root / "shards" / f"{self.stem(number)}{SHARD_SUFFIXES[self.shard_format]}"

    def entry(self, number: int) -> StorePath:
        """The commit mark of shard `number`."""
        return self.entries / f"{self.stem(number)}.json"

    def inputs(self, number: int) -> StorePath:
        """The inputs of shard `number`."""
        return self.root / "inputs" / f"{self.stem(number)}.jsonl"

    def rejects(self, number: int) -> StorePath:
        """The inputs of shard `number` that gave no row."""
        return self.root / "rejects" / f"{self.stem(number)}.jsonl"

    def stem(self, number: int) -> str:
        """`ffhq-000012` of 12; longer numbers take more digits."""
        return f"{self.name}-{number:06d}"

    def number(self, file_name: str) -> int | None:
        """The shard number in a file's name; None for a file that is not of this store."""
        stem, _, _ = file_name.rpartition(".")
        match = _NUMBERED.search(stem)
        if match is None or stem != self.stem(int(match[1])):
            return None
        return int(match[1])


def manifest_path(root: StorePath) -> StorePath:
    """The manifest of the store in folder `root`: its name does not depend on the store's."""
    return root / "manifest.json"


def check_name(name: str) -> None:
    """Refuse a name that could not begin a file's name everywhere.

    Raises:
        StoreError: It is empty, longer than 100, or has other letters than A-Z a-z 0-9 _ . -
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{name!r} cannot name a store's files: use 1 to 100 of the characters "
            "A-Z a-z 0-9 _ . - and do not begin with a dot or a dash"
        )
