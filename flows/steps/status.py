"""The progress of a run, kept in its store for those who watch: `run/status.json`.

Rewritten whole every second or so by a thread of the driver, so that its age tells whether the
driver lives. It is for eyes only: what is done is decided by the commit marks.
"""

import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flows.cluster.outcomes import Outcome, ShardDone
from flows.steps.progress import Stopwatch
from flows.steps.workplace import Workplace
from stores.atomic import make_folder, write_atomic
from stores.errors import StoreError
from stores.places import StorePath
from stores.plan import Plan
from stores.store import Store

log = logging.getLogger("deltaedit")

EVERY_S = 1.0
"""How often the file is rewritten."""
REMOTE_EVERY_S = 10.0
"""The same on an object store, where each time is an upload."""
MAX_FAILURES = 100
"""Failed shards that are named with their reason."""
RUNNING, DONE, INCOMPLETE, STOPPED = "running", "done", "incomplete", "stopped"


class RunStatus:
    """Counts the outcomes of a run and writes them down until the block ends."""

    def __init__(self, store: Store, plan: Plan, place: Workplace, watch: Stopwatch) -> None:
        self._path, self._plan, self._place = store.layout.run_status, plan, place
        self._watch = watch
        self._begin = time.monotonic()
        self._started = datetime.now(UTC)
        self._end = threading.Event()
        self._writer = threading.Thread(target=self._keep_writing, name="status", daemon=True)
        self._is_writable = True
        # A run with nothing to do must not hide the figures of the one that did it.
        self._has_news = bool(plan.shards) or not _is_done(self._path)
        self.shards_done = self.shards_failed = self.inputs_done = self.rows = self.rejects = 0
        self.failures: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        with suppress(StoreError):  # `_write` says so
            make_folder(self._path.parent)
        self._write(RUNNING)
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._writer.join()
        missing = self.shards_done < len(self._plan.shards)
        self._write(STOPPED if kind is not None else INCOMPLETE if missing else DONE)

    def take(self, outcome: Outcome) -> None:
        """Count what became of a shard."""
        if isinstance(outcome, ShardDone):
            self.shards_done += 1
            self.inputs_done += outcome.record["inputs"]
            self.rows += outcome.record["rows"]
            self.rejects += outcome.record["rejects"]
            return
        self.shards_failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append({"shard": outcome.shard.number, "reason": outcome.reason})

    def _keep_writing(self) -> None:
        while not self._end.wait(EVERY_S if isinstance(self._path, Path) else REMOTE_EVERY_S):
            self._write(RUNNING)

    def _write(self, state: str) -> None:
        """A status that cannot be written must not stop the work that it is about."""
        if not self._has_news:
            return
        try:
            write_atomic(self._path, json.dumps(self._snapshot(state), indent=1).encode())
            self._is_writable = True
        except (OSError, StoreError) as error:
            if self._is_writable:
                log.warning("`deltaedit status` will be out of date: %s", error)
            self._is_writable = False

    def _snapshot(self, state: str) -> dict[str, Any]:
        seconds = time.monotonic() - self._begin
        rate = self.inputs_done / max(seconds, 1e-9)
        left = self._plan.num_pending - self.inputs_done
        return {
            "state": state,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "workers": self._place.num_workers,
            "shards": {
                "planned": len(self._plan.shards),
                "done": self.shards_done,
                "failed": self.shards_failed,
            },
            "inputs": {
                "planned": self._plan.num_pending,
                "done": self.inputs_done,
                "rows": self.rows,
                "rejects": self.rejects,
            },
            "images_per_s": round(rate, 2),
            "stage_seconds": {stage: round(s, 2) for stage, s in self._watch.read().items()},
            "seconds_left": round(left / rate) if rate and state == RUNNING else None,
            "in_work": [
                asdict(work) | {"seconds": round(work.seconds, 1)} for work in self._place.in_work
            ],
            "failures": self.failures[:MAX_FAILURES],
        }


def _is_done(path: StorePath) -> bool:
    """Whether the last run's status says that it left nothing to do."""
    try:
        return json.loads(path.read_bytes())["state"] == DONE
    except (OSError, StoreError, ValueError, KeyError, TypeError):
        return False
