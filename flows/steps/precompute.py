"""Precompute: a data set -> a store of CLIP, W+ and S codes. The unit of work is one shard."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from flows.cluster.spec import parse_cluster
from flows.models import JPEG_DECODERS, NVJPEG, PHOTO, ModelOptions, find_files
from flows.schemas import DTYPES
from flows.steps.origin import portable, write_origin
from flows.steps.progress import Stopwatch
from flows.steps.sampled import SAMPLED, SampledSource, parse_sampled
from flows.steps.status import RunStatus
from flows.steps.summary import NUM_NAMED, PrecomputeSummary, warn_of_changes
from flows.steps.workplace import StoreFacts, workplace
from stores.contents import is_store
from stores.layout import SHARD_SUFFIXES
from stores.places import StorePath
from stores.plan import plan_shards
from stores.sources import Scan, sampled_items, scan_images
from stores.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecomputeConfig:
    """One precompute run."""

    sources: tuple[str, ...]
    """Folders, image files, tars, patterns of those (``a-{0..9}.tar``, ``*.tar``), ``@list.txt``,
    each of them local or a URL; or one ``sampled:COUNT[?seed=S&truncation=PSI]``."""
    store: StorePath
    """The store's folder; created when absent, continued when there."""
    models: ModelOptions
    """What encodes."""
    shard_rows: int = 1024
    """Inputs per shard: what a crash can cost at most."""
    batch_size: int = 64
    """Images per pass through the models at most; on a CPU smaller ones are faster and taken."""
    jpeg_decoder: str = "libjpeg"
    """What decodes JPEGs: libjpeg (processors), or nvjpeg (the models' CUDA device; its pixels are
    others by a few levels, so it is fixed when the store is made)."""
    num_workers: int | None = None
    """Threads of each process that read and decode; None for all CPUs that it may use."""
    split_eval: float = 0.1
    """Share of the keys held out for evaluation (0 to below 1), by hash of the key."""
    max_reject_rate: float = 0.05
    """Share of rejects above which the run ends with exit code 1."""
    retry_rejects: bool = False
    """Redo what was rejected before, beside what is new."""
    cluster: str | None = None
    """Where the shards are made (`flows.cluster.spec`); None for this process."""
    shard_format: str = "hdf5"
    """What shards are: hdf5 (random access) or webdataset (tar); fixed when the store is made."""
    dtype: str = "float32"
    """What codes are stored as: float32, or float16 z-scored; fixed when the store is made."""

    def __post_init__(self) -> None:
        """Check the ranges, all at once.

        Raises:
            ValueError: naming every field that is out of range.
        """
        wrong = [
            f"{name} must be at least 1, got {value}"
            for name in ("shard_rows", "batch_size", "num_workers")
            if (value := getattr(self, name)) is not None and value < 1
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
        if sampled and self.jpeg_decoder == NVJPEG:
            wrong.append(f"jpeg_decoder: {sampled[0]} draws its images and decodes none")
        wrong += _unknown_choices(self)
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
        if sampled:
            return f"sampled(truncation={sampled.truncation})"
        return f"{PHOTO}({NVJPEG})" if self.jpeg_decoder == NVJPEG else PHOTO


def _unknown_choices(config: PrecomputeConfig) -> list[str]:
    """What is wrong with the fields that name one of a few things."""
    wrong = [
        f"{name} is one of {', '.join(known)}, got {value!r}"
        for name, known in (
            ("shard_format", SHARD_SUFFIXES),
            ("dtype", DTYPES),
            ("jpeg_decoder", JPEG_DECODERS),
        )
        if (value := getattr(config, name)) not in known
    ]
    if config.cluster is not None:
        try:
            parse_cluster(config.cluster)
        except ValueError as error:
            wrong.append(str(error))
    return wrong


def scan(config: PrecomputeConfig) -> Scan:
    """List the inputs of a run.

    Raises:
        SourceError: a source is missing or empty.
        ObjectStoreError: an object store does not answer.
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
        ClusterError: the cluster did not come, or is lost; what is committed is safe.
    """
    begin = time.perf_counter()
    watch = Stopwatch()
    find_files(config.models, sampled=config.sampled is not None)  # before a long listing
    _refuse_busy(config.store)
    with watch.time("scan"):
        found = scan(portable(config))
    with workplace(config, watch) as place:
        with watch.time("load models"):
            facts = place.describe()
        store = open_store(config, facts)
        with store.lock():
            store.consolidate()
            plan = plan_shards(
                found, store, shard_rows=config.shard_rows, retry_rejects=config.retry_rejects
            )
            warn_of_changes(plan)
            store.record_scan(plan.rejects, plan.duplicates, plan.num_pending - plan.num_retries)
            write_origin(store, config, facts.origin)
            with RunStatus(store, plan, place, watch) as status:
                for outcome in place.make(store, plan.shards):
                    status.take(outcome)
                    on_progress(status.inputs_done, plan.num_pending)
                counts = store.consolidate().counts
    return PrecomputeSummary(
        store=config.store,
        inputs=counts.inputs,
        rows=counts.rows,
        rejects=counts.rejects,
        duplicates=counts.duplicates,
        shards_made=status.shards_done,
        images_made=status.inputs_done,
        seconds=time.perf_counter() - begin,
        stage_seconds={stage: round(spent, 3) for stage, spent in watch.seconds.items()},
        changed=len(plan.changed),
        pending=counts.pending,
        vanished=len(plan.vanished),
        shards_failed=status.shards_failed,
        failures=tuple(f"shard {f['shard']}: {f['reason']}" for f in status.failures[:NUM_NAMED]),
    )


def open_store(config: PrecomputeConfig, facts: StoreFacts) -> Store:
    """The run's store, made if it is not there.

    Raises:
        FingerprintMismatchError: it was made with other models or settings.
        SchemaMismatchError: it has other columns.
        StoreError: it has another split or format, or the folder holds something else.
    """
    return Store.open_or_create(
        config.store,
        schema=facts.schema,
        fingerprints=facts.fingerprints,
        split_eval=config.split_eval,
        shard_format=config.shard_format,
    )


def _refuse_busy(path: StorePath) -> None:
    """Meet another driver before models are loaded and clusters started."""
    if is_store(path):
        with Store.open(path).lock():
            pass
