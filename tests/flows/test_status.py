"""`deltaedit status`: what watchers see of a run that goes on, has ended, or has died."""

import json
import os
import signal

import pytest

from flows.steps.watch import read_status
from stores.verify import verify_store


@pytest.fixture
def store(tmp_path):
    return tmp_path / "faces.store"


@pytest.fixture
def running(start, faces, store, small_shards):
    """A run that has committed a shard and was then stopped in its work."""
    run = start("precompute", faces, store, *small_shards, "--columns", "clip")
    run.wait_until(lambda: any(store.glob("entries/*.json")))
    os.kill(run.process.pid, signal.SIGSTOP)
    yield run
    run.process.kill()
    run.process.join()


def test_a_run_that_goes_on_shows_what_is_done_and_what_is_in_work(running, call, store):
    status = read_status(store)
    run = status["run"]
    assert run["state"] == "running"
    assert run["pid"] == running.process.pid
    assert run["shards"]["planned"] == 6
    assert 1 <= status["shards"] < 6
    assert run["inputs"]["planned"] == 96
    assert 0 <= run["silent_s"] < 10
    text = call("status", store).out
    assert f"process {running.process.pid} on {run['host']}, last heard" in text
    assert f"{run['shards']['done']} of 6 done, 0 failed" in text


def test_a_driver_that_was_killed_is_reported_as_lost(running, store):
    running.process.kill()
    running.process.join()
    assert read_status(store)["run"]["state"] == "lost"


def test_a_driver_on_another_host_is_lost_when_it_has_been_silent_for_long(running, store):
    file = store / "run" / "status.json"
    assert json.loads(file.read_text())["pid"] == running.process.pid
    elsewhere = json.loads(file.read_text()) | {"host": "elsewhere", "pid": 1}
    file.write_text(json.dumps(elsewhere))
    assert read_status(store)["run"]["state"] == "running"
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 60))
    assert read_status(store)["run"]["state"] == "lost"


def test_a_terminated_run_is_stopped(running, store):
    os.kill(running.process.pid, signal.SIGTERM)
    os.kill(running.process.pid, signal.SIGCONT)
    assert running.wait() == 143
    assert read_status(store)["run"]["state"] == "stopped"


def test_a_finished_run_tells_what_it_did_and_leaves_a_clean_store(
    call, faces, small_shards, tmp_path
):
    store = tmp_path / "faces.store"
    call("precompute", faces, store, *small_shards, "--split-eval", 0.25)
    status = json.loads(call("status", store, "--json").out)
    assert status["run"]["state"] == "done"
    assert status["run"]["inputs"] == {"planned": 96, "done": 96, "rows": 96, "rejects": 0}
    assert (status["rows"], status["shards"]) == (96, 6)
    assert verify_store(store, full=True) == []
    call("precompute", faces, store, *small_shards, "--split-eval", 0.25)
    again = json.loads(call("status", store, "--json").out)["run"]
    kept = ("started", "inputs", "images_per_s", "stage_seconds")
    assert [again[name] for name in kept] == [status["run"][name] for name in kept]


def test_watching_ends_with_the_run(call, encoded):
    assert call("status", encoded, "--watch").out.count("done, begun") == 1


def test_a_store_without_a_run_on_record_still_tells_what_it_holds(call, encoded, tmp_path):
    import shutil

    store = shutil.copytree(encoded, tmp_path / "copy.store")
    (store / "run" / "status.json").unlink()
    assert "none on record" in call("status", store).out


def test_a_damaged_status_is_named_with_the_remedy(call, encoded, tmp_path):
    import shutil

    store = shutil.copytree(encoded, tmp_path / "copy.store")
    (store / "run" / "status.json").write_text("{")
    assert "The next run replaces it" in call("status", store, code=3).err


def test_a_folder_that_is_no_store_is_refused(call, tmp_path):
    assert "is not a store" in call("status", tmp_path, code=2).err
