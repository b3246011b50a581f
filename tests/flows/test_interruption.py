"""Killed, terminated and concurrent runs of `deltaedit precompute`: nothing lost, nothing twice."""

import os
import signal
import time

import numpy as np
import pytest

from stores.reader import StoreReader
from stores.verify import verify_store

COLUMNS = ["clip", "w_plus", "s"]


@pytest.fixture
def arguments(faces, tmp_path, small_shards):
    return ("precompute", faces, tmp_path / "s", *small_shards, "--split-eval", 0.25)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "s"


def num_commits(store):
    return len(list(store.glob("entries/*.json")))


def assert_same_rows(store, reference):
    ours, theirs = StoreReader(store), StoreReader(reference)
    assert ours.keys == theirs.keys
    for name in COLUMNS:
        np.testing.assert_array_equal(ours.column(name), theirs.column(name))
    assert ours.manifest.counts == theirs.manifest.counts
    assert verify_store(store, full=True) == []


def test_a_run_killed_at_random_moments_ends_with_the_rows_of_an_undisturbed_one(
    start, call, arguments, store, encoded
):
    begin = time.monotonic()
    moments = np.random.default_rng()
    first = start(*arguments)
    first.wait_until(lambda: num_commits(store) > 0)
    to_first_commit_s = time.monotonic() - begin
    first.process.kill()
    assert first.wait() == -signal.SIGKILL
    for _ in range(2):
        run = start(*arguments)
        time.sleep(moments.uniform(0, 1.5 * to_first_commit_s))
        run.process.kill()
        run.wait()
        assert num_commits(store) >= 1
    call(*arguments)
    assert_same_rows(store, encoded)


def test_a_terminated_run_says_how_to_resume_and_resumes(start, call, arguments, store, encoded):
    run = start(*arguments)
    run.wait_until(lambda: num_commits(store) > 0)
    run.process.terminate()
    assert run.wait() == 143
    assert "run the same command again to resume" in run.err
    kept = num_commits(store)
    assert kept < 6
    again = call(*arguments, "--json")
    assert f'"shards_made": {6 - kept}' in again.out
    assert_same_rows(store, encoded)


def test_an_interrupted_run_ends_in_code_130(start, arguments, store):
    run = start(*arguments)
    run.wait_until(lambda: num_commits(store) > 0)
    os.kill(run.process.pid, signal.SIGINT)
    assert run.wait() == 130
    assert "run the same command again to resume" in run.err


def test_a_second_run_at_the_same_time_is_refused_and_does_no_harm(
    start, call, arguments, store, encoded
):
    first = start(*arguments)
    first.wait_until(lambda: num_commits(store) > 0)
    os.kill(first.process.pid, signal.SIGSTOP)
    second = call(*arguments, code=2)
    os.kill(first.process.pid, signal.SIGCONT)
    assert f"is in use by process {first.process.pid}" in second.err
    assert first.wait() == 0, first.err
    assert_same_rows(store, encoded)


def test_a_finished_run_computes_nothing_again(call, faces, encoded, small_shards):
    before = {path: path.stat().st_mtime_ns for path in (encoded / "shards").iterdir()}
    again = call("precompute", faces, encoded, *small_shards, "--split-eval", 0.25, "--json")
    assert '"images_made": 0' in again.out
    assert {path: path.stat().st_mtime_ns for path in (encoded / "shards").iterdir()} == before
