import shutil

import numpy as np
import pytest

from stores.blobs import write_blob
from stores.checksum import sha256_bytes
from stores.formats.registry import shard_format as format_named
from stores.plan import ShardPlan
from stores.sources import SourceItem
from stores.store import Store
from stores.verify import verify_store
from stores.writer import ShardWriter

pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)


@pytest.fixture(scope="module")
def good(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    source = run.make_source(folder / "in", 40)
    (source / "dead.png").symlink_to("nowhere")
    run.main(str(source), str(folder / "t.store"), 10)
    write_blob(Store.open(folder / "t.store"), "stats.npz", b"12345", {})
    return folder / "t.store"


@pytest.fixture
def path(good, tmp_path):
    return shutil.copytree(good, tmp_path / "t.store")


def _found(path, *, full: bool) -> list[tuple[str, str]]:
    return [(problem.file, problem.kind) for problem in verify_store(path, full=full)]


def test_a_good_store_has_no_problems(path):
    assert verify_store(path, full=False) == []
    assert verify_store(path, full=True) == []


@pytest.mark.parametrize("place", [0.02, 0.5, 0.9])
def test_a_flipped_byte_is_found_wherever_it_is(path, place):
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".lock"):
        whole = file.read_bytes()
        at = int(len(whole) * place)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert verify_store(path, full=True) != [], f"byte {at} of {file}"
        file.write_bytes(whole)
    assert verify_store(path, full=True) == []


@pytest.mark.parametrize("full", [False, True])
def test_a_cut_shard_is_found(run, path, full):
    shard = path / run.shard_file(1)
    shard.write_bytes(shard.read_bytes()[:-1])
    assert _found(path, full=full) == [(run.shard_file(1), "size")]


@pytest.mark.parametrize("folder", ["shards", "inputs", "rejects"])
def test_a_missing_file_is_found(path, folder):
    (file,) = (path / folder).glob("t-000001.*")
    file.unlink()
    assert (f"{folder}/{file.name}", "missing") in _found(path, full=False)


def test_a_missing_commit_mark_is_found(path):
    (path / "entries" / "t-000001.json").unlink()
    assert ("entries/t-000001.json", "missing") in _found(path, full=False)


def test_a_missing_blob_and_a_missing_scan_record_are_found(path):
    (path / "blobs" / "stats.npz").unlink()
    (path / "rejects" / "scan.jsonl").unlink()
    assert _found(path, full=True) == [
        ("rejects/scan.jsonl", "account"),
        ("blobs/stats.npz", "missing"),
    ]


def test_files_that_do_not_belong_are_found_and_left_alone(run, path):
    (path / "shards" / "notes.txt").write_text("mine")
    (path / run.shard_file(99)).write_text("never committed")
    (path / "shards" / ".t-000098.h5.1-ab.tmp").write_text("killed")
    assert _found(path, full=False) == [
        ("shards/.t-000098.h5.1-ab.tmp", "leftover"),
        ("shards/notes.txt", "extra"),
        (run.shard_file(99), "leftover"),
    ]
    assert (path / "shards" / "notes.txt").read_text() == "mine"


def test_shards_that_changed_places_are_found(run, path):
    first, second = path / run.shard_file(0), path / run.shard_file(1)
    first.rename(path / "x")
    second.rename(first)
    (path / "x").rename(second)
    kinds = {kind for _, kind in _found(path, full=True)}
    assert kinds & {"digest", "size"}


def test_a_shard_of_another_store_and_values_that_are_not_finite_are_found(run, path):
    file, store = run.shard_file(1), Store.open(path)
    shards, schema = format_named(store.header.shard_format), store.header.schema
    columns = shards.map_shard(path / file, schema, store.manifest.shards[1].rows)
    keys = [key.decode() for key in columns.pop("key").tolist()]
    rows = {name: np.array(column) for name, column in columns.items()}
    rows["s"][0, 0, 0] = float("nan")
    header = store.header.to_json() | {"fingerprints": {"clip": "c0ffe3"}}
    with (path / file).open("wb") as forged:
        shards.write_shard(forged, keys, rows, schema, header)
    found = _found(path, full=True)
    assert (file, "digest") in found or (file, "size") in found
    Store.open(path).layout.entry(1).write_bytes(_entry_of(path, 1))
    Store.open(path).consolidate()
    (path / "manifest.json").unlink()
    Store.open(path).consolidate()
    found = _found(path, full=True)
    assert (file, "values") in found
    assert (file, "structure") in found


def _entry_of(path, number: int) -> bytes:
    """The commit mark that a forger would write: with the size and digest of the file there is."""
    import hashlib

    store = Store.open(path)
    entry, data = store.manifest.shards[number], store.layout.shard(number).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return entry._replace(size_bytes=len(data), sha256=digest).to_bytes()


def test_a_key_in_two_shards_is_found(run, path):
    store = Store.open(path)
    entry = store.manifest.shards[0]
    for of in (store.layout.shard, store.layout.inputs, store.layout.rejects):
        shutil.copy(of(0), of(9))
    mark = store.layout.entry(0).read_text()
    mark = mark.replace("t-000000", "t-000009").replace('"number": 0', '"number": 9')
    store.layout.entry(9).write_text(mark)
    found = _found(path, full=True)
    assert found.count((run.shard_file(9), "duplicate_key")) == entry.rows


@pytest.mark.parametrize("data", [b"", b"{}", b"not json"])
def test_a_damaged_manifest_is_a_problem_and_not_a_crash(path, data):
    (path / "manifest.json").write_bytes(data)
    assert _found(path, full=True) == [("manifest.json", "structure")]


def test_rows_of_length_0_are_found_in_columns_of_directions(run, tmp_path):
    store = Store.create(
        tmp_path / "t.store", name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS
    )
    writer = ShardWriter(store, ShardPlan(0, (SourceItem("a"), SourceItem("b"))))
    rows = {
        name: np.concatenate([run.row_of(k, b"")[name] for k in "ab"]) for name in ("clip", "s")
    }
    rows["clip"][1] = rows["s"][0] = 0
    writer.add(["a", "b"], rows)
    writer.commit()
    store.consolidate()
    assert verify_store(store.path, full=True) == []
    problem, *others = verify_store(store.path, full=True, directions=("clip",))
    assert others == []
    assert (problem.kind, problem.detail) == (
        "values",
        "column clip has 1 rows of length 0, which have no direction",
    )


def test_large_values_are_finite(run, tmp_path):
    store = Store.create(
        tmp_path / "t.store", name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS
    )
    writer = ShardWriter(store, ShardPlan(0, (SourceItem("a"),)))
    rows = run.row_of("a", b"")
    rows["s"][:] = np.finfo("float32").max
    writer.add(["a"], rows)
    writer.commit()
    store.consolidate()
    assert verify_store(store.path, full=True) == []


def test_verifying_changes_nothing(run, path):
    before = run.digests(path)
    verify_store(path, full=True)
    assert run.digests(path) == before


def test_a_list_that_was_forged_with_its_mark_is_found(run, path):
    store = Store.open(path)
    for number, data in ((1, b"no list"), (2, store.layout.inputs(0).read_bytes())):
        store.layout.inputs(number).write_bytes(data)
        entry = store.manifest.shards[number]._replace(inputs_sha256=sha256_bytes(data))
        store.layout.entry(number).write_bytes(entry.to_bytes())
    (path / "manifest.json").unlink()
    store.consolidate()
    assert _found(path, full=True) == [
        (run.shard_file(1), "structure"),
        (run.shard_file(2), "account"),
    ]
