"""`--cluster local:2`: the same store as in one process, and what the driver says meanwhile."""

import json
import os
import signal
import time

import numpy as np
import pytest

from stores.reader import StoreReader
from stores.verify import verify_store

pytestmark = pytest.mark.timeout(900)  # two processes import torch, on a busy machine slowly

TOLERANCE = 1e-5
"""Of the largest value: batches are the same, but other threads may round the last bits anew."""


def assert_same_store(store, reference):
    ours, theirs = StoreReader(store), StoreReader(reference)
    assert ours.keys == theirs.keys
    assert ours.manifest.counts == theirs.manifest.counts
    assert ours.fingerprints == theirs.fingerprints
    assert list(ours.manifest.shards) == list(theirs.manifest.shards)
    for name in ours.schema.names:
        expected = theirs.column(name)
        atol = TOLERANCE * np.abs(expected).max()
        np.testing.assert_allclose(ours.column(name), expected, rtol=0, atol=atol)
    assert verify_store(store, full=True) == []


def test_two_local_workers_make_the_store_of_one_process(
    call, faces, encoded, small_shards, tmp_path
):
    store = tmp_path / "faces.store"
    arguments = ("precompute", faces, store, *small_shards, "--split-eval", 0.25, "--json")
    # A relative path and another folder: workers must not depend on where the driver stands.
    relative = ("precompute", faces.name, *arguments[2:], "--cluster", "local:2")
    run = call(*relative, folder=faces.parent)
    assert "dashboard: http://127.0.0.1:" in run.err
    told = json.loads(run.out)
    assert (told["shards_made"], told["shards_failed"]) == (6, 0)
    assert told["stage_seconds"]["clip"] > 0
    assert_same_store(store, encoded)
    status = json.loads(call("status", store, "--json").out)
    assert (status["rows"], status["run"]["state"], status["run"]["workers"]) == (96, "done", 2)
    again = json.loads(call(*arguments).out)
    assert (again["shards_made"], again["images_made"]) == (0, 0)


@pytest.mark.slow
def test_samples_drawn_by_two_local_workers_are_those_of_one_process(call, tmp_path):
    arguments = ("--models", "avatar", "--shard-rows", 8, "--batch-size", 8)
    source = "sampled:40?seed=3&truncation=0.7"
    call("precompute", source, tmp_path / "one" / "z.store", *arguments)
    call("precompute", source, tmp_path / "two" / "z.store", *arguments, "--cluster", "local:2")
    assert_same_store(tmp_path / "two" / "z.store", tmp_path / "one" / "z.store")


@pytest.mark.slow
def test_local_workers_die_with_their_driver(start, call, faces, encoded, small_shards, tmp_path):
    import psutil

    store = tmp_path / "faces.store"
    arguments = ("precompute", faces, store, *small_shards, "--split-eval", 0.25)
    run = start(*arguments, "--cluster", "local:2")
    run.wait_until(lambda: any(store.glob("entries/*.json")))
    started = psutil.Process(run.process.pid).children(recursive=True)
    os.kill(run.process.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    call(*arguments, "--cluster", "local:2")
    assert_same_store(store, encoded)


@pytest.mark.slow
def test_terminated_local_workers_leave_a_store_that_resumes(
    start, call, faces, encoded, small_shards, tmp_path
):
    import psutil

    store = tmp_path / "faces.store"
    arguments = ("precompute", faces, store, *small_shards, "--split-eval", 0.25)
    run = start(*arguments, "--cluster", "local:2")
    run.wait_until(lambda: any(store.glob("entries/*.json")))
    started = psutil.Process(run.process.pid).children(recursive=True)
    begin = time.monotonic()
    run.process.terminate()
    assert run.wait() == 143, run.err
    assert time.monotonic() - begin < 30, "batch systems give about so long"
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    assert json.loads(call("status", store, "--json").out)["run"]["state"] == "stopped"
    call(*arguments, "--cluster", "local:2")
    assert_same_store(store, encoded)
