"""Training of the avatar generator and encoder together, as an autoencoder (CPU, bfloat16).

An adversarial run of two such networks costs seven times as much per picture on a CPU; because
avatars are noise-free drawings, a reconstruction loss alone gives sharp pictures. The generator is
trained from W+ codes and, for a part of each batch, from one w for all layers, so that both spaces
render well; a little noise on the codes keeps neighbouring codes plausible.

Two things make it keep what is small, such as a mouth of eight pixels: pixels count by how well
they tell the values of an attribute apart (`detail_weights`), and linear heads, dropped afterwards,
read the attributes from the codes.

Editing changes S, the styles of the convolutions; those of toRGB follow W+, which an edit leaves as
it is. Hair and skin whose colour came from there would keep it, so toRGB has constant styles.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.demo.reader import HIDDEN, VALUES
from pipeline.models.e4e import E4EConfig, Encoder
from pipeline.models.stylegan2 import Generator

GENERATOR_SIZE = 64
GENERATOR_CHANNELS = (96, 96, 96, 96, 32)  # equal up to 32 px: the mapper shares weights there
ENCODER = E4EConfig(
    num_w=10,
    stage_units=(1, 2, 2, 2),
    stage_widths=(32, 64, 96, 128),
    input_height=GENERATOR_SIZE,
    input_width=GENERATOR_SIZE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig:
    """How the avatar generator and encoder are trained."""

    num_images: int = 168_000
    """Pictures seen in all (with repetition)."""
    batch_size: int = 32
    """Pictures per step."""
    learning_rate: float = 2e-3
    """Adam's rate at its peak; it falls to a hundredth on a cosine."""
    single_w_share: float = 0.35
    """Share of each batch rendered from one w for all layers."""
    code_noise: float = 0.06
    """Standard deviation of the noise added to codes whose entries have variance of about 1."""
    code_energy: float = 1e-3
    """Weight of the mean square of the codes."""
    delta_energy: float = 4e-3
    """Weight of the mean square of the offsets between the codes of one picture."""
    detail_share: float = 0.6
    """Share of the weight of all pixels that goes to those that tell attributes apart, 0 to 1."""
    attribute_weight: float = 0.02
    """Weight of the cross-entropy of the attributes, read linearly from the codes."""
    ema_half_life: int = 500
    """Steps after which a weight counts half in the averaged model."""
    seed: int = 7
    """Seed of initialisation, order and noise."""


class Autoencoder(nn.Module):
    """Encoder and generator as one module, so that one average and one state dict hold both."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(ENCODER)
        self.generator = Generator(GENERATOR_SIZE, GENERATOR_CHANNELS)
        width = ENCODER.num_w * self.generator.style_dim
        self.heads = nn.ModuleDict({k: nn.Linear(width, len(v)) for k, v in VALUES.items()})

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, 64, 64] in -1..1 -> reconstructions of the same shape, from W+."""
        return self.generator(self.encoder(images).float())


@dataclass(slots=True)
class AutoencoderState:
    """Everything a run needs to go on."""

    model: Autoencoder
    average: Autoencoder
    optimizer: torch.optim.Optimizer
    step: int = 0

    def state_dict(self) -> dict:
        """Tensors and numbers only."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict) -> None:
        """Inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def start(config: AutoencoderConfig) -> AutoencoderState:
    """A new run."""
    torch.manual_seed(config.seed)
    model = Autoencoder()
    model.encoder.to(memory_format=torch.channels_last)
    model.generator.style.requires_grad_(False)  # trained afterwards, see train_mapping.py
    for rgb in model.generator.rgb_layers:
        nn.init.zeros_(rgb.conv.modulation.weight).requires_grad_(False)
    groups = [
        {"params": [p for p in model.generator.parameters() if p.requires_grad], "scale": 1.0},
        {"params": [*model.encoder.parameters(), *model.heads.parameters()], "scale": 0.5},
    ]
    optimizer = torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    return AutoencoderState(model, copy.deepcopy(model).eval(), optimizer)


