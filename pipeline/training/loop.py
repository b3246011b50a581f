"""Training of the Delta Mapper from cached vectors: no generator, no CLIP, no image, no text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.pairs.graph import NeighbourGraph
from pipeline.shapes import Ints
from pipeline.training.checkpoint import TrainedMapper, from_bytes, load_trained, to_bytes
from pipeline.training.config import Execution, Recipe, TrainConfig
from pipeline.training.held_out import SSpaceFit
from pipeline.training.rows import RowSource
from pipeline.training.run import Record, TrainingRun

CHECKPOINT_NAME = "checkpoint.safetensors"
MAPPER_NAME = "mapper.safetensors"
IN_PROCESS = Execution()
"""On the CPU, rows in memory, one process."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run leaves."""

    trained: TrainedMapper
    """Ready to predict; the same as in the saved mapper file."""
    fit: SSpaceFit
    """Of the held-out pairs."""
    history: list[Record]
    """Every record of the run, those before a resume included."""
    recipe: Recipe
    """The settings as they were used."""


def train_mapper(
    rows: RowSource,
    train_rows: Ints,
    eval_rows: Ints,
    config: TrainConfig,
    *,
    widths: tuple[int, ...],
    save: Callable[[str, bytes], None],
    resume: bytes | None = None,
    on_log: Callable[[Record], None] | None = None,
    neighbours: NeighbourGraph | None = None,
    made_from: Mapping[str, str] | None = None,
    execution: Execution = IN_PROCESS,
    on_step: Callable[[], None] = lambda: None,
) -> TrainResult:
    """Train a Delta Mapper on pairs of cached rows.

    Args:
        rows: a store with columns `clip` [C] and `s` [S].
        train_rows: row numbers to learn from.
        eval_rows: held-out row numbers; no pair joins the two.
        config: recipe and length.
        widths: style channels of each layer of `s`.
        save: called with a file name and its bytes: ``checkpoint.safetensors`` again and again,
            ``mapper.safetensors`` once. It should replace the file atomically.
        resume: bytes of a checkpoint of this very run. On a CPU the weights then become, bit for
            bit, those of a run that was never interrupted (same thread count, same machine).
        on_log: called with every record.
        neighbours: graph of the whole store, for what `PairConfig.needs_graph`; built from the
            training rows if it is needed and absent.
        made_from: what the store says of its columns; kept in the mapper's file.
        execution: device, how rows are held, and this process's part of each batch.
        on_step: called after every step; whatever it raises ends the run, after a checkpoint.

    Raises:
        CheckpointError: `resume` belongs to another run or is damaged.
        DivergedError: the loss became NaN or infinite; nothing of it was saved.
        PairError: the rows give no pairs, or a row is both trained on and held out.
        ShapeError: `widths` do not describe column `s`.
    """
    run = TrainingRun(
        rows,
        train_rows,
        eval_rows,
        config,
        widths=widths,
        neighbours=neighbours,
        made_from=made_from or {},
        execution=execution,
    )
    if resume is not None:
        run.resume(from_bytes(resume))
    while not run.is_finished:
        run.advance()
        for record in run.due_records():
            if on_log is not None:
                on_log(record)
        if run.checkpoint_due():
            save(CHECKPOINT_NAME, to_bytes(run.checkpoint()))
        try:
            on_step()
        except BaseException:
            save(CHECKPOINT_NAME, to_bytes(run.checkpoint()))
            raise
    data = to_bytes(run.mapper_file())
    save(MAPPER_NAME, data)
    trained = load_trained(data, execution.device)
    return TrainResult(
        trained=trained, fit=run.held_out.fit(trained), history=run.history, recipe=run.recipe
    )
