"""`deltaedit neighbours` in a new process on a large store with a memory-mapped index.

Run: ``pytest -m bench tests/bench/bench_neighbours.py -s``. ``BENCH_ROWS`` sets the number of rows.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stores.plan import ShardPlan
from stores.schema import Column, Schema
from stores.sources import SourceItem
from stores.store import Store
from stores.writer import ShardWriter

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

NUM_ROWS = int(os.environ.get("BENCH_ROWS", "258000"))
SHARD_ROWS, WIDTH, RANK = 4096, 512, 48
MAX_SECONDS = 2.0
CALLS = 5


def embeddings(generator, count):
    """Rows of low rank, on one side: as CLIP embeddings of one kind of image are."""
    mixing = np.random.default_rng(0).standard_normal((RANK + 1, WIDTH), dtype=np.float32)
    latents = generator.standard_normal((count, RANK), dtype=np.float32) / 7
    noise = 0.1 * generator.standard_normal((count, WIDTH), dtype=np.float32)
    return latents @ mixing[1:] + noise + 0.8 * mixing[0]


def deltaedit(*arguments):
    """Run it; its seconds, its processor seconds and its output."""
    program = Path(sys.executable).with_name("deltaedit")
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    took, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system
    return took, used - before.children_user - before.children_system, done.stdout


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A store with an index of the kind that is chosen for so many rows."""
    schema = Schema((Column("clip", (WIDTH,), "float32"),))
    path = tmp_path_factory.mktemp("neighbours") / "large.store"
    store = Store.create(path, schema=schema, fingerprints={"clip": "random"})
    for number, first in enumerate(range(0, NUM_ROWS, SHARD_ROWS)):
        keys = [f"{row:08}.png" for row in range(first, min(first + SHARD_ROWS, NUM_ROWS))]
        writer = ShardWriter(store, ShardPlan(number, tuple(map(SourceItem, keys))))
        writer.add(keys, {"clip": embeddings(np.random.default_rng((1, number)), len(keys))})
        writer.commit()
    store.consolidate()
    deltaedit("index", path, "--kind", "ivf", "--neighbours", 0)
    return path


def drop_from_page_cache(folder):
    for file in filter(Path.is_file, folder.rglob("*")):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not written yet would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("cache", ["warm", "empty"])
def test_neighbours_of_a_key_come_in_two_seconds_from_a_new_process(indexed, cache, table):
    seconds, used, start_up = [], [], []
    for call in range(CALLS):
        if cache == "empty":
            drop_from_page_cache(indexed)
        key = f"{call * 999:08}.png"
        took, processor, told = deltaedit("neighbours", indexed, "--key", key, "--json")
        seconds.append(took)
        used.append(processor)
        start_up.append(deltaedit("--help")[0])
        assert json.loads(told)["neighbours"][0]["key"] == key
    what = f"neighbours --key, new process, {NUM_ROWS:,} rows, page cache {cache}"
    against = f"start of the program alone: {np.median(start_up):.2f} s"
    table.at_most(what, np.median(seconds), MAX_SECONDS, unit="s", against=against)
    table.told(f"{what}, processor time", np.median(used), unit="s")
