"""Training of the attribute reader on drawings with known attributes (CPU).

Drawings are blurred, shifted, tinted and roughened at random, so that the reader also reads the
softer pictures that a generator makes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.demo.reader import AttributeReader
from pipeline.images import to_float

BLUR_TAPS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderTrainingConfig:
    """How the reader is trained."""

    num_images: int = 96_000
    """Drawings seen in all (with repetition)."""
    batch_size: int = 64
    """Drawings per step."""
    learning_rate: float = 1e-3
    """AdamW's rate at its peak; one cycle."""
    weight_decay: float = 0.02
    """AdamW's weight decay."""
    max_blur: float = 1.0
    """Largest standard deviation of the blur, in pixels."""
    max_noise: float = 0.06
    """Largest standard deviation of the noise, of pixels in -1..1."""
    seed: int = 31
    """Seed of order and augmentation."""


class ReaderTrainingState:
    """Everything a run needs to go on."""

    def __init__(self, config: ReaderTrainingConfig) -> None:
        """A new run."""
        torch.manual_seed(config.seed)
        self.model = AttributeReader()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            config.learning_rate,
            total_steps=config.num_images // config.batch_size,
        )
        self.step = 0

    def state_dict(self) -> dict:
        """Tensors and numbers only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict) -> None:
        """Inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]


def train(
    state: ReaderTrainingState,
    images: Tensor,
    labels: dict[str, Tensor],
    config: ReaderTrainingConfig,
    on_step: Callable[[ReaderTrainingState, float], None],
) -> None:
    """Run to the end.

    Args:
        state: where to go on.
        images: [N, 3, 64, 64] uint8 drawings.
        labels: for each attribute the numbers [N] of the values.
        config: how.
        on_step: called after every step with the loss.
    """
    state.model.train()
    while state.step < config.num_images // config.batch_size:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        chosen = torch.randint(len(images), (config.batch_size,), generator=generator)
        batch = to_float(images[chosen].permute(0, 2, 3, 1))
        logits = state.model(disturbed(batch, config, generator))
        losses = [F.cross_entropy(logits[name], labels[name][chosen]) for name in logits]
        loss = torch.stack(losses).mean()
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.schedule.step()
        state.step += 1
        on_step(state, loss.item())


def disturbed(images: Tensor, config: ReaderTrainingConfig, generator: torch.Generator) -> Tensor:
    """[N, 3, H, W] drawings as a generator could have made them: softer, rougher, a bit aside."""
    count = len(images)
    sigma = torch.rand(count, generator=generator) * config.max_blur
    images = _blurred(images, sigma)
    shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    size = images.shape[-1]
    images = padded[:, :, 1 + shift[0] :, 1 + shift[1] :][:, :, :size, :size]
    tint = 0.05 * torch.randn(count, 3, 1, 1, generator=generator)
    roughness = torch.rand(count, 1, 1, 1, generator=generator) * config.max_noise
    noise = torch.randn(images.shape, generator=generator)
    return images + tint + roughness * noise


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Each picture [C, H, W] with its own Gaussian [N] of 5 x 5 taps."""
    offsets = torch.arange(BLUR_TAPS) - BLUR_TAPS // 2
    taps = torch.exp(-0.5 * (offsets / sigma.clamp_min(0.1)[:, None]) ** 2)
    taps = taps / taps.sum(dim=1, keepdim=True)
    count, channels, height, width = images.shape
    kernels = taps.repeat_interleave(channels, dim=0)
    flat = images.reshape(1, count * channels, height, width)
    flat = F.pad(flat, (2, 2, 2, 2), mode="replicate")
    flat = F.conv2d(flat, kernels[:, None, :, None], groups=count * channels)
    flat = F.conv2d(flat, kernels[:, None, None, :], groups=count * channels)
    return flat.reshape(images.shape)
