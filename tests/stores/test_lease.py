import json
import logging
import threading
import time

import pytest

from stores.errors import ObjectStoreError, StoreBusyError
from stores.lease import leased
from stores.places import ObjectPath

HOLD = """
os.environ.update(env)
from pathlib import Path
from stores.lease import leased
from stores.places import ObjectPath
with leased(ObjectPath(url), wait=False, expire_s=3.0):
    Path(held).touch()
    signal.pause()
"""


@pytest.fixture
def prefix(tmp_path):
    return ObjectPath(f"memory://{tmp_path.name}/a.store/driver.lock")


@pytest.fixture
def remote(s3):
    return ObjectPath(f"s3://{s3.new_bucket()}/a.store/driver.lock")


@pytest.fixture
def hold(start, s3, remote, tmp_path):
    """Start a process that holds the lease until it is killed."""
    processes = []

    def hold_lease():
        held = tmp_path / "held"
        process = start(HOLD, url=str(remote), env=s3.env, held=str(held))
        processes.append(process)
        while not held.exists():
            assert process.is_alive()
            time.sleep(0.02)
        return process

    yield hold_lease
    for process in processes:
        process.kill()
        process.join()


def test_a_lease_is_free_after_its_block(prefix):
    for _ in range(2):
        with leased(prefix, wait=False):
            assert len(list(prefix.iterdir())) == 1
        assert not prefix.exists()


def test_the_second_is_told_who_holds_the_lease(hold, remote):
    process = hold()
    with (
        pytest.raises(StoreBusyError, match=rf"a\.store is in use by process {process.pid} on"),
        leased(remote, wait=False, expire_s=3.0),
    ):
        pytest.fail("two hold one lease")


def test_a_killed_holder_of_this_machine_is_known_to_be_dead(hold, remote, caplog):
    process = hold()
    process.kill()
    process.join()
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING), leased(remote, wait=False, expire_s=60.0):
        assert time.monotonic() - begin < 20
    assert f"process {process.pid}" in caplog.text


def test_a_lease_of_another_machine_is_taken_over_when_it_was_not_renewed(prefix):
    holder = {"host": "far", "pid": 1, "machine": "another", "renewals": 0}
    (prefix / "aaaa").write_bytes(json.dumps(holder).encode())
    begin = time.monotonic()
    with leased(prefix, wait=False, expire_s=1.0):
        assert time.monotonic() - begin >= 1.0
        assert not (prefix / "aaaa").exists()


def test_a_lease_of_another_machine_is_respected_while_it_is_renewed(prefix):
    def renew() -> None:
        for renewals in range(20):
            holder = {"host": "far", "pid": 1, "machine": "another", "renewals": renewals}
            (prefix / "aaaa").write_bytes(json.dumps(holder).encode())
            time.sleep(0.1)

    thread = threading.Thread(target=renew)
    thread.start()
    while not (prefix / "aaaa").exists():
        time.sleep(0.01)
    with (
        pytest.raises(StoreBusyError, match="process 1 on host far"),
        leased(prefix, wait=False, expire_s=1.0),
    ):
        pytest.fail("two hold one lease")
    thread.join()


def test_who_waits_gets_the_lease_when_it_is_given_back(prefix):
    order = []

    def wait() -> None:
        with leased(prefix, wait=True):
            order.append("second")

    with leased(prefix, wait=False):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(1.0)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_many_who_come_at_once_hold_it_one_after_the_other(prefix):
    holders = []
    most = []

    def hold_briefly(number: int) -> None:
        with leased(prefix, wait=True):
            holders.append(number)
            most.append(len(holders))
            time.sleep(0.05)
            holders.remove(number)

    threads = [threading.Thread(target=hold_briefly, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_a_holder_that_was_taken_for_dead_notices(prefix, caplog):
    with caplog.at_level(logging.WARNING), leased(prefix, wait=False, expire_s=0.6):
        next(prefix.iterdir()).unlink()
        time.sleep(0.5)
        assert not prefix.exists()
    assert "was taken over" in caplog.text


def test_a_lease_that_says_nothing_readable_is_still_one(prefix):
    (prefix / "aaaa").write_bytes(b"\xff")
    begin = time.monotonic()
    with leased(prefix, wait=False, expire_s=0.5):
        assert time.monotonic() - begin >= 0.5


def test_an_object_store_that_creates_what_exists_is_refused(tmp_path):
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Careless(MemoryFileSystem):
        protocol = "careless"

        def pipe_file(self, path, value, mode="overwrite", **_):
            super().pipe_file(path, value, mode=mode.replace("create", "overwrite"))

    fsspec.register_implementation("careless", Careless, clobber=True)
    prefix = ObjectPath(f"careless://{tmp_path.name}/driver.lock")
    with (
        pytest.raises(ObjectStoreError, match="could not be kept apart"),
        leased(prefix, wait=False),
    ):
        pytest.fail("its commits would not be exclusive")
    assert not prefix.exists()
