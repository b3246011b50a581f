"""Settings of a training run, and what each recipe makes of the ones left open."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from pipeline.errors import PipelineError
from pipeline.models.delta_mapper import PixelNormAxis
from pipeline.pairs.sampling import PairConfig
from pipeline.training.data import WHOLE, Share
from pipeline.training.gather import Condition
from pipeline.training.holding import Residency

RecipeName = Literal["official", "fast"]
Schedule = Literal["constant", "cosine"]

PUBLISHED_EPOCHS = 50
"""The published run makes every row the source of a pair this often."""
PUBLISHED_BATCH = 64
PUBLISHED_LEARNING_RATE = 0.5
FAST_STEPS = 4_000
FAST_BATCH = 128
FAST_LEARNING_RATE = 1.0
FAST_EMA_DECAY = 0.999
FAST_SIGNATURE = 2.0
FAST_MIN_HIDDEN = 256
WARMUP_SHARE = 0.03
"""Share of the steps in which the learning rate of `fast` rises from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What to train and how long; None leaves a setting to the recipe."""

    recipe: RecipeName = "fast"
    """`official`: the published optimisation (raw targets, Adam, constant rate). `fast`: z-scored
    codes, larger batches, a cosine schedule and averaged weights."""

    steps: int | None = None
    """Updates. None: 50 epochs (`official`), 4,000 (`fast`)."""

    batch_size: int | None = None
    """Pairs per update. None: 64 (`official`), 128 (`fast`)."""

    learning_rate: float | None = None
    """Peak step size of Adam for weights stored with lr_mul 0.01: 0.5 here moves the effective
    weights as 0.005 would. None: 0.5 (`official`), 1.0 (`fast`)."""

    z_score: bool | None = None
    """Train on codes scaled by the mean and std of the training rows. None: `fast` does."""

    layer_signature: float | None = None
    """With `z_score`: size, in standard deviations, of a fixed random pattern added to the codes
    that the mapper reads. The layers of a group share one network, which could not tell centred
    codes of one layer from those of another. None: 0 (`official`), 2 (`fast`)."""

    ema_decay: float | None = None
    """Decay per step of the weight average that is evaluated and saved; 0 switches it off. None: 0
    (`official`), 0.999 (`fast`)."""

    mse_weight: float = 1.0
    """Weight of the mean squared error."""

    cosine_weight: float = 1.0
    """Weight of one minus the mean cosine."""

    condition: Condition = "delta"
    """What the mapper is told of the target: the difference of the embeddings, as published, or
    with `target` the target's embedding, the ablation of the paper's section 3.2."""

    pixelnorm_axis: PixelNormAxis | None = None
    """See `DeltaMapperConfig`. None: `layers` (`official`), `channels` (`fast`)."""

    linear_head: bool | None = None
    """See `DeltaMapperConfig`. None: `fast` has one, because z-scored changes are negative as often
    as positive."""

    min_hidden: int | None = None
    """See `DeltaMapperConfig`. None: 0 (`official`), 256 (`fast`). Published generators are wider,
    so only the mappers of small ones grow."""

    pairs: PairConfig = field(default_factory=PairConfig)
    """How training pairs are drawn; held-out pairs are always random ones."""

    seed: int = 0
    """Seed of the initial weights and of the held-out pairs."""

    log_every: int = 100
    """Steps between records of the training loss."""

    eval_every: int = 500
    """Steps between held-out evaluations."""

    eval_pairs: int = 2048
    """Held-out pairs, the same ones every time."""

    checkpoint_every: int = 1000
    """Steps between checkpoints."""

    patience: int | None = None
    """Held-out evaluations without improvement after which the run ends; the best evaluation's
    weights are then the result. None: all steps, and the last weights."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value}: at least 1"
            for name, value in (
                ("steps", self.steps),
                ("batch_size", self.batch_size),
                ("log_every", self.log_every),
                ("eval_every", self.eval_every),
                ("eval_pairs", self.eval_pairs),
                ("checkpoint_every", self.checkpoint_every),
                ("patience", self.patience),
            )
            if value is not None and value < 1
        ]
        if self.recipe not in get_args(RecipeName):
            problems.append(f"recipe is {self.recipe!r}: choose one of {get_args(RecipeName)}")
        if self.condition not in get_args(Condition):
            problems.append(f"condition is {self.condition!r}: choose one of {get_args(Condition)}")
        if self.learning_rate is not None and self.learning_rate <= 0:
            problems.append(f"learning_rate is {self.learning_rate}: must be positive")
        if self.layer_signature is not None and self.layer_signature < 0:
            problems.append(f"layer_signature is {self.layer_signature}: 0 or more")
        if self.min_hidden is not None and self.min_hidden < 0:
            problems.append(f"min_hidden is {self.min_hidden}: 0 or more")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            problems.append(f"ema_decay is {self.ema_decay}: 0 or more, below 1")
        if min(self.mse_weight, self.cosine_weight) < 0 or not self.mse_weight + self.cosine_weight:
            problems.append("mse_weight and cosine_weight: 0 or more, and one of them positive")
        if problems:
            raise PipelineError("training settings: " + "; ".join(problems))


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """Where and how a run is carried out. Its results depend on it by rounding at most."""

    device: torch.device | str = "cpu"
    """Where to train."""
    residency: Residency = "float32"
    """How the training rows are held."""
    share: Share = WHOLE
    """This process's part of every batch. With more than one part, the processes must have joined
    a `torch.distributed` process group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A `TrainConfig` with nothing left open."""

    steps: int
    """Updates of the whole run."""
    batch_size: int
    """Pairs per update."""
    learning_rate: float
    """Peak step size of Adam."""
    schedule: Schedule
    """`constant`, or `cosine`: a linear rise, then half a cosine down to 0."""
    warmup_steps: int
    """Steps of the linear rise."""
    z_score: bool
    """Whether codes are scaled by the statistics of the training rows."""
    layer_signature: float
    """Size of the pattern that tells layers apart, in standard deviations."""
    ema_decay: float
    """Decay per step of the weight average; 0 for none."""
    pixelnorm_axis: PixelNormAxis
    """Variant of the mapper."""
    linear_head: bool
    """Variant of the mapper."""
    min_hidden: int
    """Variant of the mapper."""

    def learning_rate_at(self, step: int) -> float:
        """Step size of update `step`, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def resolve(config: TrainConfig, num_rows: int) -> Recipe:
    """Fill in what `config` leaves to its recipe, for `num_rows` training rows.

    `official` is the published run (DeltaEdit, section 4.1, and its released training script):
    floor(50 rows / 64) updates of Adam at 0.5. Adam(0.5, eps 1e-8) on weights stored with lr_mul
    0.01 equals Adam(0.005, eps 1e-6) on plainly stored ones.
    """
    published = config.recipe == "official"
    batch_size = config.batch_size or (PUBLISHED_BATCH if published else FAST_BATCH)
    epochs_steps = max(1, PUBLISHED_EPOCHS * num_rows // batch_size)
    steps = config.steps or (epochs_steps if published else FAST_STEPS)
    rate = config.learning_rate or (PUBLISHED_LEARNING_RATE if published else FAST_LEARNING_RATE)
    ema_decay = 0.0 if published else FAST_EMA_DECAY
    signature = 0.0 if published else FAST_SIGNATURE
    min_hidden = 0 if published else FAST_MIN_HIDDEN
    return Recipe(
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        schedule="constant" if published else "cosine",
        warmup_steps=0 if published else max(1, int(WARMUP_SHARE * steps)),
        z_score=not published if config.z_score is None else config.z_score,
        layer_signature=signature if config.layer_signature is None else config.layer_signature,
        ema_decay=ema_decay if config.ema_decay is None else config.ema_decay,
        pixelnorm_axis=config.pixelnorm_axis or ("layers" if published else "channels"),
        linear_head=not published if config.linear_head is None else config.linear_head,
        min_hidden=min_hidden if config.min_hidden is None else config.min_hidden,
    )
