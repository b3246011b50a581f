"""The main job on a CUDA device, against the same on a processor: `make test-gpu`."""

import json

import numpy as np
import pytest
from PIL import Image

from stores.reader import StoreReader

pytestmark = pytest.mark.gpu
STEPS = ("--steps", "100", "--batch-size", "8")


@pytest.fixture(scope="module")
def encoded_on_gpu(call, faces, small_shards, tmp_path_factory):
    store = tmp_path_factory.mktemp("gpu") / "faces.store"
    call("precompute", faces, store, *small_shards, "--split-eval", 0.25, "--device", "cuda")
    return store


def test_rows_are_those_of_the_processor(encoded, encoded_on_gpu):
    ours, theirs = StoreReader(encoded_on_gpu), StoreReader(encoded)
    assert ours.keys == theirs.keys
    for name in ("clip", "w_plus", "s"):
        found, wanted = ours.column(name), theirs.column(name)
        assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted), name


@pytest.mark.parametrize("residency", ["float32", "float16", "stream"])
def test_training_reaches_the_held_out_loss_of_the_processor(call, encoded, tmp_path, residency):
    options = (*STEPS, "--residency", residency)
    losses = []
    for device in ("cpu", "cuda"):
        run = tmp_path / device
        call("train", encoded, run, *options, "--device", device)
        records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
        losses.append([record["eval/loss"] for record in records if "eval/loss" in record][-1])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_rows_of_jpegs_decoded_on_the_gpu_are_those_of_the_processor(call, faces, tmp_path):
    jpegs = tmp_path / "jpegs"
    jpegs.mkdir()
    for path in sorted(faces.glob("*.png"))[:16]:
        with Image.open(path) as picture:
            picture.save(jpegs / f"{path.stem}.jpg", quality=95)
    rows = []
    for decoder in ("libjpeg", "nvjpeg"):
        store = tmp_path / f"{decoder}.store"
        options = ("--models", "avatar", "--device", "cuda", "--jpeg-decoder", decoder)
        call("precompute", jpegs, store, *options)
        rows.append(StoreReader(store))
    assert rows[0].keys == rows[1].keys
    assert "nvjpeg" in rows[1].fingerprints["clip"]
    for name in ("clip", "w_plus", "s"):
        exact, found = (reader.column(name) for reader in rows)
        assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact), name
