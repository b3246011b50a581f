import json
import subprocess
import sys

import numpy as np
import pytest

from flows.steps.graph import NEIGHBOURS, load_graph
from flows.steps.index import (
    INDEX,
    IndexConfig,
    find_neighbours,
    index_store,
    query_vector,
)
from pipeline.errors import PairError
from stores.blobs import list_blobs
from stores.errors import StoreError
from stores.plan import ShardPlan
from stores.reader import StoreReader
from stores.schema import Column, Schema
from stores.sources import SourceItem
from stores.store import Store
from stores.writer import ShardWriter


@pytest.fixture(scope="module")
def indexed(encoded):
    index_store(IndexConfig(store=encoded, neighbours=5))
    return encoded


def test_the_kind_is_resolved_and_on_record(indexed):
    blobs = list_blobs(Store.open(indexed))
    assert blobs[INDEX].made_from["kind"] == "flat"
    assert blobs[NEIGHBOURS].made_from["k"] == 5


def test_an_unknown_kind_is_refused(encoded):
    with pytest.raises(ValueError, match="'tree' is none of"):
        IndexConfig(store=encoded, kind="tree")


def test_the_same_rows_are_not_indexed_again(indexed):
    path = indexed / "blobs" / INDEX
    before = path.stat().st_ino
    index_store(IndexConfig(store=indexed, neighbours=5))
    assert path.stat().st_ino == before


def test_the_recall_is_measured_and_on_record(indexed):
    made_from = list_blobs(Store.open(indexed))[INDEX].made_from
    assert (made_from["recall"], made_from["recall_k"], made_from["effort"]) == (1.0, 10, 0)


def test_a_kind_that_does_not_fit_the_memory_is_refused(encoded):
    with pytest.raises(PairError, match="the memory budget is 1,000"):
        index_store(IndexConfig(store=encoded, kind="flat", memory_budget=1000))
    config = IndexConfig(store=encoded, memory_budget=96 * 300)
    assert config.resolved_kind(96, 256) == "ivf8"


def test_wrong_settings_are_refused_all_at_once(encoded):
    with pytest.raises(ValueError, match=r"(?s)neighbours.*recall.*memory_budget"):
        IndexConfig(store=encoded, neighbours=-1, recall=0.0, memory_budget=0)


@pytest.mark.parametrize(("text", "code"), [("500MB", 0), ("1.5 gb", 0), ("much", 2), ("5 PB", 2)])
def test_a_memory_budget_is_written_with_its_unit(call, encoded, text, code):
    run = call("index", encoded, "--memory-budget", text, "--dry-run", code=code)
    assert ("memory_budget" in run.err) == (code == 0)


def add_shard(store, number, num_rows):
    """Commit a shard of random rows."""
    plan = ShardPlan(number, tuple(SourceItem(f"{number}-{i:03}.png") for i in range(num_rows)))
    rows = np.random.default_rng(number).standard_normal((num_rows, 8), dtype=np.float32)
    writer = ShardWriter(store, plan)
    writer.add([item.key for item in plan.items], {"clip": rows})
    writer.commit()
    store.consolidate()


def test_a_grown_store_adds_its_new_rows_to_the_index(tmp_path):
    store = Store.create(
        tmp_path / "s", schema=Schema((Column("clip", (8,), "float32"),)), fingerprints={}
    )
    trained = []
    # The last time there are three times the rows that the cells were learnt from.
    for number, num_rows in enumerate((90, 30, 150)):
        add_shard(store, number, num_rows)
        index_store(IndexConfig(store=store.path, kind="ivf", recall=1.0, neighbours=0))
        trained.append(list_blobs(store)[INDEX].made_from["trained_rows"])
        reader = StoreReader(store.path)
        for row in (5, len(reader) - 1):
            key = reader.keys[row]
            assert find_neighbours(store.path, query_vector(store.path, key=key), 3)[0].key == key
    assert trained == [90, 90, 270]


def test_an_index_whose_first_shards_changed_is_built_anew(tmp_path):
    store = Store.create(
        tmp_path / "s", schema=Schema((Column("clip", (8,), "float32"),)), fingerprints={}
    )
    config = IndexConfig(store=store.path, neighbours=0)
    add_shard(store, 1, 60)
    index_store(config)
    add_shard(store, 0, 20)  # a shard that another worker finished late comes before it
    index_store(config)
    assert list_blobs(store)[INDEX].made_from["trained_rows"] == 80
    key = StoreReader(store.path).keys[70]
    assert find_neighbours(store.path, query_vector(store.path, key=key), 1)[0].key == key


def test_neighbours_of_a_key_and_their_sheet_are_shown_without_torch(indexed, tmp_path):
    arguments = ["neighbours", str(indexed), "--key", StoreReader(indexed).keys[7]]
    arguments += ["--sheet", str(tmp_path / "near.png")]
    program = f"""
import sys
sys.argv = ["deltaedit", *{arguments!r}]
from flows.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert not {{"torch", "open_clip", "prefect"}} & sys.modules.keys()
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("1.0000  ")
    assert (tmp_path / "near.png").read_bytes().startswith(b"\x89PNG")


def test_a_key_is_its_own_nearest_neighbour(indexed):
    reader = StoreReader(indexed)
    first = find_neighbours(indexed, query_vector(indexed, key=reader.keys[7]), 3)[0]
    assert (first.key, first.row) == (reader.keys[7], 7)
    assert first.similarity == pytest.approx(1.0, abs=1e-5)


def test_an_image_file_finds_its_own_row(indexed, faces):
    found = find_neighbours(indexed, query_vector(indexed, image=faces / "avatar-000040.png"), 1)
    assert found[0].key == "avatar-000040.png"


def test_the_graph_has_no_row_as_its_own_neighbour(indexed):
    rows, similarities = load_graph(StoreReader(indexed))
    assert rows.shape == similarities.shape == (96, 5)
    assert not (rows == [[row] for row in range(96)]).any()


def test_an_index_older_than_the_rows_is_refused(call, faces, tmp_path, small_shards):
    pictures = sorted(faces.glob("*.png"))
    store, listing = tmp_path / "s", tmp_path / "list.txt"
    for count in (16, 32):
        listing.write_text("\n".join(map(str, pictures[:count])))
        call("precompute", f"@{listing}", store, *small_shards, "--columns", "clip")
        if count == 16:
            call("index", store, "--neighbours", 3)
    run = call("neighbours", store, "--key", StoreReader(store).keys[0], code=2)
    assert f"run: deltaedit index {store}" in run.err


def test_pairs_of_one_seed_are_the_same_and_stay_in_the_training_split(call, indexed):
    drawn = [
        call("pairs", indexed, "--policy", "nearest", "--count", 20, "--seed", 3, "--json").out
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    reader = StoreReader(indexed)
    held_out = {key for key, out in zip(reader.keys, reader.eval_mask, strict=True) if out}
    pairs = json.loads(drawn[0])["pairs"]
    keys = {pair[end] for pair in pairs for end in ("source", "target")}
    assert held_out
    assert not keys & held_out


def test_a_store_without_clip_cannot_be_indexed(call, faces, tmp_path, small_shards):
    (tmp_path / "list.txt").write_text("\n".join(map(str, sorted(faces.glob("*.png"))[:4])))
    store = tmp_path / "s"
    call("precompute", f"@{tmp_path}/list.txt", store, *small_shards, "--columns", "w_plus,s")
    with pytest.raises(StoreError, match="has no clip column"):
        index_store(IndexConfig(store=store))
