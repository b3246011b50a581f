"""StyleGAN2 generator: z -> w -> W+ -> S -> image, in the layout of the published checkpoints.

State-dict keys are those of rosinality-layout files (``g_ema``), so official weights load as they
are. Formulas: Karras et al. 2020; S space: Wu et al. 2021 ("StyleSpace Analysis"). Letters of
shapes: see pipeline/shapes.py.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.models.layers import EqualLinear, PixelNorm
from pipeline.models.s_layout import SLayout, config_f_channels
from pipeline.models.stylegan2_layers import StyledConv, ToRGB
from pipeline.shapes import Floats, assert_shape


class Partial(NamedTuple):
    """N pictures in work."""

    x: Tensor
    """[N, channels, h, h] activations."""
    image: Tensor | None
    """[N, 3, h, h] float32, the running image; None before the first toRGB."""
    done: int
    """Convolutions that have run."""


class Generator(nn.Module):
    """StyleGAN2 generator of any size and width.

    Args:
        size: side of the image in pixels, a power of two from 32 to 1024.
        channels: feature maps at 4, 8, ... `size` pixels; default: the published config-f.
        style_dim: width of w and of each row of W+.
        num_mapping: layers of the mapping network.

    Attributes:
        latent_avg: mean of w [D], the centre of truncation; zeros until a file or a loader sets it.
        compute_dtype: precision of the activations; float32 unless set.

    Buffers ``noises.noise_i`` are the checkpoint's fixed noise; `synthesize` uses them unless other
    noise is given, so the same codes always give the same image.
    """

    latent_avg: Tensor

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
        mapping = (
            EqualLinear(style_dim, style_dim, lr_mul=0.01, activated=True)
            for _ in range(num_mapping)
        )
        self.style = nn.Sequential(PixelNorm(), *mapping)
        self.input = nn.ParameterDict({"input": torch.randn(1, channels[0], 4, 4)})
        self.conv1 = StyledConv(channels[0], channels[0], style_dim)
        self.to_rgb1 = ToRGB(channels[0], style_dim, upsample=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for before, here in pairwise(channels):
            self.convs.append(StyledConv(before, here, style_dim, upsample=True))
            self.convs.append(StyledConv(here, here, style_dim))
            self.to_rgbs.append(ToRGB(here, style_dim, upsample=True))
        self.noises = nn.Module()
        for layer in self.layout.layers:
            side = layer.resolution
            self.noises.register_buffer(f"noise_{layer.index}", torch.randn(1, 1, side, side))
        # Not persistent: published state dicts keep it beside the weights, not among them.
        self.register_buffer("latent_avg", torch.zeros(style_dim), persistent=False)
        self.compute_dtype = torch.float32

    @property
    def styled_convs(self) -> "list[StyledConv]":
        """The convolutions that S drives, in execution order."""
        return [module for module in (self.conv1, *self.convs) if isinstance(module, StyledConv)]

    @property
    def rgb_layers(self) -> "list[ToRGB]":
        """The layers that add to the running image, one per resolution from 4 px."""
        return [module for module in (self.to_rgb1, *self.to_rgbs) if isinstance(module, ToRGB)]

    def map(self, z: Tensor) -> Tensor:
        """[N, style_dim] ~ N(0, I) -> w [N, style_dim]."""
        return self.style(z)

    def broadcast(self, w: Tensor, mean: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """One code w [N, D] for all rows: W+ [N, L, D].

        Args:
            w: outputs of `map`.
            mean: centre [D] of the truncation; default: `latent_avg`.
            truncation: 1 leaves w as it is, 0 gives `mean`.
        """
        if truncation != 1.0:
            mean = self.latent_avg if mean is None else mean
            w = mean + truncation * (w - mean)
        return w[:, None, :].expand(-1, self.layout.num_w, -1)

    def to_s(self, w_plus: Tensor) -> Tensor:
        """W+ [N, L, D] -> S [N, S]: the layers' affine maps, nothing is rendered."""
        assert_shape(w_plus, (None, self.layout.num_w, self.style_dim), "w_plus")
        styles = [
            conv.conv.modulation(w_plus[:, index]) for index, conv in enumerate(self.styled_convs)
        ]
        return torch.cat(styles, dim=1)

    def rgb_styles(self, w_plus: Tensor) -> list[Tensor]:
        """W+ [N, L, D] -> the style [N, channels] of toRGB at 4, 8, ... `size` px.

        toRGB at 4 px reads row 1, the following ones every second row from there; the last row of
        W+ drives the last toRGB alone.
        """
        return [
            rgb.conv.modulation(w_plus[:, 2 * index + 1])
            for index, rgb in enumerate(self.rgb_layers)
        ]

    def synthesize(
        self, s: Tensor, w_plus: Tensor, noise: Sequence[Tensor] | None = None
    ) -> Tensor:
        """S [N, S] and W+ [N, L, D] -> images [N, 3, size, size] float32, about -1..1, not clamped.

        W+ drives only toRGB (StyleSpace convention of DeltaEdit): editing S leaves it unedited.
        Activations are computed in `compute_dtype`; the running image stays float32.

        Raises:
            ShapeError: `s` or `w_plus` belongs to another generator.
        """
        assert_shape(s, (None, self.layout.total), "s")
        assert_shape(w_plus, (s.shape[0], self.layout.num_w, self.style_dim), "w_plus")
        whole = self.begin(s.shape[0])
        return self.finish(
            self.advance(whole, s, w_plus, stop=len(self.layout.layers), noise=noise)
        )

    def begin(self, num_images: int) -> Partial:
        """The start of `num_images` pictures: the learnt constant, before any convolution."""
        x = self.input["input"].to(self.compute_dtype).expand(num_images, -1, -1, -1)
        return Partial(x.contiguous(memory_format=torch.channels_last), None, 0)

    def advance(
        self,
        partial: Partial,
        s: Tensor,
        w_plus: Tensor,
        *,
        stop: int,
        noise: Sequence[Tensor] | None = None,
    ) -> Partial:
        """Run the convolutions from where `partial` is up to, not including, number `stop`.

        Pictures whose codes differ from some layer on share everything before it: compute that
        once, and advance copies of it.

        Args:
            partial: N pictures in work; left as it is.
            s: [N, S]; only the layers that are run are read.
            w_plus: [N, L, D].
            stop: a number of layers of S, at least those that are done.
            noise: one field per layer instead of the checkpoint's.
        """
        styles, fields = self.layout.split(s), list(noise or self.noises.buffers())
        convs, rgbs = self.styled_convs, self.rgb_layers
        x, image = partial.x, partial.image
        for index in range(partial.done, stop):
            x = convs[index](x, styles[index], fields[index])
            if index % 2 == 0:  # the last convolution of its resolution
                rgb = rgbs[index // 2]
                image = rgb(x, rgb.conv.modulation(w_plus[:, index + 1]), image)
        return Partial(x, image, max(stop, partial.done))

    def finish(self, partial: Partial) -> Tensor:
        """The picture [N, 3, size, size] of a `Partial` whose convolutions are all done."""
        assert partial.image is not None
        assert partial.done == len(self.layout.layers), "advance it to the last layer first"
        return partial.image

    def forward(self, w_plus: Tensor) -> Tensor:
        """W+ [N, L, D] -> images [N, 3, size, size] with the checkpoint's noise."""
        return self.synthesize(self.to_s(w_plus), w_plus)


@torch.no_grad()
def affine_error(generator: Generator, w_plus: Floats, s: Floats) -> float:
    """How far codes S [N, S] are from what a generator makes of W+ [N, L, D].

    Returns:
        Largest difference over the root mean square of `s`: about 1e-6 for the generator's own
        codes, 5e-3 for those kept in float16, about 1 for others.
    """
    device = generator.latent_avg.device
    found, kept = generator.to_s(torch.from_numpy(w_plus).to(device)), torch.from_numpy(s)
    return float((found.cpu() - kept).abs().max() / kept.square().mean().sqrt())
