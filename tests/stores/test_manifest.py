import json
import time
from pathlib import Path

import pytest

from stores.errors import ManifestError
from stores.manifest import Header, Manifest, ShardEntry, parse_entry, parse_manifest
from stores.schema import Column, Schema
from stores.store import Store

HEADER = Header(
    name="a",
    schema=Schema((Column("clip", (4,), "float32"),)),
    fingerprints={"clip": "aa"},
    eval_fraction=0.1,
)
PATH = Path("manifest.json")


def _entry(number: int, **changes) -> ShardEntry:
    values = {
        "name": f"a-{number:06d}",
        "number": number,
        "rows": 8,
        "rejects": 2,
        "inputs": 10,
        "size_bytes": 1000,
        "sha256": f"{number:064x}",
        "inputs_sha256": f"{number:064x}",
        "first_key": f"{number}",
        "last_key": f"{number}ü\n",
    }
    return ShardEntry(**values | changes)


def _manifest(*entries: ShardEntry) -> Manifest:
    shards = {entry.number: entry for entry in entries}
    return Manifest(header=HEADER, shards=shards, scan_rejects=3, scan_duplicates=4)


def test_a_manifest_survives_its_bytes():
    manifest = _manifest(_entry(0), _entry(1, rejects_sha256="ff"))
    assert parse_manifest(manifest.to_bytes(), PATH) == manifest
    assert parse_manifest(_manifest().to_bytes(), PATH) == _manifest()


def test_the_file_names_what_a_reader_needs():
    value = json.loads(_manifest(_entry(0)).to_bytes())
    assert value["schema"] == [{"name": "clip", "shape": [4], "dtype": "float32"}]
    assert value["fingerprints"] == {"clip": "aa"}
    assert {"name", "rows", "bytes", "sha256"} <= value["shards"][0].keys()
    assert value["split"]["eval_fraction"] == 0.1


def test_rows_rejects_and_duplicates_add_up_to_inputs():
    counts = _manifest(_entry(0), _entry(1, retries=2, rows=9, rejects=1)).counts
    assert (counts.rows, counts.rejects, counts.duplicates) == (17, 4, 4)
    assert counts.inputs == counts.rows + counts.rejects + counts.duplicates


def test_an_entry_that_does_not_add_up_is_refused():
    with pytest.raises(ManifestError, match="8 rows \\+ 2 rejects do not account for 11 inputs"):
        parse_entry(_entry(0, inputs=11).to_bytes(), PATH)
    with pytest.raises(ManifestError, match="12 of them retried"):
        parse_manifest(_manifest(_entry(0, retries=12)).to_bytes(), PATH)


def test_another_version_is_refused_before_it_is_read():
    value = {"format": "deltaedit-store", "version": 99}
    with pytest.raises(ManifestError, match="version 99; this program reads"):
        parse_manifest(json.dumps(value).encode(), PATH)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"number": 1}', b"\xff"])
def test_a_damaged_commit_mark_is_refused(data):
    with pytest.raises(ManifestError, match="commit mark"):
        parse_entry(data, Path("entries/a-000000.json"))


def test_the_digest_follows_the_rows_alone():
    manifest = _manifest(_entry(0))
    assert manifest.digest == _manifest(_entry(0)).digest
    assert manifest.digest != _manifest(_entry(0, sha256="0")).digest
    assert manifest.digest != _manifest(_entry(0), _entry(1)).digest


def test_the_split_follows_the_key_alone_and_has_the_share_asked_for():
    held_out = [HEADER.is_eval(f"{i}.png") for i in range(20_000)]
    assert sum(held_out) / len(held_out) == pytest.approx(0.1, abs=0.01)
    assert held_out[:50] == [HEADER.is_eval(f"{i}.png") for i in range(50)]


@pytest.mark.slow
def test_a_store_of_a_hundred_thousand_shards_opens_in_seconds(tmp_path):
    store = Store.create(
        tmp_path / "a", schema=HEADER.schema, fingerprints=HEADER.fingerprints, split_eval=0.1
    )
    manifest = Manifest(header=store.header, shards={i: _entry(i) for i in range(100_000)})
    (store.path / "manifest.json").write_bytes(manifest.to_bytes())
    for number in range(100_000):
        store.layout.entry(number).touch()
    start = time.perf_counter()
    assert len(Store.open(tmp_path / "a").manifest.shards) == 100_000
    assert time.perf_counter() - start < 10  # about 1 s on an idle machine
