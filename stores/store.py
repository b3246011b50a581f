"""A store as one run sees it: its header, what is committed, its locks."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from stores.atomic import make_folder, write_atomic
from stores.checksum import sha256_file
from stores.contents import is_store, leftovers, read_contents, refuse_foreign_files
from stores.errors import FingerprintMismatchError, SchemaMismatchError, StoreError
from stores.layout import Layout, manifest_path
from stores.lock import driving, exclusive, is_latest
from stores.manifest import Header, Manifest, ShardEntry, parse_entry
from stores.places import StorePath, store_path
from stores.records import DUPLICATE, Duplicate, Input, Reject, rejects_to_bytes
from stores.records import read_inputs as read_input_lines
from stores.records import read_rejects as read_reject_lines
from stores.schema import Schema

_log = logging.getLogger(__name__)


class Store:
    """An opened store. Cheap to make, safe to send to other processes.

    Attributes:
        path: The store's folder.
        layout: Its file names.
        header: Its name, schema, fingerprints and split.
        manifest: What was committed when it was opened, or last consolidated or refreshed.
        driver: The token with which shards are committed; None where it never was locked.
    """

    def __init__(self, path: StorePath, manifest: Manifest) -> None:
        self.path = path
        self.header = manifest.header
        self.layout = Layout(path, manifest.header.name, manifest.header.shard_format)
        self.manifest = manifest
        self.driver: str | None = None

    @classmethod
    def create(
        cls,
        path: StorePath | str,
        *,
        name: str | None = None,
        schema: Schema,
        fingerprints: Mapping[str, str],
        split_eval: float = 0.0,
        shard_format: str = "hdf5",
    ) -> "Store":
        """Make a new, empty store.

        Args:
            path: Its folder; made if it does not exist, otherwise it must hold nothing of others.
            name: What its files are called; the folder's name without `.store` if not given.
            schema: Its columns.
            fingerprints: Digests of everything that determines the values, by name.
            split_eval: Share of the keys to hold out for evaluation.
            shard_format: `hdf5` (random access) or `webdataset` (tar).

        Raises:
            StoreError: There is a store already, the folder has other files, or the name is bad.
            OutOfSpaceError: There is no room.
        """
        root = store_path(path)
        header = Header(
            name=name or root.resolve().name.removesuffix(".store"),
            schema=schema,
            fingerprints=dict(fingerprints),
            eval_fraction=split_eval,
            shard_format=shard_format,
        )
        layout = Layout(root, header.name, shard_format)
        refuse_foreign_files(layout)
        for folder in layout.folders:
            make_folder(folder)
        with exclusive(layout.commit_lock, wait=True):
            if is_store(root):
                raise StoreError(f"{root} is a store already; open it, or give another folder")
            manifest = Manifest(header=header, shards={})
            write_atomic(manifest_path(root), manifest.to_bytes())
        return cls(root, manifest)

    @classmethod
    def open(
        cls,
        path: StorePath | str,
        *,
        schema: Schema | None = None,
        fingerprints: Mapping[str, str] | None = None,
    ) -> "Store":
        """Open a store with everything that is committed at this moment.

        Args:
            path: Its folder.
            schema: The columns it must have; not compared if not given. The store's own scaling
                of float16 columns holds, whatever numbers these have.
            fingerprints: The fingerprints it must have; not compared if not given.

        Raises:
            ManifestError: There is no store, or its manifest cannot be read.
            SchemaMismatchError: It has other columns.
            FingerprintMismatchError: It was made by other models or settings.
        """
        root = store_path(path)
        store = cls(root, read_contents(root))
        if fingerprints is not None:
            _compare_fingerprints(store, fingerprints)
        if schema is not None and not schema.fits(store.header.schema):
            raise SchemaMismatchError(
                f"{root} has the columns {store.header.schema}, this run would write "
                f"{schema}. Give the same columns and dtype, or another store."
            )
        return store

    @classmethod
    def open_or_create(
        cls,
        path: StorePath | str,
        *,
        name: str | None = None,
        schema: Schema,
        fingerprints: Mapping[str, str],
        split_eval: float = 0.0,
        shard_format: str = "hdf5",
    ) -> "Store":
        """Open the store if there is one and it fits, else make it; errors as of both.

        Raises:
            StoreError: The store's split or format is another.
        """
        if not is_store(store_path(path)):
            try:
                return cls.create(
                    path,
                    name=name,
                    schema=schema,
                    fingerprints=fingerprints,
                    split_eval=split_eval,
                    shard_format=shard_format,
                )
            except StoreError:
                if not is_store(store_path(path)):
                    raise
                _log.info("%s was made by another run in this moment", path)
        store = cls.open(path, schema=schema, fingerprints=fingerprints)
        if store.header.eval_fraction != split_eval:
            raise StoreError(
                f"{path} holds out {store.header.eval_fraction} of its keys, this run asks for "
                f"{split_eval}; a split is fixed when the store is made. Use the store's value."
            )
        if store.header.shard_format != shard_format:
            raise StoreError(
                f"{path} has {store.header.shard_format} shards, this run would write "
                f"{shard_format}. Use the store's format, or make another with "
                f"`deltaedit store convert {path} OUT --format {shard_format}`."
            )
        return store

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the store's one driver for the length of a `with` block.

        A new driver removes the temporary files that killed runs left. What their workers still
        have in work is refused when they commit it.

        Raises:
            StoreBusyError: Another run is; the message names its host and process.
        """
        with driving(self.layout.driver_lock, self.layout.commit_lock) as self.driver:
            for leftover in leftovers(self.layout):
                _log.info("removing %s, left by a killed run", leftover)
                leftover.unlink(missing_ok=True)
            yield

    def committed(self, number: int) -> ShardEntry | None:
        """The entry of a shard, read afresh from its commit mark; None when there is none.

        Raises:
            ManifestError: The commit mark cannot be read.
        """
        path = self.layout.entry(number)
        try:
            return parse_entry(path.read_bytes(), path)
        except FileNotFoundError:
            return None

    def check_driver(self, number: int) -> None:
        """Refuse to commit what was planned before another run began to drive the store.

        Raises:
            StoreError: That is so of shard `number`.
        """
        if self.driver is not None and not is_latest(self.layout.driver_lock, self.driver):
            raise StoreError(
                f"shard {number} of {self.path} was planned by a run that drives the store no "
                "longer, so it is dropped. Nothing is lost: the run that does, or the next one, "
                "makes what is left."
            )

    def refresh(self) -> Manifest:
        """Notice what other processes committed since; also kept as `manifest`."""
        self.manifest = read_contents(self.path)
        return self.manifest

    def consolidate(self, num_pending: int | None = None) -> Manifest:
        """Write `manifest.json` anew from the header, the commit marks and the scan record.

        A driver does this first and last. It never loses anything: the commit marks stay, and
        opening a store reads those that the manifest lacks.

        Args:
            num_pending: What a plan against `manifest` found without an outcome; else the last
                plan stands.

        Raises:
            OutOfSpaceError: There is no room; the old manifest stays.
        """
        rejects, duplicates = self.scan_record()
        manifest = replace(
            read_contents(self.path),
            scan_rejects=len(rejects),
            scan_duplicates=len(duplicates),
            scan_sha256=sha256_file(self.layout.scan) if self.layout.scan.exists() else None,
        )
        if num_pending is not None:
            # Against what the plan saw: others may have committed some of it in the meantime.
            seen = replace(manifest, shards=self.manifest.shards, num_planned=0)
            manifest = replace(manifest, num_planned=seen.counts.inputs + num_pending)
        data = manifest.to_bytes()
        path = manifest_path(self.path)
        if not path.exists() or path.read_bytes() != data:
            write_atomic(path, data)
        self.manifest = manifest
        return manifest

    def record_scan(
        self, rejects: list[Reject], duplicates: list[Duplicate], num_pending: int = 0
    ) -> Manifest:
        """Put what never reached a shard on record, in place of the former record.

        Args:
            rejects: Inputs refused while listing.
            duplicates: Inputs left out because another has the same content.
            num_pending: Inputs that are planned and have no outcome yet, for the accounts.

        Raises:
            OutOfSpaceError: There is no room; the old record stays.
        """
        lines = [*rejects, *(Reject(key, DUPLICATE, of_key) for key, of_key in duplicates)]
        data = rejects_to_bytes(sorted(lines))
        if data or self.layout.scan.exists():
            write_atomic(self.layout.scan, data)
        return self.consolidate(num_pending)

    def scan_record(self) -> tuple[list[Reject], list[Duplicate]]:
        """The rejects and duplicates of the listings so far."""
        lines = read_reject_lines(self.layout.scan)
        rejects = [line for line in lines if line.reason != DUPLICATE]
        return rejects, [Duplicate(x.key, x.detail) for x in lines if x.reason == DUPLICATE]

    def read_inputs(self, number: int) -> list[Input]:
        """What a committed shard was made from.

        Raises:
            ManifestError: The list is missing or cannot be read.
        """
        return read_input_lines(self.layout.inputs(number))

    def read_rejects(self, number: int) -> list[Reject]:
        """The inputs of a committed shard that gave no row."""
        return read_reject_lines(self.layout.rejects(number))

    def rejects(self) -> Iterator[Reject]:
        """Every reject and duplicate on record, those of the listing first."""
        yield from read_reject_lines(self.layout.scan)
        for number, entry in self.manifest.shards.items():
            if entry.rejects:
                yield from self.read_rejects(number)


def _compare_fingerprints(store: Store, expected: Mapping[str, str]) -> None:
    found = store.header.fingerprints
    if dict(found) == dict(expected):
        return
    differences = "; ".join(
        f"{name}: the store has {found.get(name, 'none')}, this run {expected.get(name, 'none')}"
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    )
    raise FingerprintMismatchError(
        f"{store.path} was made by other models or settings ({differences}). Values of two kinds "
        "never mix in one store: give the models and settings it was made with, or another store."
    )
