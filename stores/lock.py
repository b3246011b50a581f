"""Locks between processes: one driver a store, one commit at a time.

`flock` is used because the kernel drops it when its holder dies, however it dies: there is no
stale lock to clean up. On NFS (Linux 2.6.12 and later) it works between hosts too. An object store
has no locks; there `stores.lease` stands in.

Each holding has a token, and the last one's is on record after its holder died. Workers of a dead
driver may still be at work when the next one plans: they commit with its token, and are refused.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from stores.errors import OutOfSpaceError, StoreBusyError, StoreError
from stores.lease import leased
from stores.places import ObjectPath, StorePath

_HELD = frozenset({errno.EAGAIN, errno.EACCES})


def exclusive(path: StorePath, *, wait: bool) -> AbstractContextManager[str]:
    """Hold the lock `path` for the length of the block, which gets the holding's token.

    Args:
        path: The lock file, which stays; its folder must exist. On an object store the prefix of
            the leases.
        wait: Wait for the present holder, or raise.

    Raises:
        StoreBusyError: Somebody holds it and `wait` is false; the message names host and process.
        StoreError: The store may not be written to, or has no means to keep two apart.
    """
    return leased(path, wait=wait) if isinstance(path, ObjectPath) else _locked(path, wait=wait)


@contextmanager
def driving(driver_lock: StorePath, commit_lock: StorePath) -> Iterator[str]:
    """Be a store's one driver for the length of the block, which gets the token of its commits.

    When the block begins, every commit of a former driver is there to be seen or will be refused.

    Args:
        driver_lock: Held for the whole block.
        commit_lock: What each commit to a disk holds.

    Raises:
        StoreBusyError: There is another driver; the message names host and process.
        OutOfSpaceError: There is no room to say who drives.
    """
    with exclusive(driver_lock, wait=False) as token:
        if isinstance(driver_lock, Path):
            if not is_latest(driver_lock, token):
                raise OutOfSpaceError(f"no room to write {driver_lock}. Make room, and run again.")
            with exclusive(commit_lock, wait=True):
                pass  # a commit that found the former driver's token has ended
        yield token


def is_latest(path: StorePath, token: str) -> bool:
    """Whether nobody took the lock `path` after the holder with this token."""
    if isinstance(path, ObjectPath):
        return (path / token).exists()
    try:
        return json.loads(path.read_bytes())["token"] == token
    except (FileNotFoundError, ValueError, KeyError):
        return False


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[str]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StoreError(
            f"cannot open {path} for writing: {error.strerror}. A run needs a store it may "
            "write to; reading one needs no lock."
        ) from error
    try:
        _acquire(descriptor, path, wait=wait)
        token = secrets.token_hex(8)
        _write_holder(descriptor, token, sync=not wait)
        yield token
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _HELD:
            raise StoreBusyError(
                f"{path.parent} is in use by {_holder(descriptor)}. Wait for that run to end, or "
                "stop it, then run the same command again; nothing it commits is lost."
            ) from error
        raise StoreError(
            f"{path}: this file system gives no locks ({error.strerror}), so two runs could not be "
            "kept apart. Mount it with flock support, or put the store on another disk."
        ) from error


def _write_holder(descriptor: int, token: str, *, sync: bool) -> None:
    """Say who holds the lock, for the other's message; padded, so that no full disk matters."""
    holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": token})
    try:
        os.pwrite(descriptor, holder.ljust(256).encode(), 0)
        if sync:  # held for long, and to be seen from other hosts meanwhile
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on host {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run (it has not yet said which)"
