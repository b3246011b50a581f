import os
import shutil
from pathlib import Path

import pytest

from stores.errors import StoreError
from stores.plan import plan_shards
from stores.sources import scan_images
from stores.store import Store
from stores.verify import verify_store
from stores.writer import ShardWriter


def _files(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.png").write_text(f"content of {name}")
    return folder


@pytest.fixture
def store(run, tmp_path) -> Store:
    return Store.create(
        tmp_path / "t.store", name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS
    )


def _plan(store, folder, **options):
    plan = plan_shards(scan_images([folder]), store, 2, **options)
    shards = [(s.number, [i.key.removesuffix(".png") for i in s.items]) for s in plan.shards]
    return plan, shards


def _commit(run, store, folder, **options):
    plan, _ = _plan(store, folder, **options)
    store.record_scan(plan.rejects, plan.duplicates)
    for shard in plan.shards:
        run.commit_shard(store, shard)
    return store.consolidate()


def _assert_accounts(store, folder, num_inputs):
    counts = store.manifest.counts
    assert counts.inputs == num_inputs
    assert counts.rows + counts.rejects + counts.duplicates == num_inputs
    plan, shards = _plan(store, folder)
    assert shards == []
    assert plan.num_pending == 0


def test_inputs_are_cut_in_the_order_of_keys(store, tmp_path):
    plan, shards = _plan(store, _files(tmp_path / "in", *"ecabd"))
    assert shards == [(0, ["a", "b"]), (1, ["c", "d"]), (2, ["e"])]
    assert (plan.num_pending, plan.num_accounted) == (5, 0)


def test_what_is_left_takes_the_lowest_free_numbers_as_if_never_killed(run, store, tmp_path):
    source = _files(tmp_path / "in", *"abcdefg")
    plan, shards = _plan(store, source)
    for number in (1, 3):
        run.commit_shard(store, plan.shards[number])
    store.refresh()
    resumed, left = _plan(store, source)
    assert left == [shards[0], shards[2]]
    assert (resumed.num_pending, resumed.num_accounted) == (4, 3)


def test_a_grown_source_appends_and_leaves_what_is_there(run, store, tmp_path):
    source = _files(tmp_path / "in", *"bdf")
    before = _commit(run, store, source).shards
    _files(source, *"aceg")
    assert _plan(store, source)[1] == [(2, ["a", "c"]), (3, ["e", "g"])]
    _commit(run, store, source)
    assert {n: store.manifest.shards[n] for n in before} == before
    _assert_accounts(store, source, 7)


def test_changed_and_vanished_inputs_are_reported_and_keep_their_rows(run, store, tmp_path):
    source = _files(tmp_path / "in", *"abcd")
    _commit(run, store, source)
    (source / "b.png").write_text("now other")
    os.utime(source / "c.png", ns=(5, 5))
    (source / "d.png").unlink()
    plan, shards = _plan(store, source)
    assert (plan.changed, plan.vanished, shards) == (["b.png"], ["d.png"], [])
    assert store.manifest.counts.rows == 4


def test_copied_and_touched_files_are_told_from_changed_ones_by_their_bytes(run, store, tmp_path):
    source = _files(tmp_path / "in", *"abcd")
    _commit(run, store, source)
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    plan, shards = _plan(store, tmp_path / "copy")
    assert (plan.changed, plan.vanished, shards) == ([], [], [])
    (tmp_path / "copy" / "b.png").write_text("content of B")  # of the same length
    assert _plan(store, tmp_path / "copy")[0].changed == ["b.png"]


def test_without_a_digest_on_record_another_time_is_a_change(run, store, tmp_path):
    source = _files(tmp_path / "in", *"ab")
    plan, _ = _plan(store, source)
    writer = ShardWriter(store, plan.shards[0])
    for item in plan.shards[0].items:
        writer.add([item.key], run.row_of(item.key, b""))
    assert writer.commit().listing_sha256 is None
    store.refresh()
    assert _plan(store, source)[0].changed == []
    os.utime(source / "b.png", ns=(5, 5))
    assert _plan(store, source)[0].changed == ["b.png"]


def test_times_that_run_backwards_change_nothing(run, store, tmp_path):
    source = _files(tmp_path / "in", *"abcd")
    for second, name in enumerate("abcd"):
        os.utime(source / f"{name}.png", (2_000_000_000 - second, 4_000_000_000 - second))
    _commit(run, store, source)
    for name in "abcd":
        os.utime(source / f"{name}.png", (-5, -5))
    (store.path / "manifest.json").touch()
    os.utime(store.path / "manifest.json", (0, 0))
    plan, shards = _plan(store, source)
    assert (plan.changed, plan.vanished, shards) == ([], [], [])
    assert verify_store(store.path, full=True) == []


def test_inputs_of_a_plan_are_pending_until_they_have_an_outcome(run, store, tmp_path):
    source = _files(tmp_path / "in", *"abcde")
    plan, _ = _plan(store, source)
    store.record_scan(plan.rejects, plan.duplicates, plan.num_pending)
    run.commit_shard(store, plan.shards[1])
    counts = Store.open(store.path).manifest.counts
    assert (counts.inputs, counts.rows, counts.pending) == (5, 2, 3)
    _commit(run, store, source)
    counts = Store.open(store.path).manifest.counts
    assert (counts.inputs, counts.rows, counts.pending) == (5, 5, 0)
    for name in "de":
        (source / f"{name}.png").unlink()
    _commit(run, store, source)
    assert Store.open(store.path).manifest.counts == counts


def test_a_new_copy_of_a_committed_file_is_the_duplicate_whatever_its_key(run, store, tmp_path):
    source = _files(tmp_path / "in", *"cd")
    _commit(run, store, source)
    for name in "az":
        (source / f"{name}.png").write_text("content of c")
    plan, shards = _plan(store, source)
    assert shards == []
    assert plan.duplicates == [("a.png", "c.png"), ("z.png", "c.png")]
    _commit(run, store, source)
    _assert_accounts(store, source, 4)


def test_records_of_one_listing_survive_the_listing_of_another_source(run, store, tmp_path):
    first, second = _files(tmp_path / "one", *"ab"), _files(tmp_path / "two", *"cd")
    (first / "dead.png").symlink_to("nowhere")
    (first / "z.png").write_text("content of a")
    _commit(run, store, first)
    _commit(run, store, second)
    assert sorted(reject.key for reject in store.rejects()) == ["dead.png", "z.png"]
    _assert_accounts(store, second, 6)


def test_a_repaired_input_moves_from_reject_to_row(run, store, tmp_path):
    source = _files(tmp_path / "in", *"ab")
    (source / "c.png").symlink_to("nowhere")
    _commit(run, store, source)
    (source / "c.png").unlink()
    _files(source, "c")
    _commit(run, store, source)
    assert store.manifest.counts.rejects == 0
    _assert_accounts(store, source, 3)


def test_a_row_whose_file_broke_later_stays_a_row(run, store, tmp_path):
    source = _files(tmp_path / "in", *"ab")
    _commit(run, store, source)
    (source / "b.png").unlink()
    (source / "b.png").symlink_to("nowhere")
    plan, _ = _plan(store, source)
    assert (plan.changed, plan.rejects) == (["b.png"], [])
    _commit(run, store, source)
    _assert_accounts(store, source, 2)


def test_rejects_are_tried_again_only_when_asked_and_count_once(run, store, tmp_path):
    source = _files(tmp_path / "in", *"abcd")
    for name in "bd":
        (source / f"{name}.png").write_text("bad " + name)
    _commit(run, store, source)
    assert _plan(store, source)[1] == []
    assert _plan(store, source, retry_rejects=True)[1] == [(2, ["b", "d"])]
    (source / "d.png").write_text("good at last")
    _commit(run, store, source, retry_rejects=True)
    counts = store.manifest.counts
    assert (counts.inputs, counts.rows, counts.rejects) == (4, 3, 1)
    plan, shards = _plan(store, source, retry_rejects=True)
    assert shards == [(3, ["b"])]
    assert plan.changed == []
    _assert_accounts(store, source, 4)


def test_a_plan_for_shards_of_no_rows_is_refused(store, tmp_path):
    with pytest.raises(StoreError, match="at least 1, got 0"):
        plan_shards(scan_images([_files(tmp_path / "in", "a")]), store, 0)


def test_a_lost_list_of_inputs_is_needed_only_when_the_digest_does_not_settle_it(
    run, store, tmp_path
):
    source = _files(tmp_path / "in", *"ab")
    _commit(run, store, source)
    store.layout.inputs(0).unlink()
    assert _plan(store, source)[1] == []
    _files(source, "aa")
    with pytest.raises(StoreError, match="is missing"):
        _plan(store, source)


def test_plans_of_different_runs_never_share_a_number(run, store, tmp_path):
    first = _plan(store, _files(tmp_path / "one", *"ab"))[0].shards[0]
    second = _plan(store, _files(tmp_path / "two", *"cd"))[0].shards[0]
    run.commit_shard(store, first)
    with pytest.raises(StoreError, match="committed by another run from other inputs"):
        run.commit_shard(store, second)
    assert ShardWriter(store, second) is not None
    assert store.committed(0).first_key == "a.png"
