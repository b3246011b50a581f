"""What can happen to a run on a cluster: real processes, real signals, and a count of the work.

`assert_whole` proves the outcome of each: the store has the rows of one undisturbed process, each
once, and no worker opened an image of a shard after that shard was committed.
"""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from stores.reader import StoreReader
from stores.store import Store
from stores.verify import verify_store

NUM_SHARDS = 12
VICTIM = "avatar-000042.png"
SLOWLY = "time.sleep(0.05)"
KILL_ONCE = f"""
if name == {VICTIM!r} and first:
    open(flag, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""
FAIL_ALWAYS = f"""
if name == {VICTIM!r}:
    raise RuntimeError("this image is cursed")
"""
HOLD = """
if name == "avatar-000003.png" and first:
    open(flag, "w").close()
    while not os.path.exists(flag + "-go"):
        time.sleep(0.01)
"""
"""A worker that stays in the middle of the first shard until it is let go."""
HOLD_ALL = """
while not os.path.exists(flag + "-all"):
    time.sleep(0.01)
"""
"""A worker that opens no image until it is let go."""
SOON = "import dask\ndask.config.set({'distributed.comm.timeouts.connect': '2s'})"
"""A driver that gives a lost scheduler up soon."""
HEARTBEATS = "import dask\ndask.config.set({'distributed.scheduler.worker-ttl': '1s'})"
"""A scheduler that gives silent workers up soon (Dask makes at least five seconds of it)."""
SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))"
"""A worker whose disk is full: no shard fits (8 rows of 1 KB), its list of opened images does."""


def num_commits(store: Path) -> int:
    return len(list(store.glob("entries/*.json")))


def summary(run) -> dict:
    return json.loads(run.out)


@pytest.fixture
def driver(cluster, start, arguments):
    """Start a driver of the cluster."""

    def start_driver(source=arguments[1], **options):
        given = (arguments[0], source, *arguments[2:], "--cluster", cluster.scheduler_file)
        return start(*given, "--json", **options)

    return start_driver


@pytest.fixture
def finish(driver):
    """Run a driver to its end; the exit code must be `code`."""

    def run_to_end(code: int = 0, **options):
        run = driver(**options)
        assert run.wait() == code, run.err
        return run

    return run_to_end


def test_a_worker_killed_in_the_middle_of_a_shard_costs_that_shard_alone(
    cluster, finish, assert_whole
):
    cluster.start(2, on_open=KILL_ONCE)
    run = finish()
    assert [worker.exitcode for worker in cluster.workers].count(-signal.SIGKILL) == 1
    assert summary(run)["shards_made"] == NUM_SHARDS
    assert_whole()


def test_a_driver_that_is_killed_loses_nothing_and_its_successor_makes_the_rest(
    cluster, driver, finish, store, assert_whole
):
    cluster.start(2, on_open=SLOWLY)
    run = driver()
    run.wait_until(lambda: num_commits(store) >= 3)
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    kept = num_commits(store)
    assert kept < NUM_SHARDS
    made = summary(finish())["shards_made"]
    # Between the two listings the workers may have committed what they had in work.
    assert NUM_SHARDS - kept - 2 <= made <= NUM_SHARDS - kept
    assert_whole()


def test_what_a_worker_of_a_killed_driver_has_in_work_does_not_mix_with_changed_sources(
    cluster, driver, store, faces, tmp_path, call
):
    source, more = tmp_path / "faces", tmp_path / "more"
    shutil.copytree(faces, source)
    cluster.start(1, on_open=HOLD)
    first = driver(source)
    first.wait_until((cluster.folder / "flag").exists)
    first.process.kill()
    first.wait()
    assert num_commits(store) == 0
    # What is new sorts first, so every number from here on has other inputs.
    call("avatars", more, "--count", 3, "--seed", 6)
    for image in more.glob("*.png"):
        shutil.copy(image, source / f"a-{image.name}")
    cluster.add_worker(on_open=HOLD_ALL)
    second = driver(source)
    second.wait_until(lambda: f'"pid": {second.process.pid}' in (store / "driver.lock").read_text())
    (cluster.folder / "flag-go").touch()
    cluster.wait_until_logged("drives the store no longer")
    (cluster.folder / "flag-all").touch()
    assert second.wait() == 0, second.err
    told = summary(second)
    assert (told["rows"], told["images_made"], told["shards_failed"]) == (99, 99, 0)
    reader = StoreReader(store)
    assert len(set(reader.keys)) == len(reader) == 99
    assert verify_store(store, full=True) == []


def test_a_shard_that_always_fails_is_tried_three_times_and_the_others_are_made(
    cluster, finish, store, assert_whole
):
    cluster.start(2, on_open=FAIL_ALWAYS)
    run = finish(code=1)
    told = summary(run)
    assert (told["shards_made"], told["shards_failed"]) == (NUM_SHARDS - 1, 1)
    assert "this image is cursed" in told["failures"][0]
    assert "1 shards failed" in run.err
    assert run.err.count("of 3: RuntimeError: this image is cursed") == 3
    assert Store.open(store).manifest.counts.rows == 96 - 8
    cluster.add_worker()
    for cursed in cluster.workers[:2]:
        cursed.kill()
        cursed.join()
    assert summary(finish())["shards_made"] == 1
    assert_whole()


def test_a_second_driver_is_refused_and_does_no_harm(cluster, driver, finish, store, assert_whole):
    cluster.start(2, on_open=SLOWLY)
    first = driver()
    first.wait_until(lambda: num_commits(store) > 0)
    second = finish(code=2)
    assert f"is in use by process {first.process.pid}" in second.err
    assert first.wait() == 0, first.err
    assert_whole()


@pytest.mark.slow
def test_workers_killed_after_a_commit_do_not_make_that_shard_again(
    cluster, driver, store, assert_whole
):
    cluster.start(1, on_open=SLOWLY)
    run = driver()
    run.wait_until(lambda: num_commits(store) > 0)
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    cluster.add_worker()
    assert run.wait() == 0, run.err
    assert summary(run)["shards_made"] == NUM_SHARDS
    assert_whole()


@pytest.mark.slow
def test_a_killed_scheduler_ends_the_run_in_code_1_and_another_finishes_it(
    cluster, driver, finish, store, assert_whole
):
    cluster.start(2, on_open=SLOWLY)
    run = driver(before=SOON)
    run.wait_until(lambda: num_commits(store) > 0)
    os.kill(cluster.scheduler.pid, signal.SIGKILL)
    assert run.wait() == 1, run.err
    assert "the connection to the Dask scheduler is lost" in run.err
    kept = num_commits(store)
    cluster.start(2)
    assert summary(finish())["shards_made"] == NUM_SHARDS - kept
    assert_whole()


@pytest.mark.slow
def test_everything_terminated_at_once_resumes_where_it_was(
    cluster, driver, finish, store, assert_whole
):
    cluster.start(2, on_open=SLOWLY)
    run = driver()
    run.wait_until(lambda: num_commits(store) > 0)
    for process in (cluster.scheduler, *cluster.workers, run.process):
        os.kill(process.pid, signal.SIGTERM)
    assert run.wait() == 143, run.err
    assert "run the same command again to resume" in run.err
    for process in (cluster.scheduler, *cluster.workers):
        process.join(10)
    # What is left after the time of grace is killed, as batch systems do.
    cluster.stop()
    kept = num_commits(store)
    assert 0 < kept < NUM_SHARDS
    cluster.start(2)
    assert summary(finish())["shards_made"] == NUM_SHARDS - kept
    assert_whole()


@pytest.mark.slow
def test_the_shard_of_a_worker_without_heartbeat_goes_elsewhere(
    cluster, driver, store, assert_whole
):
    cluster.start(2, on_open=SLOWLY, before=HEARTBEATS)
    run = driver()
    run.wait_until(lambda: num_commits(store) > 0)
    os.kill(cluster.workers[0].pid, signal.SIGSTOP)
    assert run.wait() == 0, run.err
    assert summary(run)["shards_made"] == NUM_SHARDS
    os.kill(cluster.workers[0].pid, signal.SIGCONT)
    assert_whole()


@pytest.mark.slow
def test_a_worker_whose_disk_is_full_is_spared_and_the_others_do_its_work(
    cluster, finish, assert_whole
):
    cluster.start(1, on_open=SLOWLY)
    cluster.add_worker(before=SMALL_FILES)
    run = finish()
    assert "OutOfSpaceError: no room to write" in run.err
    assert summary(run)["shards_made"] == NUM_SHARDS
    assert summary(run)["shards_failed"] == 0
    assert_whole()
