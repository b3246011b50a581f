"""A run's folder: what it claims, keeps and continues; and what the trainer never loads."""

import json
import shutil
import subprocess
import sys

import pytest

from flows.steps.index import IndexConfig, index_store
from flows.steps.splits import eval_rows
from flows.steps.train import TrainRun, run_store, train
from pipeline.errors import CheckpointError
from pipeline.pairs import PairConfig
from pipeline.training import TrainConfig
from stores.errors import StoreBusyError, StoreError
from stores.lock import exclusive
from stores.reader import StoreReader

SETTINGS = {"batch_size": 8, "eval_pairs": 16, "log_every": 2, "checkpoint_every": 2}


class Killed(BaseException):
    pass


def run_of(store, run, *, steps=6, resume=False, **settings):
    training = TrainConfig(steps=steps, **SETTINGS | settings)
    return TrainRun(store=store, run=run, resume=resume, device="cpu", training=training)


@pytest.fixture(scope="module")
def finished(encoded, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    train(run_of(encoded, run))
    return run


def killed_run(store, run, at_step):
    def kill(record):
        if record["step"] == at_step:
            raise Killed

    with pytest.raises(Killed):
        train(run_of(store, run), kill)


def test_a_killed_run_started_again_gives_the_weights_of_one_that_was_not(
    encoded, finished, tmp_path
):
    killed_run(encoded, tmp_path / "run", at_step=4)
    train(run_of(encoded, tmp_path / "run"))
    ours, theirs = ((p / "mapper.safetensors").read_bytes() for p in (tmp_path / "run", finished))
    assert ours == theirs


def test_the_log_of_a_resumed_run_has_each_step_once(encoded, tmp_path):
    killed_run(encoded, tmp_path / "run", at_step=4)
    train(run_of(encoded, tmp_path / "run"))
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    steps = [r["step"] for r in map(json.loads, lines) if "train/loss" in r]
    assert steps == [2, 4, 6]


def test_an_interrupted_run_is_not_continued_with_other_settings(encoded, tmp_path):
    killed_run(encoded, tmp_path / "run", at_step=4)
    before = (tmp_path / "run/train.json").read_bytes()
    with pytest.raises(CheckpointError, match="steps: 6, now 7"):
        train(run_of(encoded, tmp_path / "run", steps=7))
    assert (tmp_path / "run/train.json").read_bytes() == before


def test_a_finished_run_is_refused_unless_resume_accepts_it(encoded, finished):
    before = (finished / "mapper.safetensors").stat()
    with pytest.raises(CheckpointError, match="holds a finished run"):
        train(run_of(encoded, finished))
    assert (finished / "mapper.safetensors").stat().st_ino == before.st_ino
    assert train(run_of(encoded, finished, resume=True)).trained.step == 6


def test_two_processes_do_not_train_into_one_folder(encoded, tmp_path):
    (tmp_path / "run").mkdir()
    with exclusive(tmp_path / "run/.lock", wait=False), pytest.raises(StoreBusyError):
        train(run_of(encoded, tmp_path / "run"))


def test_a_run_knows_its_store(encoded, finished):
    assert run_store(finished) == encoded


def test_a_folder_without_a_run_is_refused_with_the_command(tmp_path):
    with pytest.raises(CheckpointError, match="deltaedit train STORE"):
        run_store(tmp_path)


def test_a_store_with_too_few_held_out_rows_is_refused_with_advice(call, faces, tmp_path):
    call(*("precompute", faces, tmp_path / "s", "--models", "avatar"), "--split-eval", 0)
    with pytest.raises(StoreError, match=r"0 of 96 rows are held out with --split-eval 0\.0"):
        eval_rows(StoreReader(tmp_path / "s"))
    run = call("train", tmp_path / "s", tmp_path / "run", code=2)
    assert "make another store with another --split-eval" in run.err
    assert not (tmp_path / "run").exists()


def test_training_loads_no_generator_no_encoder_and_no_clip(encoded, tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from flows.steps.train import TrainRun, train\n"
        "from pipeline.training import TrainConfig\n"
        "settings = TrainConfig(steps=5, batch_size=8, eval_pairs=16)\n"
        f"run = TrainRun(store=Path({str(encoded)!r}), run=Path({str(tmp_path / 'run')!r}),"
        " device='cpu', training=settings)\n"
        "assert train(run).trained.step == 5\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "pipeline.training.loop" in loaded
    models = {f"pipeline.models.{name}" for name in ("clip", "stylegan2", "e4e", "weights")}
    assert not loaded & (models | {"open_clip", "pipeline.encoding", "prefect", "dask"})


def test_pairs_of_the_nearest_policy_train_too(encoded, tmp_path):
    store = tmp_path / "faces.store"
    shutil.copytree(encoded, store)
    index_store(IndexConfig(store=store, neighbours=4))
    pairs = PairConfig(policy="nearest", num_neighbours=4)
    result = train(run_of(store, tmp_path / "run", pairs=pairs))
    assert result.trained.step == 6
