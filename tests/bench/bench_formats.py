"""Tar shards against HDF5 shards of the same rows, as ratios within one run.

Run: ``pytest -m bench -s tests/bench/bench_formats.py``.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from stores.formats.registry import shard_format
from stores.gather import RowGather
from stores.iterate import IterateConfig, iterate_samples
from stores.plan import ShardPlan
from stores.schema import Column, Schema
from stores.sources import SourceItem
from stores.store import Store
from stores.writer import ShardWriter

pytestmark = pytest.mark.bench

SCHEMA = Schema(
    (
        Column("clip", (512,), "float32"),
        Column("w_plus", (18, 512), "float32"),
        Column("s", (6048,), "float32"),
    )
)
SHARD_ROWS, NUM_SHARDS = 1024, 3
FORMATS = ("hdf5", "webdataset")


def _best(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Processor seconds, best of some rounds in turns: an idle machine's time."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            begin = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - begin)
    return best


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    """3,072 rows of the official widths, 0.19 GB, in each format."""
    folder = tmp_path_factory.mktemp("formats")
    rng = np.random.default_rng(0)
    rows = {
        c.name: rng.standard_normal((SHARD_ROWS, *c.shape), dtype="float32") for c in SCHEMA.columns
    }
    for name in FORMATS:
        store = Store.create(folder / name, schema=SCHEMA, fingerprints={}, shard_format=name)
        for number in range(NUM_SHARDS):
            keys = [f"{number * SHARD_ROWS + i:08}.png" for i in range(SHARD_ROWS)]
            writer = ShardWriter(store, ShardPlan(number, tuple(map(SourceItem, keys))))
            writer.add(keys, rows)
            writer.commit()
        store.consolidate()
    return {name: folder / name for name in FORMATS}


def test_tar_against_hdf5(stores, tmp_path, table):
    opened = {name: Store.open(path) for name, path in stores.items()}
    mapped = {
        name: shard_format(name).map_shard(store.layout.shard(0), SCHEMA, SHARD_ROWS)
        for name, store in opened.items()
    }
    keys = [key.decode() for key in mapped["hdf5"]["key"].tolist()]
    columns = {name: np.array(mapped["hdf5"][name]) for name in SCHEMA.names}
    gathers = {
        name: [RowGather([shard[column]], [0]) for column in ("clip", "s")]
        for name, shard in mapped.items()
    }
    batch = np.random.default_rng(1).integers(0, SHARD_ROWS, 512)
    block = np.zeros(len(batch), dtype=np.int64)

    def write(name: str) -> None:
        with (tmp_path / name).open("wb") as file:
            shard_format(name).write_shard(file, keys, columns, SCHEMA, {})

    def read(name: str) -> None:
        for column in SCHEMA.names:
            np.array(mapped[name][column])

    def gather(name: str) -> None:
        for rows in gathers[name]:
            rows(batch, block)

    for title, work, rounds in (("write", write, 8), ("scan", read, 8), ("random", gather, 60)):
        best = _best({name: lambda n=name, w=work: w(n) for name in FORMATS}, rounds)
        what = f"tar shards, speed in CPU time: {title}"
        table.at_least(what, best["hdf5"] / best["webdataset"], 0.25, against="HDF5 shards")
    sizes = {n: sum(e.size_bytes for e in s.manifest.shards.values()) for n, s in opened.items()}
    size = sizes["webdataset"] / sizes["hdf5"]
    table.at_most("tar shards, size", size, 1.1, against="HDF5 shards")


def test_the_iterator_against_webdataset_on_the_same_tars(stores, table):
    urls = [str(path) for path in sorted((stores["webdataset"] / "shards").iterdir())]

    def ours(path: Path) -> None:
        assert sum(1 for _ in iterate_samples(path, IterateConfig())) == SHARD_ROWS * NUM_SHARDS

    def theirs() -> None:
        samples = webdataset.WebDataset(urls, shardshuffle=False).decode()
        assert sum(1 for _ in samples) == SHARD_ROWS * NUM_SHARDS

    best = _best(
        {
            "hdf5": lambda: ours(stores["hdf5"]),
            "tar": lambda: ours(stores["webdataset"]),
            "webdataset": theirs,
        },
        rounds=3,
    )
    against = "webdataset with .decode() on the same tars"
    for name in ("tar", "hdf5"):
        speed = best["webdataset"] / best[name]
        table.at_least(f"samples/s of stores.iterate, {name} shards", speed, 1, against=against)
