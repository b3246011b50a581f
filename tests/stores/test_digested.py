import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stores.digested import DigestedFile


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_the_digest_is_that_of_the_file_and_buffers_may_be_used_in_turns(tmp_path, pool):
    buffers = [bytearray(100_000), bytearray(100_000)]
    expected = b""
    with DigestedFile(tmp_path / "a", pool) as file:
        for turn in range(50):
            buffer = buffers[turn % 2]
            buffer[:] = bytes([turn]) * len(buffer)
            expected += bytes(buffer)
            assert file.write(memoryview(buffer)) == len(buffer)
        file.write(b"")
        file.begin_sync()
        file.wait_synced()
        assert file.sha256() == hashlib.sha256(expected).hexdigest()
    assert (tmp_path / "a").read_bytes() == expected


def test_an_empty_file_has_the_digest_of_nothing(tmp_path, pool):
    with DigestedFile(tmp_path / "a", pool) as file:
        file.begin_sync()
        file.wait_synced()
        assert file.sha256() == hashlib.sha256(b"").hexdigest()
    assert (tmp_path / "a").read_bytes() == b""


def test_a_disk_without_room_is_an_error_of_the_next_call_and_of_the_sync(pool):
    with DigestedFile(Path("/dev/full"), pool) as file:
        file.write(b"x" * 100)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"y")
        file.begin_sync()
        with pytest.raises(OSError, match="No space left"):
            file.wait_written()
        with pytest.raises(OSError, match="No space left"):
            file.wait_synced()


def test_leaving_the_block_waits_for_what_is_under_way(tmp_path, pool):
    free = threading.Event()
    for _ in range(2):
        pool.submit(free.wait)  # the threads are busy
    threading.Timer(0.2, free.set).start()
    with DigestedFile(tmp_path / "a", pool) as file:
        file.write(b"x" * 100)
    assert (tmp_path / "a").read_bytes() == b"x" * 100
