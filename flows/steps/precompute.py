"""Precompute: a data set -> a store of CLIP, W+ and S codes. The unit of work is one shard."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flows.config import num_cpus
from flows.models import PHOTO, LoadedModels, ModelOptions, find_files, load_models
from flows.schemas import store_schema
from flows.steps.encode import ShardEncoder
from flows.steps.origin import write_origin
from flows.steps.progress import Stopwatch
from flows.steps.sampled import SAMPLED, SampledSource, parse_sampled
from stores.manifest import Counts
from stores.places import StorePath
from stores.plan import Plan, plan_shards
from stores.sources import Scan, sampled_items, scan_images
from stores.store import Store

log = logging.getLogger("deltaedit")

NUM_NAMED = 5
"""Keys that a warning names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecomputeConfig:
    """One precompute run."""

    sources: tuple[str, ...]
    """Folders, image files, ``@list.txt``, or one ``sampled:COUNT[?seed=S&truncation=PSI]``."""
    store: StorePath
    """The store's folder; created when absent, continued when there."""
    models: ModelOptions
    """What encodes."""
    shard_rows: int = 1024
    """Inputs per shard: what a crash can cost at most."""
    batch_size: int = 64
    """Images per pass through the models."""
    num_workers: int = field(default_factory=num_cpus)
    """Threads that read and decode."""
    split_eval: float = 0.1
    """Share of the keys held out for evaluation (0 to below 1), by hash of the key."""
    max_reject_rate: float = 0.05
    """Share of rejects above which the run ends with exit code 1."""
    retry_rejects: bool = False
    """Redo what was rejected before, beside what is new."""

    def __post_init__(self) -> None:
        """Check the ranges, all at once.

        Raises:
            ValueError: naming every field that is out of range.
        """
        wrong = [
            f"{name} must be at least 1, got {value}"
            for name in ("shard_rows", "batch_size", "num_workers")
            if (value := getattr(self, name)) < 1
        ]
        if not 0 <= self.split_eval < 1:
            wrong.append(f"split_eval must be in [0, 1), got {self.split_eval}")
        if not 0 <= self.max_reject_rate <= 1:
            wrong.append(f"max_reject_rate must be in [0, 1], got {self.max_reject_rate}")
        sampled = [source for source in self.sources if source.startswith(SAMPLED)]
        if not self.sources:
            wrong.append("sources: none given")
        if sampled and len(self.sources) > 1:
            wrong.append(f"{sampled[0]} stands alone: photographs and samples need a store each")
        if wrong:
            raise ValueError("; ".join(wrong))
        for source in sampled:
            parse_sampled(source)

    @property
    def sampled(self) -> SampledSource | None:
        """What draws the images; None where they are read from files."""
        is_sampled = self.sources[0].startswith(SAMPLED)
        return parse_sampled(self.sources[0]) if is_sampled else None

    @property
    def image_source(self) -> str:
        """What the images are, for the fingerprint: photo, or sampled with its truncation."""
        sampled = self.sampled
        return f"sampled(truncation={sampled.truncation})" if sampled else PHOTO


@dataclass(frozen=True, slots=True)
class PrecomputeSummary:
    """What a run did; every input is in exactly one of rows, rejects and duplicates."""

    store: StorePath
    """The store."""
    inputs: int
    """Inputs of the whole store, those of earlier runs included."""
    rows: int
    """Inputs with a row."""
    rejects: int
    """Inputs that gave none; their reasons are in the store."""
    duplicates: int
    """Inputs whose content another input has too."""
    shards_made: int
    """Shards committed by this run."""
    images_made: int
    """Inputs of the shards that this run committed."""
    seconds: float
    """Time of this run, loading of the models included."""
    stage_seconds: dict[str, float]
    """Seconds of the main thread in each stage."""
    changed: int = 0
    """Inputs whose file changed since it was encoded; their rows are the old ones."""
    vanished: int = 0
    """Inputs with a row that the sources no longer have."""

    @property
    def images_per_s(self) -> float:
        """Inputs of the shards made in this run, over its time."""
        return self.images_made / max(self.seconds, 1e-9)

    @property
    def reject_rate(self) -> float:
        """Rejects over inputs of the whole store."""
        return self.rejects / max(self.inputs, 1)

    def as_dict(self) -> dict[str, Any]:
        """For --json and for reports."""
        return asdict(self) | {
            "store": str(self.store),
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images_per_s, 2),
            "reject_rate": round(self.reject_rate, 6),
        }


