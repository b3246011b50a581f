"""What changes from step to step: weights, their average, and Adam's moments."""

import copy
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.errors import CheckpointError
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.rng import seed_for
from pipeline.training.checkpoint import MAPPER_PREFIX, Checkpoint, load_weights
from pipeline.training.config import Recipe
from pipeline.training.gather import PairBatch
from pipeline.training.loss import DeltaLoss, LossWeights, delta_loss

LIVE_PREFIX = "live."
MOMENTS = ("exp_avg", "exp_avg_sq")
EMA_EVERY = 8
"""Steps between updates of the average, each with the decay of that many steps: the same average to
a rounding, at an eighth of the memory traffic."""
EMA_RAMP = 10
"""Early averages forget faster: the decay is at most (1 + step) / (10 + step), so that the first
weights, which are random, fade in time."""


class TrainingState:
    """Weights and optimiser of one run; `update` is the whole training step."""

    def __init__(
        self,
        config: DeltaMapperConfig,
        recipe: Recipe,
        weights: LossWeights,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        distributed: bool = False,
    ) -> None:
        """Make the first weights.

        Args:
            config: the mapper.
            recipe: the settings.
            weights: of the two losses.
            seed: of the first weights.
            device: where they live.
            distributed: average gradients over the process group, of which each process sees its
                part of a batch.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "mapper"))
            live = DeltaMapper(config)
        self.live = live.to(device)
        self._forward: nn.Module = self.live
        if distributed:
            self._forward = DistributedDataParallel(self.live)
        self.step = 0
        self._recipe = recipe
        self._weights = weights
        # The published Adam, in its fused form: the same update in one pass over the weights.
        self._adam = torch.optim.Adam(self.live.parameters(), lr=recipe.learning_rate, fused=True)
        self._average: DeltaMapper | None = None
        if recipe.ema_decay:
            self._average = copy.deepcopy(self.live).requires_grad_(requires_grad=False)

    @property
    def best(self) -> DeltaMapper:
        """The weights to evaluate and to save: the average where there is one."""
        return self._average if self._average is not None else self.live

    def update(self, batch: PairBatch) -> DeltaLoss:
        """One step of Adam on one batch; the losses before it, without gradient."""
        for group in self._adam.param_groups:
            group["lr"] = self._recipe.learning_rate_at(self.step)
        self._adam.zero_grad(set_to_none=True)
        loss = delta_loss(self._forward(batch.s, batch.condition), batch.delta_s, self._weights)
        loss.total.backward()
        self._adam.step()
        self.step += 1
        if self._average is not None and self.step % EMA_EVERY == 0:
            decay = min(self._recipe.ema_decay, (1 + self.step) / (EMA_RAMP + self.step))
            average = get_ema_multi_avg_fn(decay**EMA_EVERY)
            average(list(self._average.parameters()), list(self.live.parameters()), None)  # pyright: ignore[reportArgumentType] - wants a count, ignores it
        return DeltaLoss(*(term.detach() for term in loss))

    def weights(self) -> dict[str, Tensor]:
        """Tensors of the weights to use, for a `Checkpoint`."""
        return {f"{MAPPER_PREFIX}{key}": value for key, value in self.best.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a resumed run needs, for a `Checkpoint`."""
        tensors = self.weights()
        if self._average is not None:
            live = self.live.state_dict()
            tensors |= {f"{LIVE_PREFIX}{key}": value for key, value in live.items()}
        for key, moments in self._moments():
            tensors |= {f"adam.{name}.{key}": moments[name] for name in MOMENTS}
            tensors["adam.step"] = moments["step"]
        return tensors

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over the state that `tensors` gave.

        Raises:
            CheckpointError: the file lacks the optimiser, as a finished mapper's file does.
        """
        if "adam.step" not in checkpoint.tensors:
            raise CheckpointError(
                "this file holds a trained mapper without its optimiser: resume from the run's "
                "checkpoint file"
            )
        load_weights(self.best, checkpoint.part(MAPPER_PREFIX))
        if self._average is not None:
            load_weights(self.live, checkpoint.part(LIVE_PREFIX))
        for key, parameter in self.live.named_parameters():
            device = parameter.device
            moments = {
                name: checkpoint.tensors[f"adam.{name}.{key}"].to(device) for name in MOMENTS
            }
            moments["step"] = checkpoint.tensors["adam.step"].clone().to(device)
            self._adam.state[parameter] = moments
        self.step = int(checkpoint.document["step"])

    def _moments(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for key, parameter in self.live.named_parameters():
            if parameter in self._adam.state:
                yield key, cast("dict[str, Tensor]", self._adam.state[parameter])
