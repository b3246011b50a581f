"""Train a Delta Mapper from the cached vectors of a store; no model, no image is loaded."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np

from flows.config import resolved_text
from flows.models import choose_device
from flows.steps.origin import read_origin
from flows.steps.splits import eval_rows, train_rows
from pipeline.errors import CheckpointError
from pipeline.pictures import loss_curve
from pipeline.training import (
    CHECKPOINT_NAME,
    MAPPER_NAME,
    Record,
    SSpaceFit,
    TrainConfig,
    TrainResult,
    train_mapper,
)
from pipeline.training.checkpoint import from_bytes
from stores.atomic import make_folder, write_atomic
from stores.errors import StoreError
from stores.lock import exclusive
from stores.reader import StoreReader

CONFIG_NAME = "train.json"
LOG_NAME = "log.jsonl"
FIT_NAME = "fit.json"
CURVE_NAME = "loss.png"
LOCK_NAME = ".lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRun:
    """One training run."""

    store: Path
    """The store whose clip and s columns are learnt from."""
    run: Path
    """The run's folder; made when absent."""
    resume: bool = False
    """Accept a finished run, too; an interrupted one of the same settings is always continued."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRows:
    """What a run learns from, and what it is measured on."""

    reader: StoreReader
    """The store."""
    train: np.ndarray
    """Row numbers of the training split, [N] int64."""
    held_out: np.ndarray
    """Row numbers of the held-out split, [N] int64."""


def find_rows(store: Path) -> TrainRows:
    """The two splits of a store that a Delta Mapper can be trained on.

    Raises:
        StoreError: a column is missing, or a split has too few rows.
    """
    reader = StoreReader(store)
    missing = [name for name in ("clip", "s") if name not in reader.schema.names]
    if missing:
        raise StoreError(
            f"{store} has no column {', '.join(missing)} (it has "
            f"{', '.join(reader.schema.names)}); precompute it with --columns clip,w_plus,s"
        )
    return TrainRows(reader=reader, train=train_rows(reader), held_out=eval_rows(reader))


def train(config: TrainRun, on_log: Callable[[Record], None] = lambda _record: None) -> TrainResult:
    """Train to the end, writing checkpoints, a log and the mapper into the run's folder.

    Raises:
        CheckpointError: the folder holds a finished run, or one of other settings.
        StoreError: the store is damaged, lacks a column or has too few rows.
        StoreBusyError: another process is training into this folder.
    """
    rows = find_rows(config.store)
    device = choose_device(config.device)
    widths = read_origin(config.store).s_widths
    make_folder(config.run)
    with exclusive(config.run / LOCK_NAME, wait=False):
        checkpoint = _find_checkpoint(config)
        _write_config(config, checkpoint)
        with _Log(config.run, checkpoint) as log:

            def note(record: Record) -> None:
                log.add(record)
                on_log(record)

            result = train_mapper(
                rows.reader,
                rows.train,
                rows.held_out,
                config.training,
                widths=widths,
                save=lambda name, data: write_atomic(config.run / name, data),
                resume=checkpoint,
                on_log=note,
                made_from=rows.reader.fingerprints,
                device=device,
            )
        write_atomic(config.run / FIT_NAME, json.dumps(fit_table(result.fit), indent=2).encode())
        write_atomic(config.run / CURVE_NAME, draw_curve(result.history))
    return result


def fit_table(fit: SSpaceFit) -> dict[str, dict[str, dict[str, float]]]:
    """A fit as plain numbers: space (raw, scaled) -> group of layers -> measure -> value."""
    return {
        space: {
            group: {**values._asdict(), "explained": values.explained}
            for group, values in groups.items()
        }
        for space, groups in (("raw", fit.raw), ("scaled", fit.scaled))
    }


def _find_checkpoint(config: TrainRun) -> bytes | None:
    """The checkpoint to go on from, if the folder holds one."""
    checkpoint = config.run / CHECKPOINT_NAME
    if not checkpoint.exists():
        return None
    if (config.run / FIT_NAME).exists() and not config.resume:
        raise CheckpointError(
            f"{config.run} holds a finished run; give another folder, or accept it with --resume"
        )
    return checkpoint.read_bytes()


def _write_config(config: TrainRun, checkpoint: bytes | None) -> None:
    """Keep the configuration; that of a run which goes on stands and must be the same."""
    path = config.run / CONFIG_NAME
    if checkpoint is None or not path.exists():
        saved = replace(config, store=config.store.absolute(), run=config.run.absolute())
        write_atomic(path, resolved_text(saved).encode())
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    training = json.loads(resolved_text(config))["training"]
    different = [name for name, value in training.items() if kept["training"].get(name) != value]
    if different:
        raise CheckpointError(
            f"{config.run} holds a run of other settings ("
            + ", ".join(f"{n}: {kept['training'].get(n)}, now {training[n]}" for n in different)
            + "); give its settings to continue it, or another folder"
        )


def run_store(run: Path) -> Path:
    """The store that a run was trained on.

    Raises:
        CheckpointError: the folder holds no run.
    """
    config, mapper = run / CONFIG_NAME, run / MAPPER_NAME
    if not config.is_file() or not mapper.is_file():
        raise CheckpointError(
            f"{run} holds no finished run (no {MAPPER_NAME}); run: deltaedit train STORE {run}"
        )
    return Path(json.loads(config.read_text(encoding="utf-8"))["store"])


def draw_curve(history: list[Record]) -> bytes:
    """Held-out error per group of layers, as a share of the zero predictor's; PNG."""
    records = [record for record in history if "eval/raw/all/mse" in record]
    names = {"all": "all layers", "coarse": "coarse", "medium": "medium", "fine": "fine"}
    series = {
        label: [1 - record[f"eval/scaled/{group}/explained"] for record in records]
        for group, label in names.items()
        if f"eval/scaled/{group}/explained" in records[-1]
    }
    return loss_curve(
        [record["step"] for record in records],
        series,
        baseline={"zero predictor": 1.0},
        title="Held-out error of the S difference, channels weighted alike (1 = no prediction)",
    )


class _Log:
    """The run's records: one JSON line each, and TensorBoard scalars."""

    def __init__(self, run: Path, checkpoint: bytes | None) -> None:
        """Begin with the records that the checkpoint knows of; later ones will be made again."""
        from torch.utils.tensorboard import SummaryWriter

        document = from_bytes(checkpoint).document if checkpoint else {}
        lines = "".join(json.dumps(record) + "\n" for record in document.get("history", ()))
        write_atomic(run / LOG_NAME, lines.encode())
        self._lines = (run / LOG_NAME).open("a", encoding="utf-8")
        purge_step = document["step"] + 1 if document else None
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=purge_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._board.close()

    def add(self, record: Record) -> None:
        """Write one record."""
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        step = int(record["step"])
        for name, value in record.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
