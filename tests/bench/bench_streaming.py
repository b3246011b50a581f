"""Training on a store that does not fit in memory: speed against rows in memory, and peak memory.

Run: ``pytest -m bench tests/bench/bench_streaming.py -s``. Columns as at 1024 px.
"""

import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.pairs.sampling import PairConfig
from pipeline.training.data import PairBatches
from pipeline.training.holding import hold_rows
from stores.plan import ShardPlan
from stores.reader import StoreReader
from stores.schema import Column, Schema
from stores.sources import SourceItem
from stores.store import Store
from stores.writer import ShardWriter

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

WIDTHS = (512,) * 10 + (256, 256, 128, 128, 64, 64, 32)
SCHEMA = Schema((Column("clip", (512,), "float32"), Column("s", (sum(WIDTHS),), "float32")))
SHARD_ROWS = 1000
MAX_MEMORY_GROWTH = 1.2
NUM_BATCHES = 128

TRAINER = """
import sys, threading, time
from pathlib import Path
import numpy as np
import torch
from pipeline.training import Execution, TrainConfig, train_mapper
from stores.reader import StoreReader

torch.set_num_threads(1)
peak, done = 0, threading.Event()

def watch():
    # Not the resident set: it counts pages of the mapped store, which the kernel takes back.
    global peak
    while not done.wait(0.01):
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = max(peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

threading.Thread(target=watch, daemon=True).start()
store, residency, steps, widths = sys.argv[1], sys.argv[2], int(sys.argv[3]), eval(sys.argv[4])
reader = StoreReader(store)
settings = TrainConfig(recipe="official", steps=steps, eval_pairs=64, checkpoint_every=steps)
train_mapper(
    reader, np.arange(200, len(reader)), np.arange(200), settings, widths=widths,
    save=lambda name, data: None, execution=Execution(residency=residency),
)
done.set()
print(peak // 1024)
"""


def write_store(path, num_shards):
    store = Store.create(path, schema=SCHEMA, fingerprints={"clip": "a", "s": "b"})
    for number in range(num_shards):
        first = number * SHARD_ROWS
        items = tuple(SourceItem(f"{first + i:08}.png") for i in range(SHARD_ROWS))
        writer = ShardWriter(store, ShardPlan(number, items))
        generator = np.random.default_rng(number)
        rows = {
            column.name: generator.standard_normal((SHARD_ROWS, *column.shape), dtype=np.float32)
            for column in SCHEMA.columns
        }
        writer.add([item.key for item in items], rows)
        writer.commit()
    store.consolidate()
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """2,000 and 20,000 rows: 52 MB and 525 MB."""
    folder = tmp_path_factory.mktemp("streaming")
    return write_store(folder / "1x.store", 2), write_store(folder / "10x.store", 20)


def pairs_per_s(batches, first, count):
    start = time.perf_counter()
    for number in range(first, first + count):
        batches.batch(number)
    return count * batches.batch_size / (time.perf_counter() - start)


def test_streamed_pairs_per_second_against_rows_in_memory(stores, table):
    reader = StoreReader(stores[1])
    rates = {"float32": [], "float16": [], "stream": []}
    sides, copied = {}, []
    source = np.ones((5000, sum(WIDTHS)), dtype=np.float32)
    target = np.empty_like(source)
    for residency in rates:
        held, _ = hold_rows(
            reader,
            np.arange(len(reader)),
            s_dim=sum(WIDTHS),
            residency=residency,
            z_score=True,
            sign=lambda scaling: scaling,
        )
        sides[residency] = PairBatches(held, PairConfig(), batch_size=64)
    for turn in range(4):
        for residency, batches in sides.items():
            rates[residency].append(pairs_per_s(batches, turn * NUM_BATCHES, NUM_BATCHES))
        copied.append(2 * source.nbytes / seconds_of_copy(source, target))
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    for name in ("float16", "stream"):
        what = f"pairs/s, rows held as {name}"
        against = f"rows in memory as float32 at {medians['float32']:,.0f}"
        table.told(what, medians[name] / medians["float32"], against=against)
        # Each number of two rows is read and written once, whatever more is done to it.
        share = medians[name] * 4 * 4 * sum(WIDTHS) / np.median(copied)
        table.told(f"{what}, bytes moved", share, against="bandwidth of a plain copy, one thread")
    # A step of the published mapper takes 64 pairs 40 ms and more of one core: 1,600 pairs/s.
    against = "three times what a mapper's step at 1024 px takes of one core"
    table.at_least("pairs/s streamed", medians["stream"], 5_000, against=against)


def seconds_of_copy(source, target):
    start = time.perf_counter()
    np.copyto(target, source)
    return time.perf_counter() - start


def peak_mb(store, residency, steps=80):
    done = subprocess.run(
        [sys.executable, "-c", TRAINER, str(store), residency, str(steps), repr(WIDTHS)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_memory_of_a_streamed_run_does_not_grow_with_the_store(stores, table):
    streamed = [peak_mb(store, "stream") for store in stores]
    resident = [peak_mb(store, "float32", steps=2) for store in stores]
    growth = streamed[1] / streamed[0]
    against = f"2,000 rows, {streamed[0]:,} MB"
    what = "peak memory of training, streamed, 20,000 rows"
    table.at_most(what, growth, MAX_MEMORY_GROWTH, against=against)
    for rows, peak in zip(("2,000", "20,000"), resident, strict=True):
        table.told(f"peak memory of training, rows in memory, {rows} rows", peak, unit="MB")
