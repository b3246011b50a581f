import os
import socket
import time

import pytest

from stores.errors import StoreBusyError, StoreError
from stores.lock import exclusive

HOLD = """
from pathlib import Path
from stores.lock import exclusive
with exclusive(Path(path), wait=False):
    signal.pause()
"""


def _holder(start, path):
    """A process that holds the lock until it is killed."""
    process = start(HOLD, path=str(path))
    for _ in range(1000):
        if path.exists() and str(process.pid) in path.read_text():
            return process
        time.sleep(0.02)
    process.kill()
    pytest.fail("the process did not take the lock in 20 s")


def test_the_second_is_told_who_holds_the_lock(start, tmp_path):
    process = _holder(start, tmp_path / "lock")
    try:
        said = f"process {process.pid} on host {socket.gethostname()}"
        with pytest.raises(StoreBusyError, match=said), exclusive(tmp_path / "lock", wait=False):
            pytest.fail("two hold one lock")
    finally:
        process.kill()
        process.join()


def test_a_killed_holder_leaves_the_lock_free(start, tmp_path):
    process = _holder(start, tmp_path / "lock")
    process.kill()
    process.join()
    with exclusive(tmp_path / "lock", wait=False):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_a_lock_is_free_after_its_block(tmp_path):
    for _ in range(2):
        with exclusive(tmp_path / "lock", wait=False):
            pass


def test_a_lock_that_cannot_be_made_says_why(tmp_path):
    with pytest.raises(StoreError, match="No such file"), exclusive(tmp_path / "x/lock", wait=True):
        pytest.fail("there is no such folder")
