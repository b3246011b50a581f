"""Training of the avatar generator's mapping network z -> w, on the encoder's codes.

The mapping network learns the distribution of the codes that the encoder gives to avatars, so that
sampled z give avatars. Both networks are small MLPs: a few minutes on a CPU. The mapping starts as
the Gaussian that has the mean and covariance of the codes, exactly, so that every z has a place of
its own; then a non-saturating GAN with R1 (Mescheder et al. 2018) gives it the shape of the codes,
while the distance of means and covariances keeps it from collapsing.

The network ends in a leaky ReLU, so codes must be mostly positive: see `export.shift_codes`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import LRELU_GAIN, LRELU_SLOPE, EqualLinear

WIDTH = 512
GROUP = 16
"""Codes that the discriminator looks at together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MappingConfig:
    """How the mapping network is trained."""

    num_steps: int = 1_200
    """Updates of each network."""
    batch_size: int = 256
    """Codes per update; a multiple of the group of 16."""
    learning_rate: float = 0.5
    """Adam's rate for the mapping network, whose stored weights are about 100 (lr_mul 0.01): they
    move by half a hundredth a step."""
    critic_rate: float = 5e-4
    """Adam's rate for the discriminator."""
    r1_weight: float = 2.0
    """Weight of the squared gradient of the discriminator at real codes (per standardised unit)."""
    moment_weight: float = 5.0
    """Weight of the distance of means and covariances."""
    stray_weight: float = 30.0
    """Weight of what w has outside the subspace of the codes, in units of their variance."""
    instance_noise: float = 0.25
    """Noise on what the discriminator sees, in standard deviations; keeps it from winning early."""
    ema_decay: float = 0.99
    """Decay per step of the averaged network that is kept."""
    seed: int = 13
    """Seed of everything drawn."""


class _Discriminator(nn.Module):
    """[N, D] standardised codes -> [N, 1]; sees how much the codes of a group differ."""

    def __init__(self, style_dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(style_dim, WIDTH),
            nn.LeakyReLU(0.2),
            nn.Linear(WIDTH, WIDTH),
            nn.LeakyReLU(0.2),
        )
        self.head = nn.Sequential(
            nn.Linear(2 * WIDTH, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, 1)
        )

    def forward(self, codes: Tensor) -> Tensor:
        hidden = self.body(codes)
        spread = hidden.view(-1, GROUP, WIDTH).std(dim=1).repeat_interleave(GROUP, dim=0)
        return self.head(torch.cat([hidden, spread], dim=1))


def train(
    mapping: nn.Sequential,
    codes: Tensor,
    config: MappingConfig,
    on_step: Callable[[int, dict[str, float]], None],
) -> nn.Sequential:
    """Fit `mapping` (z [N, D] -> w [N, D]) to `codes` [M, D] float32; returns the averaged network.

    Codes are compared in whitened coordinates, so that directions of small variance, which carry
    small features such as mouths, count as much as large ones.
    """
    torch.manual_seed(config.seed)
    style_dim = codes.shape[1]
    whiten = _Whitening(codes)
    real = whiten(codes)
    start_at_gaussian(mapping, whiten.mean, whiten.axes * whiten.spread)
    discriminator = _Discriminator(whiten.rank)
    average = copy.deepcopy(mapping)
    optimizer = torch.optim.Adam(mapping.parameters(), lr=config.learning_rate, betas=(0.0, 0.99))
    critic = torch.optim.Adam(discriminator.parameters(), lr=config.critic_rate, betas=(0.0, 0.99))
    for step in range(config.num_steps):
        scale = min(1.0, 4 * (1 - step / config.num_steps))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * scale
        for group in critic.param_groups:
            group["lr"] = config.critic_rate * scale
        batch = real[torch.randint(len(real), (config.batch_size,))]
        fake = whiten(mapping(torch.randn(config.batch_size, style_dim)))
        noise = config.instance_noise
        batch = (batch + noise * torch.randn_like(batch)).requires_grad_(True)
        fake = fake.detach() + noise * torch.randn_like(fake)
        score_real, score_fake = discriminator(batch), discriminator(fake)
        (slope,) = torch.autograd.grad(score_real.sum(), batch, create_graph=True)
        penalty = config.r1_weight * slope.square().sum(dim=1).mean()
        loss_d = F.softplus(-score_real).mean() + F.softplus(score_fake).mean() + penalty
        critic.zero_grad(set_to_none=True)
        loss_d.backward()
        critic.step()

        w = mapping(torch.randn(config.batch_size, style_dim))
        fake = whiten(w)
        moments = _moment_distance(fake, batch.detach())
        stray = whiten.stray(w)
        score = discriminator(fake + noise * torch.randn_like(fake))
        loss_g = (
            F.softplus(-score).mean() + config.moment_weight * moments + config.stray_weight * stray
        )
        optimizer.zero_grad(set_to_none=True)
        loss_g.backward()
        optimizer.step()
        with torch.no_grad():
            keep = min(config.ema_decay, step / (step + 10))
            for target, source in zip(average.parameters(), mapping.parameters(), strict=True):
                target.lerp_(source, 1 - keep)
        on_step(
            step + 1,
            {
                "d": float(loss_d.detach()),
                "g": float(loss_g.detach()),
                "moments": float(moments.detach()),
                "stray": float(stray.detach()),
            },
        )
    return average


