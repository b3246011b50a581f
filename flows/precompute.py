"""The Prefect flow `precompute`: `flows.steps.precompute` as a recorded run.

Importing this module imports Prefect, which takes seconds; the command line does so only when a
Prefect server is configured or asked for.
"""

from flows.config import prepare_prefect

prepare_prefect()

from prefect import flow, get_run_logger  # noqa: E402 - after its defaults are set
from prefect.artifacts import create_table_artifact  # noqa: E402

from flows.steps.precompute import PrecomputeConfig, PrecomputeSummary  # noqa: E402
from flows.steps.precompute import precompute as precompute_step  # noqa: E402


@flow(name="precompute", validate_parameters=False)
def precompute(config: PrecomputeConfig) -> PrecomputeSummary:
    """Bring a store up to date with its sources; the store, not Prefect, knows what is done."""
    logger = get_run_logger()
    reported = 0

    def report(done: int, total: int) -> None:
        nonlocal reported
        if done == total or done - reported >= 10 * config.shard_rows:
            logger.info("%d of %d inputs", done, total)
            reported = done

    summary = precompute_step(config, report)
    create_table_artifact(
        key="precompute",
        table=[{"name": name, "value": str(value)} for name, value in summary.as_dict().items()],
        description=f"precompute into {config.store}",
    )
    return summary
