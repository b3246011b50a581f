"""What can happen to a run into an object store: kills, races, refusals; real processes."""

import random
import time

import pytest

from stores.errors import ManifestError, ObjectStoreError, OutOfSpaceError, StoreBusyError
from stores.places import ObjectPath
from stores.store import Store
from stores.verify import verify_store

SHARD_ROWS = 8


@pytest.fixture
def same_files(run, digests, reference):
    """Check that a store has the files of an undisturbed run, byte for byte."""

    def check(path: ObjectPath) -> None:
        assert digests(path) == run.digests(reference)

    return check


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
    same_files, run, bucket, launch
):
    path = bucket / "a.store"
    Store.create(path, name="t", schema=run.SCHEMA, fingerprints=run.FINGERPRINTS, split_eval=0.25)
    processes = [launch(path, locked=False) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    same_files(path)
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
def kill_and_resume(same_files, run, source, bucket, launch, s3):
    """Kill a run at a request, then resume it; whether it came so far."""

    def kill(number: int) -> bool:
        path = bucket / f"{number}.store"
        killed = _kill_at_request(number, path, launch, s3)
        assert {p.kind for p in _problems(path)} <= {"leftover", "account"}
        run.main(source, path, SHARD_ROWS)
        same_files(path)
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
    same_files, run, source, bucket, s3, answer, error
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
    same_files(path)
