import threading
import time

import pytest

from stores.checksum import sha256_bytes
from stores.commit import ShardFiles, commit_objects
from stores.errors import ShardCorruptError, StoreError
from stores.manifest import ShardEntry
from stores.places import ObjectPath
from stores.plan import plan_shards
from stores.sources import scan_images
from stores.store import Store
from stores.verify import verify_store

PATIENCE_S = 0.6


@pytest.fixture
def store(run, tmp_path):
    path = ObjectPath(f"memory://{tmp_path.name}/a.store", tmp_path / "cache")
    return Store.create(path, name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS)


@pytest.fixture
def shard(tmp_path):
    """A shard's files and entry, told apart from another's by their bytes."""

    def make(text: str, *, rejects: bool = True) -> tuple[ShardEntry, ShardFiles]:
        file = tmp_path / f"{text}.h5"
        file.write_text(text)
        files = ShardFiles(file, f"inputs {text}".encode(), b"rejects" if rejects else b"")
        entry = ShardEntry(
            name="t-000000",
            number=0,
            rows=2 - rejects,
            rejects=int(rejects),
            inputs=2,
            size_bytes=len(text),
            sha256=sha256_bytes(text.encode()),
            inputs_sha256=sha256_bytes(files.inputs),
            rejects_sha256=sha256_bytes(files.rejects) if rejects else None,
            first_key="a",
            last_key="b",
        )
        return entry, files

    return make


def contents(store: Store) -> list[bytes]:
    paths = (store.layout.shard(0), store.layout.inputs(0), store.layout.rejects(0))
    return [path.read_bytes() if path.exists() else b"" for path in paths]


def test_the_mark_comes_last(store, shard):
    entry, files = shard("rows")
    assert commit_objects(store, entry, files) == entry
    assert contents(store) == [b"rows", b"inputs rows", b"rejects"]
    assert store.committed(0) == entry


def test_who_comes_second_gets_the_first_ones_entry_and_writes_nothing(store, shard):
    first, files = shard("first")
    commit_objects(store, first, files)
    assert commit_objects(store, *shard("second")) == first
    assert contents(store) == [b"first", b"inputs first", b"rejects"]


def test_what_a_killed_run_left_is_taken_over_at_once_when_it_is_the_same(store, shard):
    entry, files = shard("rows")
    store.layout.shard(0).write_bytes(b"rows")
    store.layout.inputs(0).write_bytes(files.inputs)
    begin = time.monotonic()
    commit_objects(store, entry, files)
    assert time.monotonic() - begin < 30, "no patience was needed"


@pytest.mark.parametrize("left", ["shard", "inputs", "rejects"])
@pytest.mark.parametrize("rejects", [True, False])
def test_what_a_killed_run_left_is_replaced_after_a_while_when_it_differs(
    store, shard, left, rejects
):
    entry, files = shard("rows", rejects=rejects)
    getattr(store.layout, left)(0).write_bytes(b"of another plan")
    begin = time.monotonic()
    assert commit_objects(store, entry, files, patience_s=PATIENCE_S) == entry
    assert time.monotonic() - begin >= PATIENCE_S
    assert contents(store) == [b"rows", b"inputs rows", files.rejects]


def test_a_slow_writer_of_other_rows_is_waited_for(store, shard):
    first, files = shard("first")
    store.layout.shard(0).write_bytes(b"first")
    thread = threading.Thread(target=lambda: (time.sleep(1), commit_objects(store, first, files)))
    thread.start()
    assert commit_objects(store, *shard("second"), patience_s=30.0) == first
    thread.join()
    assert contents(store) == [b"first", b"inputs first", b"rejects"]


def test_a_mark_of_other_rows_that_comes_between_is_named(store, shard, monkeypatch):
    """The one window that is left: a writer slept, and wakes after its rows were replaced."""
    other, _ = shard("other")
    upload = ObjectPath.upload

    def upload_and_be_overtaken(path, local, *, exclusive=False):
        upload(path, local, exclusive=exclusive)
        store.layout.entry(0).write_bytes(other.to_bytes())

    monkeypatch.setattr(ObjectPath, "upload", upload_and_be_overtaken)
    with pytest.raises(ShardCorruptError, match="that shard alone has to be made again"):
        commit_objects(store, *shard("rows"))


def test_writers_of_different_plans_who_race_leave_one_whole_shard(run, s3, tmp_path):
    path = ObjectPath(f"s3://{s3.new_bucket()}/a.store", tmp_path / "cache")
    store = Store.create(path, name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS)
    outcomes = []

    def commit(source) -> None:
        (plan,) = plan_shards(scan_images([source]), store, 100).shards
        try:
            run.commit_shard(store, plan)
            outcomes.append("committed")
        except StoreError as error:
            outcomes.append(str(error))

    sources = [run.make_source(tmp_path / f"{n}", 5 + n) for n in range(3)]
    threads = [threading.Thread(target=commit, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("committed") == 1
    assert sum("committed by another run from other inputs" in x for x in outcomes) == 2
    store.consolidate()
    assert verify_store(path, full=True) == []
