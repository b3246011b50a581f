"""StyleGAN2 generator: z -> w -> W+ -> S -> image, in the layout of the published checkpoints.

State-dict keys are those of rosinality-layout files (``g_ema``), so official weights load as they
are; everything is plain PyTorch. Formulas: Karras et al. 2020; S space: Wu et al. 2021
("StyleSpace Analysis"). Letters of shapes: see pipeline/shapes.py.

A modulated convolution is computed as ``conv(x * style, W) * demodulation``, which equals the
published per-sample weights (grouped convolution) and shares one weight over the batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import EqualLinear, PixelNorm, scaled_leaky_relu

COARSE_LAYERS = 3
MEDIUM_LAYERS = 4
FIR = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True, slots=True)
class SLayer:
    """One styled convolution's place in the flat S code."""

    index: int
    """Execution order; also the row of W+ that drives the layer."""
    resolution: int
    """Side of the layer's output in pixels."""
    width: int
    """Number of style channels (input channels of the convolution)."""
    offset: int
    """First channel of the layer in the flat code."""
    group: str
    """coarse (layers 0-2), medium (3-6) or fine (the rest)."""

    @property
    def columns(self) -> slice:
        """The layer's slice of a flat [S] code."""
        return slice(self.offset, self.offset + self.width)


