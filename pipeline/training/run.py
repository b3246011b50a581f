"""The parts of one training run, and the files that describe it."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import CheckpointError, DivergedError, PairError
from pipeline.models.delta_mapper import DeltaMapperConfig
from pipeline.pairs.graph import NeighbourGraph, restrict_graph
from pipeline.pairs.sampling import PairConfig
from pipeline.rng import generator_for, seed_for
from pipeline.shapes import Ints
from pipeline.training.checkpoint import MAPPER_PREFIX, Checkpoint, TrainedMapper
from pipeline.training.config import Execution, TrainConfig, resolve
from pipeline.training.data import PairBatches
from pipeline.training.early import HELD_OUT_LOSS, EarlyStopping, best_step
from pipeline.training.held_out import HeldOut
from pipeline.training.holding import hold_rows
from pipeline.training.loss import ALL_CHANNELS, LossWeights
from pipeline.training.rows import RowSource
from pipeline.training.state import TrainingState

BEST_PREFIX = "best."
"""Names, in a checkpoint, the weights of the best held-out evaluation, for early stopping."""

Record = dict[str, float]
"""One line of the log: `step`, and `train/...`, `eval/...` or `time/...` values."""

logger = logging.getLogger(__name__)


class TrainingRun:
    """The parts of one run, and the document that describes them."""

    def __init__(
        self,
        rows: RowSource,
        train_rows: Ints,
        eval_rows: Ints,
        config: TrainConfig,
        *,
        widths: tuple[int, ...],
        neighbours: NeighbourGraph | None,
        made_from: Mapping[str, str],
        execution: Execution,
    ) -> None:
        self._refuse_leak(train_rows, eval_rows)
        device = execution.device
        self.recipe = resolve(config, len(train_rows))
        signature = generator_for(config.seed, "layer-signature")
        held, self._scaling = hold_rows(
            rows,
            train_rows,
            s_dim=sum(widths),
            residency=execution.residency,
            z_score=self.recipe.z_score,
            sign=lambda scaling: scaling.signed(self.recipe.layer_signature, signature),
        )
        graph = None if neighbours is None else restrict_graph(neighbours, train_rows)
        self._batches = PairBatches(
            held,
            config.pairs,
            batch_size=self.recipe.batch_size,
            neighbours=graph,
            device=device,
            share=execution.share,
            condition=config.condition,
        )
        self.mapper_config = DeltaMapperConfig(
            widths=tuple(widths),
            clip_dim=rows.rows(train_rows[:1], ("clip",))["clip"].shape[1],
            pixelnorm_axis=self.recipe.pixelnorm_axis,
            linear_head=self.recipe.linear_head,
            min_hidden=self.recipe.min_hidden,
        )
        weights = LossWeights(config.mse_weight, config.cosine_weight)
        self.state = TrainingState(
            self.mapper_config,
            self.recipe,
            weights,
            seed=config.seed,
            device=device,
            distributed=execution.share.parts > 1,
        )
        self.held_out = HeldOut.draw(
            rows,
            eval_rows,
            self.mapper_config,
            num_pairs=config.eval_pairs,
            pairs=PairConfig(seed=seed_for(config.seed, "held-out")),
            condition=config.condition,
            device=device,
        )
        self.history: list[Record] = []
        self._early = EarlyStopping(config.patience)
        self._share = execution.share
        self._config = config
        self._made_from = dict(made_from)
        self._device = device
        self._rows_sha256 = hashlib.sha256(np.asarray(train_rows, np.int64).tobytes()).hexdigest()
        self._loss_sum = torch.zeros(3, device=device)
        self._clock = time.perf_counter()

    def advance(self) -> None:
        """One step."""
        loss = self.state.update(self._batches.batch(self.state.step))
        self._loss_sum += torch.stack(loss)

    @property
    def is_finished(self) -> bool:
        """Whether every step is done, or waiting for a better held-out loss is over."""
        return self.state.step >= self.recipe.steps or self._early.is_over(self.history)

    def due_records(self) -> list[Record]:
        """The records that the step just done calls for; they are in `history` now."""
        step, last = self.state.step, self.state.step == self.recipe.steps
        records: list[Record] = []
        if step % self._config.log_every == 0 or last:
            records.append(self._train_record())
        if step % self._config.eval_every == 0 or last:
            records.append(self._eval_record())
            self._early.note([*self.history, *records], self.state.best.state_dict())
        self.history += records
        return records

    def checkpoint_due(self) -> bool:
        """Whether the step just done is to be saved."""
        step = self.state.step
        return step % self._config.checkpoint_every == 0 or self.is_finished

    def checkpoint(self) -> Checkpoint:
        """Everything that a resumed run needs."""
        self._refuse_divergence(float(self._loss_sum.sum()))
        tensors = {
            **self.state.tensors(),
            **self._scaling_tensors(),
            **{f"{BEST_PREFIX}{name}": tensor for name, tensor in self._early.weights.items()},
            # Losses since the last record, which a resumed run goes on summing.
            "loss_sum": self._loss_sum,
        }
        return Checkpoint(tensors=tensors, document=self._resumable_document())

    def mapper_file(self) -> Checkpoint:
        """What using the mapper needs, the same bytes however often the run was interrupted."""
        state = self._early.weights or self.state.best.state_dict()
        tensors = {f"{MAPPER_PREFIX}{name}": tensor for name, tensor in state.items()}
        document = self._document()
        if self._early.weights:
            document["step"] = best_step(self.history)
        return Checkpoint(tensors=tensors | self._scaling_tensors(), document=document)

    def _usable(self) -> TrainedMapper:
        """The weights as they are now."""
        tensors = self._scaling_tensors()
        return TrainedMapper(
            mapper=self.state.best.eval(),
            s_centre=tensors["s_centre"].to(self._device),
            s_std=tensors["s_std"].to(self._device),
            z_score=self.recipe.z_score,
            step=self.state.step,
            condition=self._config.condition,
            made_from=self._made_from,
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where `checkpoint` was taken."""
        document = checkpoint.document
        # Through JSON and back, so that tuples compare equal to the lists it made of them.
        ours = json.loads(json.dumps(self._resumable_document()))
        for name in ("mapper", "recipe", "config", "rows_sha256", "made_from"):
            if document.get(name) != ours[name]:
                raise CheckpointError(
                    f"the checkpoint's {name} is {document.get(name)}, this run's is {ours[name]}: "
                    "resume with the settings and the store of the interrupted run, or start anew"
                )
        self.state.restore(checkpoint)
        self.history = list(document["history"])
        self._early.weights = checkpoint.part(BEST_PREFIX)
        self._loss_sum = checkpoint.tensors["loss_sum"].to(self._device)

    def _document(self) -> dict[str, Any]:
        return {
            "step": self.state.step,
            "config": asdict(self._config),
            "recipe": asdict(self.recipe),
            "mapper": asdict(self.mapper_config),
            "made_from": self._made_from,
        }

    def _resumable_document(self) -> dict[str, Any]:
        return {
            **self._document(),
            "rows_sha256": self._rows_sha256,
            "history": self.history,
        }

    def _scaling_tensors(self) -> dict[str, Tensor]:
        centre, std = (torch.from_numpy(values) for values in self._scaling)
        return {"s_centre": centre, "s_std": std}

    def _train_record(self) -> Record:
        step = self.state.step
        # The last record of a run covers what is left after the one before it.
        num_steps = (step - 1) % self._config.log_every + 1
        if self._share.parts > 1:
            torch.distributed.all_reduce(self._loss_sum)
        mean = self._loss_sum / (num_steps * self._share.parts)
        total, mse, cosine = mean.tolist()
        self._loss_sum = torch.zeros_like(self._loss_sum)
        self._refuse_divergence(total)
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        logger.info("step %d of %d: loss %.4f", step, self.recipe.steps, total)
        return {
            "step": step,
            "train/loss": total,
            "train/mse": mse,
            "train/cosine_loss": cosine,
            "train/learning_rate": self.recipe.learning_rate_at(step - 1),
            "time/pairs_per_s": num_steps * self.recipe.batch_size / seconds,
        }

    def _eval_record(self) -> Record:
        record: Record = {"step": self.state.step}
        fits = self.held_out.fit(self._usable())
        fit = (fits.scaled if self.recipe.z_score else fits.raw)[ALL_CHANNELS]
        config = self._config
        loss = config.mse_weight * fit.mse + config.cosine_weight * (1.0 - fit.cosine)
        record[HELD_OUT_LOSS] = loss
        for space, fits_of_space in (("raw", fits.raw), ("scaled", fits.scaled)):
            for group, fit in fits_of_space.items():
                values = {**fit._asdict(), "explained": fit.explained}
                record |= {f"eval/{space}/{group}/{key}": value for key, value in values.items()}
        return record

    def _refuse_divergence(self, loss: float) -> None:
        if not math.isfinite(loss):
            rate = self.recipe.learning_rate_at(self.state.step - 1)
            raise DivergedError(
                f"the loss is {loss} at step {self.state.step} with learning rate {rate:.3g}: "
                "start again with a smaller learning_rate; the last checkpoint is from before"
            )

    @staticmethod
    def _refuse_leak(train_rows: Ints, eval_rows: Ints) -> None:
        shared = np.intersect1d(train_rows, eval_rows)
        if len(shared):
            raise PairError(
                f"{len(shared)} rows are both trained on and held out, such as {shared[0]}: "
                "split the store by key first"
            )