def train(
    state: AutoencoderState,
    images: Tensor,
    labels: Mapping[str, Tensor],
    config: AutoencoderConfig,
    on_step: Callable[[AutoencoderState, float], None],
) -> None:
    """Run to the end.

    Args:
        state: where to go on.
        images: [N, 3, 64, 64] uint8 drawings.
        labels: for each attribute the numbers [N] of the values, see `reader.labels_of`.
        config: how.
        on_step: called after every step with the loss.
    """
    model, average = state.model, state.average
    num_steps = config.num_images // config.batch_size
    weight = 1 - config.detail_share + config.detail_share * detail_weights(images, labels)
    keep = 0.5 ** (1 / config.ema_half_life)
    model.train()
    while state.step < num_steps:
        # A generator per step makes a resumed run draw what the undisturbed one draws.
        draw = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        rows = torch.randint(len(images), (config.batch_size,), generator=draw)
        batch = images[rows].float().div_(127.5).sub_(1.0)
        batch = batch.contiguous(memory_format=torch.channels_last)
        warm_up = min(1.0, (state.step + 1) / 200)
        decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * state.step / num_steps))
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * group["scale"] * warm_up * decay
        truth = {name: numbers[rows] for name, numbers in labels.items()}
        loss = _loss(model, batch, truth, weight, config, draw)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.step += 1
        with torch.no_grad():
            ramp = min(keep, state.step / (state.step + 10))
            _average_into(average, model, ramp)
        on_step(state, float(loss.detach()))


def _loss(
    model: Autoencoder,
    batch: Tensor,
    truth: Mapping[str, Tensor],
    weight: Tensor,
    config: AutoencoderConfig,
    draw: torch.Generator,
) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = model.encoder(batch).float()
    deltas = codes[:, 1:] - codes[:, :1]
    num_single = round(config.single_w_share * len(codes))
    w_plus = torch.cat([codes[:num_single, :1].expand_as(codes[:num_single]), codes[num_single:]])
    w_plus = w_plus + config.code_noise * torch.randn(w_plus.shape, generator=draw)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pictures = model.generator(w_plus)
    flat = codes.flatten(1)
    misread = [F.cross_entropy(model.heads[name](flat), value) for name, value in truth.items()]
    error = pictures.float() - batch
    picture_loss = ((error.abs() + 2.0 * error.square()) * weight).mean()
    return (
        picture_loss
        + config.attribute_weight * torch.stack(misread).mean()
        + config.code_energy * codes.square().mean()
        + config.delta_energy * deltas.square().mean()
    )


def detail_weights(images: Tensor, labels: Mapping[str, Tensor], count: int = 4096) -> Tensor:
    """How much each pixel tells attribute values apart: [H, W] float32 of mean 1.

    For an attribute that is the spread of the mean pictures of its values; all attributes weigh the
    same in sum, however few pixels show them. Covered attributes (`HIDDEN`) do not count.

    Args:
        images: [N, 3, H, W] uint8 drawings; the first `count` are looked at.
        labels: for each attribute the numbers [N] of the values.
        count: how many.
    """
    pictures = images[:count].float() / 127.5 - 1
    maps = []
    for name, numbers in labels.items():
        shown = [
            pictures[numbers[:count] == number].mean(dim=0)
            for number, value in enumerate(VALUES[name])
            if value != HIDDEN and (numbers[:count] == number).any()
        ]
        spread = torch.stack(shown).var(dim=0, correction=0).sum(dim=0)
        maps.append(spread / spread.mean())
    return torch.stack(maps).mean(dim=0)


def _average_into(average: nn.Module, model: nn.Module, keep: float) -> None:
    for target, source in zip(average.parameters(), model.parameters(), strict=True):
        target.lerp_(source, 1 - keep)
    for target, source in zip(average.buffers(), model.buffers(), strict=True):
        target.copy_(source)


def psnr(pictures: Tensor, images: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of [N, 3, H, W] pictures in -1..1 (clamped first)."""
    error = (pictures.clamp(-1, 1) - images).square().mean(dim=(1, 2, 3)) / 4.0
    return float((-10 * torch.log10(error)).mean())
