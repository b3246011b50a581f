"""Precompute: a data set -> a store of CLIP, W+ and S codes. The unit of work is one shard."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np

from flows.config import num_cpus
from flows.models import ModelOptions, load_models
from flows.schemas import store_schema
from flows.steps.origin import SAMPLED, write_origin
from flows.steps.progress import Stopwatch
from flows.steps.reading import Decoded, decode_ahead
from pipeline.encoding import Encoders, encode_images, encode_sampled
from stores.errors import SourceError
from stores.manifest import Counts, ShardEntry
from stores.plan import Plan, ShardPlan, plan_shards
from stores.sources import Scan, SourceItem, sampled_items, scan_images
from stores.store import Store
from stores.writer import ShardWriter


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecomputeConfig:
    """One precompute run."""

    sources: tuple[str, ...]
    """Folders, image files, ``@list.txt``, or one ``sampled:COUNT[?seed=S&truncation=PSI]``."""
    store: Path
    """The store's folder; created when absent, continued when there."""
    models: ModelOptions
    """What encodes."""
    shard_rows: int = 1024
    """Inputs per shard: what a crash can cost at most."""
    batch_size: int = 64
    """Images per pass through the models."""
    num_workers: int = field(default_factory=num_cpus)
    """Threads that read and decode."""
    dtype: str = "float32"
    """Stored type of all columns."""
    split_eval: float = 0.1
    """Share of the keys held out for evaluation (0 to below 1), by hash of the key."""
    max_reject_rate: float = 0.05
    """Share of rejects above which the run ends with exit code 1."""
    retry_rejects: bool = False
    """Redo only what was rejected before."""

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
        if self.dtype != "float32":
            wrong.append(f"dtype must be float32, got {self.dtype!r}")
        sampled = [source for source in self.sources if source.startswith(SAMPLED)]
        if not self.sources:
            wrong.append("sources: none given")
        if sampled and len(self.sources) > 1:
            wrong.append(f"{sampled[0]} stands alone: photographs and samples need a store each")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def image_source(self) -> str:
        """What the images are, for the fingerprint: photo, or sampled with its truncation."""
        if not self.sources[0].startswith(SAMPLED):
            return "photo"
        return f"sampled(truncation={parse_sampled(self.sources[0]).truncation})"


@dataclass(frozen=True, slots=True)
class SampledSource:
    """A parsed ``sampled:`` source."""

    count: int
    seed: int = 0
    truncation: float = 1.0


def parse_sampled(source: str) -> SampledSource:
    """``sampled:COUNT[?seed=S&truncation=PSI]``.

    Raises:
        SourceError: the text does not follow that form.

    """
    count, _, query = source.removeprefix(SAMPLED).partition("?")
    options = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    try:
        unknown = set(options) - {"seed", "truncation"}
        if unknown:
            raise ValueError(f"unknown option {sorted(unknown)}")  # noqa: TRY301 - one message below
        parsed = SampledSource(
            int(count),
            int(options.get("seed", ["0"])[0]),
            float(options.get("truncation", ["1.0"])[0]),
        )
        if parsed.count < 1:
            raise ValueError("COUNT must be at least 1")  # noqa: TRY301 - likewise
    except ValueError as error:
        raise SourceError(
            "bad_source",
            f"{source!r}: {error}; the form is sampled:COUNT[?seed=S&truncation=PSI], for example "
            "sampled:200000?seed=0&truncation=1",
        ) from error
    return parsed


@dataclass(frozen=True, slots=True)
class PrecomputeSummary:
    """What a run did; every input is in exactly one of rows, rejects and duplicates."""

    store: Path
    inputs: int
    rows: int
    rejects: int
    duplicates: int
    shards_made: int
    images_made: int
    seconds: float
    stage_seconds: dict[str, float]
    changed: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()

    @property
    def images_per_s(self) -> float:
        """Inputs of the shards made in this run, over its time."""
        return self.images_made / max(self.seconds, 1e-9)

    @property
    def reject_rate(self) -> float:
        """Rejects over inputs of the whole store."""
        return self.rejects / max(self.inputs, 1)

    def as_dict(self) -> dict:
        """For --json and for reports."""
        return asdict(self) | {
            "store": str(self.store),
            "images_per_s": round(self.images_per_s, 2),
            "reject_rate": self.reject_rate,
        }


