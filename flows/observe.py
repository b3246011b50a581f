"""What a run shows in Prefect: log lines, progress, tables, links and pictures.

Importing this module imports Prefect, which takes seconds.
"""

import base64
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from flows.config import prepare_prefect

prepare_prefect()

import httpx  # noqa: E402 - Prefect's defaults come first
from prefect import flow, get_run_logger, task  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.concurrency.sync import concurrency  # noqa: E402

from flows.cluster.spec import LocalSpec, parse_cluster  # noqa: E402
from flows.exits import stop_if_asked  # noqa: E402
from flows.models import choose_device  # noqa: E402
from stores.places import StorePath  # noqa: E402

__all__ = ["NO_CACHE", "Observed", "flow", "own_gpus", "own_limits", "task"]

log = logging.getLogger("deltaedit")

REPORT_EVERY_S = 2.0
"""Seconds between two reports of progress; the shards committed in between are one block. A report
takes Prefect about 10 ms."""


class Observed:
    """One stage, as the flow or task run that it runs in shows it.

    Prefect only watches: where its server cannot be reached, the work goes on and says so.
    """

    def __init__(self, stage: str, place: StorePath | None = None) -> None:
        """Begin.

        Args:
            stage: for instance ``precompute``.
            place: the store or run that it works on, if it is a single one.
        """
        name = f"{place.stem} {stage}" if place else stage
        self._title = f"{stage} of {place}" if place else stage
        # Artifacts of one key are one history in Prefect's UI: that of this stage of this store.
        self._key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        self._forward = _Forward(get_run_logger())
        self._progress_id: Any = None
        self._reported = time.monotonic()

    def __enter__(self) -> Self:
        # Prefect prints the lines, too; inside a task of a flow they are the task's alone.
        self._former = (log.handlers, log.propagate, log.level)
        log.handlers, log.propagate = [self._forward], False
        log.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        log.handlers, log.propagate, level = self._former
        log.setLevel(level)

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` units are done; a signal that was swallowed stops the work here."""
        stop_if_asked()
        now = time.monotonic()
        if done < total and now - self._reported < REPORT_EVERY_S:
            return
        self._reported = now
        percent = 100 * done / total if done < total else 100.0
        log.info("%s: %d of %d", self._title, done, total)
        if self._progress_id is None:
            self._progress_id = _told(
                create_progress_artifact,
                progress=percent,
                key=f"{self._key}-progress",
                description=self._title,
            )
        else:
            _told(update_progress_artifact, artifact_id=self._progress_id, progress=percent)

    def values(self, values: Mapping[str, object]) -> None:
        """A table of names and values."""
        self.table([{"name": name, "value": str(value)} for name, value in values.items()])

    def table(self, lines: list[dict[str, Any]]) -> None:
        """A table with columns of its own."""
        _told(
            create_table_artifact,
            table=lines,
            key=f"{self._key}-table",
            description=self._title,
        )

    def link(self, path: StorePath, text: str) -> None:
        """Where something is, as an address and as text."""
        _told(
            create_link_artifact,
            link=path.absolute().as_uri() if isinstance(path, Path) else str(path),
            link_text=f"{text}: {path.absolute()}",
            key=f"{self._key}-link",
        )

    def picture(self, png: bytes, caption: str) -> None:
        """A picture, in the artifact itself: nothing needs to be served."""
        _told(
            create_image_artifact,
            image_url="data:image/png;base64," + base64.b64encode(png).decode(),
            key=f"{self._key}-picture",
            description=caption,
        )


class _Forward(logging.Handler):
    """Hands log records to the logger of a run, from whatever thread they come."""

    def __init__(self, run_logger: Any) -> None:
        super().__init__(logging.INFO)
        self._run_logger = run_logger

    def emit(self, record: logging.LogRecord) -> None:
        self._run_logger.log(record.levelno, "%s", record.getMessage())


def _told(call: Callable[..., Any], **values: Any) -> Any:
    try:
        return call(**values)
    except httpx.HTTPError as error:
        log.warning("Prefect could not be told (%s); the work goes on", error)
        return None


@contextmanager
def own_gpus(device: str, cluster: str | None = None) -> Iterator[None]:
    """Wait until no other recorded run has the GPUs that this one uses, and keep them.

    Each GPU is a concurrency limit of 1 in Prefect, by its UUID: runs on different GPUs, or on
    different machines, do not wait for each other. On a CPU nothing is waited for, and a cluster's
    scheduler keeps its own workers apart.

    Args:
        device: auto, cpu, cuda or cuda:i.
        cluster: where the work is done, if not in this process (`flows.cluster.spec`).
    """
    names = [f"deltaedit-gpu-{uuid}" for uuid in _gpu_uuids(device, cluster)]
    if not names:
        yield
        return
    with own_limits(names):
        yield


@contextmanager
def own_limits(names: list[str], *, timeout_s: float | None = None) -> Iterator[None]:
    """Keep the one slot of each of these Prefect concurrency limits, made where they are missing.

    A slot whose holder was killed is free again after five minutes.

    Raises:
        TimeoutError: another run held one for `timeout_s` seconds.
    """
    with get_client(sync_client=True) as client:
        for name in names:
            client.upsert_global_concurrency_limit_by_name(name, 1)
    # Prefect's outage must not stop the work: a lease that cannot be renewed only warns.
    with concurrency(
        names, timeout_seconds=timeout_s, strict=True, raise_on_lease_renewal_failure=False
    ):
        yield


def _gpu_uuids(device: str, cluster: str | None) -> list[str]:
    import torch

    spec = None if cluster is None else parse_cluster(cluster)
    chosen = choose_device(device)
    if not chosen.startswith("cuda") or not isinstance(spec, LocalSpec | None):
        return []
    if spec is None:
        devices = [torch.device(chosen)]
    else:
        count = min(spec.num_workers, torch.cuda.device_count())
        devices = [torch.device("cuda", number) for number in range(count)]
    return [str(torch.cuda.get_device_properties(each).uuid) for each in devices]
