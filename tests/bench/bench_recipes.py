"""Held-out loss against time: the published recipe and `fast`, on the same store of avatars.

Run: ``pytest -m bench tests/bench/bench_recipes.py -s``, on a machine that does nothing else: both
runs take their turn in one process, but minutes apart. ``BENCH_AVATARS`` says how many there are;
6,000 as in the demo take about 20 minutes on two cores.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from flows.models import ModelOptions
from flows.steps.avatars import write_avatars
from flows.steps.precompute import PrecomputeConfig, precompute
from flows.steps.train import TrainRun, train
from pipeline.plots import loss_curve
from pipeline.training import TrainConfig

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

NUM_AVATARS = int(os.environ.get("BENCH_AVATARS", "1500"))
PICTURE = "recipes.png"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    write_avatars(folder / "avatars", count=NUM_AVATARS, seed=11, num_workers=2)
    models = ModelOptions(models="avatar")
    sources = (str(folder / "avatars"),)
    precompute(PrecomputeConfig(sources=sources, store=folder / "a.store", models=models))
    return folder / "a.store"


def held_out_curve(store, recipe):
    """Seconds of training and the published loss on held-out pairs, in raw codes, at each step."""
    run = store.parent / recipe
    training = TrainConfig(recipe=recipe, eval_every=100, log_every=100)
    result = train(TrainRun(store=store, run=run, device="cpu", training=training))
    seconds, curve = 0.0, []
    for record in result.history:
        if "time/pairs_per_s" in record:
            seconds += 100 * result.recipe.batch_size / record["time/pairs_per_s"]
        else:
            raw = record["eval/raw/all/mse"] + 1 - record["eval/raw/all/cosine"]
            curve.append((int(record["step"]), seconds, raw))
    return curve


def test_fast_reaches_the_end_of_official_sooner(store, request, table):
    official = held_out_curve(store, "official")
    fast = held_out_curve(store, "fast")
    goal = min(loss for _, _, loss in official)
    reached = next(((step, s) for step, s, loss in fast if loss <= goal), None)
    times = np.linspace(0, max(official[-1][1], fast[-1][1]), 200)
    series = {
        name: np.interp(times, [s for _, s, _ in curve], [loss for _, _, loss in curve]).tolist()
        for name, curve in (("official", official), ("fast", fast))
    }
    title = "Held-out loss (MSE + 1 - cosine, raw codes) against seconds of training"
    picture = loss_curve(times.tolist(), series, baseline={}, title=title, x_label="s")
    folder = Path(request.config.rootpath) / "bench-out"
    folder.mkdir(exist_ok=True)
    (folder / PICTURE).write_bytes(picture)
    what = f"held-out loss, {NUM_AVATARS:,} avatars, recipe"
    for name, curve in (("official", official), ("fast", fast)):
        step, seconds, _ = curve[-1]
        best = min(loss for _, _, loss in curve)
        table.told(f"{what} {name}", best, against=f"after {step:,} steps in {seconds:,.0f} s")
    assert reached is not None, f"fast ends at a loss of {fast[-1][2]:.4f}, official at {goal:.4f}"
    share = reached[1] / official[-1][1]
    against = f"the {official[-1][1]:,.0f} s of official; fast passes it at step {reached[0]:,}"
    table.at_most("seconds to the loss at which official ends, fast", share, 1, against=against)
