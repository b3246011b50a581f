"""The driver's loop over jobs without images, on two worker processes."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from flows.cluster.connect import ClusterError, connect
from flows.cluster.outcomes import ShardDone, ShardFailed
from flows.cluster.shards import LoopConfig, ShardLoop
from flows.cluster.spec import RunningSpec


@pytest.fixture
def jobs(monkeypatch):
    """The module of test jobs, imported under the name that the workers know it by."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import jobs

    return jobs


@pytest.fixture
def connection(cluster):
    cluster.start(2)
    with connect(RunningSpec(scheduler_file=cluster.scheduler_file)) as connection:
        while len(connection.client.nthreads()) < 2:
            time.sleep(0.01)
        yield connection


@pytest.fixture
def run(connection, jobs, tmp_path):
    """Run a job over `count` shards: the job, and the outcomes."""

    def run_job(count, config=None, **job):
        sleeper = jobs.SleepJob(tmp_path / "log", **job)
        loop = ShardLoop(connection, sleeper, config)
        return sleeper, list(loop.run([jobs.Shard(n) for n in range(count)]))

    return run_job


def test_every_shard_is_made_once_and_comes_back_once(run):
    job, outcomes = run(40)
    assert sorted(o.shard.number for o in outcomes) == list(range(40))
    assert all(o.record == {"twice": 2 * o.shard.number} for o in outcomes)
    assert Counter(line[0] for line in job.lines()) == Counter(range(40))
    assert max(size for _, _, size in job.lines()) > 1, "quick shards travel in blocks"


def test_slow_shards_travel_alone_and_both_workers_take_part(run):
    config = LoopConfig(block_s=0.1)
    job, _ = run(8, config, seconds=0.3)
    assert {size for _, _, size in job.lines()} == {1}
    assert min(Counter(pid for _, pid, _ in job.lines()).values()) >= 3


def test_few_blocks_are_in_flight_however_many_shards_there_are(connection, jobs, tmp_path):
    sleeper = jobs.SleepJob(tmp_path / "log", seconds=0.02)
    loop = ShardLoop(connection, sleeper, LoopConfig(block_s=0.02))
    shards = [jobs.Shard(n) for n in range(60)]
    held = [len(connection.client.futures) for _ in loop.run(shards)]
    assert len(held) == 60
    assert max(held) <= 2 * 2 + 1
    deadline = time.monotonic() + 10
    while connection.client.futures:
        assert time.monotonic() < deadline, "a future was kept"
        time.sleep(0.01)


def test_a_shard_that_raises_is_tried_three_times_on_different_workers(run):
    job, outcomes = run(10, LoopConfig(max_block=1), bad=frozenset({4}))
    failed = [o for o in outcomes if isinstance(o, ShardFailed)]
    assert [o.shard.number for o in failed] == [4]
    assert "ValueError: shard 4 is bad (jobs.py:" in failed[0].reason
    pids = [pid for number, pid, _ in job.lines() if number == 4]
    assert len(pids) == 3
    assert len(set(pids)) == 2
    assert sum(isinstance(o, ShardDone) for o in outcomes) == 9


def test_a_shard_that_fails_in_a_block_does_not_take_the_others_along(run):
    _, outcomes = run(60, bad=frozenset({45}))
    assert [o.shard.number for o in outcomes if isinstance(o, ShardFailed)] == [45]
    assert len(outcomes) == 60


def test_a_shard_that_hangs_is_given_to_the_other_worker(run):
    job, outcomes = run(6, LoopConfig(shard_timeout_s=2.0, max_block=1), stuck=frozenset({1}))
    assert sorted(o.shard.number for o in outcomes if isinstance(o, ShardDone)) == list(range(6))
    pids = [pid for number, pid, _ in job.lines() if number == 1]
    assert len(set(pids)) == 2


def test_a_run_in_which_shard_after_shard_fails_stops_early(run, tmp_path):
    config = LoopConfig(max_failed_in_a_row=3, max_block=1)
    with pytest.raises(ClusterError, match=r"3 shards failed one after the other.*is bad"):
        run(1000, config, bad=frozenset(range(1000)))
    assert len((tmp_path / "log").read_text().splitlines()) < 40


def test_the_address_of_a_cluster_without_workers_is_refused_with_the_remedy(cluster):
    cluster.start(0)
    spec = RunningSpec(scheduler_file=cluster.scheduler_file, worker_timeout_s=0.5)
    refusal = pytest.raises(ClusterError, match=r"0 of at least 1 workers .* dask worker tcp://")
    with refusal, connect(spec):
        pass


def test_leaving_a_running_cluster_leaves_it_running(cluster):
    cluster.start(1)
    for _ in range(2):
        with connect(RunningSpec(scheduler_file=cluster.scheduler_file)) as connection:
            assert len(connection.client.nthreads()) == 1
    assert cluster.scheduler.is_alive()
    address = json.loads(cluster.scheduler_file.read_text())["address"]
    with connect(RunningSpec(address=address)) as connection:
        assert connection.threads is None
