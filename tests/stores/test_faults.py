"""What can happen to a run from outside: real processes, real signals, real full disks."""

import os
import random
import subprocess
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from stores.errors import ManifestError
from stores.store import Store
from stores.verify import verify_store

pytestmark = pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"], indirect=True)

NUM_SHARDS = 5
"""Of the runs that are killed: 50 files of which 2 copies are left out, 10 a shard."""


def _undisturbed(
    run, tmp_path: Path, num_files: int, shard_rows: int
) -> tuple[Path, dict[str, str]]:
    source = run.make_source(tmp_path / "source", num_files)
    run.main(str(source), str(tmp_path / "reference.store"), shard_rows)
    return source, run.digests(tmp_path / "reference.store")


def _kill(process: BaseProcess) -> bool:
    """Whether the process was alive to be killed."""
    process.kill()
    process.join()
    if process.exitcode not in {0, -9}:
        pytest.fail(f"the run failed by itself with exit code {process.exitcode}")
    return process.exitcode == -9


def _kill_at_random_instants(run, start, tmp_path: Path, num_kills: int) -> None:
    source, expected = _undisturbed(run, tmp_path, 50, 10)
    instants = random.Random(20)  # noqa: S311 - instants, not secrets
    kills = rounds = half_way = 0
    while kills < num_kills:
        path = tmp_path / f"killed-{rounds}.store"
        rounds += 1
        committed: set[int] = set()
        for _ in range(10):
            process = start("run.main(source, path, 10)", source=str(source), path=str(path))
            if instants.random() < 0.8:
                _wait_for_commits(process, path, instants.randrange(NUM_SHARDS))
            time.sleep(instants.uniform(0.0, 0.05))
            if not _kill(process):
                break
            kills += 1
            committed = _check_after_kill(path, committed)
            half_way += 0 < len(committed) < NUM_SHARDS
        run.main(str(source), str(path), 10)
        assert run.digests(path) == expected
        assert verify_store(path, full=True) == []
    assert half_way, "every kill came before the first commit or after the last"


def _wait_for_commits(process: BaseProcess, path: Path, num_commits: int) -> None:
    """Until the process drives the store and has so many shards, or has ended."""
    lock = path / "driver.lock"
    while process.is_alive():
        drives = lock.exists() and f": {process.pid}" in lock.read_text()
        if drives and len(list((path / "entries").glob("*.json"))) >= num_commits:
            return
        time.sleep(0.001)


def _check_after_kill(path: Path, committed: set[int]) -> set[int]:
    """Nothing committed is lost, nothing half made is taken for whole."""
    try:
        shards = set(Store.open(path).manifest.shards)
    except ManifestError:
        assert not committed
        return committed
    assert committed <= shards
    assert {problem.kind for problem in verify_store(path, full=True)} <= {"leftover", "account"}
    return shards


def test_a_run_killed_at_random_instants_and_resumed_makes_the_same_files(run, start, tmp_path):
    _kill_at_random_instants(run, start, tmp_path, 10)


@pytest.mark.slow
def test_a_run_killed_at_a_hundred_random_instants_makes_the_same_files(run, start, tmp_path):
    _kill_at_random_instants(run, start, tmp_path, 100)


def test_processes_that_commit_the_same_shards_at_once_do_not_disturb_each_other(
    run, start, tmp_path
):
    source, expected = _undisturbed(run, tmp_path, 30, 5)
    path = tmp_path / "shared.store"
    Store.create(
        path,
        name="t",
        schema=run.SCHEMA,
        fingerprints=run.FINGERPRINTS,
        split_eval=0.25,
        shard_format=run.SHARD_FORMAT,
    )
    code = "run.main(source, path, 5, locked=False)"
    processes = [start(code, source=str(source), path=str(path)) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert run.digests(path) == expected
    assert verify_store(path, full=True) == []


def test_a_file_size_limit_is_no_room_and_the_run_resumes_when_it_is_lifted(run, start, tmp_path):
    source, expected = _undisturbed(run, tmp_path, 60, 20)
    path, said = tmp_path / "starved.store", tmp_path / "said"
    code = """
from stores.errors import OutOfSpaceError
limit = resource.RLIMIT_FSIZE
resource.setrlimit(limit, (9000, 9000))
try:
    run.main(source, path, 20)
except OutOfSpaceError as error:
    os.pwrite(said, str(error).encode(), 0)
"""
    descriptor = os.open(said, os.O_RDWR | os.O_CREAT)
    os.close(descriptor)
    code = code.replace("os.pwrite(said", "os.pwrite(os.open(said, os.O_WRONLY)")
    process = start(code, source=str(source), path=str(path), said=str(said))
    process.join()
    message = said.read_text()
    assert "t-000000" in message
    assert "bytes needed" in message
    assert "Everything committed before is safe" in message
    assert list(path.rglob("*.tmp")) == []
    run.main(str(source), str(path), 20)
    assert run.digests(path) == expected


def test_a_full_disk_loses_nothing_and_the_run_resumes_when_there_is_room(run, start, tmp_path):
    source, expected = _undisturbed(run, tmp_path, 60, 5)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        _fill_disk_and_resume(run, start, source, disk, tmp_path / "said")
        assert run.digests(disk / "a.store") == expected
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _fill_disk_and_resume(run, start, source: Path, disk: Path, said: Path) -> None:
    path = disk / "a.store"
    code = """
from stores.errors import OutOfSpaceError
try:
    run.main(source, path, 5)
except OutOfSpaceError as error:
    open(said, "w").write(str(error))
"""
    process = start(code, source=str(source), path=str(path), said=str(said))
    process.join()
    assert "no room to write" in said.read_text()
    committed = run.digests(path)
    assert any(name.startswith("entries/") for name in committed)
    assert Store.open(path).manifest.shards
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    run.main(str(source), str(path), 5)
    kept = {n: d for n, d in committed.items() if n.startswith(("entries/", "shards/"))}
    assert kept.items() <= run.digests(path).items()
