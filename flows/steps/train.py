"""Train a Delta Mapper from the cached vectors of a store; no model, no image is loaded."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from flows.config import Ranks, cache_folder, free_memory_bytes, resolved_text
from flows.exits import stop_if_asked, stopping_between_steps
from flows.models import choose_device
from flows.ranks import joined
from flows.steps.origin import read_origin
from flows.steps.pairs import graph_for
from flows.steps.run_log import RunLog, Unwritten
from flows.steps.splits import eval_rows, train_rows
from pipeline.errors import CheckpointError
from pipeline.plots import loss_curve
from pipeline.training import (
    CHECKPOINT_NAME,
    MAPPER_NAME,
    Execution,
    Record,
    Residency,
    Share,
    SSpaceFit,
    TrainConfig,
    TrainResult,
    choose_residency,
    train_mapper,
)
from stores.atomic import make_folder, write_atomic
from stores.errors import StoreError
from stores.lock import exclusive
from stores.places import StorePath, store_path
from stores.reader import StoreReader

log = logging.getLogger("deltaedit")

CONFIG_NAME = "train.json"
FIT_NAME = "fit.json"
CURVE_NAME = "loss.png"
LOCK_NAME = ".lock"
MEMORY_SHARE = 0.7
"""Of the free memory, what rows may take; the rest is for the mapper, batches and page cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRun:
    """One training run."""

    store: StorePath
    """The store whose clip and s columns are learnt from."""
    run: Path
    """The run's folder; made when absent."""
    resume: bool = False
    """Accept a finished run, too; an interrupted one of the same settings is always continued."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i."""
    residency: Literal["auto"] | Residency = "auto"
    """How rows are held: `auto` takes the first of `float32`, `float16` (half the memory) and
    `stream` (read from the store for every few batches) that fits the device's free memory."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How."""

    def __post_init__(self) -> None:
        """Check the choice of residency.

        Raises:
            ValueError: there is no such one.
        """
        known = ("auto", *get_args(Residency))
        if self.residency not in known:
            raise ValueError(f"residency is {self.residency!r}: choose one of {known}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRows:
    """What a run learns from, and what it is measured on."""

    reader: StoreReader
    """The store."""
    train: np.ndarray
    """Row numbers of the training split, [N] int64."""
    held_out: np.ndarray
    """Row numbers of the held-out split, [N] int64."""


def find_rows(store: StorePath) -> TrainRows:
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
    with joined(choose_device(config.device)) as (ranks, device):
        execution = _execution(config, rows, ranks, device)
        if ranks.rank > 0:
            return _train(config, rows, execution, _find_checkpoint(config), Unwritten())
        make_folder(config.run)
        with exclusive(config.run / LOCK_NAME, wait=False):
            checkpoint = _find_checkpoint(config)
            _write_config(config, checkpoint)
            with RunLog(config.run, checkpoint, on_log) as folder:
                try:
                    result = _train(config, rows, execution, checkpoint, folder)
                except CheckpointError as error:
                    raise CheckpointError(
                        f"{config.run}: {error}. Where {config.store} has other rows by now, the "
                        "run stays as it is; give another run folder for a mapper of all rows"
                    ) from error
            fit = json.dumps(fit_table(result.fit), indent=2)
            write_atomic(config.run / CURVE_NAME, draw_curve(result.history))
            write_atomic(config.run / FIT_NAME, fit.encode())
            return result


def _train(
    config: TrainRun,
    rows: TrainRows,
    execution: Execution,
    checkpoint: bytes | None,
    output: RunLog | Unwritten,
) -> TrainResult:
    """Take part in the run; `output` is where this process's results go."""
    with stopping_between_steps():
        return train_mapper(
            rows.reader,
            rows.train,
            rows.held_out,
            config.training,
            widths=read_origin(config.store).s_widths,
            neighbours=graph_for(rows.reader, config.training.pairs, len(rows.train)),
            save=output.save,
            resume=checkpoint,
            on_log=output.add,
            made_from=rows.reader.fingerprints,
            execution=execution,
            on_step=stop_if_asked,
        )


def _execution(config: TrainRun, rows: TrainRows, ranks: Ranks, device: str) -> Execution:
    """Where and how this process takes part."""
    residency = config.residency
    if residency == "auto":
        shapes = {column.name: column.shape[0] for column in rows.reader.schema.columns}
        budget = free_bytes(device) * MEMORY_SHARE
        if device == "cpu":
            budget /= ranks.count
        residency = choose_residency(
            len(rows.train), s_dim=shapes["s"], clip_dim=shapes["clip"], budget_bytes=int(budget)
        )
        if residency != "float32":
            log.info("training rows are held as %s: they would not fit as float32", residency)
    share = Share(ranks.rank, ranks.count)
    return Execution(device=device, residency=residency, share=share)


def free_bytes(device: str) -> int:
    """Memory that is free on a device: cpu, cuda or cuda:i."""
    import torch

    return free_memory_bytes() if device == "cpu" else torch.cuda.mem_get_info(device)[0]


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


def run_store(run: Path) -> StorePath:
    """The store that a run was trained on.

    Raises:
        CheckpointError: the folder holds no run.
    """
    config, mapper = run / CONFIG_NAME, run / MAPPER_NAME
    if not config.is_file() or not mapper.is_file():
        raise CheckpointError(
            f"{run} holds no finished run (no {MAPPER_NAME}); run: deltaedit train STORE {run}"
        )
    saved = json.loads(config.read_text(encoding="utf-8"))
    return store_path(saved["store"], cache_folder())


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
