import os
import pickle

import pytest

from stores.errors import (
    FingerprintMismatchError,
    ManifestError,
    SchemaMismatchError,
    StoreBusyError,
    StoreError,
)
from stores.records import Duplicate, Reject
from stores.schema import Column, Schema
from stores.store import Store

SCHEMA = Schema((Column("clip", (4,), "float32"),))
PRINTS = {"clip": "aaa", "s": "bbb"}
both_formats = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)


def _create(path) -> Store:
    return Store.create(path, schema=SCHEMA, fingerprints=PRINTS, split_eval=0.5)


def test_a_new_store_is_empty_and_named_after_its_folder(tmp_path):
    _create(tmp_path / "ffhq.store")
    store = Store.open(tmp_path / "ffhq.store", schema=SCHEMA, fingerprints=PRINTS)
    assert store.header.name == "ffhq"
    assert store.header.eval_fraction == 0.5
    assert store.manifest.counts.inputs == 0


def test_other_fingerprints_are_refused_with_both_named(tmp_path):
    _create(tmp_path / "a")
    said = r"s: the store has bbb, this run ccc.*or another store"
    with pytest.raises(FingerprintMismatchError, match=said):
        Store.open_or_create(tmp_path / "a", schema=SCHEMA, fingerprints=PRINTS | {"s": "ccc"})


def test_other_columns_are_refused_with_both_named(tmp_path):
    _create(tmp_path / "a")
    other = Schema((Column("clip", (8,), "float32"),))
    with pytest.raises(SchemaMismatchError, match=r"\[4\].*\[8\]"):
        Store.open(tmp_path / "a", schema=other)


def test_another_split_is_refused(tmp_path):
    _create(tmp_path / "a")
    with pytest.raises(StoreError, match=r"holds out 0.5 of its keys, this run asks for 0.1"):
        Store.open_or_create(tmp_path / "a", schema=SCHEMA, fingerprints=PRINTS, split_eval=0.1)
    with pytest.raises(StoreError, match="below 1"):
        Store.create(tmp_path / "b", schema=SCHEMA, fingerprints=PRINTS, split_eval=1.0)


def test_a_store_is_not_made_over_one_nor_over_other_files(tmp_path):
    _create(tmp_path / "a")
    with pytest.raises(StoreError, match="is a store already"):
        _create(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        _create(tmp_path / "b")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["thesis.tex"]
    with pytest.raises(StoreError, match="is a file"):
        _create(tmp_path / "b" / "thesis.tex")


def test_a_folder_left_by_a_killed_creation_is_used(tmp_path):
    (tmp_path / "a" / "shards").mkdir(parents=True)
    (tmp_path / "a" / "commit.lock").touch()
    assert _create(tmp_path / "a").manifest.shards == {}


@pytest.mark.parametrize("make", [False, True])
def test_what_is_no_store_is_not_opened(tmp_path, make):
    if make:
        (tmp_path / "a").mkdir()
    with pytest.raises(ManifestError, match=r"is not a store.*Check the path"):
        Store.open(tmp_path / "a")


def test_a_second_driver_is_refused_and_reading_is_not(tmp_path):
    store = _create(tmp_path / "a")
    with store.lock():
        with pytest.raises(StoreBusyError, match=f"process {os.getpid()}"), store.lock():
            pytest.fail("two drivers")
        assert Store.open(tmp_path / "a").manifest.shards == {}


def test_a_driver_removes_temporary_files_of_killed_runs_and_no_others(tmp_path):
    store = _create(tmp_path / "a")
    leftover = store.path / "shards" / ".a-000000.h5.77-abcd.tmp"
    foreign = store.path / "shards" / "mine.tmp"
    leftover.touch()
    foreign.touch()
    with store.lock():
        assert not leftover.exists()
        assert foreign.exists()


@both_formats
def test_commits_of_others_are_seen_before_and_after_the_manifest_is_written(run, tmp_path):
    source = run.make_source(tmp_path / "in", 30)
    run.main(str(source), str(tmp_path / "a"), 5)
    store = Store.open(tmp_path / "a")
    whole = (store.path / "manifest.json").read_bytes()
    (store.path / "manifest.json").write_bytes(
        Store.create(
            tmp_path / "b",
            name="t",
            schema=run.SCHEMA,
            fingerprints=run.FINGERPRINTS,
            split_eval=0.25,
            shard_format=run.SHARD_FORMAT,
        ).manifest.to_bytes()
    )
    assert Store.open(tmp_path / "a").manifest.shards == store.manifest.shards
    Store.open(tmp_path / "a").consolidate()
    assert (store.path / "manifest.json").read_bytes() == whole


@both_formats
def test_a_lost_manifest_is_made_again_from_the_shards(run, tmp_path):
    source = run.make_source(tmp_path / "in", 30)
    run.main(str(source), str(tmp_path / "a"), 5)
    before = run.digests(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(FingerprintMismatchError):
        Store.open_or_create(tmp_path / "a", schema=run.SCHEMA, fingerprints={"clip": "other"})
    run.main(str(source), str(tmp_path / "a"), 5)
    assert run.digests(tmp_path / "a") == before


@both_formats
def test_a_copy_without_commit_marks_is_read_by_its_manifest(run, tmp_path):
    run.main(str(run.make_source(tmp_path / "in", 30)), str(tmp_path / "a"), 5)
    shards = Store.open(tmp_path / "a").manifest.shards
    for mark in (tmp_path / "a" / "entries").iterdir():
        mark.unlink()
    (tmp_path / "a" / "entries").rmdir()
    assert Store.open(tmp_path / "a").manifest.shards == shards


def test_a_damaged_manifest_is_refused_with_what_to_do(tmp_path):
    store = _create(tmp_path / "a")
    path = store.path / "manifest.json"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ManifestError, match="store repair"):
            Store.open(tmp_path / "a")


def test_the_scan_is_on_record_and_counted(tmp_path):
    store = _create(tmp_path / "a")
    store.record_scan([Reject("x", "broken_symlink", "gone")], [Duplicate("y", "a")])
    opened = Store.open(tmp_path / "a")
    assert opened.scan_record() == ([("x", "broken_symlink", "gone")], [("y", "a")])
    counts = opened.manifest.counts
    assert (counts.inputs, counts.rejects, counts.duplicates) == (2, 1, 1)
    assert [r.reason for r in opened.rejects()] == ["broken_symlink", "duplicate"]


def test_a_store_crosses_process_borders(tmp_path):
    store = _create(tmp_path / "a")
    assert pickle.loads(pickle.dumps(store)).manifest == store.manifest  # noqa: S301 - our own bytes
