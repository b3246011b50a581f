"""What a training run leaves in its folder while it goes on: files, JSON lines, TensorBoard."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pipeline.training import Record
from pipeline.training.checkpoint import from_bytes
from stores.atomic import write_atomic

LOG_NAME = "log.jsonl"


class Unwritten:
    """The output of a process whose results another one writes."""

    def save(self, name: str, data: bytes) -> None:
        """Drop a file."""

    def add(self, record: Record) -> None:
        """Drop a record."""


class RunLog:
    """The run's folder: its files, and its records as JSON lines and TensorBoard scalars."""

    def __init__(
        self, run: Path, checkpoint: bytes | None, on_log: Callable[[Record], None]
    ) -> None:
        """Begin with the records that the checkpoint knows of; later ones will be made again.

        Args:
            run: the run's folder.
            checkpoint: what the run goes on from; None for a new one.
            on_log: called with every record after it was written.
        """
        from torch.utils.tensorboard import SummaryWriter

        document = from_bytes(checkpoint).document if checkpoint else {}
        lines = "".join(json.dumps(record) + "\n" for record in document.get("history", ()))
        write_atomic(run / LOG_NAME, lines.encode())
        self._lines = (run / LOG_NAME).open("a", encoding="utf-8")
        purge_step = document["step"] + 1 if document else None
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=purge_step)
        self._run = run
        self._on_log = on_log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._board.close()

    def save(self, name: str, data: bytes) -> None:
        """Put a file into the run's folder, whole or not at all."""
        write_atomic(self._run / name, data)

    def add(self, record: Record) -> None:
        """Write one record, and pass it on."""
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        step = int(record["step"])
        for name, value in record.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        self._on_log(record)
