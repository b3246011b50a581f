"""When a precompute run counts as complete."""

from flows.exits import IncompleteError
from flows.steps.precompute import PrecomputeConfig, PrecomputeSummary


def require_complete(summary: PrecomputeSummary, config: PrecomputeConfig) -> None:
    """Refuse a run that left out too much.

    Raises:
        IncompleteError: more inputs were rejected than the configuration allows.
    """
    if summary.reject_rate > config.max_reject_rate:
        raise IncompleteError(
            f"{summary.rejects} of {summary.inputs} inputs were rejected, more than "
            f"--max-reject-rate {config.max_reject_rate}; reasons: {config.store}/rejects",
            result=summary,
        )
