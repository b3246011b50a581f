"""The Prefect flow `full_run`: every stage of every data set, each stage a task run."""

from typing import Any

from flows.evaluate import evaluate
from flows.exits import IncompleteError
from flows.index import index
from flows.observe import NO_CACHE, Observed, flow, task
from flows.parameters import strict
from flows.precompute import precompute
from flows.relevance import relevance
from flows.steps.full_run import FullRunConfig, FullRunSummary, as_table, report_paths
from flows.steps.full_run import full_run as full_run_step
from flows.steps.stages import WORK, Outcome, perform
from flows.train import train

strict(FullRunConfig)

RECORDED = {**WORK, **{f.name: f.fn for f in (precompute, index, relevance, train, evaluate)}}
"""What does each stage, with its artifacts."""


# Stores and runs know what is done; a cache of Prefect's own would be a second opinion.
@task(task_run_name="{entry}: {stage}", cache_policy=NO_CACHE)
def perform_stage(entry: str, stage: str, config: Any) -> Outcome:
    """One stage of one data set."""
    del entry  # names the task run
    return perform(stage, config, RECORDED)


@flow(name="full_run")
def full_run(config: FullRunConfig) -> FullRunSummary:
    """Do every stage of every entry; one that fails stops what needs it, and nothing else.

    Raises:
        IncompleteError: something is missing; the table says what.
    """
    with Observed("full run") as run:
        summary = full_run_step(config, perform_stage)
        run.table(as_table(summary))
        for name, page in report_paths(config).items():
            if page.exists():
                run.link(page, f"report of {name}")
        if summary.missing:
            raise IncompleteError(
                f"{len(summary.missing)} of {len(summary.results)} stages are missing; run the "
                "same again to finish them",
                result=summary,
            )
    return summary
