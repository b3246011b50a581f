"""Progress: a bar with rate, total and time left on a terminal, plain log lines elsewhere."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from flows.exits import stop_if_asked

log = logging.getLogger("deltaedit")


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent per stage of a run, summed over the threads that work on it."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time of the block to `stage`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - begin})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add times that were measured elsewhere."""
        with self._lock:
            for stage, spent in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def read(self) -> dict[str, float]:
        """The times until now."""
        with self._lock:
            return dict(self.seconds)

    def take(self) -> dict[str, float]:
        """The times since the last call, to be sent to another watch."""
        with self._lock:
            taken, self.seconds = self.seconds, {}
        return taken


WAITS = {
    "wait for images": ("read", "decode"),
    "wait for models": ("copy", "clip", "e4e", "generator"),
    "wait for disk": ("write",),
}
"""What a precompute run's main thread waits for, and the stages that go on behind it."""


def limiting_stage(seconds: Mapping[str, float]) -> str:
    """The stage that held a precompute run up: the longest one behind the longest wait.

    Args:
        seconds: by stage, summed over threads and processes.

    Returns:
        Its name; empty where nothing was encoded.
    """
    wait = max(WAITS, key=lambda name: seconds.get(name, 0.0))
    stage = max(WAITS[wait], key=lambda name: seconds.get(name, 0.0))
    return stage if stage in seconds else ""


class Progress:
    """Counts units of work; silent between `every_s` seconds when not on a terminal."""

    def __init__(self, title: str, total: int, *, unit: str, every_s: float = 10.0) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self._every_s = every_s
        self._begin = self._last = time.monotonic()
        self._bar = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self.done / max(time.monotonic() - self._begin, 1e-9)

    def advance(self, count: int = 1) -> None:
        """`count` more units are done; a signal that was swallowed stops the work here."""
        stop_if_asked()
        self.done += count
        rate = f"{self.rate:,.0f} {self.unit}/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, total=self.total, rate=rate)
            return
        now = time.monotonic()
        if now - self._last >= self._every_s or self.done >= self.total:
            self._last = now
            left_s = (self.total - self.done) / max(self.rate, 1e-9)
            log.info(
                "%s: %d of %d, %s, %.0f s left", self.title, self.done, self.total, rate, left_s
            )
