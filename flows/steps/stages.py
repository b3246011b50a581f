"""One stage of a full run: done, or seen to be done before, by what its store or run holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.models import find_files
from flows.steps.complete import require_complete
from flows.steps.evaluate import EvaluateConfig, evaluate, is_evaluated
from flows.steps.graph import NEIGHBOURS
from flows.steps.index import INDEX, IndexConfig, index_store
from flows.steps.precompute import PrecomputeConfig, PrecomputeSummary, precompute, scan
from flows.steps.progress import Progress
from flows.steps.relevance import RELEVANCE, RelevanceRun, estimate_relevance
from flows.steps.report import PAGE, report
from flows.steps.train import FIT_NAME, TrainRun, train
from pipeline.errors import PipelineError
from pipeline.training import CHECKPOINT_NAME, MAPPER_NAME, TrainResult
from stores.blobs import list_blobs
from stores.checksum import sha256_file
from stores.contents import is_store, read_contents
from stores.errors import StoreError
from stores.places import StorePath
from stores.plan import plan_shards
from stores.store import Store

STAGES = ("precompute", "index", "relevance", "train", "evaluate", "report")
PREVIEW_DONE = "done"
"""What `preview` says of a stage with nothing left to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """One page about a store or a run."""

    target: StorePath
    """The store or run."""
    out: Path
    """Folder of the page."""

    @property
    def page(self) -> Path:
        """The page."""
        return self.out / PAGE


StageConfig = (
    PrecomputeConfig | IndexConfig | RelevanceRun | TrainRun | EvaluateConfig | ReportConfig
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage brought."""

    changed: bool
    """Whether anything was made that was not there before."""
    detail: str
    """In a few words."""


def precompute_shown(config: PrecomputeConfig) -> PrecomputeSummary:
    """Precompute with a progress bar, or a line a shard off a terminal."""
    with Progress("precompute", 0, unit="images", every_s=0.0) as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.advance(done - progress.done)

        return precompute(config, show)


WORK: Mapping[str, Callable[[Any], Any]] = {
    "precompute": precompute_shown,
    "index": index_store,
    "relevance": estimate_relevance,
    "train": train,
    "evaluate": evaluate,
    "report": lambda config: report(config.target, config.out),
}
"""What does each stage, in this process."""


def perform(
    stage: str, config: StageConfig, work: Mapping[str, Callable[[Any], Any]] = WORK
) -> Outcome:
    """Do one stage unless it is done.

    Args:
        stage: one of `STAGES`.
        config: its configuration.
        work: what does each stage.

    Raises:
        IncompleteError: a precompute run left out too much.
    """
    if isinstance(config, EvaluateConfig) and is_evaluated(config):
        return Outcome(changed=False, detail=str(config.out))
    before = _made(config)
    result = work[stage](config)
    if isinstance(config, PrecomputeConfig):
        require_complete(result, config)
    return Outcome(changed=_made(config) != before, detail=_detail(config, result))


def preview(config: StageConfig) -> str:
    """What `perform` would find to do, without loading a model or writing anything."""
    try:
        return PREVIEW_DONE if _is_done(config) else _left(config)
    except (StoreError, PipelineError, OSError) as error:
        return f"cannot be done: {error}"


def _made(config: StageConfig) -> object:
    """What tells whether a stage made something: equal before and after where it did not."""
    match config:
        case PrecomputeConfig():
            return read_contents(config.store).digest if is_store(config.store) else None
        case IndexConfig() | RelevanceRun():
            return list_blobs(Store.open(config.store))
        case TrainRun():
            mapper = config.run / MAPPER_NAME
            return sha256_file(mapper) if mapper.exists() else None
        case EvaluateConfig():
            return is_evaluated(config)
        case ReportConfig():
            return sha256_file(config.page) if config.page.exists() else None


def _detail(config: StageConfig, result: Any) -> str:
    match config:
        case PrecomputeConfig():
            return (
                f"{result.rows} rows + {result.rejects} rejects + {result.duplicates} duplicates, "
                f"{result.images_made} inputs encoded in this run at {result.images_per_s:.0f}/s"
            )
        case TrainRun():
            assert isinstance(result, TrainResult)
            explained = result.fit.scaled["all"].explained
            return f"{config.run}: {explained:.1%} of the held-out S difference explained"
        case EvaluateConfig():
            return str(config.out)
        case ReportConfig():
            return str(config.page)
        case _:
            return str(config.store)


def _is_done(config: StageConfig) -> bool:
    match config:
        case PrecomputeConfig():
            return is_store(config.store) and not _plan(config).shards
        case IndexConfig():
            names = (INDEX, NEIGHBOURS) if config.neighbours else (INDEX,)
            return all(_is_fresh(config.store, name) for name in names)
        case RelevanceRun():
            return _is_fresh(config.store, RELEVANCE)
        case TrainRun():
            return (config.run / FIT_NAME).exists()
        case EvaluateConfig():
            return is_evaluated(config)
        case ReportConfig():
            return False  # a second's work, always written anew


def _left(config: StageConfig) -> str:
    if isinstance(config, PrecomputeConfig):
        find_files(config.models, sampled=config.sampled is not None)
        if is_store(config.store):
            plan = _plan(config)
            return f"{plan.num_pending} inputs in {len(plan.shards)} shards to do"
        return f"{len(scan(config).items)} inputs to do"
    if isinstance(config, TrainRun) and (config.run / CHECKPOINT_NAME).exists():
        return "to be resumed"
    return "to do"


def _plan(config: PrecomputeConfig) -> Any:
    return plan_shards(
        scan(config),
        Store.open(config.store),
        shard_rows=config.shard_rows,
        retry_rejects=config.retry_rejects,
    )


def _is_fresh(store: StorePath, name: str) -> bool:
    """Whether a blob is made from the rows that the store has now."""
    if not is_store(store):
        return False
    record = list_blobs(Store.open(store)).get(name)
    return record is not None and record.made_from.get("store") == read_contents(store).digest
