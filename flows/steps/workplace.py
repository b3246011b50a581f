"""Where the shards of a precompute run are made: in this process, or on the workers of a cluster.

Both run the same `EncodeJob`. The driver of a cluster loads no model: what the store must say about
them is asked of a worker, since devices, and with them the precision `auto`, may differ there.
"""

import socket
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from flows.cluster.outcomes import InWork, Outcome, Record, ShardDone
from flows.cluster.spec import parse_cluster
from flows.config import keep_freed_memory, num_cpus
from flows.models import NVJPEG, LoadedModels, load_models, pinned
from flows.schemas import store_schema
from flows.steps.encode import ShardEncoder
from flows.steps.origin import Origin, origin_of, portable
from flows.steps.progress import Stopwatch
from pipeline.errors import PipelineError
from pipeline.images import nvjpeg_fault
from stores.checksum import sha256_bytes
from stores.contents import is_store
from stores.errors import FingerprintMismatchError, StoreError
from stores.manifest import Manifest, ShardEntry
from stores.plan import ShardPlan
from stores.records import Input, inputs_to_bytes
from stores.schema import Schema
from stores.store import Store

if TYPE_CHECKING:
    from flows.cluster.connect import Connection
    from flows.cluster.shards import ShardLoop
    from flows.steps.precompute import PrecomputeConfig