@dataclass(frozen=True)
class SLayout:
    """How a flat S code is made of layers: convolutions only, toRGB excluded, execution order."""

    size: int
    widths: tuple[int, ...]

    @classmethod
    def of_channels(cls, size: int, channels: Sequence[int]) -> "SLayout":
        """Layout of a generator with `channels[i]` feature maps at 4 * 2**i pixels."""
        widths = [channels[0]]
        for before, here in zip(channels, channels[1:], strict=False):
            widths += [before, here]
        return cls(size, tuple(widths))

    @cached_property
    def layers(self) -> tuple[SLayer, ...]:
        """The layers in execution order."""
        out, offset = [], 0
        for index, width in enumerate(self.widths):
            group = (
                "coarse"
                if index < COARSE_LAYERS
                else "medium"
                if index < COARSE_LAYERS + MEDIUM_LAYERS
                else "fine"
            )
            out.append(SLayer(index, 4 << ((index + 1) // 2), width, offset, group))
            offset += width
        return tuple(out)

    @property
    def total(self) -> int:
        """S: length of a flat code (6048 for the 1024-px config-f generator)."""
        return sum(self.widths)

    @property
    def num_w(self) -> int:
        """L: rows of W+, ``2 log2(size) - 2``."""
        return len(self.widths) + 1

    def group(self, name: str) -> slice:
        """The slice of a flat code that holds a group (empty for fine at 32 px)."""
        members = [layer for layer in self.layers if layer.group == name]
        if not members:
            return slice(self.total, self.total)
        return slice(members[0].offset, members[-1].offset + members[-1].width)

    def split(self, s: Tensor) -> list[Tensor]:
        """[N, S] -> one [N, width] view per layer."""
        return list(torch.split(s, list(self.widths), dim=-1))


def config_f_channels(size: int, multiplier: int = 2) -> tuple[int, ...]:
    """Feature maps per resolution of the published generators (config-f has multiplier 2)."""
    table = {4: 512, 8: 512, 16: 512, 32: 512}
    table |= {64 << i: (256 >> i) * multiplier for i in range(5)}
    return tuple(table[4 << i] for i in range(int(math.log2(size)) - 1))


class _Fir(nn.Module):
    """Holder of the [1,3,3,1] filter under the key that published checkpoints use."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(FIR)
        kernel = taps[:, None] * taps[None, :]
        self.register_buffer("kernel", kernel / kernel.sum() * 4.0)  # 4: gain of the upsampling

    def blur(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H - 1, W - 1]: pad 1, filter with the 4 x 4 kernel."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, padding=1, groups=channels)

    def upsample(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, 2H, 2W]: zero insertion, then the filter.

        Away from the border this is bilinear interpolation; one ring of zeros reproduces the
        published zero padding at the border.
        """
        y = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")
        return y[:, :, 2:-2, 2:-2]


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style (Karras et al. 2020, eq. 1-3).

    [N, in, H, W] and a style [N, in] -> [N, out, H', W'], H' = 2H with `upsample`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(1, out_channels, in_channels, kernel_size, kernel_size)
        )
        self.modulation = EqualLinear(style_dim, in_channels, bias_init=1.0)
        self.gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.padding = kernel_size // 2
        self.demodulate = demodulate
        self.blur = _Fir() if upsample else None

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """`style` is the output of `modulation`, i.e. this layer's part of S."""
        weight = self.weight[0] * self.gain
        style = style.float()
        demodulation = None
        if self.demodulate:
            # Once demodulated only the direction of the style matters, so it is brought to a peak
            # of 1 first: activations then stay far from the limits of half precision.
            peak = style.detach().abs().amax(dim=1, keepdim=True).clamp_min(1e-8)
            energy = weight.float().square().sum(dim=(2, 3))
            demodulation = peak * torch.rsqrt(style.square() @ energy.t() + 1e-8)
            style = style / peak
        x = x * style[:, :, None, None].to(x.dtype)
        weight = weight.to(x.dtype)
        if self.blur is None:
            x = F.conv2d(x, weight, padding=self.padding)
        else:
            x = self.blur.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        return x if demodulation is None else x * demodulation[:, :, None, None].to(x.dtype)


class _NoiseStrength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class _ActivationBias(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, scaled leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, style_dim: int, *, upsample: bool = False
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_dim, upsample=upsample)
        self.noise = _NoiseStrength()
        self.activate = _ActivationBias(out_channels)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """`noise` is [1 or N, 1, H', W'], shared by all channels."""
        x = self.conv(x, style)
        offset = self.noise.weight * noise + self.activate.bias[:, None, None]
        return scaled_leaky_relu(x + offset.to(x.dtype))


class ToRGB(nn.Module):
    """1x1 modulated convolution without demodulation, added to the upsampled running image."""

    def __init__(self, in_channels: int, style_dim: int, *, upsample: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = _Fir() if upsample else None

    def forward(self, x: Tensor, style: Tensor, skip: Tensor | None) -> Tensor:
        """The running image stays float32 whatever the precision of `x` [N, C, H, W]."""
        image = self.conv(x, style).float() + self.bias
        if skip is None or self.upsample is None:
            return image
        return image + self.upsample.upsample(skip)


class Generator(nn.Module):
    """StyleGAN2 generator of any size and width.

    Args:
        size: side of the image in pixels, a power of two from 32 to 1024.
        channels: feature maps at 4, 8, ... `size` pixels; default: the published config-f.
        style_dim: width of w and of each row of W+.
        num_mapping: layers of the mapping network.

    Buffers ``noises.noise_i`` are the checkpoint's fixed noise; `synthesize` uses them unless other
    noise is given, so the same codes always give the same image.
    """

    def __init__(
        self,
        size: int,
        channels: Sequence[int] | None = None,
        style_dim: int = 512,
        num_mapping: int = 8,
    ) -> None:
        super().__init__()
        channels = tuple(channels or config_f_channels(size))
        self.size = size
        self.channels = channels
        self.style_dim = style_dim
        self.layout = SLayout.of_channels(size, channels)
        self.style = nn.Sequential(
            PixelNorm(),
            *(
                EqualLinear(style_dim, style_dim, lr_mul=0.01, activated=True)
                for _ in range(num_mapping)
            ),
        )
        self.input = nn.Module()
        self.input.register_parameter("input", nn.Parameter(torch.randn(1, channels[0], 4, 4)))
        self.conv1 = StyledConv(channels[0], channels[0], style_dim)
        self.to_rgb1 = ToRGB(channels[0], style_dim, upsample=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for before, here in zip(channels, channels[1:], strict=False):
            self.convs.append(StyledConv(before, here, style_dim, upsample=True))
            self.convs.append(StyledConv(here, here, style_dim))
            self.to_rgbs.append(ToRGB(here, style_dim, upsample=True))
        self.noises = nn.Module()
        for layer in self.layout.layers:
            side = layer.resolution
            self.noises.register_buffer(f"noise_{layer.index}", torch.randn(1, 1, side, side))
        self.compute_dtype = torch.float32

    @property
    def styled_convs(self) -> list[StyledConv]:
        """The convolutions that S drives, in execution order."""
        return [self.conv1, *self.convs]  # type: ignore[list-item]

    def map(self, z: Tensor) -> Tensor:
        """[N, style_dim] ~ N(0, I) -> w [N, style_dim]."""
        return self.style(z)

    def broadcast(self, w: Tensor, mean: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """w [N, D] -> W+ [N, L, D], pulled towards `mean` [D] by `truncation` (1: not at all)."""
        if truncation != 1.0:
            if mean is None:
                raise ValueError(f"truncation {truncation} needs the mean of w")
            w = mean + truncation * (w - mean)
        return w[:, None, :].expand(-1, self.layout.num_w, -1)

    def to_s(self, w_plus: Tensor) -> Tensor:
        """W+ [N, L, D] -> S [N, S]: the layers' affine maps, nothing is rendered."""
        styles = [
            conv.conv.modulation(w_plus[:, index]) for index, conv in enumerate(self.styled_convs)
        ]
        return torch.cat(styles, dim=1)

    def synthesize(
        self, s: Tensor, w_plus: Tensor, noise: Sequence[Tensor] | None = None
    ) -> Tensor:
        """S [N, S] and W+ [N, L, D] -> images [N, 3, size, size] float32, about -1..1, not clamped.

        W+ drives only toRGB (StyleSpace convention of DeltaEdit): editing S leaves it unedited.
        """
        styles = self.layout.split(s)
        fields = noise or list(self.noises.buffers())
        dtype = self.compute_dtype
        x = self.input.input.to(dtype).expand(s.shape[0], -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv1(x, styles[0], fields[0])
        rgb = self.to_rgb1
        image = rgb(x, rgb.conv.modulation(w_plus[:, 1]), None)
        for block, rgb in enumerate(self.to_rgbs):
            first = 2 * block
            x = self.convs[first](x, styles[first + 1], fields[first + 1])
            x = self.convs[first + 1](x, styles[first + 2], fields[first + 2])
            image = rgb(x, rgb.conv.modulation(w_plus[:, first + 3]), image)
        return image

    def forward(self, w_plus: Tensor) -> Tensor:
        """W+ [N, L, D] -> images [N, 3, size, size] with the checkpoint's noise."""
        return self.synthesize(self.to_s(w_plus), w_plus)
