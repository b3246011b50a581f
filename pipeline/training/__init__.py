"""Training of the Delta Mapper from cached vectors."""

from pipeline.training.checkpoint import TrainedMapper, export_official, load_trained
from pipeline.training.config import Recipe, TrainConfig, resolve
from pipeline.training.data import PairBatch, PairBatches, RowSource, load_rows
from pipeline.training.held_out import SSpaceFit
from pipeline.training.loop import CHECKPOINT_NAME, MAPPER_NAME, TrainResult, train_mapper
from pipeline.training.loss import GroupFit, delta_loss, fit_by_group, group_slices
from pipeline.training.run import Record

__all__ = [
    "CHECKPOINT_NAME",
    "MAPPER_NAME",
    "GroupFit",
    "PairBatch",
    "PairBatches",
    "Recipe",
    "Record",
    "RowSource",
    "SSpaceFit",
    "TrainConfig",
    "TrainResult",
    "TrainedMapper",
    "delta_loss",
    "export_official",
    "fit_by_group",
    "group_slices",
    "load_rows",
    "load_trained",
    "resolve",
    "train_mapper",
]
