"""The Prefect flow `train`: `flows.steps.train` as a recorded run."""

import logging

from flows.observe import Observed, flow, own_gpu
from flows.parameters import strict
from flows.steps.train import CURVE_NAME, TrainRun, find_rows
from flows.steps.train import train as train_step
from pipeline.training import Record, TrainResult
from pipeline.training.config import resolve

log = logging.getLogger("deltaedit")

strict(TrainRun)


@flow(name="train")
def train(config: TrainRun) -> TrainResult:
    """Train a Delta Mapper from the vectors of a store; an interrupted run is continued."""
    num_steps = resolve(config.training, len(find_rows(config.store).train)).steps
    with Observed("train", config.run) as run:

        def show(record: Record) -> None:
            if "train/loss" in record:
                log.info("step %d: loss %.4f", record["step"], record["train/loss"])
            run.progress(int(record["step"]), num_steps)

        with own_gpu(config.device):
            result = train_step(config, show)
        fits = {name: f"{fit.explained:.4f}" for name, fit in result.fit.scaled.items()}
        num_steps = result.trained.step  # fewer than planned where it ended early
        run.progress(num_steps, num_steps)
        run.values({"steps": num_steps, **{f"explained, {n}": text for n, text in fits.items()}})
        run.link(config.run, "run")
        run.picture((config.run / CURVE_NAME).read_bytes(), "held-out error while training")
    return result
