"""The table of contents of a store, to and from JSON.

A manifest is a header, which never changes, and an entry for each committed shard. Entries exist
twice: as commit marks (one small file a shard, `entries/`), which any number of processes can add
at once, and as the list in `manifest.json`, which one process rebuilds from them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from stores.errors import ManifestError, SchemaMismatchError, StoreError
from stores.layout import FORMAT, SHARD_SUFFIXES
from stores.places import StorePath
from stores.schema import Schema

VERSION = 1
"""The version that this code writes, and the only one that it reads."""
SPLIT_RULE = "eval if int(sha256(key)[:8], big-endian) < eval_fraction * 2**64"
"""How a key decides its split; written into the manifest for readers in other languages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What is fixed when a store is created."""

    name: str
    """What its files are called."""
    schema: Schema
    """Its columns."""
    fingerprints: Mapping[str, str]
    """Digest of everything that determines the values, by name."""
    eval_fraction: float = 0.0
    """Share of the keys that are held out, 0 to below 1."""
    shard_format: str = "hdf5"
    """What its shards are: `hdf5` or `webdataset`."""

    def __post_init__(self) -> None:
        if self.shard_format not in SHARD_SUFFIXES:
            raise ManifestError(
                f"shard_format is one of {', '.join(SHARD_SUFFIXES)}; got {self.shard_format!r}. "
                "A store of a newer format needs a newer deltaedit."
            )
        if not 0.0 <= self.eval_fraction < 1.0:
            raise StoreError(
                "split_eval is a share of the rows, 0 or more and below 1; "
                f"got {self.eval_fraction}"
            )

    def is_eval(self, key: str) -> bool:
        """Whether a key is held out: decided by the key alone, so it stays when the store grows."""
        digest = hashlib.sha256(key.encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.eval_fraction * 2**64

    def to_json(self) -> dict[str, Any]:
        """As written in the manifest and in each shard."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "shard_format": self.shard_format,
            "schema": self.schema.to_json(),
            "fingerprints": dict(sorted(self.fingerprints.items())),
            "split": {"eval_fraction": self.eval_fraction, "rule": SPLIT_RULE},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Header":
        """The inverse of `to_json`; other members are left alone."""
        return cls(
            name=value["name"],
            schema=Schema.from_json(value["schema"]),
            fingerprints=dict(value["fingerprints"]),
            eval_fraction=float(value["split"]["eval_fraction"]),
            shard_format=value["shard_format"],
        )


class ShardEntry(NamedTuple):
    """One committed shard: the proof that its rows are whole, and what they came from."""

    name: str
    """What its files are called, for instance `ffhq-000012`."""
    number: int
    """Its place in the order of rows."""
    rows: int
    """Rows in the shard."""
    rejects: int
    """Inputs that gave no row."""
    inputs: int
    """Inputs it accounts for: `rows + rejects`."""
    size_bytes: int
    """Size of the shard's file; `bytes` in JSON."""
    sha256: str
    """Digest of the shard's file."""
    inputs_sha256: str
    """Digest of the file that lists its inputs."""
    first_key: str
    """Smallest key among the inputs."""
    last_key: str
    """Largest key among the inputs."""
    retries: int = 0
    """How many of the inputs were rejects of an earlier shard, tried again."""
    rejects_sha256: str | None = None
    """Digest of the file that lists its rejects; None when there are none."""
    listing_sha256: str | None = None
    """Digest of its inputs as a listing knows them; None where that is `inputs_sha256`."""

    @property
    def listing_digest(self) -> str:
        """Identity of the inputs as a listing knows them: keys, sizes and times."""
        return self.listing_sha256 or self.inputs_sha256

    def to_bytes(self) -> bytes:
        """One line of JSON: the commit mark, and the entry's line in the manifest."""
        value = dict(zip(_ENTRY_KEYS, _in_json_order(self), strict=True))
        if self.listing_sha256 is None:
            del value["listing_sha256"]
        return json.dumps(value).encode()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ShardEntry":
        """The inverse of `to_bytes` after JSON; members it does not know are left alone.

        Raises:
            ManifestError: Its numbers contradict each other.
        """
        entry = cls._make((*_required(value), value.get("listing_sha256")))
        if entry.rows + entry.rejects != entry.inputs or not 0 <= entry.retries <= entry.inputs:
            raise ManifestError(
                f"shard {entry.number}: {entry.rows} rows + {entry.rejects} rejects do not account "
                f"for {entry.inputs} inputs ({entry.retries} of them retried)"
            )
        return entry


