"""Leases: what stands in for locks on an object store.

Every contender has an object of its own below one prefix and renews it while it lives. To take the
lease is to find no other object there, put one's own, and look again: of two who do so at once, at
least one sees the other and withdraws. That needs no more of the object store than a listing which
shows what was written before it. An object that nobody renews is taken away by whoever watched it
stay the same for `EXPIRE_S` seconds; the clocks of two hosts are never compared.
"""

import json
import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stores.errors import ObjectStoreError, StoreBusyError, StoreError
from stores.places import ObjectPath, read_all

EXPIRE_S = 60.0
"""How long a holder may be silent before its lease can be taken over."""
_RENEWALS = 12
"""How often a lease is renewed in that time."""
_PAUSE_S = (0.1, 0.5)
"""How long who waits pauses before it looks again: at random, so that two who withdrew before each
other do not meet again."""

_log = logging.getLogger(__name__)


@contextmanager
def leased(prefix: ObjectPath, *, wait: bool, expire_s: float = EXPIRE_S) -> Iterator[str]:
    """Hold the lease `prefix` for the length of the block, which gets its object's name.

    Args:
        prefix: Where the contenders' objects are.
        wait: Wait for the present holder, or raise as soon as it is known to live.
        expire_s: Silence after which a lease is taken over; the same for all contenders.

    Raises:
        StoreBusyError: Somebody holds it and `wait` is false; the message names host and process.
        StoreError: The object store would let two writers create one object.
    """
    mine = _Lease(prefix / secrets.token_hex(8), expire_s / _RENEWALS)
    try:
        _take(mine, prefix, wait=wait, expire_s=expire_s)
        _check_exclusive_creation(mine.path)
        with mine.renewed():
            yield mine.path.name
    finally:
        mine.give_back()


class _Lease:
    """One contender's object."""

    def __init__(self, path: ObjectPath, renew_s: float) -> None:
        self.path = path
        self._renew_s = renew_s
        self._renewals = 0
        self._ended = threading.Event()

    def put(self) -> None:
        """Write the object, with other bytes each time."""
        holder = _this_process() | {"renewals": self._renewals}
        self._renewals += 1
        self.path.write_bytes(json.dumps(holder).encode())

    def give_back(self) -> None:
        """Remove the object, so that others need not wait for it to expire."""
        try:
            self.path.unlink(missing_ok=True)
        except ObjectStoreError as error:
            _log.warning("%s could not be given back, and will expire: %s", self.path, error)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the object for the length of the block."""
        thread = threading.Thread(target=self._renew, name=f"lease {self.path}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(self._renew_s):
            try:
                if not self.path.exists():
                    _log.warning(
                        "%s was taken over: this process was silent for too long. Another run may "
                        "plan now, and what this one had in work will be refused.",
                        self.path,
                    )
                    return
                self.put()
            except (StoreError, OSError) as error:
                _log.warning("the lease could not be renewed: %s", error)


def _take(mine: _Lease, prefix: ObjectPath, *, wait: bool, expire_s: float) -> None:
    """Return when the lease is held; arguments and errors as of `leased`."""
    first_seen: dict[ObjectPath, tuple[bytes, float]] = {}
    while True:
        others = _read(prefix)
        if not others:
            mine.put()
            others = {path: data for path, data in _read(prefix).items() if path != mine.path}
            if not others:
                return
            mine.path.unlink(missing_ok=True)
        for path, data in others.items():
            if path not in first_seen and not wait and not _died_here(data):
                _log.warning(
                    "%s: looking for up to %.0f s if %s lives", prefix, expire_s, _name(data)
                )
            former, since = first_seen.setdefault(path, (data, time.monotonic()))
            if data != former:
                if not wait:
                    raise _busy(prefix, data)
                del first_seen[path]
            elif time.monotonic() - since > expire_s or _died_here(data):
                _log.warning("%s is taken over from %s, which died", prefix, _name(data))
                path.unlink(missing_ok=True)
        time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - a pause, not a secret


def _read(prefix: ObjectPath) -> dict[ObjectPath, bytes]:
    """The contenders' objects."""
    while True:
        try:
            paths = list(prefix.iterdir())
        except FileNotFoundError:
            return {}
        try:
            return dict(zip(paths, read_all(paths), strict=True))
        except FileNotFoundError:
            continue  # one was given back between the listing and the reading


def _check_exclusive_creation(existing: ObjectPath) -> None:
    """Refuse an object store on which the commit of a shard would not be exclusive."""
    try:
        existing.create(b"")
    except FileExistsError:
        return
    raise ObjectStoreError(
        f"{existing.parent}: this object store creates an object that exists, so two writers of "
        "one shard could not be kept apart. Use one with conditional writes (S3, Google Cloud "
        "Storage, Azure, MinIO), or write to a disk and copy the store there."
    )


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine()}


def _machine() -> str | None:
    """Where a process number means the same process: one boot of one kernel, one PID namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None  # not Linux: who died is known by its silence alone


def _died_here(data: bytes) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    try:
        holder = json.loads(data)
        if holder["machine"] is None or holder["machine"] != _machine():
            return False
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, PermissionError):
        return False
    return False


def _name(data: bytes) -> str:
    try:
        holder = json.loads(data)
        return f"process {holder['pid']} on host {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another run (it does not say which)"


def _busy(prefix: ObjectPath, data: bytes) -> StoreBusyError:
    return StoreBusyError(
        f"{prefix.parent} is in use by {_name(data)}. Wait for that run to end, or stop it, then "
        "run the same command again; nothing it commits is lost."
    )
