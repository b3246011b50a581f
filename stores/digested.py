"""A file that is written, synced and hashed at the same time."""

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias

Bytes: TypeAlias = bytes | bytearray | memoryview

NUM_BUFFERS = 3
"""How many buffers a writer to a `Sink` needs to fill them in turns."""


class Sink(Protocol):
    """What the bytes of a shard are written to, first to last."""

    def write(self, data: Bytes, /) -> Any:
        """Take the next bytes; they may change after `NUM_BUFFERS - 1` further writes."""
        ...


_WRITE_BYTES = 8 << 20
"""How much is written before the disk is told to begin; less would be many small commands."""


class DigestedFile:
    """A new file, written in order by one thread while another computes its digest.

    Both let go of the interpreter's lock, and the caller goes on meanwhile. Leaving the `with`
    block waits for both.
    """

    def __init__(self, path: Path, *, sync: bool) -> None:
        """Make the file, or empty it.

        Args:
            path: Where.
            sync: Whether `wait_synced` will be asked for. The disk then begins with the first
                bytes, not with the last.

        Raises:
            OSError: It cannot be made.
        """
        self._file = path.open("wb", buffering=0)  # closing it writes nothing, so cannot fail again
        self._digest = hashlib.sha256()
        self._disk, self._hasher = ThreadPoolExecutor(1), ThreadPoolExecutor(1)  # each in order
        self._writes: deque[Future[None]] = deque()
        self._hashes: deque[Future[None]] = deque()
        self._last_sync: Future[None] | None = None
        self._sync = sync

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.shutdown()
        self._hasher.shutdown()
        self._file.close()

    def write(self, data: Bytes, /) -> int:
        """Take the next bytes; they may change after `NUM_BUFFERS - 1` further writes.

        Raises:
            OSError: Writing what came before failed.
        """
        view = memoryview(data).cast("B")
        self._writes.append(self._disk.submit(self._write_all, view))
        self._hashes.append(self._hasher.submit(self._digest.update, view))
        for under_way in (self._writes, self._hashes):
            while len(under_way) >= NUM_BUFFERS:
                under_way[0].result()  # one that failed stays, and fails what comes later, too
                under_way.popleft()
        return len(view)

    def _write_all(self, view: memoryview) -> None:
        while view:
            size = self._file.write(view[:_WRITE_BYTES])
            view = view[size:]
            if self._sync:
                _begin_writing_out(self._file.fileno(), self._file.tell() - size, size)

    def end(self) -> None:
        """Say that no more comes: the file is synced as soon as it is written."""
        self._last_sync = self._disk.submit(os.fsync, self._file.fileno())

    def wait_written(self) -> None:
        """Wait until everything is in the file.

        Raises:
            OSError: The disk is full, or fails.
        """
        for write in self._writes:
            write.result()

    def wait_synced(self) -> None:
        """Wait until everything survives power loss; `end` comes first.

        Raises:
            OSError: The disk is full, or fails.
        """
        assert self._last_sync is not None, "end comes first"
        self.wait_written()
        self._last_sync.result()

    def sha256(self) -> str:
        """The digest of everything written, in hexadecimal, when it is ready."""
        for update in self._hashes:
            update.result()
        return self._digest.hexdigest()


def _begin_writing_out(descriptor: int, begin: int, size: int) -> None:
    """Let the disk begin with these bytes now, which the next sync would wait for.

    Linux does so when told that they will not be needed soon; what is on its way stays cached.
    Other systems may ignore or refuse it.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_DONTNEED)