def scan(config: PrecomputeConfig) -> Scan:
    """List the inputs of a run.

    Raises:
        SourceError: a source is missing or empty.
    """
    if config.sampled:
        return sampled_items(config.sampled.count, config.sampled.seed)
    return scan_images(config.sources)


def precompute(
    config: PrecomputeConfig, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> PrecomputeSummary:
    """Bring a store up to date with its sources; what is committed is never computed again.

    Args:
        config: the run.
        on_progress: called with the inputs done in this run and the inputs it has to do.

    Raises:
        SourceError: a source is missing or empty.
        WeightsError: a model is missing or damaged.
        FingerprintMismatchError: the store was made with other models or settings.
        StoreBusyError: another run is writing to the store.
        OutOfSpaceError: the disk is full; what is committed is safe.
    """
    begin = time.perf_counter()
    watch = Stopwatch()
    find_files(config.models, sampled=config.sampled is not None)  # before a long listing
    with watch.time("scan"):
        found = scan(config)
    with watch.time("load models"):
        models = load_models(config.models, sampled=config.sampled is not None)
    store = open_store(config, models)
    with store.lock():
        store.consolidate()
        plan = plan_shards(
            found, store, shard_rows=config.shard_rows, retry_rejects=config.retry_rejects
        )
        _warn(plan)
        store.record_scan(plan.rejects, plan.duplicates)
        write_origin(store, config, models)
        done = 0
        for entry in _encoder(config, models, watch).encode(store, plan.shards):
            done += entry.inputs
            on_progress(done, plan.num_pending)
        counts = store.consolidate().counts
    return _summary(config, plan, counts, done, begin, watch)


def open_store(config: PrecomputeConfig, models: LoadedModels) -> Store:
    """The run's store, made if it is not there.

    Raises:
        FingerprintMismatchError: it was made with other models or settings.
        SchemaMismatchError: it has other columns.
        StoreError: it has another split, or the folder holds something else.
    """
    return Store.open_or_create(
        config.store,
        schema=store_schema(models.encoders, config.models.columns),
        fingerprints=models.fingerprints(config.models, config.image_source),
        split_eval=config.split_eval,
    )


def _encoder(config: PrecomputeConfig, models: LoadedModels, watch: Stopwatch) -> ShardEncoder:
    return ShardEncoder(
        encoders=models.encoders,
        columns=config.models.columns,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        sampled=config.sampled,
        watch=watch,
    )


def _warn(plan: Plan) -> None:
    """Say what the listing and the store disagree about."""
    if plan.changed:
        log.warning(
            "%d inputs changed since they were encoded and keep their old rows (%s); encode them "
            "into another store to have them anew",
            len(plan.changed),
            _some(plan.changed),
        )
    if plan.vanished:
        log.warning(
            "%d inputs are gone from the sources; their rows stay (%s)",
            len(plan.vanished),
            _some(plan.vanished),
        )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:NUM_NAMED]) + (", ..." if len(keys) > NUM_NAMED else "")


def _summary(
    config: PrecomputeConfig, plan: Plan, counts: Counts, done: int, begin: float, watch: Stopwatch
) -> PrecomputeSummary:
    return PrecomputeSummary(
        store=config.store,
        inputs=counts.inputs,
        rows=counts.rows,
        rejects=counts.rejects,
        duplicates=counts.duplicates,
        shards_made=len(plan.shards),
        images_made=done,
        seconds=time.perf_counter() - begin,
        stage_seconds={stage: round(spent, 3) for stage, spent in watch.seconds.items()},
        changed=len(plan.changed),
        vanished=len(plan.vanished),
    )
