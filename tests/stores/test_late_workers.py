"""Workers that outlive their driver: what they commit when another run drives the store."""

import time
from pathlib import Path

import pytest

from stores.errors import StoreError
from stores.lock import driving, exclusive, is_latest
from stores.places import ObjectPath
from stores.plan import plan_shards
from stores.reader import StoreReader
from stores.sources import scan_images
from stores.store import Store
from stores.verify import verify_store

ROWS = 8
WORK = """
import time
from pathlib import Path
os.environ.update(env)
from stores.errors import StoreError
while not Path(go).exists():
    time.sleep(0.002)
try:
    run.commit_shard(store, shard)
    Path(said).write_text("committed")
except StoreError as error:
    Path(said).write_text(str(error))
"""
HOLD = """
import time
from pathlib import Path
from stores.lock import exclusive
with exclusive(Path(lock), wait=True):
    Path(held).touch()
    while not Path(go).exists():
        time.sleep(0.002)
"""


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """Where the store is, and what processes need to find it."""
    if request.param == "folder":
        return tmp_path / "a.store", {}
    s3 = request.getfixturevalue("s3")
    return ObjectPath(f"s3://{s3.new_bucket()}/a.store", tmp_path / "cache"), s3.env


@pytest.fixture
def source(run, tmp_path):
    return run.make_source(tmp_path / "source", 30)


@pytest.fixture
def late_worker(run, start, place, source, tmp_path):
    """A worker of an ended driver with shard 1 in work; returns what lets it go on to its end."""
    path, env = place
    store = Store.create(path, name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS)
    with store.lock():
        first, second, *_ = plan_shards(scan_images([str(source)]), store, ROWS).shards
        run.commit_shard(store, first)
    go, said = tmp_path / "go", tmp_path / "said"
    names = {"store": store, "shard": second, "go": str(go), "said": str(said), "env": env}
    worker = start(WORK, **names)

    def finish() -> str:
        go.touch()
        worker.join(120)
        return said.read_text()

    yield finish
    worker.kill()
    worker.join()


def drive(run, path, source):
    """A whole run of another driver."""
    store = Store.open(path)
    with store.lock():
        run.commit_all(store, str(source), ROWS)


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_what_a_worker_has_in_work_counts_as_long_as_nobody_else_drives(
    run, late_worker, place, source
):
    assert late_worker() == "committed"
    drive(run, place[0], source)
    assert list(Store.open(place[0]).manifest.shards) == [0, 1, 2, 3]
    assert verify_store(place[0], full=True) == []


def test_a_number_that_another_driver_gave_to_other_inputs_is_not_committed_with_the_former_ones(
    run, late_worker, place, source
):
    (source / "0" / "0000-first.png").write_text("image that sorts into shard 0")
    for number in range(4):
        (source / "1" / f"0000-{number}.png").write_text(f"image {number} that sorts into shard 1")
    store = Store.open(place[0])
    with store.lock():
        plan = plan_shards(scan_images([str(source)]), store, ROWS)
        assert plan.shards[0].number == 1
        said = late_worker()  # before the new driver's own shard 1
        assert "planned by a run that drives the store no longer" in said
        assert store.committed(1) is None
        for shard in plan.shards:
            run.commit_shard(store, shard)
    keys = list(StoreReader(place[0]).keys)
    assert len(keys) == len(set(keys))
    committed = [i.key for n in Store.open(place[0]).manifest.shards for i in store.read_inputs(n)]
    assert len(committed) == len(set(committed))
    assert {"0/0000-first.png", "1/0000-3.png"} <= set(committed)


def test_a_worker_that_comes_after_the_new_driver_finds_its_shard_made_from_other_inputs(
    run, late_worker, place, source
):
    for number in range(4):
        (source / "1" / f"0000-{number}.png").write_text(f"image {number} that sorts into shard 1")
    drive(run, place[0], source)
    before = Store.open(place[0]).committed(1)
    assert "committed by another run from other inputs" in late_worker()
    assert Store.open(place[0]).committed(1) == before
    assert [p for p in verify_store(place[0], full=True) if p.kind != "account"] == []


def test_a_driver_begins_when_commits_that_run_have_ended(start, tmp_path):
    driver, commit = tmp_path / "driver.lock", tmp_path / "commit.lock"
    names = {name: str(tmp_path / name) for name in ("held", "go")}
    process = start(HOLD, lock=str(commit), **names)
    while not Path(names["held"]).exists():
        time.sleep(0.002)
    releaser = start("import time, pathlib; time.sleep(0.5); pathlib.Path(go).touch()", **names)
    begin = time.monotonic()
    with driving(driver, commit) as token:
        waited_s = time.monotonic() - begin
        assert is_latest(driver, token)
    assert waited_s > 0.3
    for started in (process, releaser):
        started.join()


def test_a_token_holds_until_somebody_else_takes_the_lock(tmp_path):
    path = tmp_path / "lock"
    with exclusive(path, wait=False) as first:
        assert is_latest(path, first)
    assert is_latest(path, first)
    with exclusive(path, wait=False) as second:
        assert second != first
        assert not is_latest(path, first)
    path.unlink()
    assert not is_latest(path, second)


def test_a_driver_that_lost_the_store_is_told_which_shard_is_dropped(run, tmp_path, source):
    store = Store.create(
        tmp_path / "a.store", name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS
    )
    with store.lock():
        shard = plan_shards(scan_images([str(source)]), store, ROWS).shards[0]
    with Store.open(store.path).lock():
        pass
    with pytest.raises(StoreError, match=r"shard 0 of .*a\.store was planned by a run that"):
        run.commit_shard(store, shard)
    assert list((store.path / "shards").iterdir()) == []
    assert list((store.path / "entries").iterdir()) == []
