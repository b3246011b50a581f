"""Training of the avatar CLIP on pictures and captions (CPU, bfloat16).

An ordinary open_clip model with a small configuration. Three losses:

- CLIP's symmetric cross-entropy (Radford et al. 2021) on a caption per picture, where all captions
  of a batch that are true of a picture share its target, because with a dozen attributes many
  captions fit many pictures;
- a sigmoid loss (Zhai et al. 2023, "SigLIP") on every picture against captions of single phrases
  of the bank, because mouths and eyes of a few pixels are hardly learnt from the first alone;
- the same of every picture against one free vector per phrase, which is dropped after training.
  While pictures say nothing of mouths yet, the texts about mouths all lie in one place and pull
  pictures nowhere; free vectors do not, and break that tie.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.demo.avatars import Attributes
from pipeline.demo.captions import fits, phrases, truth_table, write_caption, write_phrase_captions

MAX_LOGIT_SCALE = math.log(50.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTrainingConfig:
    """How the avatar CLIP is trained."""

    num_images: int = 400_000
    """Pictures seen in all (with repetition)."""
    batch_size: int = 64
    """Pictures, and captions, per step."""
    learning_rate: float = 5e-4
    """AdamW's rate at its peak; cosine to zero."""
    weight_decay: float = 0.1
    """AdamW's weight decay."""
    num_phrases: int = 48
    """Phrases per step that every picture is compared with."""
    phrase_weight: float = 1.0
    """Weight of the sigmoid loss on single phrases."""
    seed: int = 11
    """Seed of order, captions and augmentation."""


@dataclass(slots=True)
class ClipTrainingState:
    """Everything a run needs to go on."""

    model: nn.Module
    guides: nn.ParameterDict
    """``bias`` [P]: how often each phrase is true; ``vector`` [P, C]: the free vectors."""
    optimizer: torch.optim.Optimizer
    step: int = 0

    def state_dict(self) -> dict:
        """Tensors and numbers only."""
        return {
            "model": self.model.state_dict(),
            "guides": self.guides.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict) -> None:
        """Inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.guides.load_state_dict(state["guides"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def start(model: nn.Module, config: ClipTrainingConfig) -> ClipTrainingState:
    """A new run of an open_clip model."""
    num_phrases = len(phrases())
    dim = int(model.text_projection.shape[1])  # type: ignore[union-attr, arg-type, index]
    guides = nn.ParameterDict(
        {"bias": torch.zeros(num_phrases), "vector": F.normalize(torch.randn(num_phrases, dim))}
    )
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *guides.parameters()],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
    )
    return ClipTrainingState(model, guides, optimizer)


def train(
    state: ClipTrainingState,
    images: Tensor,
    people: Sequence[Attributes],
    config: ClipTrainingConfig,
    *,
    tokenize: Callable[[list[str]], Tensor],
    normalize: Callable[[Tensor], Tensor],
    templates: Sequence[str],
    on_step: Callable[[ClipTrainingState, float], None],
) -> None:
    """Run to the end.

    Args:
        state: where to go on.
        images: [N, 3, 64, 64] uint8.
        people: the attributes of the N avatars.
        config: how.
        tokenize: texts -> token numbers.
        normalize: [N, 3, 64, 64] float in 0..1 -> the model's input.
        templates: sentence patterns that captions use.
        on_step: called with the state and the loss after each step.
    """
    table = truth_table(people)
    num_steps = config.num_images // config.batch_size
    model = state.model.train()
    while state.step < num_steps:
        rng = np.random.default_rng((config.seed, state.step))
        rows = rng.choice(len(images), size=config.batch_size, replace=False)
        truth = table[:, rows]
        captions = [
            write_caption(np.flatnonzero(truth[:, i]), rng, templates) for i in range(len(rows))
        ]
        singles = write_phrase_captions(config.num_phrases, rng, templates)
        target = torch.from_numpy(fits([*captions, *singles], truth).T.astype(np.float32))
        pixels = _augmented(images[torch.from_numpy(rows)].float() / 255.0, rng)
        pixels = normalize(pixels).contiguous(memory_format=torch.channels_last)
        tokens = tokenize([caption.text for caption in (*captions, *singles)])
        progress = state.step / num_steps
        for group in state.optimizer.param_groups:
            warm_up = min(1.0, (state.step + 1) / 100)
            group["lr"] = config.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * progress))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            image_features = model.encode_image(pixels)  # type: ignore[operator]
            text_features = model.encode_text(tokens)  # type: ignore[operator]
        image_features = F.normalize(image_features.float(), dim=-1)
        text_features = F.normalize(text_features.float(), dim=-1)
        scale = model.logit_scale.exp()  # type: ignore[operator]
        count = len(captions)
        loss = multi_positive_loss(image_features, text_features[:count], scale, target[:, :count])
        bias, vector = state.guides["bias"], state.guides["vector"]
        said = [caption.phrase_ids[0] for caption in singles]
        by_text = scale * image_features @ text_features[count:].t() + bias[said]
        by_guide = scale * image_features @ F.normalize(vector, dim=-1).t() + bias
        everything = torch.from_numpy(truth.T.astype(np.float32))
        loss = loss + config.phrase_weight * (
            balanced_sigmoid_loss(by_text, target[:, count:])
            + balanced_sigmoid_loss(by_guide, everything)
        )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        state.optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)  # type: ignore[operator]
        state.step += 1
        on_step(state, float(loss.detach()))


def multi_positive_loss(
    image_NC: Tensor, text_MC: Tensor, scale: Tensor, target_NM: Tensor
) -> Tensor:
    """CLIP's symmetric cross-entropy with the target shared among all that is true.

    `target_NM` is 1 where caption m is true of picture n; every row and column has a 1.
    """
    logits = scale * image_NC @ text_MC.t()
    by_image = target_NM / target_NM.sum(dim=1, keepdim=True)
    by_text = (target_NM / target_NM.sum(dim=0, keepdim=True)).t()
    return (F.cross_entropy(logits, by_image) + F.cross_entropy(logits.t(), by_text)) / 2


def balanced_sigmoid_loss(logits_NP: Tensor, target_NP: Tensor) -> Tensor:
    """Binary cross-entropy where the true and the false pictures of a phrase weigh the same."""
    share = target_NP.mean(dim=0).clamp(0.02, 0.98)
    weight = torch.where(target_NP > 0, 0.5 / share, 0.5 / (1 - share))
    return F.binary_cross_entropy_with_logits(logits_NP, target_NP, weight=weight)


def _augmented(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift by up to 2 px; blur half of the pictures a little, as a generator would."""
    dy, dx = rng.integers(0, 5, size=2)
    padded = F.pad(pixels, (2, 2, 2, 2), mode="replicate")
    pixels = padded[:, :, dy : dy + pixels.shape[2], dx : dx + pixels.shape[3]]
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = torch.from_numpy(rng.uniform(-0.6, 0.6, size=len(pixels)).clip(0).astype(np.float32))
    return torch.lerp(pixels, blurred, amount[:, None, None, None])
