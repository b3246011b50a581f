"""Training of the Delta Mapper from cached vectors."""

from pipeline.training.checkpoint import TrainedMapper, export_official, load_trained
from pipeline.training.config import Execution, Recipe, TrainConfig, resolve
from pipeline.training.data import PairBatches, Share
from pipeline.training.gather import PairBatch
from pipeline.training.held_out import SSpaceFit
from pipeline.training.holding import Residency, choose_residency
from pipeline.training.loop import CHECKPOINT_NAME, MAPPER_NAME, TrainResult, train_mapper
from pipeline.training.loss import GroupFit, delta_loss, fit_by_group, group_slices
from pipeline.training.rows import RowSource, load_rows
from pipeline.training.run import Record

__all__ = [
    "CHECKPOINT_NAME",
    "MAPPER_NAME",
    "Execution",
    "GroupFit",
    "PairBatch",
    "PairBatches",
    "Recipe",
    "Record",
    "Residency",
    "RowSource",
    "SSpaceFit",
    "Share",
    "TrainConfig",
    "TrainResult",
    "TrainedMapper",
    "choose_residency",
    "delta_loss",
    "export_official",
    "fit_by_group",
    "group_slices",
    "load_rows",
    "load_trained",
    "resolve",
    "train_mapper",
]
