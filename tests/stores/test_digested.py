import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from stores.digested import NUM_BUFFERS, DigestedFile


def test_the_digest_is_that_of_the_file_and_buffers_may_be_used_in_turns(tmp_path):
    buffers = [bytearray(100_000) for _ in range(NUM_BUFFERS)]
    expected = b""
    with DigestedFile(tmp_path / "a", sync=True) as file:
        for turn in range(50):
            buffer = buffers[turn % NUM_BUFFERS]
            buffer[:] = bytes([turn]) * len(buffer)
            expected += bytes(buffer)
            assert file.write(memoryview(buffer)) == len(buffer)
        file.write(b"")
        file.end()
        file.wait_synced()
        assert file.sha256() == hashlib.sha256(expected).hexdigest()
    assert (tmp_path / "a").read_bytes() == expected


def test_an_empty_file_has_the_digest_of_nothing(tmp_path):
    with DigestedFile(tmp_path / "a", sync=True) as file:
        file.end()
        file.wait_synced()
        assert file.sha256() == hashlib.sha256(b"").hexdigest()
    assert (tmp_path / "a").read_bytes() == b""


def test_a_disk_without_room_is_an_error_of_a_later_write_and_of_the_sync():
    with DigestedFile(Path("/dev/full"), sync=True) as file:
        for _ in range(NUM_BUFFERS - 1):
            file.write(b"x" * 100)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"y")
        file.end()
        with pytest.raises(OSError, match="No space left"):
            file.wait_written()
        with pytest.raises(OSError, match="No space left"):
            file.wait_synced()


def test_leaving_the_block_waits_for_what_is_under_way(tmp_path):
    os.mkfifo(tmp_path / "slow")
    data = os.urandom(1_000_000)  # more than a pipe holds
    read: list[bytes] = []

    def read_slowly() -> None:
        with (tmp_path / "slow").open("rb") as pipe:
            time.sleep(0.2)
            read.append(pipe.read())

    reader = threading.Thread(target=read_slowly)
    reader.start()
    with DigestedFile(tmp_path / "slow", sync=False) as file:
        file.write(data)
    reader.join()
    assert read == [data]
