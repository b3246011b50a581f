"""Several data sets and mappers in one run: every stage of every entry, one after the other.

What is done already is known from the stores and runs themselves, so the same call finishes what a
former one left.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flows.exits import DAMAGED_STORE, DONE, INCOMPLETE, exit_code_of
from flows.steps.evaluate import EvaluateConfig
from flows.steps.index import IndexConfig
from flows.steps.precompute import PrecomputeConfig
from flows.steps.relevance import RelevanceRun
from flows.steps.stages import (
    PREVIEW_DONE,
    STAGES,
    Outcome,
    ReportConfig,
    StageConfig,
    perform,
    preview,
)
from flows.steps.train import TrainRun

log = logging.getLogger("deltaedit")

NEEDS = {
    "index": ("precompute",),
    "relevance": ("precompute",),
    "train": ("precompute",),
    "evaluate": ("precompute", "train"),
    "report": ("precompute", "train"),
}
"""Stages of the same entry that must have ended well, where the entry has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryConfig:
    """One data set: its store, and what is made from it. A stage that is None is left out."""

    name: str
    """What reports call it."""
    precompute: PrecomputeConfig
    """From images to the store."""
    index: IndexConfig | None = None
    """FAISS index and neighbour graph."""
    relevance: RelevanceRun | None = None
    """The relevance matrix."""
    train: TrainRun | None = None
    """A Delta Mapper; a finished one is accepted with `resume`."""
    evaluate: EvaluateConfig | None = None
    """Measures of that mapper."""
    report: ReportConfig | None = None
    """A page about the run, or about the store."""

    def __post_init__(self) -> None:
        """Check that the stages work on one store and one run.

        Raises:
            ValueError: naming every stage that does not.
        """
        store = self.precompute.store
        wrong = [
            f"{stage}.store is {config.store}, precompute.store is {store}"
            for stage, config in (
                ("index", self.index),
                ("relevance", self.relevance),
                ("train", self.train),
            )
            if config is not None and config.store != store
        ]
        if self.evaluate and self.train and self.evaluate.run != self.train.run:
            wrong.append(f"evaluate.run is {self.evaluate.run}, train.run is {self.train.run}")
        if wrong:
            raise ValueError(f"entry {self.name}: " + "; ".join(wrong))

    def stages(self) -> Iterator[tuple[str, StageConfig]]:
        """The stages that it has, in their order."""
        for stage in STAGES:
            config = getattr(self, stage)
            if config is not None:
                yield stage, config


@dataclass(frozen=True, kw_only=True, slots=True)
class FullRunConfig:
    """Everything that one night should bring."""

    entries: tuple[EntryConfig, ...]
    """Data sets, in the order of work."""

    def __post_init__(self) -> None:
        """Check that entries do not get in each other's way.

        Raises:
            ValueError: there is none, or two share a name or a run folder.
        """
        wrong = [] if self.entries else ["entries: none given"]
        seen: dict[tuple[str, str], str] = {}
        for entry in self.entries:
            runs = [("run", str(entry.train.run))] if entry.train else []
            for what in [("name", entry.name), *runs]:
                if what in seen:
                    wrong.append(
                        f"entries {seen[what]} and {entry.name} have the same {what[0]} {what[1]}"
                    )
                seen[what] = entry.name
        if wrong:
            raise ValueError("; ".join(wrong))


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """How one stage of one entry ended."""

    entry: str
    """The entry's name."""
    stage: str
    """The stage."""
    state: str
    """``done``, ``done before``, ``failed`` or ``not started``."""
    detail: str
    """What it brought, or why it did not."""
    seconds: float = 0.0
    """Its time."""
    code: int = DONE
    """The exit code that it would have alone."""

    def as_dict(self) -> dict[str, object]:
        """One line of a table."""
        return {
            "entry": self.entry,
            "stage": self.stage,
            "state": self.state,
            "seconds": round(self.seconds, 1),
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class FullRunSummary:
    """What is done and what is not."""

    results: tuple[StageResult, ...]
    """One a stage, in the order of work."""

    @property
    def missing(self) -> list[StageResult]:
        """Stages that did not end well."""
        return [result for result in self.results if not result.state.startswith("done")]

    @property
    def exit_code(self) -> int:
        """0 all done; 3 a store is damaged; 1 something else is missing."""
        if not self.missing:
            return DONE
        damaged = any(result.code == DAMAGED_STORE for result in self.missing)
        return DAMAGED_STORE if damaged else INCOMPLETE


PerformStage = Callable[[str, str, StageConfig], Outcome]
"""Entry, stage, configuration -> what the stage brought."""


def full_run(
    config: FullRunConfig,
    perform_stage: PerformStage = lambda _entry, stage, config: perform(stage, config),
) -> FullRunSummary:
    """Do every stage of every entry; one that fails stops what needs it, and nothing else.

    Args:
        config: the run.
        perform_stage: does one stage.
    """
    results: list[StageResult] = []
    for entry in config.entries:
        ended: dict[str, StageResult] = {}
        for stage, stage_config in entry.stages():
            do = partial(perform_stage, entry.name, stage, stage_config)
            ended[stage] = _blocked(entry.name, stage, ended) or _result(entry.name, stage, do)
        results += ended.values()
    return FullRunSummary(tuple(results))


def _blocked(entry: str, stage: str, ended: Mapping[str, StageResult]) -> StageResult | None:
    """The result of a stage that cannot start, if something that it needs is missing."""
    for need in NEEDS.get(stage, ()):
        if need in ended and not ended[need].state.startswith("done"):
            return StageResult(
                entry=entry, stage=stage, state="not started", detail=f"it needs {need}"
            )
    return None


def _result(entry: str, stage: str, do: Callable[[], Outcome]) -> StageResult:
    log.info("%s: %s ...", entry, stage)
    begin = time.monotonic()
    code = DONE
    try:
        outcome = do()
        state, detail = ("done" if outcome.changed else "done before"), outcome.detail
    except Exception as error:
        code = exit_code_of(error) or INCOMPLETE
        state, detail = "failed", str(error)
        if exit_code_of(error) is None:
            log.exception("%s: %s", entry, stage)
            detail = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - begin
    log.info("%s: %s: %s (%.0f s): %s", entry, stage, state, seconds, detail)
    return StageResult(
        entry=entry, stage=stage, state=state, detail=detail, seconds=seconds, code=code
    )


def preview_entry(entry: EntryConfig) -> dict[str, str]:
    """What `full_run` would find to do for one entry, by stage; nothing is loaded or written."""
    found: dict[str, str] = {}
    for stage, config in entry.stages():
        before = [n for n in NEEDS.get(stage, ()) if found.get(n, PREVIEW_DONE) != PREVIEW_DONE]
        found[stage] = preview(config)
        if before and found[stage] == PREVIEW_DONE:
            found[stage] = f"done, but for what {' and '.join(before)} will bring"
    return found


def report_paths(config: FullRunConfig) -> dict[str, Path]:
    """Where each entry's page is, by the entry's name."""
    return {entry.name: entry.report.page for entry in config.entries if entry.report}


def as_table(summary: FullRunSummary) -> list[dict[str, Any]]:
    """One line a stage."""
    return [result.as_dict() for result in summary.results]
