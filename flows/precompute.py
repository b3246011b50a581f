"""The Prefect flow `precompute`: `flows.steps.precompute` as a recorded run."""

import logging
from collections import Counter

from flows.observe import Observed, flow, own_gpu
from flows.parameters import strict
from flows.steps.complete import require_complete
from flows.steps.precompute import PrecomputeConfig, PrecomputeSummary
from flows.steps.precompute import precompute as precompute_step
from flows.steps.sheets import store_sheet
from pipeline.errors import PipelineError
from pipeline.images import encode_png
from stores.errors import StoreError
from stores.reader import StoreReader

log = logging.getLogger("deltaedit")

strict(PrecomputeConfig)


@flow(name="precompute")
def precompute(config: PrecomputeConfig) -> PrecomputeSummary:
    """Bring a store up to date with its sources; the store, not Prefect, knows what is done.

    Raises:
        IncompleteError: the run ended with something missing.
    """
    with Observed("precompute", config.store) as run:
        with own_gpu(config.models.device):
            summary = precompute_step(config, run.progress)
        run.progress(summary.images_made, summary.images_made)
        reasons = Counter(reason for _key, reason, _ in StoreReader(config.store).rejects())
        left_out = {f"left out: {reason}": count for reason, count in reasons.most_common()}
        run.values({**summary.as_dict(), **left_out})
        run.link(config.store, "store")
        _show_rows(run, config)
        require_complete(summary, config)
    return summary


def _show_rows(run: Observed, config: PrecomputeConfig) -> None:
    try:
        sheet = store_sheet(config.store)
    except (StoreError, PipelineError) as error:
        log.info("no contact sheet: %s", error)
        return
    run.picture(encode_png(sheet), f"rows of {config.store}: images and what their codes give back")
