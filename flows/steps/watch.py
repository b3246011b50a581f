"""Reading how far a run is, from any machine that sees its store. Takes part in nothing."""

import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from flows.steps.status import RUNNING
from stores.errors import ManifestError
from stores.places import StorePath
from stores.store import Store

SILENT_S = 30.0
"""A driver whose status is older has died, or cannot write any more."""
LOST = "lost"
"""State of a run whose driver ended without a word."""


def read_status(path: StorePath) -> dict[str, Any]:
    """What a store holds, and how far its last run is.

    Args:
        path: the store's folder.

    Returns:
        `rows`, `rejects`, `duplicates` and `shards` of the store, and `run`: what
        `flows.steps.status` wrote, with `silent_s`, the age of that in seconds, and `state` set to
        `lost` where the driver is dead; None where no run is on record.

    Raises:
        ManifestError: there is no store, or its manifest or the status cannot be read.
    """
    store = Store.open(path)
    counts = store.manifest.counts
    held = {"rows": counts.rows, "rejects": counts.rejects, "duplicates": counts.duplicates}
    return held | {"shards": len(store.manifest.shards), "run": _read_run(store)}


def _read_run(store: Store) -> dict[str, Any] | None:
    file = store.layout.run_status
    try:
        written = file.stat().st_mtime if isinstance(file, Path) else file.modified_s()
        run: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ManifestError(f"{file} cannot be read: {error}. The next run replaces it.") from error
    run["silent_s"] = round(max(0.0, _now(file.parent) - written), 1)
    if run["state"] == RUNNING and _is_dead(run):
        run["state"] = LOST
    return run


def _now(folder: StorePath) -> float:
    """The time by the clock of the folder's file system, which may be another machine's.

    An object store tells no time; this machine's clock stands in.
    """
    if not isinstance(folder, Path):
        return time.time()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # never has a name, so leaves nothing
            file.write(b"now")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()  # not ours to write to


def _is_dead(run: dict[str, Any]) -> bool:
    if run["host"] == socket.gethostname() and not _is_process(run["pid"]):
        return True
    return run["silent_s"] > SILENT_S


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
