"""What runs in a worker process: one block of shards at a time, reporting each as it is done."""

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from distributed import get_worker
from distributed.core import Status
from distributed.protocol.pickle import dumps, loads

from flows.cluster.outcomes import Record

log = logging.getLogger("deltaedit")

STARTED = "started"
DONE = "done"
MAX_REASON = 500
"""Letters of an error's text that are kept."""

# A worker may be given several tasks at once; models and memory are for one.
_turn = threading.Lock()


class Numbered(Protocol):
    """A shard that is to be made."""

    @property
    def number(self) -> int:
        """Its number in the store."""
        ...


Job: TypeAlias = Callable[[Sequence[Any]], Generator[Record, None, None]]
"""Makes shards in order, yielding a record as soon as each is committed, and at once for one that
was committed before. Sent to the workers, so it must be a picklable callable of small size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockReport:
    """What became of a block of shards."""

    worker: str
    """The worker's address."""
    records: dict[int, Record]
    """Of the shards that are done, by number."""
    error: str | None = None
    """Why the others are not; None where all are done, or nobody wants them any more."""


def pack(job: Job, shards: Sequence[Numbered]) -> bytes:
    """The arguments of `run_block`: bytes, for Dask walks through anything else (30 ms a shard)."""
    return dumps((job, shards))


def run_block(packed: bytes, topic: str) -> BlockReport:
    """Make a block of shards in this worker process.

    What a shard raises comes back as text: an exception of a library that the driver lacks could
    not be read there.

    Args:
        packed: from `pack`.
        topic: Dask topic of the progress messages.
    """
    job, shards = loads(packed)
    worker = get_worker()
    key = worker.get_current_task()
    records: dict[int, Record] = {}

    def tell(state: str, **more: Any) -> None:
        worker.log_event(topic, {"state": state, "key": key, "worker": worker.address, **more})

    with _turn:
        tell(STARTED, pid=os.getpid(), worker_name=str(worker.name))
        begin = time.monotonic()
        try:
            with closing(job(shards)) as made:
                for shard, record in zip(shards, made, strict=True):
                    records[shard.number] = record
                    seconds, begin = time.monotonic() - begin, time.monotonic()
                    tell(DONE, number=shard.number, record=record, seconds=seconds)
                    if not _is_wanted(worker, key):
                        break
        except Exception as error:  # noqa: BLE001 - becomes the reason of the failed shard
            # The driver may be gone; then this worker's log is the only one to have it.
            log.warning("shards %s: %s", [s.number for s in shards], _reason(error))
            return BlockReport(worker=worker.address, records=records, error=_reason(error))
    return BlockReport(worker=worker.address, records=records)


def _is_wanted(worker: Any, key: object) -> bool:
    """Whether to go on: the driver may have ended or sent it elsewhere, the worker may leave."""
    if worker.status not in {Status.running, Status.paused}:
        return False
    task = worker.state.tasks.get(key)
    return task is not None and task.state != "cancelled"


def _reason(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error}"[:MAX_REASON]
    return f"{text} ({os.path.basename(place.filename)}:{place.lineno})"  # noqa: PTH119 - a name
