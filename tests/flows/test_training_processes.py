"""`deltaedit train` stopped by signals, streaming, and in several processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.training.checkpoint import from_bytes

STEPS = ("--steps", "200", "--batch-size", "8")


@pytest.fixture(scope="module")
def undisturbed(call, encoded, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    call("train", encoded, run, *STEPS)
    return run


@pytest.fixture(params=[(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def stop(request):
    """A signal and the exit code that it leads to."""
    return request.param


def test_a_stopped_run_saves_the_step_it_reached_and_goes_on_from_there(
    start, call, encoded, undisturbed, tmp_path, stop
):
    run, (signum, code) = tmp_path / "run", stop
    # Its log line of step 100 is the sign that it trains; no checkpoint is due before the end.
    process = start("train", encoded, run, *STEPS)
    process.wait_until(lambda: (run / "log.jsonl").exists() and (run / "log.jsonl").read_text())
    os.kill(process.process.pid, signum)
    assert process.wait() == code
    assert "run the same command again to resume" in process.err
    step = from_bytes((run / "checkpoint.safetensors").read_bytes()).document["step"]
    assert 100 <= step < 200
    call("train", encoded, run, *STEPS)
    ours, theirs = ((path / "mapper.safetensors").read_bytes() for path in (run, undisturbed))
    assert ours == theirs


def test_a_streamed_run_gives_the_same_bytes(call, encoded, undisturbed, tmp_path):
    call("train", encoded, tmp_path / "run", *STEPS, "--residency", "stream")
    ours, theirs = (
        (p / "mapper.safetensors").read_bytes() for p in (tmp_path / "run", undisturbed)
    )
    assert ours == theirs


def test_a_run_on_float16_rows_ends_near_the_one_on_float32(call, encoded, undisturbed, tmp_path):
    call("train", encoded, tmp_path / "run", *STEPS, "--residency", "float16")
    fits = [json.loads((p / "fit.json").read_text()) for p in (tmp_path / "run", undisturbed)]
    ours, theirs = (fit["scaled"]["all"]["mse"] for fit in fits)
    assert ours == pytest.approx(theirs, rel=0.01)
    assert ours != theirs


def train_in_two_processes(store, run, *options):
    program = str(Path(sys.executable).with_name("deltaedit"))
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = ("--no-python", program, "train", str(store), str(run), "--device", "cpu", *options)
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("explained") == 1
    return run


def records_of(run, name):
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


def test_the_first_gradient_and_loss_of_two_processes_are_those_of_one(call, encoded, tmp_path):
    one_step = ("--steps", "1", "--batch-size", "8")
    call("train", encoded, tmp_path / "one", *one_step)
    train_in_two_processes(encoded, tmp_path / "two", *one_step)
    theirs, ours = (
        load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two")
    )
    assert ours.keys() == theirs.keys()
    # After one step Adam's first moment is a tenth of the gradient.
    gradients = [name for name in theirs if name.startswith("adam.exp_avg.")]
    assert len(gradients) > 50
    for name in gradients:
        difference = float((ours[name] - theirs[name]).norm())
        assert difference <= 1e-5 * float(theirs[name].norm()), name
    for name in ("train/loss", "train/mse", "train/cosine_loss"):
        first, other = (records_of(tmp_path / run, name)[1] for run in ("one", "two"))
        assert first == pytest.approx(other, rel=1e-5), name


def test_two_processes_follow_the_losses_of_one(encoded, undisturbed, tmp_path):
    # Not the weights: where a gradient vanishes, its rounding is above Adam's epsilon and becomes a
    # whole step. The rows of each batch in another order move some biases by a third in 200 steps
    # of one process, and by 1e-15 in float64.
    run = train_in_two_processes(encoded, tmp_path / "run", *STEPS)
    for name in ("train/loss", "eval/loss"):
        ours, theirs = records_of(run, name), records_of(undisturbed, name)
        assert ours == pytest.approx(theirs, rel=5e-3), name
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [100, 200, 200]
