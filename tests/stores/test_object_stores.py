"""The life of a store wherever it is: a folder, `file://`, `memory://`, or S3."""

import multiprocessing
import re
from collections import Counter

import numpy as np
import pytest

from stores.blobs import blob_path, damaged_blobs, list_blobs, read_blob, write_blob
from stores.errors import (
    ManifestError,
    ShardCorruptError,
)
from stores.merge import merge_stores
from stores.places import ObjectPath, store_path
from stores.reader import StoreReader
from stores.repair import repair_store
from stores.store import Store
from stores.verify import verify_store

NUM_FILES, SHARD_ROWS = 30, 8


@pytest.fixture(params=["local", "file", "memory", "s3"])
def place(request, tmp_path):
    urls = {
        "local": f"{tmp_path}/a.store",
        "file": f"file://{tmp_path}/a.store",
        "memory": f"memory://{tmp_path.name}/a.store",
    }
    if request.param == "s3":
        return request.getfixturevalue("bucket") / "a.store"
    return store_path(urls[request.param], tmp_path / "cache")


def test_a_store_has_the_same_files_wherever_it_is(run, digests, source, reference, place):
    run.main(source, place, SHARD_ROWS)
    expected = run.digests(reference)
    assert digests(place) == expected
    run.main(source, place, SHARD_ROWS)
    assert digests(place) == expected
    assert verify_store(place, full=True) == []
    assert verify_store(place, full=False) == []


def test_rows_are_the_same_wherever_they_are(run, source, reference, place):
    run.main(source, place, SHARD_ROWS)
    reader, expected = StoreReader(place), StoreReader(reference)
    assert (reader.path, reader.keys) == (place, expected.keys)
    chosen = np.random.default_rng(0).integers(0, len(reader), 40)
    for name in ("clip", "s"):
        np.testing.assert_array_equal(
            reader.rows(chosen, [name])[name], expected.rows(chosen, [name])[name]
        )
        np.testing.assert_array_equal(reader.column(name), expected.column(name))
    assert list(reader.rejects()) == list(expected.rejects())


def test_counts_are_known_without_rows(run, source, reference, place):
    run.main(source, place, SHARD_ROWS)
    reader = StoreReader(place)
    assert reader.num_eval_rows == StoreReader(reference).eval_mask.sum() > 0
    assert not (isinstance(place, ObjectPath) and place.cache.exists())


def test_blobs_are_kept_and_replaced_wherever_they_are(run, source, place):
    run.main(source, place, SHARD_ROWS)
    store = Store.open(place)
    for data in (b"first", b"other"):  # of one length: told apart by their digests alone
        write_blob(store, "index.faiss", data, {"rows": store.manifest.digest})
        assert read_blob(store, "index.faiss") == data
        assert blob_path(store, "index.faiss").read_bytes() == data
    assert list(list_blobs(store)) == ["index.faiss"]
    assert damaged_blobs(store) == {}
    (place / "blobs" / "index.faiss").write_bytes(b"wrong")
    assert list(damaged_blobs(store)) == ["index.faiss"]


def test_a_lost_manifest_is_made_again_wherever_it_was(run, digests, source, reference, place):
    run.main(source, place, SHARD_ROWS)
    (place / "manifest.json").unlink()
    assert Store.open(place).manifest.shards == Store.open(reference).manifest.shards
    run.main(source, place, SHARD_ROWS)
    assert digests(place) == run.digests(reference)


def test_damage_is_found_wherever_it_is(run, source, place):
    run.main(source, place, SHARD_ROWS)
    shard, lost = place / "shards" / "t-000000.h5", place / "shards" / "t-000001.h5"
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    shard.write_bytes(bytes(data))
    lost.unlink()
    (place / "shards" / "foreign.txt").write_bytes(b"")
    (place / "shards" / "t-000099.h5").write_bytes(b"")
    problems = {(problem.file, problem.kind) for problem in verify_store(place, full=True)}
    assert problems == {
        ("shards/t-000000.h5", "digest"),
        ("shards/t-000001.h5", "missing"),
        ("shards/foreign.txt", "extra"),
        ("shards/t-000099.h5", "leftover"),
    }
    with pytest.raises(ShardCorruptError, match=r"t-00000[01]\.h5"):
        StoreReader(place).column("clip")


