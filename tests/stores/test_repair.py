import json
import shutil

import pytest

from stores.blobs import read_blob, write_blob
from stores.errors import ManifestError, StoreBusyError, StoreError
from stores.reader import StoreReader
from stores.repair import repair_store
from stores.store import Store
from stores.verify import verify_store

pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)

SHARDS = 5


@pytest.fixture(scope="module")
def good(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repair")
    source = run.make_source(folder / "in", 50)
    run.main(str(source), str(folder / "t.store"), 10)
    return folder / "t.store"


@pytest.fixture
def path(good, tmp_path):
    return shutil.copytree(good, tmp_path / "t.store")


@pytest.fixture
def source(good):
    return good.parent / "in"


def _shard(path, number: int):
    (file,) = (path / "shards").glob(f"t-{number:06d}.*")
    return file


def _flip(file, place: float = 0.7) -> None:
    whole = bytearray(file.read_bytes())
    whole[int(len(whole) * place)] ^= 0x10
    file.write_bytes(whole)


def _sound_files(run, path) -> dict[str, str]:
    files = run.digests(path)
    return {name: digest for name, digest in files.items() if not name.startswith("quarantine/")}


def test_a_good_store_is_left_as_it_is(run, good, path):
    report = repair_store(path)
    assert not report.changed
    assert (report.rows, report.foreign) == (Store.open(path).manifest.counts.rows, [])
    assert run.digests(path) == run.digests(good)


def _lose_manifest(path) -> None:
    (path / "manifest.json").unlink()


def _spoil_manifest(path) -> None:
    (path / "manifest.json").write_bytes(b"\0" * 500)


def _rename_in_manifest(path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("c0ffee", "c0ffe0"))


def _lose_marks(path) -> None:
    shutil.rmtree(path / "entries")


def _spoil_marks(path) -> None:
    for number, mark in enumerate(sorted((path / "entries").iterdir())):
        mark.write_bytes((b"", mark.read_bytes()[:-9], b"garbage", b"[]", b"{}")[number])


def _change_marks(path) -> None:
    for mark in (path / "entries").iterdir():
        mark.write_text(mark.read_text().replace('"retries": 0', '"retries": 3'))


def _lose_both(path) -> None:
    _lose_manifest(path)
    _lose_marks(path)


def _spoil_both(path) -> None:
    _spoil_manifest(path)
    _spoil_marks(path)


@pytest.mark.parametrize(
    "harm",
    [
        _lose_manifest,
        _spoil_manifest,
        _rename_in_manifest,
        _lose_marks,
        _spoil_marks,
        _change_marks,
        _lose_both,
        _spoil_both,
    ],
)
def test_manifest_and_commit_marks_are_made_again_byte_for_byte(run, good, path, harm):
    harm(path)
    assert verify_store(path, full=True) != []
    report = repair_store(path)
    assert report.quarantined == {}
    assert run.digests(path) == run.digests(good)
    assert verify_store(path, full=True) == []
    assert not repair_store(path).changed


def test_shards_for_which_nothing_vouches_are_named(path):
    _lose_both(path)
    assert len(repair_store(path).unproven) == SHARDS
    assert repair_store(path).unproven == []


def test_a_manifest_cut_at_any_byte_is_made_again(run, good, path):
    whole = (path / "manifest.json").read_bytes()
    tail = range(max(0, len(whole) - 4096), len(whole), 97)
    for length in tail:
        (path / "manifest.json").write_bytes(whole[:length])
        assert repair_store(path).rebuilt == ["manifest.json"]
        assert (path / "manifest.json").read_bytes() == whole
    assert run.digests(path) == run.digests(good)


HARMS = {
    "flipped": _flip,
    "cut": lambda shard: shard.write_bytes(shard.read_bytes()[:-100]),
    "emptied": lambda shard: shard.write_bytes(b""),
    "deleted": lambda shard: shard.unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("numbers", [(2,), (0, 4), (1, 2, 3)])
def test_damaged_shards_are_set_aside_and_only_they_are_made_again(
    run, good, path, source, harm, numbers
):
    before = run.digests(good)
    for number in numbers:
        HARMS[harm](_shard(path, number))
    report = repair_store(path)
    assert sorted(report.quarantined) == [f"t-00000{number}" for number in numbers]
    assert [len(keys) for keys in report.recompute.values()] == [
        Store.open(good).manifest.shards[number].inputs for number in numbers
    ]
    assert verify_store(path, full=True) == []
    assert Store.open(path).manifest.counts.pending == sum(map(len, report.recompute.values()))
    kept = {n: (path / "shards" / n).stat().st_mtime_ns for n in _names(path)}
    run.main(str(source), str(path), 10)
    assert _sound_files(run, path) == before
    assert {n: (path / "shards" / n).stat().st_mtime_ns for n in kept} == kept


def _names(path) -> list[str]:
    return sorted(file.name for file in (path / "shards").iterdir())


def test_shards_of_a_grown_store_are_cut_again_as_they_were(run, tmp_path):
    source = run.make_source(tmp_path / "in", 30)
    path = tmp_path / "t.store"
    run.main(str(source), str(path), 7)
    for name in ("0/a", "1/b", "2/c", "3/d"):
        (source / f"{name}.png").write_text(f"later {name}")
    run.main(str(source), str(path), 7)
    before = run.digests(path)
    for number in (1, Store.open(path).manifest.shards.__len__() - 1):
        _flip(_shard(path, number))
    repair_store(path)
    (source / "0" / "newest.png").write_text("while it was broken")
    run.main(str(source), str(path), 100)
    after = _sound_files(run, path)
    same = {name for name in before if after.get(name) == before[name]}
    assert before.keys() - same == {"manifest.json"}


def test_the_quarantine_has_the_damaged_files_and_says_why(path):
    shard = _shard(path, 2)
    _flip(shard)
    spoilt = shard.read_bytes()
    (path / "shards" / "mine.txt").write_text("notes")
    report = repair_store(path)
    case = path / "quarantine" / "t-000002.1"
    assert (case / "shards" / shard.name).read_bytes() == spoilt
    assert (case / "inputs" / "t-000002.jsonl").exists()
    assert (case / "entries" / "t-000002.json").exists()
    reason = json.loads((case / "reason.json").read_bytes())
    assert reason["problems"][0].startswith("digest: the bytes changed")
    assert len(reason["inputs"]) == 10
    assert report.foreign == ["shards/mine.txt"]
    assert (path / "shards" / "mine.txt").read_text() == "notes"


def test_a_dry_run_says_the_same_and_changes_nothing(run, path):
    _flip(_shard(path, 2))
    (path / "entries" / "t-000003.json").unlink()
    (path / "manifest.json").write_bytes(b"")
    before = run.digests(path)
    said = repair_store(path, dry_run=True)
    assert run.digests(path) == before
    assert repair_store(path) == said


def test_a_lost_list_of_inputs_is_made_from_keys_and_no_row_is_given_up(run, path, source):
    rows = StoreReader(path).column("s")
    (path / "inputs" / "t-000001.jsonl").unlink()
    _flip(path / "inputs" / "t-000002.jsonl")
    report = repair_store(path)
    assert (report.recompute, report.num_dropped) == ({}, 0)
    assert verify_store(path, full=True) == []
    assert Store.open(path).read_inputs(1)[0][1:] == (0, 0, None)
    shards = _names(path)
    run.main(str(source), str(path), 10)
    assert _names(path) == shards
    assert (StoreReader(path).column("s") == rows).all()
    assert len(list((path / "quarantine").glob("lists-of-t-000002.1/inputs/*"))) == 1


def test_inputs_of_a_lost_list_of_rejects_get_an_outcome_anew(run, path, source):
    before = Store.open(path).manifest.counts
    rejects = len(Store.open(path).read_rejects(1))
    (path / "rejects" / "t-000001.jsonl").unlink()
    report = repair_store(path)
    assert report.num_dropped == rejects > 0
    assert verify_store(path, full=True) == []
    assert Store.open(path).manifest.counts.pending == rejects
    run.main(str(source), str(path), 10)
    assert Store.open(path).manifest.counts == before
    assert verify_store(path, full=True) == []


def test_a_shard_that_lost_everything_but_itself_is_kept(run, path, source):
    before = Store.open(path).manifest.counts
    _lose_both(path)
    shutil.rmtree(path / "inputs")
    shutil.rmtree(path / "rejects")
    report = repair_store(path)
    assert (report.quarantined, report.rows) == ({}, before.rows)
    run.main(str(source), str(path), 10)
    assert Store.open(path).manifest.counts == before
    assert verify_store(path, full=True) == []


def test_an_uncommitted_shard_is_not_taken_for_one_that_lost_its_mark(path):
    copy = _shard(path, 1).with_name(f"t-000009{_shard(path, 1).suffix}")
    shutil.copy(_shard(path, 1), copy)
    assert repair_store(path).foreign == [f"shards/{copy.name}"]
    _lose_both(path)
    report = repair_store(path)
    assert "have rows in shard 1" in report.quarantined["t-000009"][0]
    assert verify_store(path, full=True) == []


def test_accounts_hold_when_the_shard_that_first_rejected_a_retried_input_is_lost(run, tmp_path):
    source = run.make_source(tmp_path / "in", 30)
    path = tmp_path / "t.store"
    run.main(str(source), str(path), 10)
    bad = Store.open(path).read_rejects(0)[0].key
    (source / bad).write_text("good at last")
    run.main(str(source), str(path), 10, retry_rejects=True)
    counts = Store.open(path).manifest.counts
    _shard(path, 0).unlink()
    repair_store(path)
    assert Store.open(path).manifest.counts.rejects >= 0
    run.main(str(source), str(path), 10)
    assert Store.open(path).manifest.counts == counts
    assert verify_store(path, full=True) == []


def test_damaged_blobs_and_a_damaged_scan_record_are_set_aside(run, path, source):
    before = run.digests(path)
    for name in ("kept", "spoilt"):
        write_blob(Store.open(path), name, b"12345", {})
    (path / "blobs" / "spoilt").write_bytes(b"12x45")
    (path / "rejects" / "scan.jsonl").write_bytes(b"{")
    report = repair_store(path)
    assert set(report.quarantined) == {"blobs/spoilt", "rejects/scan.jsonl"}
    assert verify_store(path, full=True) == []
    assert read_blob(Store.open(path), "kept") == b"12345"
    with pytest.raises(StoreError, match="it has: kept"):
        read_blob(Store.open(path), "spoilt")
    (path / "blobs" / "blobs.json").write_bytes(b"")
    assert repair_store(path).foreign == ["blobs/kept"]
    run.main(str(source), str(path), 10)
    files = _sound_files(run, path)
    assert {name: files[name] for name in before} == before


def test_a_repair_waits_for_no_run_and_says_which_one_is_there(path):
    with Store.open(path).lock(), pytest.raises(StoreBusyError):
        repair_store(path)
    _flip(_shard(path, 2))
    with Store.open(path).lock():
        assert "t-000002" in repair_store(path, dry_run=True).quarantined


def test_a_folder_with_nothing_to_repair_from_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="neither a shard nor the manifest"):
        repair_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_lost_its_table_is_not_written_over_by_a_new_one(run, path, source):
    _lose_both(path)
    before = run.digests(path)
    with pytest.raises(StoreError, match="store repair"):
        run.main(str(source), str(path), 10)
    assert run.digests(path) == before
