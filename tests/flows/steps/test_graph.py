import numpy as np
import pytest

from flows.steps import graph as steps
from flows.steps.graph import NEIGHBOURS, PART_PREFIX, build_graph, load_graph, part_name
from pipeline.pairs.graph import neighbour_graph
from stores.blobs import list_blobs, write_blob
from stores.plan import ShardPlan
from stores.reader import StoreReader
from stores.schema import Column, Schema
from stores.sources import SourceItem
from stores.store import Store
from stores.writer import ShardWriter

NUM_ROWS, K, BLOCK_ROWS = 200, 5, 16


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A store of random rows whose graph is kept in parts of 32 rows."""
    monkeypatch.setattr(steps, "PART_ROWS", 32)
    store = Store.create(
        tmp_path / "a.store", schema=Schema((Column("clip", (8,), "float32"),)), fingerprints={}
    )
    plan = ShardPlan(0, tuple(SourceItem(f"{row:03}.png") for row in range(NUM_ROWS)))
    writer = ShardWriter(store, plan)
    rows = np.random.default_rng(0).standard_normal((NUM_ROWS, 8), dtype=np.float32)
    writer.add([item.key for item in plan.items], {"clip": rows})
    writer.commit()
    store.consolidate()
    return StoreReader(store.path)


def parts(reader):
    return [name for name in list_blobs(Store.open(reader.path)) if name.startswith(PART_PREFIX)]


def stop_after(monkeypatch, num_rows):
    """Let the search of neighbours die as a killed process does; returns the rows looked at."""
    looked_at = []

    def dying(clip, k, *, first_row, block_rows):
        for start, block in original(clip, k, first_row=first_row, block_rows=block_rows):
            if len(looked_at) >= num_rows:
                raise KeyboardInterrupt
            looked_at.extend(range(start, start + len(block.ids)))
            yield start, block

    original = steps.neighbour_blocks
    monkeypatch.setattr(steps, "neighbour_blocks", dying)
    return looked_at


def test_an_interrupted_graph_goes_on_and_is_that_of_an_undisturbed_run(reader, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 100)
        with pytest.raises(KeyboardInterrupt):
            build_graph(reader, K, BLOCK_ROWS)
    assert parts(reader) == [part_name(0), part_name(32), part_name(64)]
    with monkeypatch.context() as patch:
        looked_at = stop_after(patch, NUM_ROWS)
        build_graph(reader, K, BLOCK_ROWS)
    assert looked_at[0] == 96
    assert parts(reader) == []
    expected = neighbour_graph(reader.column("clip"), K)
    found = load_graph(reader)
    assert (found.ids == expected.ids).all()
    assert np.allclose(found.similarities, expected.similarities, atol=1e-6)


def test_parts_of_another_k_or_of_other_rows_are_not_taken_over(reader):
    store = Store.open(reader.path)
    write_blob(store, part_name(0), b"of another k", {"store": reader.manifest.digest, "k": 4})
    write_blob(store, part_name(32), b"of other rows", {"store": "0", "k": K})
    build_graph(reader, K, BLOCK_ROWS)
    assert parts(reader) == []
    assert (load_graph(reader).ids == neighbour_graph(reader.column("clip"), K).ids).all()


def test_a_graph_that_is_there_is_not_built_again(reader):
    build_graph(reader, K, BLOCK_ROWS)
    path = reader.path / "blobs" / NEIGHBOURS
    before = path.stat().st_ino
    build_graph(reader, K, BLOCK_ROWS)
    assert path.stat().st_ino == before
