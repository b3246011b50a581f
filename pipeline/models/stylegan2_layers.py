"""Layers of StyleGAN2: modulated convolution, noise and activation, toRGB; plain PyTorch.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", in the parametrisation
of rosinality-layout checkpoints.

A modulated convolution is computed as ``conv(x * style, W) * demodulation``, which equals the
published per-sample weights (grouped convolution) and shares one weight over the batch; for a batch
of one the factors go to the weight, which is smaller than the activations.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import LRELU_GAIN, LRELU_SLOPE, EqualLinear

FIR = (1.0, 3.0, 3.0, 1.0)


def fir_kernel() -> Tensor:
    """The [4, 4] filter of upsampling by 2: [1,3,3,1] times itself, summing to 4."""
    taps = torch.tensor(FIR)
    kernel = taps[:, None] * taps[None, :]
    return kernel / kernel.sum() * 4.0


class _Fir(nn.Module):
    """Holder of the [1,3,3,1] filter under the key that published checkpoints use."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel())

    def blur(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[N, C, H, W] -> [N, C, H - 1, W - 1]: pad 1, filter with the 4 x 4 kernel, add a bias."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, bias, padding=1, groups=channels)

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

    def forward(self, x: Tensor, style: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve and add a bias [out].

        Args:
            x: activations [N, in, H, W].
            style: output [N, in] of `modulation`, i.e. this layer's part of S.
            bias: added to the result; with one it is also multiplied by the gain of the activation
                that follows, so that no pass over the activations is spent on it.
        """
        weight = self.weight[0] * self.gain
        style, scale = self._factors(style, weight)
        if bias is not None:
            scale, bias = scale * LRELU_GAIN, (bias * LRELU_GAIN).to(x.dtype)
        if len(x) == 1:
            weight = weight * style[0, :, None, None] * scale[0, :, None, None, None]
            return self._convolved(x, weight.to(x.dtype), bias)
        x = x * style[:, :, None, None].to(x.dtype)
        x = self._convolved(x, weight.to(x.dtype), None)
        scale = scale[:, :, None, None]
        if bias is None:
            return x * scale
        limit = torch.finfo(x.dtype).max
        return torch.addcmul(bias[:, None, None], x, scale.clamp(max=limit).to(x.dtype))

    def _factors(self, style: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the input channels [N, in] and of the output channels [N, 1 or out].

        Only the product matters, so the style is brought to a peak of 1 and the rest goes to the
        output: activations then stay far from the limits of half precision.
        """
        style = style.float()
        scale = style.detach().abs().amax(dim=1, keepdim=True).clamp_min(1e-8)
        if self.demodulate:
            energy = weight.float().square().sum(dim=(2, 3))
            return style / scale, scale * torch.rsqrt(style.square() @ energy.t() + 1e-8)
        return style / scale, scale

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.blur is None:
            return F.conv2d(x, weight, bias, padding=self.padding)
        return self.blur.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), bias)


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
        x = self.conv(x, style, self.activate.bias)
        strength = self.noise.weight * LRELU_GAIN
        # In place on the convolution's output, which no gradient needs; the gain is in it already.
        x = x.add_((strength * noise).to(x.dtype))
        return F.leaky_relu(x, LRELU_SLOPE, inplace=True)


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
