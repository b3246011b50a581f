"""A file that is written, synced and hashed at the same time."""

import hashlib
import os
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias

Bytes: TypeAlias = bytes | bytearray | memoryview


class Sink(Protocol):
    """What the bytes of a shard are written to, first to last."""

    def write(self, data: Bytes, /) -> Any:
        """Take the next bytes; they may be overwritten once the write after this one returned."""
        ...


class DigestedFile:
    """A new file, written in order by one thread of a pool while another computes its digest.

    Both let go of the interpreter's lock, and the caller goes on meanwhile. Leaving the `with`
    block waits for both.
    """

    def __init__(self, path: Path, pool: Executor) -> None:
        """Make the file, or empty it.

        Args:
            path: The file.
            pool: Threads, two at least.

        Raises:
            OSError: It cannot be made.
        """
        self._file = path.open("wb", buffering=0)  # closing it writes nothing, so cannot fail again
        self._pool = pool
        self._digest = hashlib.sha256()
        self._written: Future[None] | None = None
        self._hashed: Future[None] | None = None
        self._synced: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        under_way = [f for f in (self._written, self._hashed, self._synced) if f is not None]
        wait(under_way)
        self._file.close()

    def write(self, data: Bytes, /) -> int:
        """Take the next bytes; they may be overwritten once the write after this one returned.

        Raises:
            OSError: Writing what came before failed.
        """
        self.wait_written()
        if self._hashed is not None:
            self._hashed.result()
        view = memoryview(data).cast("B")
        self._written = self._pool.submit(self._write_all, view)
        self._hashed = self._pool.submit(self._digest.update, view)
        return len(view)

    def _write_all(self, view: memoryview) -> None:
        while view:
            view = view[self._file.write(view) :]

    def begin_sync(self) -> None:
        """Make the bytes survive power loss, beginning as soon as the last are written."""
        self._synced = self._pool.submit(self._sync)

    def _sync(self) -> None:
        self.wait_written()
        os.fsync(self._file.fileno())

    def wait_written(self) -> None:
        """Wait until everything is in the file.

        Raises:
            OSError: The disk is full, or fails.
        """
        if self._written is not None:
            self._written.result()

    def wait_synced(self) -> None:
        """Wait until everything survives power loss.

        Raises:
            OSError: The disk is full, or fails.
        """
        assert self._synced is not None, "begin_sync comes first"
        self._synced.result()

    def sha256(self) -> str:
        """The digest of everything written, in hexadecimal, when it is ready."""
        if self._hashed is not None:
            self._hashed.result()
        return self._digest.hexdigest()
