"""Tuning of the avatar CLIP's text tower against its finished image tower.

Locked-image tuning (Zhai et al. 2022, "LiT"): pictures are embedded once, and only the text tower
learns, so the vectors of stores stay valid and a step costs a few captions. To the two losses of
`train_clip` that involve texts it adds what editing by text stands on, DeltaEdit's section 3.1: the
difference of two texts points where the pictures differ. Large CLIPs have that from hundreds of
millions of captions; one of 30,000 drawings leaves half of each text difference to the wording.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.demo.avatars import Attributes
from pipeline.demo.captions import (
    Caption,
    fits,
    phrases,
    truth_table,
    write_caption,
    write_phrase_captions,
)
from pipeline.demo.train_clip import MAX_LOGIT_SCALE, balanced_sigmoid_loss, multi_positive_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTuningConfig:
    """How the text tower is tuned."""

    num_steps: int = 3000
    """Updates."""
    batch_size: int = 96
    """Pictures, and captions of them, per step."""
    num_phrases: int = 48
    """Captions of a single phrase per step."""
    num_neutral: int = 16
    """Captions that say nothing ("a photo of a face") per step."""
    num_pictures: int = 8000
    """Pictures per step of which those that a caption fits are averaged."""
    min_fitting: int = 20
    """Pictures that a caption must fit for their average to count."""
    learning_rate: float = 3e-4
    """AdamW's rate at its peak; cosine to zero."""
    delta_weight: float = 2.0
    """Weight of one minus the cosine of the two differences."""
    seed: int = 77
    """Seed of order and captions."""


@dataclass(slots=True)
class TextTuningState:
    """Everything a run needs to go on."""

    model: nn.Module
    bias: nn.Parameter
    """[P]: how often each phrase is true."""
    optimizer: torch.optim.Optimizer
    step: int = 0

    def state_dict(self) -> dict:
        """Tensors and numbers only."""
        return {
            "model": self.model.state_dict(),
            "bias": self.bias.detach(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict) -> None:
        """Inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.bias.data.copy_(state["bias"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def start(model: nn.Module, config: TextTuningConfig) -> TextTuningState:
    """A new run of a trained open_clip model."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("visual."))
    bias = nn.Parameter(torch.zeros(len(phrases())))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [*learning, bias], lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    return TextTuningState(model, bias, optimizer)


def train(
    state: TextTuningState,
    embeddings: Tensor,
    people: Sequence[Attributes],
    config: TextTuningConfig,
    *,
    tokenize: Callable[[list[str]], Tensor],
    templates: Sequence[str],
    on_step: Callable[[TextTuningState, float], None],
) -> None:
    """Run to the end.

    Args:
        state: where to go on.
        embeddings: [N, C] float32 of the pictures, by the model's image tower, of any length.
        people: the attributes of the N avatars.
        config: how.
        tokenize: texts -> token numbers.
        templates: sentence patterns that captions use.
        on_step: called with the state and the loss after each step.
    """
    table, units = truth_table(people), F.normalize(embeddings, dim=-1)
    while state.step < config.num_steps:
        rng = np.random.default_rng((config.seed, state.step))
        progress = state.step / config.num_steps
        for group in state.optimizer.param_groups:
            warm_up = min(1.0, (state.step + 1) / 100)
            group["lr"] = config.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * progress))
        batch = _Batch.draw(units, table, config, rng, templates)
        loss = _loss(state, batch, tokenize(batch.texts), config)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
        state.optimizer.step()
        with torch.no_grad():
            state.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)  # type: ignore[operator]
        state.step += 1
        on_step(state, float(loss.detach()))


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one step looks at: B pictures, M captions that claim something, some that do not."""

    pictures: Tensor
    """[B, C] unit embeddings."""
    captions: list[Caption]
    """One for each picture, then those of single phrases."""
    neutral: list[Caption]
    truth: Tensor
    """[B, M] float32: 1 where a caption is true of a picture."""
    fitting: Tensor
    """[M] bool: captions that fit enough pictures to have a direction."""
    differences: Tensor
    """[K, C]: of these, the way from all pictures to those that fit, of any length."""

    @property
    def texts(self) -> list[str]:
        return [caption.text for caption in (*self.captions, *self.neutral)]

    @classmethod
    def draw(
        cls,
        units: Tensor,
        table: np.ndarray,
        config: TextTuningConfig,
        rng: np.random.Generator,
        templates: Sequence[str],
    ) -> Self:
        rows = rng.choice(len(units), size=min(config.batch_size, len(units)), replace=False)
        captions = [write_caption(np.flatnonzero(fit), rng, templates) for fit in table[:, rows].T]
        captions += write_phrase_captions(config.num_phrases, rng, templates)
        nothing = np.empty(0, dtype=np.int64)
        looked_at = rng.choice(len(units), size=min(config.num_pictures, len(units)), replace=False)
        fit = torch.from_numpy(fits(captions, table[:, looked_at]).astype(np.float32))
        number = fit.sum(dim=1)
        # What fits all pictures says nothing, and has no direction.
        fitting = (number >= config.min_fitting) & (number < len(looked_at))
        return cls(
            pictures=units[torch.from_numpy(rows)],
            captions=captions,
            neutral=[write_caption(nothing, rng, templates) for _ in range(config.num_neutral)],
            truth=torch.from_numpy(fits(captions, table[:, rows]).T.astype(np.float32)),
            fitting=fitting,
            differences=fit[fitting] @ (units[torch.from_numpy(looked_at)] - units.mean(dim=0)),
        )


def _loss(
    state: TextTuningState, batch: _Batch, tokens: Tensor, config: TextTuningConfig
) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = state.model.encode_text(tokens)  # type: ignore[operator]
    sizes = [len(batch.captions), len(batch.neutral)]
    texts, neutral = F.normalize(features.float(), dim=-1).split(sizes)
    scale = state.model.logit_scale.exp()  # type: ignore[operator]
    own = len(batch.pictures)
    said = [caption.phrase_ids[0] for caption in batch.captions[own:]]
    by_text = scale * batch.pictures @ texts[own:].t() + state.bias[said]
    text_differences = texts[batch.fitting] - neutral.mean(dim=0)
    aligned = F.cosine_similarity(text_differences, batch.differences, dim=-1)
    return (
        multi_positive_loss(batch.pictures, texts[:own], scale, batch.truth[:, :own])
        + balanced_sigmoid_loss(by_text, batch.truth[:, own:])
        + config.delta_weight * (1 - aligned).mean()
        + neutral.var(dim=0, correction=0).sum()
    )
