"""Two worker processes over one, and what Dask costs per shard, for shards that only sleep.

Sleeping shards need no processor, so the ratio shows the loop and not the machine.
"""

import sys
import time
from pathlib import Path

import pytest

from flows.cluster.connect import connect
from flows.cluster.shards import LoopConfig, ShardLoop
from flows.cluster.spec import LocalSpec

JOBS = Path(__file__).parents[1] / "flows" / "cluster"
pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

NUM_SHARDS = 60
SHARD_S = 0.1
NUM_EMPTY = 300
WANTED = 1.6


@pytest.fixture(scope="module")
def jobs():
    """The jobs of the tests; local workers inherit `sys.path`."""
    sys.path.insert(0, str(JOBS))
    import jobs

    yield jobs
    sys.path.remove(str(JOBS))


def seconds(connection, job, shards, config=None):
    begin = time.perf_counter()
    outcomes = list(ShardLoop(connection, job, config).run(shards))
    assert len(outcomes) == len(shards)
    return time.perf_counter() - begin


def test_two_workers_over_one_process_and_the_cost_per_shard(jobs, tmp_path, table):
    shards = [jobs.Shard(number) for number in range(NUM_SHARDS)]
    sleeper = jobs.SleepJob(tmp_path / "log", seconds=SHARD_S)
    begin = time.perf_counter()
    assert len(list(sleeper(shards))) == NUM_SHARDS
    alone = time.perf_counter() - begin
    begin = time.perf_counter()
    with connect(LocalSpec(num_workers=2), device="cpu") as connection:
        start = time.perf_counter() - begin
        seconds(connection, sleeper, shards[:4])  # the first imports of the workers
        together = seconds(connection, sleeper, shards)
        idle = jobs.SleepJob(tmp_path / "idle")
        empty = [jobs.Shard(number) for number in range(NUM_EMPTY)]
        blocks = seconds(connection, idle, empty) / NUM_EMPTY
        single = seconds(connection, idle, empty, LoopConfig(max_block=1)) / NUM_EMPTY
    what = f"local:2, {NUM_SHARDS} shards that sleep {SHARD_S} s"
    table.at_least(what, alone / together, WANTED, against="one process; 2 at best")
    table.told("start of local:2 without models", start, unit="s")
    table.told("Dask and the loop per shard, in blocks", 1e3 * blocks, unit="ms")
    table.told("Dask and the loop per shard, one by one", 1e3 * single, unit="ms")