PRELOADED = ("flows.steps.precompute", "open_clip")
"""What takes seconds to import."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFacts:
    """What the models determine of a store."""

    schema: Schema
    """Its columns."""
    fingerprints: dict[str, str]
    """What determines the values of each."""
    origin: Origin
    """What later work needs to know of the models."""


def describe_models(config: "PrecomputeConfig", models: LoadedModels) -> StoreFacts:
    """What the store of a run must say, given the loaded models."""
    return StoreFacts(
        schema=store_schema(models.encoders, config.models.columns, config.dtype),
        fingerprints=models.fingerprints(config.models, config.image_source),
        origin=origin_of(models),
    )


class Workplace(Protocol):
    """Somewhere that shards are made."""

    def describe(self) -> StoreFacts:
        """What the models there make of a store."""
        ...

    def make(self, store: Store, shards: Sequence[ShardPlan]) -> Iterator[Outcome]:
        """Make and commit shards; each comes back once."""
        ...

    @property
    def in_work(self) -> list[InWork]:
        """The shards in work at this moment."""
        ...

    @property
    def num_workers(self) -> int:
        """Processes that make shards."""
        ...


@contextmanager
def workplace(config: "PrecomputeConfig", watch: Stopwatch) -> Iterator[Workplace]:
    """What `config.cluster` names, for the length of the block.

    Args:
        config: the run.
        watch: collects the seconds of each stage.

    Raises:
        WrongCallError: the cluster's class cannot be imported or refuses its arguments.
        ClusterError: there is no scheduler, or no worker came in time.
    """
    if config.cluster is None:
        yield _Here(config, watch)
        return
    from flows.cluster.connect import connect

    spec = parse_cluster(config.cluster)
    with connect(spec, device=config.models.device, preload=PRELOADED) as connection:
        yield _OnCluster(config, watch, connection)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeJob:
    """Makes shards in whichever process it is called. Small, and the same on every machine."""

    config: "PrecomputeConfig"
    """The run; its paths hold from any working folder where it is sent elsewhere."""
    store: Store | None = None
    """The store, without its list of shards."""
    threads: int | None = None
    """Compute threads of the process; None leaves them as they are."""

    def describe(self) -> StoreFacts:
        """What the models of this process make of a store; they stay loaded.

        Raises:
            PipelineError: JPEGs cannot be decoded as the run asks.
        """
        return describe_models(self.config, self._models())

    def __call__(self, shards: Sequence[ShardPlan]) -> Generator[Record, None, None]:
        """Make and commit shards, passing over those that are committed already.

        Raises:
            StoreError: this machine does not see the store.
            FingerprintMismatchError: the models of this process are others than the store's.
        """
        assert self.store is not None
        self._check_place(self.store)
        committed = {shard.number: _committed(self.store, shard) for shard in shards}
        watch = Stopwatch()
        missing = [shard for shard in shards if committed[shard.number] is None]
        made = self.encode(self.store, missing, watch)
        for shard in shards:
            entry = committed[shard.number] or next(made)
            yield _record(entry) | {"stages": watch.take()}

    def encode(
        self, store: Store, shards: Sequence[ShardPlan], watch: Stopwatch
    ) -> Iterator[ShardEntry]:
        """Make and commit shards, reading, models and commits overlapping."""
        keep_freed_memory()
        processors = self.threads or num_cpus()
        models = self._models()
        encoder = ShardEncoder(
            encoders=models.encoders,
            columns=self.config.models.columns,
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers or processors,
            num_processors=processors,
            jpeg_device=str(models.encoders.device) if self._uses_nvjpeg else "cpu",
            sampled=self.config.sampled,
            watch=watch,
        )
        return encoder.encode(store, shards)

    def _models(self) -> LoadedModels:
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        models = load_models(self.config.models, sampled=self.config.sampled is not None)
        if self._uses_nvjpeg and (fault := nvjpeg_fault(str(models.encoders.device))):
            raise PipelineError(f"--jpeg-decoder nvjpeg: {fault}; use --jpeg-decoder libjpeg")
        return models

    @property
    def _uses_nvjpeg(self) -> bool:
        return self.config.jpeg_decoder == NVJPEG

    def _check_place(self, store: Store) -> None:
        if not is_store(store.path):
            raise StoreError(
                f"host {socket.gethostname()} does not see the store {store.path}: workers need "
                "the same file system under the same paths as the driver"
            )
        config, theirs = self.config, store.header.fingerprints
        ours = self._models().fingerprints(config.models, config.image_source)
        if ours != theirs:
            raise FingerprintMismatchError(
                f"host {socket.gethostname()} would encode with {ours}, the store {store.path} has "
                f"{theirs}. Give --precision and --device such that all workers do the same."
            )


class _Here:
    """This process; an exception ends the run."""

    num_workers = 1

    def __init__(self, config: "PrecomputeConfig", watch: Stopwatch) -> None:
        self._job, self._watch = EncodeJob(config=config), watch
        self._in_work: tuple[int, float] | None = None

    def describe(self) -> StoreFacts:
        return self._job.describe()

    def make(self, store: Store, shards: Sequence[ShardPlan]) -> Iterator[Outcome]:
        made = self._job.encode(store, shards, self._watch)
        for shard in shards:
            self._in_work = shard.number, time.monotonic()
            yield ShardDone(shard, _record(next(made)))
        self._in_work = None

    @property
    def in_work(self) -> list[InWork]:
        if self._in_work is None:
            return []
        number, since = self._in_work
        return [InWork(number, "the driver", time.monotonic() - since)]


class _OnCluster:
    """The workers of a cluster; a shard that fails is tried again, and the others go on."""

    def __init__(
        self, config: "PrecomputeConfig", watch: Stopwatch, connection: "Connection"
    ) -> None:
        models = pinned(config.models, sampled=config.sampled is not None)
        self._job = EncodeJob(
            config=portable(replace(config, models=models)), threads=connection.threads
        )
        self._connection, self._watch = connection, watch
        self._loop: ShardLoop | None = None

    def describe(self) -> StoreFacts:
        from flows.cluster.connect import ask_a_worker

        return ask_a_worker(self._connection, self._job.describe)

    def make(self, store: Store, shards: Sequence[ShardPlan]) -> Iterator[Outcome]:
        from flows.cluster.shards import ShardLoop

        header_only = Store(store.path.absolute(), Manifest(header=store.header, shards={}))
        header_only.driver = store.driver
        self._loop = ShardLoop(self._connection, replace(self._job, store=header_only))
        for outcome in self._loop.run(shards):
            if isinstance(outcome, ShardDone):
                self._watch.add(outcome.record["stages"])
            yield outcome

    @property
    def in_work(self) -> list[InWork]:
        return self._loop.in_work if self._loop else []

    @property
    def num_workers(self) -> int:
        return self._loop.num_workers if self._loop else 0


def _committed(store: Store, shard: ShardPlan) -> ShardEntry | None:
    """The shard's entry if it was committed from these inputs."""
    entry = store.committed(shard.number)
    if entry is None:
        return None
    inputs = inputs_to_bytes(Input(i.key, i.size_bytes, i.mtime_ns) for i in shard.items)
    return entry if entry.listing_digest == sha256_bytes(inputs) else None


def _record(entry: ShardEntry) -> Record:
    return {"inputs": entry.inputs, "rows": entry.rows, "rejects": entry.rejects}
