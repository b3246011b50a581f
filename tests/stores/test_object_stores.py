"""The life of a store wherever it is: a folder, `file://`, `memory://`, or S3."""

import hashlib
import multiprocessing
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest

from stores.blobs import blob_path, damaged_blobs, list_blobs, read_blob, write_blob
from stores.errors import (
    ManifestError,
    ObjectStoreError,
    OutOfSpaceError,
    ShardCorruptError,
    StoreBusyError,
)
from stores.places import ObjectPath, name_below, store_path
from stores.reader import StoreReader
from stores.store import Store
from stores.verify import verify_store

NUM_FILES, SHARD_ROWS = 30, 8
RUN = "os.environ.update(env)\nfrom stores.places import store_path\n"
RUN += "run.main(source, store_path(url, cache), rows, locked=locked)"


@pytest.fixture(scope="module")
def source(run, tmp_path_factory):
    return str(run.make_source(tmp_path_factory.mktemp("source"), NUM_FILES))


@pytest.fixture(scope="module")
def reference(run, source, tmp_path_factory):
    """The store that an undisturbed run makes in a folder."""
    path = tmp_path_factory.mktemp("reference") / "a.store"
    run.main(source, path, SHARD_ROWS)
    return path


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


@pytest.fixture
def bucket(s3, tmp_path):
    return ObjectPath(f"s3://{s3.new_bucket()}", tmp_path / "cache")


@pytest.fixture
def launch(start, s3, source):
    """Start a run in a process of its own."""
    started = []

    def launch_run(path: ObjectPath, source=source, rows=SHARD_ROWS, *, locked=True):
        names = {"source": source, "url": path.url, "cache": path.cache, "rows": rows}
        started.append(start(RUN, **names, locked=locked, env=s3.env))
        return started[-1]

    yield launch_run
    for process in started:
        process.kill()
        process.join()


def digests(run, path) -> dict[str, str]:
    if isinstance(path, Path):
        return run.digests(path)
    return {
        name_below(file, path): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.walk_files()
        if not file.parent.name.endswith(".lock")
    }


def test_a_store_has_the_same_files_wherever_it_is(run, source, reference, place):
    run.main(source, place, SHARD_ROWS)
    expected = run.digests(reference)
    assert digests(run, place) == expected
    run.main(source, place, SHARD_ROWS)
    assert digests(run, place) == expected
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


def test_a_lost_manifest_is_made_again_wherever_it_was(run, source, reference, place):
    run.main(source, place, SHARD_ROWS)
    (place / "manifest.json").unlink()
    assert Store.open(place).manifest.shards == Store.open(reference).manifest.shards
    run.main(source, place, SHARD_ROWS)
    assert digests(run, place) == run.digests(reference)


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


def test_a_second_run_is_refused_while_the_first_lives(run, source, bucket, launch, s3):
    """The first is held up in its first upload."""
    path = bucket / "a.store"
    held, over = [], []

    def hold_up(environ):
        if environ["REQUEST_METHOD"] == "PUT" and "/shards/" in environ["PATH_INFO"]:
            held.append(environ)
            while not over:
                time.sleep(0.05)

    s3.hook = hold_up
    process = launch(path)
    while not held:
        assert process.is_alive()
        time.sleep(0.05)
    with pytest.raises(StoreBusyError, match=f"process {process.pid} on host"):
        run.main(source, path, SHARD_ROWS)
    over.append(True)
    process.join()
    assert process.exitcode == 0


def test_processes_that_commit_the_same_shards_at_once_do_not_disturb_each_other(
    run, reference, bucket, launch
):
    path = bucket / "a.store"
    Store.create(path, name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS, split_eval=0.25)
    processes = [launch(path, locked=False) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert digests(run, path) == run.digests(reference)
    assert verify_store(path, full=True) == []


def _kill_at_request(number: int, path: ObjectPath, launch, s3) -> bool:
    """Kill a run when the server gets its request `number`; whether it came so far."""
    seen, process = [], None

    def kill(_environ):
        seen.append(1)
        if len(seen) == number:
            while process is None:
                time.sleep(0.01)
            process.kill()

    s3.hook = kill
    process = launch(path)
    process.join()
    s3.hook = None
    assert process.exitcode in {0, -9}
    return process.exitcode == -9


@pytest.fixture
def kill_and_resume(run, source, reference, bucket, launch, s3):
    """Kill a run at a request, then resume it; whether it came so far."""

    def kill(number: int) -> bool:
        path = bucket / f"{number}.store"
        killed = _kill_at_request(number, path, launch, s3)
        assert {p.kind for p in _problems(path)} <= {"leftover", "account"}
        run.main(source, path, SHARD_ROWS)
        assert digests(run, path) == run.digests(reference)
        assert verify_store(path, full=True) == []
        return killed

    return kill


def _problems(path: ObjectPath) -> list:
    try:
        Store.open(path)
    except ManifestError:
        return []  # killed before there was a store
    return verify_store(path, full=True)


def test_a_run_killed_at_some_requests_and_resumed_makes_the_same_files(kill_and_resume):
    numbers = random.Random(4).sample(range(10, 50), 3)  # noqa: S311 - instants, not secrets
    assert sum(kill_and_resume(number) for number in numbers) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_at_any_request_and_resumed_makes_the_same_files(kill_and_resume):
    number = 1
    while kill_and_resume(number):
        number += 1
    assert number > 40


@pytest.mark.parametrize(
    ("answer", "error"),
    [("403 AccessDenied", ObjectStoreError), ("507 QuotaExceeded", OutOfSpaceError)],
)
def test_an_object_store_that_refuses_loses_nothing(  # noqa: PLR0917 - parameters and fixtures
    run, source, reference, bucket, s3, answer, error
):
    path, marks = bucket / "a.store", []

    def refuse(environ):
        marks.append("PUT" in environ["REQUEST_METHOD"] and "/entries/" in environ["PATH_INFO"])
        return answer if sum(marks) > 1 else None

    s3.hook = refuse
    with pytest.raises(error, match=r"s3://.*(credentials|run the same command again)"):
        run.main(source, path, SHARD_ROWS)
    s3.hook = None
    assert list(Store.open(path).manifest.shards) == [0]
    (lease,) = (path / "driver.lock").iterdir()
    lease.unlink()  # it could not be given back, and its holder, this process, still lives
    run.main(source, path, SHARD_ROWS)
    assert digests(run, path) == run.digests(reference)
