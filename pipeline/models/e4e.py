"""e4e encoder: aligned images -> W+ codes (Tov et al. 2021, "Designing an Encoder for StyleGAN").

State-dict keys are those of the published checkpoints (``encoder.`` prefix removed). The average
latent is not part of the encoder; `E4E.forward` adds it.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import ShapeError
from pipeline.models.layers import EqualLinear
from pipeline.shapes import assert_shape

COARSE_CODES = 3
MIDDLE_CODES = 7
HEAD_SLOPE = 0.01
BODY_STRIDE = 16
MIN_WIDTH = 2 * BODY_STRIDE
SQUEEZE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class E4EConfig:
    """Sizes of an encoder; the defaults are the published IR-SE50 one for 1024-px generators."""

    num_w: int = 18
    """L: rows of W+, two per resolution of the generator."""
    style_dim: int = 512
    """Width of each code."""
    stage_units: tuple[int, int, int, int] = (3, 4, 14, 3)
    """Residual units of the four stages; each stage halves the resolution."""
    stage_widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Feature maps of the four stages."""
    input_height: int = 256
    """Height of the input in pixels (192 for the published car encoder)."""
    input_width: int = 256
    """Width of the input in pixels, a power of two; sets the depth of the style heads."""

    def __post_init__(self) -> None:
        width = self.input_width
        if width < MIN_WIDTH or width & (width - 1):
            raise ShapeError(
                f"input_width {width}: expected a power of two of {MIN_WIDTH} or more; the style "
                "heads halve it down to one pixel"
            )
        if not width // 2 < self.input_height <= width:
            raise ShapeError(
                f"input_height {self.input_height}: expected more than {width // 2} and at most "
                f"{width}, so that the style heads end at one pixel"
            )

    @property
    def head_depth(self) -> int:
        """Strided convolutions of a coarse head; those of the next feature maps have one more."""
        return int(math.log2(self.input_width // BODY_STRIDE))


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // SQUEEZE, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(scale))))


class _Unit(nn.Module):
    """Residual unit of IR-SE: norm, conv, PReLU, strided conv, norm, squeeze-excite."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer = (
            None
            if in_channels == channels
            else nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            _SqueezeExcite(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut_layer is not None:
            shortcut = self.shortcut_layer(x)
        else:
            shortcut = x[:, :, :: self.stride, :: self.stride]
        return self.res_layer(x) + shortcut


class _StyleHead(nn.Module):
    """Strided convolutions down to one pixel, then a linear layer."""

    def __init__(self, channels: int, style_dim: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, channels, 3, 2, 1), nn.LeakyReLU(HEAD_SLOPE)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(channels, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class Encoder(nn.Module):
    """Images [N, 3, H, W] in -1..1 -> code offsets [N, L, D]; the average latent is not added."""

    def __init__(self, config: E4EConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or E4EConfig()
        widths = config.stage_widths
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.PReLU(widths[0]),
        )
        units: list[nn.Module] = []
        self.stage_ends: list[int] = []
        before = widths[0]
        for count, width in zip(config.stage_units, widths, strict=True):
            for number in range(count):
                units.append(_Unit(before, width, 2 if number == 0 else 1))
                before = width
            self.stage_ends.append(len(units))
        self.body = nn.Sequential(*units)
        head_width = widths[3]
        self.styles = nn.ModuleList(
            _StyleHead(head_width, config.style_dim, config.head_depth + self._level(index))
            for index in range(config.num_w)
        )
        self.latlayer1 = nn.Conv2d(widths[2], head_width, 1)
        self.latlayer2 = nn.Conv2d(widths[1], head_width, 1)
        self.num_deltas = config.num_w - 1

    @staticmethod
    def _level(index: int) -> int:
        """Which feature map feeds head `index`: 0 the smallest, 2 the largest."""
        return 0 if index < COARSE_CODES else 1 if index < MIDDLE_CODES else 2

    def features(self, images: Tensor) -> list[Tensor]:
        """The pyramid [c3, p2, p1], smallest first."""
        taps = []
        x = self.input_layer(images)
        for number, unit in enumerate(self.body, start=1):
            x = unit(x)
            if number in self.stage_ends[1:]:
                taps.append(x)
        c1, c2, c3 = taps
        p2 = _upsampled(c3, c2) + self.latlayer1(c2)
        p1 = _upsampled(p2, c1) + self.latlayer2(c1)
        return [c3, p2, p1]

    def forward(self, images: Tensor) -> Tensor:
        """Code 0 is a base, codes 1 to `num_deltas` are that base plus an offset of their own.

        Raises:
            ShapeError: `images` are not of the size that the encoder was trained on.
        """
        size = (self.config.input_height, self.config.input_width)
        assert_shape(images, (None, 3, *size), "images")
        levels = self.features(images)
        base = self.styles[0](levels[0])
        codes = [base]
        for index in range(1, self.config.num_w):
            if index <= self.num_deltas:
                codes.append(base + self.styles[index](levels[self._level(index)]))
            else:
                codes.append(base)
        return torch.stack(codes, dim=1)


def _upsampled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


class E4E(nn.Module):
    """Encoder plus the average latent: images [N, 3, H, W] in -1..1 -> W+ [N, L, D].

    Attributes:
        encoder: its convolutions' weights lie channels last, as processors and GPUs want them.
        precision: float32, or bfloat16 or float16 for the encoder under torch's autocast.
    """

    latent_avg: Tensor

    def __init__(self, encoder: Encoder, latent_avg: Tensor, *, precision: str = "float32") -> None:
        super().__init__()
        self.encoder: Encoder = encoder.to(memory_format=torch.channels_last)
        self.precision = precision
        self.register_buffer("latent_avg", latent_avg)

    def forward(self, images: Tensor) -> Tensor:
        """float32 in, float32 out."""
        images = images.contiguous(memory_format=torch.channels_last)
        with ExitStack() as stack:
            if self.precision != "float32":
                dtype = getattr(torch, self.precision)
                stack.enter_context(torch.autocast(images.device.type, dtype))
            codes = self.encoder(images)
        return codes.float() + self.latent_avg