def scan(config: PrecomputeConfig) -> Scan:
    """List the inputs of a run.

    Raises:
        SourceError: a source is missing, empty or misspelt.

    """
    if config.sources[0].startswith(SAMPLED):
        source = parse_sampled(config.sources[0])
        return sampled_items(source.count, source.seed)
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
        FingerprintMismatchError: the store was made with other models.
        StoreBusyError: another run is writing to the store.

    """
    begin = time.perf_counter()
    watch = Stopwatch()
    with watch.time("scan"):
        found = scan(config)
    with watch.time("load models"):
        models = load_models(config.models)
    store = Store.open_or_create(
        config.store,
        name=None,
        schema=store_schema(models.encoders, config.models.columns),
        fingerprints=models.fingerprints(config.models, config.image_source),
        split_eval=config.split_eval,
    )
    with store.lock():
        store.consolidate()
        plan = plan_shards(
            found, store, shard_rows=config.shard_rows, retry_rejects=config.retry_rejects
        )
        store.record_scan(plan.rejects, plan.duplicates)
        write_origin(store, config, models)
        done = 0
        for entry in encode_shards(store, plan.shards, models.encoders, config, watch):
            done += entry.inputs
            on_progress(done, plan.num_pending)
        manifest = store.consolidate()
    return _summary(config, plan, manifest.counts, done, begin, watch)


def _summary(
    config: PrecomputeConfig, plan: Plan, counts: Counts, done: int, begin: float, watch: Stopwatch
) -> PrecomputeSummary:
    return PrecomputeSummary(
        config.store,
        counts.inputs,
        counts.rows,
        counts.rejects,
        counts.duplicates,
        len(plan.shards),
        done,
        time.perf_counter() - begin,
        {stage: round(seconds, 3) for stage, seconds in watch.seconds.items()},
        tuple(plan.changed),
        tuple(plan.vanished),
    )


def encode_shards(
    store: Store,
    shards: Sequence[ShardPlan],
    encoders: Encoders,
    config: PrecomputeConfig,
    watch: Stopwatch,
) -> Iterator[ShardEntry]:
    """Encode and commit shards one after the other; reading and writing overlap with the models."""
    if config.image_source == "photo":
        items = (item for shard in shards for item in shard.items)
        decoded = decode_ahead(
            items, num_workers=config.num_workers, depth=max(2 * config.batch_size, 8)
        )
    else:
        decoded = None
    with ThreadPoolExecutor(1, thread_name_prefix="commit") as committer:
        pending: Future[ShardEntry] | None = None
        for shard in shards:
            writer = ShardWriter(store, shard)
            if decoded is None:
                _encode_sampled_shard(writer, shard, encoders, config, watch)
            else:
                _encode_photo_shard(writer, shard, decoded, encoders, config, watch)
            # One commit may run behind the next shard's encoding, so two shards are in memory.
            if pending is not None:
                with watch.time("wait for disk"):
                    yield pending.result()
            pending = committer.submit(writer.commit)
        if pending is not None:
            with watch.time("wait for disk"):
                yield pending.result()


def _encode_photo_shard(
    writer: ShardWriter,
    shard: ShardPlan,
    decoded: Iterator[Decoded],
    encoders: Encoders,
    config: PrecomputeConfig,
    watch: Stopwatch,
) -> None:
    keys: list[str] = []
    batch: list[np.ndarray] = []
    for number in range(len(shard.items)):
        with watch.time("wait for images"):
            image = next(decoded)
        if image.pixels is None:
            writer.reject(image.item.key, image.reason, image.detail)
        else:
            keys.append(image.item.key)
            batch.append(image.pixels)
        if batch and (len(batch) == config.batch_size or number == len(shard.items) - 1):
            with watch.time("models"):
                writer.add(keys, encode_images(batch, encoders, config.models.columns))
            keys, batch = [], []


def _encode_sampled_shard(
    writer: ShardWriter,
    shard: ShardPlan,
    encoders: Encoders,
    config: PrecomputeConfig,
    watch: Stopwatch,
) -> None:
    source = parse_sampled(config.sources[0])
    for begin in range(0, len(shard.items), config.batch_size):
        items: Sequence[SourceItem] = shard.items[begin : begin + config.batch_size]
        keys = [item.key for item in items]
        indices = [int(key.rsplit("/", 1)[1]) for key in keys]
        with watch.time("models"):
            rows = encode_sampled(
                source.seed, indices, source.truncation, encoders, config.models.columns
            )
        writer.add(keys, rows)
