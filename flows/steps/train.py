"""Train a Delta Mapper from the cached vectors of a store; no model, no image is loaded."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from flows.config import resolved_text
from flows.steps.origin import read_origin
from pipeline.errors import CheckpointError
from pipeline.pictures import loss_curve
from pipeline.training import (
    CHECKPOINT_NAME,
    MAPPER_NAME,
    TrainConfig,
    TrainResult,
    train_mapper,
)
from pipeline.training.run import Record
from stores.atomic import write_atomic
from stores.reader import StoreReader

CONFIG_NAME = "train.json"
LOG_NAME = "log.jsonl"
FIT_NAME = "fit.json"
CURVE_NAME = "loss.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRun:
    """One training run."""

    store: Path
    """The store whose clip and s columns are learnt from."""
    run: Path
    """The run's folder; made when absent."""
    resume: bool = False
    """Go on from the run's checkpoint, if it has one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How."""


def train(config: TrainRun, on_log: Callable[[Record], None] = lambda _record: None) -> TrainResult:
    """Train to the end, writing checkpoints, a log and the mapper into the run's folder.

    Raises:
        CheckpointError: the folder holds another run, or one that `resume` must be asked for.
        StoreError: the store is damaged or lacks a column.
    """
    reader = StoreReader(config.store)
    checkpoint = _take_folder(config)
    log_path = config.run / LOG_NAME
    with _TensorBoard(config.run) as board, log_path.open("a", encoding="utf-8") as log:

        def note(record: Record) -> None:
            log.write(json.dumps(record) + "\n")
            log.flush()
            board.add(record)
            on_log(record)

        result = train_mapper(
            reader,
            np.flatnonzero(~reader.eval_mask),
            np.flatnonzero(reader.eval_mask),
            config.training,
            widths=read_origin(config.store).s_widths,
            save=lambda name, data: write_atomic(config.run / name, data),
            resume=checkpoint,
            on_log=note,
            made_from=reader.fingerprints,
            device=_device(config.device),
        )
    write_atomic(config.run / FIT_NAME, json.dumps(asdict(result.fit), indent=2).encode())
    write_atomic(config.run / CURVE_NAME, draw_curve(result.history))
    return result


def _take_folder(config: TrainRun) -> bytes | None:
    """Claim the run's folder; returns the checkpoint to go on from, if any."""
    config.run.mkdir(parents=True, exist_ok=True)
    checkpoint = config.run / CHECKPOINT_NAME
    if checkpoint.exists() and not config.resume:
        raise CheckpointError(
            f"{config.run} holds a run already; continue it with --resume, or give another folder"
        )
    if not checkpoint.exists():
        (config.run / LOG_NAME).unlink(missing_ok=True)
    saved = replace(config, store=config.store.absolute())
    write_atomic(config.run / CONFIG_NAME, resolved_text(saved).encode())
    return checkpoint.read_bytes() if checkpoint.exists() else None


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


def _device(device: str) -> str:
    from flows.models import choose_device

    return choose_device(device)


class _TensorBoard:
    """The run's records as TensorBoard scalars."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def __enter__(self) -> "_TensorBoard":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, record: Record) -> None:
        step = int(record["step"])
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
