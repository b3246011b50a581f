"""The Prefect flow `relevance`: `flows.steps.relevance` as a recorded run."""

import numpy as np

from flows.observe import Observed, flow
from flows.parameters import strict
from flows.steps.relevance import RelevanceRun, estimate_relevance

strict(RelevanceRun)


@flow(name="relevance")
def relevance(config: RelevanceRun) -> np.ndarray:
    """Rs [S, C] float32 of a store, kept as a blob; not estimated again from the same rows."""
    with Observed("relevance", config.store) as run:
        rs = estimate_relevance(config, run.progress)
        channels, clip_dim = rs.shape
        run.values({"method": config.method, "channels": channels, "clip_dim": clip_dim})
        run.link(config.store, "store")
    return rs
