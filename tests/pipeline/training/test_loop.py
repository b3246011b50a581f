import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import CheckpointError, DivergedError, PairError
from pipeline.pairs.sampling import PairConfig
from pipeline.training.config import TrainConfig
from pipeline.training.loop import CHECKPOINT_NAME, MAPPER_NAME, train_mapper

CONFIG = {
    "steps": 400,
    "batch_size": 16,
    "log_every": 30,
    "eval_every": 100,
    "eval_pairs": 64,
    "checkpoint_every": 50,
}

TRAINER = """
import importlib.util, json, os, sys, time
from pathlib import Path
import numpy as np
import torch
from pipeline.training import TrainConfig, train_mapper

torch.set_num_threads(1)
conftest, folder, settings, hang_after = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
spec = importlib.util.spec_from_file_location("world", conftest)
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)
numbers = np.random.default_rng(9).permutation(240)

def save(name, data):
    (folder / "part").write_bytes(data)
    os.replace(folder / "part", folder / name)

def on_log(record):
    if record["step"] > int(hang_after):
        time.sleep(60)

checkpoint = folder / "checkpoint.safetensors"
train_mapper(
    world.make_rows(), np.sort(numbers[:200]), np.sort(numbers[200:]),
    TrainConfig(**json.loads(settings)), widths=world.WIDTHS, save=save, on_log=on_log,
    resume=checkpoint.read_bytes() if checkpoint.exists() else None,
)
heavy = {"open_clip", "PIL", "torchvision", "pipeline.images", "pipeline.models.stylegan2",
         "pipeline.models.e4e", "pipeline.models.clip", "prefect", "dask"}
print(sorted(heavy & set(sys.modules)))
"""


def trainer(folder, settings, hang_after):
    folder.mkdir(exist_ok=True)
    conftest = Path(__file__).with_name("conftest.py")
    arguments = [str(conftest), str(folder), json.dumps(settings), str(hang_after)]
    return subprocess.Popen(
        [sys.executable, "-c", TRAINER, *arguments], stdout=subprocess.PIPE, text=True
    )


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, "the trainer ended before it could be killed"
        time.sleep(0.01)


@pytest.mark.parametrize("recipe", ["fast", "official"])
def test_a_run_killed_and_resumed_gives_bit_for_bit_the_same_files(tmp_path, recipe):
    settings = {**CONFIG, "recipe": recipe}
    with trainer(tmp_path / "killed", settings, hang_after=280) as killed:
        wait_for(tmp_path / "killed" / CHECKPOINT_NAME, killed)
        os.kill(killed.pid, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / MAPPER_NAME).exists()

    for folder in ("whole", "killed"):
        with trainer(tmp_path / folder, settings, hang_after=settings["steps"]) as process:
            output, _ = process.communicate()
        assert process.returncode == 0
        # The process has loaded no generator, no CLIP and no image library.
        assert output.strip() == "[]"
    one, other = (tmp_path / name / MAPPER_NAME for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()
    states = [load_file(tmp_path / name / CHECKPOINT_NAME) for name in ("whole", "killed")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def run(rows, split, widths, **settings):
    saved, records = {}, []
    extra = {key: settings.pop(key) for key in ("resume", "made_from") if key in settings}
    result = train_mapper(
        rows,
        train_rows=split[0],
        eval_rows=split[1],
        config=TrainConfig(**{**CONFIG, **settings}),
        widths=widths,
        save=saved.__setitem__,
        on_log=records.append,
        **extra,
    )
    return result, saved, records


@pytest.mark.parametrize("policy", ["random", "nearest", "band"])
def test_training_explains_held_out_changes_in_every_group(rows, split, widths, policy):
    pairs = PairConfig(policy=policy, min_similarity=-1.0 if policy == "random" else -0.9)
    result, _, _ = run(rows, split, widths, pairs=pairs)
    assert set(result.fit.raw) == {"all", "coarse", "medium", "fine"}
    assert all(fit.explained > 0 for fit in result.fit.scaled.values())
    assert result.fit.scaled["all"].explained > 0.15
    assert result.fit.scaled["all"].cosine > 0.4


def test_the_official_recipe_learns(rows, split, widths):
    result, _, _ = run(rows, split, widths, recipe="official")
    assert result.fit.raw["all"].explained > 0.2


def test_records_come_at_their_steps_and_the_history_holds_them_all(rows, split, widths):
    result, saved, records = run(rows, split, widths, steps=130)
    train = [record["step"] for record in records if "train/loss" in record]
    held_out = [record["step"] for record in records if "eval/raw/all/mse" in record]
    assert train == [30, 60, 90, 120, 130]
    assert held_out == [100, 130]
    assert result.history == records
    assert records[-1]["eval/scaled/fine/cosine"] == result.fit.scaled["fine"].cosine
    assert set(saved) == {CHECKPOINT_NAME, MAPPER_NAME}


def test_a_checkpoint_of_another_run_is_refused_by_the_name_of_what_differs(rows, split, widths):
    _, saved, _ = run(rows, split, widths, steps=50)
    checkpoint = saved[CHECKPOINT_NAME]
    for settings, name in (({"seed": 1}, "config"), ({"linear_head": False}, "mapper")):
        with pytest.raises(CheckpointError, match=f"checkpoint's {name} "):
            run(rows, split, widths, steps=50, resume=checkpoint, **settings)
    with pytest.raises(CheckpointError, match="made_from"):
        run(rows, split, widths, steps=50, resume=checkpoint, made_from={"clip_pre": "box7"})
    with pytest.raises(CheckpointError, match="rows_sha256"):
        run(rows, (split[0][:-1], split[1]), widths, steps=50, resume=checkpoint)
    with pytest.raises(CheckpointError, match="without its optimiser"):
        run(rows, split, widths, steps=50, resume=with_history(saved[MAPPER_NAME], checkpoint))


def with_history(mapper, checkpoint):
    """The mapper's tensors under the checkpoint's document: all a user could confuse."""
    from pipeline.training.checkpoint import Checkpoint, from_bytes, to_bytes

    document = from_bytes(checkpoint).document
    return to_bytes(Checkpoint(tensors=from_bytes(mapper).tensors, document=document))


def test_a_finished_run_resumed_changes_nothing(rows, split, widths):
    _, saved, _ = run(rows, split, widths, steps=50)
    result, again, records = run(rows, split, widths, steps=50, resume=saved[CHECKPOINT_NAME])
    assert again[MAPPER_NAME] == saved[MAPPER_NAME]
    assert not records
    assert result.history


def test_a_diverging_run_stops_and_saves_nothing_of_it(rows, split, widths):
    saved = {}
    config = TrainConfig(**{**CONFIG, "learning_rate": 1e30, "checkpoint_every": 10})
    with pytest.raises(DivergedError, match="smaller learning_rate"):
        train_mapper(rows, split[0], split[1], config, widths=widths, save=saved.__setitem__)
    assert MAPPER_NAME not in saved


def test_a_row_on_both_sides_of_the_split_is_refused(rows, split, widths):
    with pytest.raises(PairError, match="both trained on and held out"):
        run(rows, (split[0], np.append(split[1], split[0][3])), widths)
