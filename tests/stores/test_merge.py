from pathlib import Path

import numpy as np
import pytest

from stores.convert import convert_store
from stores.errors import (
    FingerprintMismatchError,
    SchemaMismatchError,
    ShardCorruptError,
    StoreError,
)
from stores.merge import merge_stores
from stores.plan import plan_shards
from stores.reader import StoreReader
from stores.repair import repair_store
from stores.schema import Column, Schema
from stores.sources import scan_images
from stores.store import Store
from stores.verify import verify_store

pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)


def _files(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.png").write_text(content)
    return folder


@pytest.fixture
def make(run, tmp_path):
    """A store of files given by name and content; those whose content begins with bad give none."""

    def make_store(name: str, **contents: str) -> Path:
        source = _files(tmp_path / f"{name}-in", **contents)
        run.main(str(source), str(tmp_path / name), 3)
        return tmp_path / name

    return make_store


def _rows(path) -> dict[str, bytes]:
    reader = StoreReader(path)
    rows = reader.rows(np.arange(len(reader)), ["clip", "s"])
    return {
        key: rows["clip"][i].tobytes() + rows["s"][i].tobytes() for i, key in enumerate(reader.keys)
    }


ONE = {name: f"image {name}" for name in "abcdefg"} | {"x": "bad x"}
TWO = {name: f"image {name}" for name in "hijkl"} | {"y": "bad y"}


def test_the_merged_store_has_every_row_and_the_accounts_add_up(run, make, tmp_path):
    one, two = make("one", **ONE), make("two", **TWO)
    before = run.digests(one), run.digests(two)
    report = merge_stores([one, two], tmp_path / "out")
    assert _rows(tmp_path / "out") == _rows(one) | _rows(two)
    assert (report.counts.inputs, report.counts.rows, report.counts.rejects) == (14, 12, 2)
    assert report.inputs == {str(one): 8, str(two): 6}
    assert (report.num_repeated, report.different) == (0, [])
    assert verify_store(tmp_path / "out", full=True) == []
    assert (run.digests(one), run.digests(two)) == before


def test_a_merged_store_is_up_to_date_with_the_sources_of_its_parts(make, tmp_path):
    one, two = make("one", **ONE), make("two", **TWO)
    merge_stores([one, two], tmp_path / "out")
    sources = [tmp_path / "one-in", tmp_path / "two-in"]
    plan = plan_shards(scan_images(sources), Store.open(tmp_path / "out"), 3)
    assert (plan.shards, plan.changed, plan.vanished) == ([], [], [])


def test_equal_rows_of_one_key_count_once(make, tmp_path):
    one, two = make("one", **ONE), make("two", **TWO, a="image a", g="image g")
    report = merge_stores([one, two], tmp_path / "out")
    assert _rows(tmp_path / "out") == _rows(one) | _rows(two)
    assert (report.counts.inputs, report.num_repeated) == (14, 2)
    assert sum(report.inputs.values()) == report.counts.inputs + report.num_repeated
    assert verify_store(tmp_path / "out", full=True) == []


def test_different_rows_of_one_key_are_refused_by_name_unless_the_first_is_to_stay(make, tmp_path):
    one, two = make("one", **ONE), make("two", **TWO, a="another a", g="image g")
    with pytest.raises(StoreError, match=r"1 keys have different rows.*\('a\.png'\).*--keep first"):
        merge_stores([one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = merge_stores([one, two], tmp_path / "out", keep_first=True)
    assert report.different == ["a.png"]
    assert _rows(tmp_path / "out") == _rows(two) | _rows(one)
    assert verify_store(tmp_path / "out", full=True) == []


def test_a_row_counts_before_a_duplicate_and_that_before_a_reject(make, tmp_path):
    one = make("one", a="bad a", b="bad b", c="same", d="same", e="bad e")
    two = make("two", a="good a", b="good b2", d="own d", e="copy", f="copy", g="bad g")
    report = merge_stores([one, two], tmp_path / "out")
    assert {key: name for key, name, _ in Store.open(tmp_path / "out").rejects()} == {
        "f.png": "duplicate",
        "g.png": "not_an_image",
    }
    assert sorted(_rows(tmp_path / "out")) == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert (report.counts.inputs, report.num_repeated) == (7, 4)
    assert verify_store(tmp_path / "out", full=True) == []


def test_a_retried_input_is_merged_with_its_row(run, make, tmp_path):
    one, two = make("one", **ONE), make("two", **TWO)
    (tmp_path / "one-in" / "x.png").write_text("good at last")
    run.main(str(tmp_path / "one-in"), str(one), 3, retry_rejects=True)
    report = merge_stores([one, two], tmp_path / "out")
    assert report.counts == type(report.counts)(inputs=14, rows=13, rejects=1, duplicates=0)
    assert report.num_repeated == 0
    assert verify_store(tmp_path / "out", full=True) == []


def test_stores_of_other_columns_models_or_splits_are_refused(run, make, tmp_path):
    one = make("one", **ONE)
    others = {
        "columns": (SchemaMismatchError, {"schema": Schema((Column("clip", (8,), "float32"),))}),
        "models": (FingerprintMismatchError, {"fingerprints": {"clip": "other", "s": "beef"}}),
        "split": (StoreError, {"split_eval": 0.5}),
    }
    same = {"schema": run.SCHEMA, "fingerprints": run.FINGERPRINTS, "split_eval": 0.25}
    for name, (error, difference) in others.items():
        Store.create(tmp_path / name, **(same | difference))
        with pytest.raises(error, match="one"):
            merge_stores([one, tmp_path / name], tmp_path / "out")
    with pytest.raises(StoreError, match="is one of the stores to merge"):
        merge_stores([one, one], one)
    assert not (tmp_path / "out").exists()


def test_scaled_stores_are_merged_bit_for_bit_where_their_scaling_is_the_same(run, make, tmp_path):
    one, two = make("one", **ONE), make("two", **TWO)
    options = {"shard_format": run.SHARD_FORMAT, "scaled": ["s"]}
    for store in (one, two):
        convert_store(store, tmp_path / f"half {store.name}", **options)
    with pytest.raises(SchemaMismatchError, match="by different numbers"):
        merge_stores([tmp_path / "half one", tmp_path / "half two"], tmp_path / "out")
    make("one", **ONE, q="image q")
    convert_store(one, tmp_path / "half one", **options)
    convert_store(tmp_path / "half one", tmp_path / "tar", shard_format="webdataset")
    merge_stores([tmp_path / "half one", tmp_path / "tar"], tmp_path / "out")
    assert _rows(tmp_path / "out") == _rows(tmp_path / "half one")


def test_a_damaged_part_is_not_merged_until_it_is_repaired(run, make, tmp_path):
    one, two = make("one", **ONE), make("two", **TWO)
    shard = two / run.shard_file(0)
    data = shard.read_bytes()
    shard.write_bytes(data[:-50] + b"?" + data[-49:])
    with pytest.raises(ShardCorruptError, match=r"two/shards/t-000000\..*store repair"):
        merge_stores([one, two], tmp_path / "out")
    repair_store(two)
    report = merge_stores([one, two], tmp_path / "out")
    assert _rows(tmp_path / "out") == _rows(one) | _rows(two)
    assert report.counts.inputs == 8 + 3


def test_a_merge_killed_at_any_shard_goes_on_to_the_same_store(run, start, make, tmp_path):
    one, two = make("one", **ONE), make("two", **TWO)
    merge_stores([one, two], tmp_path / "whole" / "out")
    expected = run.digests(tmp_path / "whole" / "out")
    code = """
from stores.merge import merge_stores
def stop(done, total):
    if done == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
merge_stores(parts, out, on_progress=stop)
"""
    parts = [str(one), str(two)]
    for kill_at in (1, 2, 3, 4):
        out = tmp_path / str(kill_at) / "out"
        process = start(code, parts=parts, out=str(out), kill_at=kill_at)
        process.join()
        assert process.exitcode == -9
        assert len(Store.open(out).manifest.shards) == kill_at
        merge_stores(parts, out)
        assert run.digests(out) == expected
    with pytest.raises(StoreError, match="something else than a part of this merge"):
        merge_stores([one], tmp_path / "1" / "out")