_ENTRY_KEYS = (
    *("name", "number", "rows", "rejects", "inputs", "retries", "bytes", "sha256"),
    *("inputs_sha256", "rejects_sha256", "listing_sha256", "first_key", "last_key"),
)
"""Members of an entry in JSON, in their order there."""
_in_json_order = attrgetter(*("size_bytes" if key == "bytes" else key for key in _ENTRY_KEYS))
_required = itemgetter(
    *("bytes" if name == "size_bytes" else name for name in ShardEntry._fields[:-1])
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What became of the inputs: `rows + rejects + duplicates + pending == inputs`."""

    inputs: int
    """Inputs with an outcome, and those that the last plan knew of besides."""
    rows: int
    """Inputs that gave a row."""
    rejects: int
    """Inputs that gave none, each with its reason in `rejects/`."""
    duplicates: int
    """Inputs whose content another input has too."""
    pending: int = 0
    """Inputs that the last plan knew of and that have no outcome yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A store's table of contents at one moment."""

    header: Header
    """What never changes."""
    shards: Mapping[int, ShardEntry]
    """Entries of the committed shards by number, in order."""
    scan_rejects: int = 0
    """Inputs refused while listing the sources."""
    scan_duplicates: int = 0
    """Inputs left out because another has the same content."""
    scan_sha256: str | None = None
    """Digest of the file that lists those two; None when there is none."""
    num_planned: int = field(default=0, compare=False)
    """Inputs that the last plan knew of, with or without an outcome; 0 when nobody planned."""

    @property
    def counts(self) -> Counts:
        """The accounts: an input that was retried counts once, with its last outcome."""
        entries = self.shards.values()
        retries = sum(entry.retries for entry in entries)
        rows = sum(entry.rows for entry in entries)
        rejects = sum(entry.rejects for entry in entries) - retries + self.scan_rejects
        settled = rows + rejects + self.scan_duplicates
        return Counts(
            inputs=max(settled, self.num_planned),
            rows=rows,
            rejects=rejects,
            duplicates=self.scan_duplicates,
            pending=max(0, self.num_planned - settled),
        )

    @property
    def digest(self) -> str:
        """Identity of the rows: changes with any shard, and only then."""
        digest = hashlib.sha256(json.dumps(self.header.to_json(), sort_keys=True).encode())
        for number, entry in self.shards.items():
            digest.update(f"{number} {entry.sha256}\n".encode())
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """As written to `manifest.json`: one entry a line, for people and for `diff`."""
        counts = self.counts
        head = self.header.to_json() | {
            "counts": asdict(counts),
            "rejects": {
                "scan": self.scan_rejects,
                "duplicates": self.scan_duplicates,
                "scan_sha256": self.scan_sha256,
            },
        }
        lines = b",\n".join(entry.to_bytes() for entry in self.shards.values())
        body = json.dumps(head, indent=1).encode()
        return body[:-2] + b',\n "shards": [\n' + lines + b"\n]}\n"


def parse_manifest(data: bytes, path: StorePath) -> Manifest:
    """Read `manifest.json`.

    Raises:
        ManifestError: It is not JSON, of another version, or an entry contradicts itself.
    """
    try:
        value = json.loads(data)
        _check_version(value, path)
        return Manifest(
            header=Header.from_json(value),
            shards=in_order(ShardEntry.from_json(entry) for entry in value["shards"]),
            scan_rejects=int(value["rejects"]["scan"]),
            scan_duplicates=int(value["rejects"]["duplicates"]),
            scan_sha256=value["rejects"]["scan_sha256"],
            num_planned=int(value["counts"]["inputs"]),
        )
    except (
        KeyError,
        TypeError,
        AttributeError,
        UnicodeDecodeError,
        json.JSONDecodeError,
        SchemaMismatchError,
    ) as error:
        raise ManifestError(
            f"{path} is damaged ({error!r}). `deltaedit store repair` makes it again from the "
            "shards and their commit marks."
        ) from error


def parse_entry(data: bytes, path: StorePath) -> ShardEntry:
    """Read a commit mark.

    Raises:
        ManifestError: It is not the JSON of an entry.
    """
    try:
        return ShardEntry.from_json(json.loads(data))
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ManifestError(
            f"{path} cannot be read as a commit mark: {error!r}. `deltaedit store repair` makes it "
            "again."
        ) from error


def in_order(entries: Iterable[ShardEntry]) -> dict[int, ShardEntry]:
    """Entries by number, smallest first: the order of rows."""
    return {entry.number: entry for entry in sorted(entries, key=attrgetter("number"))}


def _check_version(value: Mapping[str, Any], path: StorePath) -> None:
    found = value["format"], value["version"]
    if found != (FORMAT, VERSION):
        raise ManifestError(
            f"{path} is {found[0]} version {found[1]}; this program reads {FORMAT} version "
            f"{VERSION}. Install a version of deltaedit that knows it."
        )