def test_a_damaged_store_is_repaired_and_made_whole_wherever_it_is(
    run, digests, source, reference, place
):
    run.main(source, place, SHARD_ROWS)
    shard = place / "shards" / "t-000001.h5"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    (place / "manifest.json").unlink()
    (place / "entries" / "t-000000.json").unlink()
    report = repair_store(place)
    assert list(report.quarantined) == ["t-000001"]
    aside = place / "quarantine" / "t-000001.1" / "shards" / "t-000001.h5"
    assert (aside.read_bytes(), shard.exists()) == (data[:-1], False)
    run.main(source, place, SHARD_ROWS)
    made = {name: digest for name, digest in digests(place).items() if "quarantine/" not in name}
    assert made == run.digests(reference)
    assert verify_store(place, full=True) == []


def test_stores_are_merged_wherever_they_are(run, reference, place, tmp_path):
    other = run.make_source(tmp_path / "others", 45)
    for image in sorted(other.rglob("*.png"))[:NUM_FILES]:
        image.unlink()
    run.main(str(other), tmp_path / "other.store", SHARD_ROWS)
    report = merge_stores([reference, tmp_path / "other.store"], place)
    assert report.counts.rows == len(StoreReader(place)) > len(StoreReader(reference))
    assert verify_store(place, full=True) == []


def test_a_folder_that_is_no_store_is_refused_wherever_it_is(place):
    with pytest.raises(ManifestError, match="is not a store"):
        StoreReader(place)


def test_rows_are_fetched_once_and_a_changed_object_is_refused(run, source, bucket, s3):
    path = bucket / "a.store"
    run.main(source, path, SHARD_ROWS)
    fetched = []
    s3.hook = lambda environ: fetched.append(environ["PATH_INFO"])
    for _ in range(3):
        StoreReader(path).column("clip")
    shards = [place for place in fetched if place.endswith(".h5")]
    assert len(set(shards)) == len(Store.open(path).manifest.shards)
    per_shard = len(shards) / len(set(shards))
    assert per_shard <= 2, "a size and the bytes, once"
    (path / "shards" / "t-000000.h5").write_bytes(b"changed")
    for copy in path.cache.rglob("*t-000000.h5"):
        copy.unlink()
    with pytest.raises(ShardCorruptError, match="has the digest"):
        StoreReader(path).column("clip")


def _sum_of_rows(reader: StoreReader, answers) -> None:
    answers.put(float(reader.column("clip").sum()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_work_in_other_processes(run, source, bucket, method):
    run.main(source, bucket / "a.store", SHARD_ROWS)
    reader = StoreReader(bucket / "a.store")
    expected = float(reader.column("clip").sum())
    for copy in reader.path.cache.rglob("*.h5"):
        copy.unlink()
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=_sum_of_rows, args=(reader, answers))
    process.start()
    assert answers.get(timeout=60) == expected
    process.join()


def test_a_listing_and_no_request_an_entry_open_a_consolidated_store(run, source, bucket, s3):
    run.main(source, bucket / "a.store", SHARD_ROWS)
    asked = []
    s3.hook = lambda environ: asked.append(environ["PATH_INFO"] + environ["QUERY_STRING"])
    Store.open(bucket / "a.store")
    assert not [place for place in asked if re.search(r"entries/.*json", place)]
    assert len(asked) <= 5


def test_a_full_verify_fetches_every_file_once(run, source, bucket, s3):
    run.main(source, bucket / "a.store", SHARD_ROWS)
    fetched = Counter()

    def count(environ) -> None:
        # Of what can be large; a listing is a GET of the bucket itself.
        if environ["REQUEST_METHOD"] == "GET" and re.search(r"\.(h5|jsonl)$", environ["PATH_INFO"]):
            fetched[environ["PATH_INFO"]] += 1

    s3.hook = count
    assert verify_store(bucket / "a.store", full=True) == []
    shards = [name for name in fetched if name.endswith(".h5")]
    assert len(shards) == len(Store.open(bucket / "a.store").manifest.shards)
    assert {name for name, times in fetched.items() if times > 1} == set()
