import numpy as np
import pytest

from pipeline.training.checkpoint import load_trained
from pipeline.training.config import TrainConfig
from pipeline.training.early import HELD_OUT_LOSS, EarlyStopping, best_step
from pipeline.training.loop import CHECKPOINT_NAME, MAPPER_NAME, train_mapper

SETTINGS = {"batch_size": 16, "log_every": 40, "eval_every": 20, "eval_pairs": 64}


class Stopped(BaseException):
    pass


def run(rows, split, widths, *, resume=None, on_step=lambda: None, **settings):
    saved = {}
    result = train_mapper(
        rows,
        split[0],
        split[1],
        TrainConfig(**SETTINGS | settings),
        widths=widths,
        save=saved.__setitem__,
        resume=resume,
        on_step=on_step,
    )
    return result, saved


def losses_of(history):
    return {r["step"]: r[HELD_OUT_LOSS] for r in history if HELD_OUT_LOSS in r}


def overfitting(rows):
    """Four training rows: the held-out loss falls, then rises."""
    return rows[0][:4], rows[1]


def test_a_run_that_gets_worse_ends_and_keeps_its_best_weights(rows, split, widths):
    split = overfitting(split)
    result, saved = run(rows, split, widths, steps=2000, patience=4, ema_decay=0.0)
    losses = losses_of(result.history)
    best = min(losses, key=losses.__getitem__)
    assert max(losses) < 2000
    assert max(losses) == best + 4 * SETTINGS["eval_every"]
    assert result.trained.step == load_trained(saved[MAPPER_NAME]).step == best
    fit = result.fit.scaled["all"]
    assert fit.mse + 1 - fit.cosine == pytest.approx(losses[best], rel=1e-5)


def test_an_early_stopped_run_that_was_interrupted_gives_the_same_mapper(rows, split, widths):
    split = overfitting(split)
    settings = {"steps": 2000, "patience": 4, "ema_decay": 0.0, "checkpoint_every": 30}
    whole, whole_files = run(rows, split, widths, **settings)
    stop_after = whole.trained.step + SETTINGS["eval_every"] + 3
    counted = iter(range(1, 10_000))
    files = {}

    def stop():
        if next(counted) == stop_after:
            raise Stopped

    with pytest.raises(Stopped):
        train_mapper(
            rows,
            split[0],
            split[1],
            TrainConfig(**SETTINGS | settings),
            widths=widths,
            save=files.__setitem__,
            on_step=stop,
        )
    assert MAPPER_NAME not in files
    again, again_files = run(rows, split, widths, resume=files[CHECKPOINT_NAME], **settings)
    assert again_files[MAPPER_NAME] == whole_files[MAPPER_NAME]
    assert [r["step"] for r in again.history] == [r["step"] for r in whole.history]


def test_without_patience_the_last_weights_are_the_result(rows, split, widths):
    result, _ = run(rows, overfitting(split), widths, steps=300)
    assert result.trained.step == 300
    assert max(losses_of(result.history)) == 300


def test_the_first_of_equal_losses_is_the_best():
    history = [{"step": s, HELD_OUT_LOSS: v} for s, v in ((1, 3.0), (2, 1.0), (3, 1.0), (4, 2.0))]
    assert best_step([{"step": 0, "train/loss": 0.0}, *history]) == 2
    assert EarlyStopping(2).is_over(history)
    assert not EarlyStopping(3).is_over(history)
    assert not EarlyStopping(None).is_over(history)
    assert not EarlyStopping(1).is_over([])


def test_the_held_out_loss_is_that_of_the_space_trained_in(rows, split, widths):
    result, _ = run(rows, split, widths, steps=40, recipe="official", ema_decay=0.0)
    raw = result.fit.raw["all"]
    assert losses_of(result.history)[40] == pytest.approx(raw.mse + 1 - raw.cosine, rel=1e-5)
    assert np.isfinite(raw.mse)
