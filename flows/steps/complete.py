"""When a precompute run counts as complete."""

from flows.exits import IncompleteError
from flows.steps.precompute import PrecomputeConfig, PrecomputeSummary


def require_complete(summary: PrecomputeSummary, config: PrecomputeConfig) -> None:
    """Refuse a run that left out too much.

    Raises:
        IncompleteError: shards failed, inputs are pending, or more inputs were rejected than the
            configuration allows.
    """
    if summary.shards_failed:
        raise IncompleteError(
            f"{summary.shards_failed} shards failed, the others are committed; run the same "
            f"command again to try them again. {'; '.join(summary.failures)}",
            result=summary,
        )
    if summary.pending:
        raise IncompleteError(
            f"{summary.pending} of {summary.inputs} inputs have neither row nor reject yet; run "
            "the same command again",
            result=summary,
        )
    if summary.reject_rate > config.max_reject_rate:
        raise IncompleteError(
            f"{summary.rejects} of {summary.inputs} inputs were rejected, more than "
            f"--max-reject-rate {config.max_reject_rate}; reasons: {config.store}/rejects",
            result=summary,
        )