@torch.no_grad()
def start_at_gaussian(mapping: nn.Sequential, mean: Tensor, axes: Tensor) -> None:
    """Make ``mapping(z)`` equal ``mean + axes z[:R]`` wherever that is positive.

    Each hidden layer holds u and -u side by side (half of its units each): their leaky ReLUs
    together still say what u was, so every layer can hand it on.

    Args:
        mapping: `Generator.style`.
        mean: [D] of the codes.
        axes: [D, R] principal axes, scaled by their standard deviations; R at most D / 2.
    """
    layers = [layer for layer in mapping if isinstance(layer, EqualLinear)]
    half = layers[0].weight.shape[1] // 2
    eye = torch.eye(half)
    restore = torch.cat([eye, -eye], dim=1) / (LRELU_GAIN * (1 + LRELU_SLOPE))  # units -> u
    for number, layer in enumerate(layers):
        source = torch.cat([eye, torch.zeros(half, half)], dim=1) if number == 0 else restore
        if number == len(layers) - 1:
            weight = axes @ source[: axes.shape[1]] / LRELU_GAIN
            layer.bias.copy_(mean / LRELU_GAIN / layer.bias_gain)
        else:
            weight = torch.cat([source, -source])
            layer.bias.zero_()
        layer.weight.copy_(weight / layer.weight_gain)


class _Whitening:
    """Codes -> coordinates of unit variance along the principal axes that carry variance."""

    def __init__(self, codes: Tensor, share: float = 0.9995) -> None:
        self.mean = codes.mean(dim=0)
        covariance = torch.cov((codes - self.mean).t())
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0), vectors.flip(1)
        self.rank = int((values.cumsum(0) / values.sum() < share).sum()) + 1
        floor = values[: self.rank].mean() * 1e-2
        self.axes = vectors[:, : self.rank]
        self.matrix = self.axes / (values[: self.rank] + floor).sqrt()
        self.spread = values[: self.rank].sqrt()
        self.variance = values.sum()

    def __call__(self, codes: Tensor) -> Tensor:
        return (codes - self.mean) @ self.matrix

    def stray(self, codes: Tensor) -> Tensor:
        """Mean squared distance from the subspace of the axes, as a share of the variance."""
        centred = codes - self.mean
        inside = centred @ self.axes
        return (centred.square().sum(dim=1) - inside.square().sum(dim=1)).mean() / self.variance


def _moment_distance(fake: Tensor, real: Tensor) -> Tensor:
    means = (fake.mean(dim=0) - real.mean(dim=0)).square().mean()
    return means + (torch.cov(fake.t()) - torch.cov(real.t())).square().sum(dim=1).mean()
