"""Building blocks that StyleGAN2, e4e and the Delta Mapper share.

Formulas: Karras et al. 2020 ("Analyzing and Improving the Image Quality of StyleGAN"),
in the parametrisation of the published checkpoints.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.linear import linear

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2.0)


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """``sqrt(2) * LeakyReLU_0.2(x)``, any shape, in the dtype of `x`."""
    return F.leaky_relu(x, LRELU_SLOPE) * LRELU_GAIN


def pixel_norm(x: Tensor, dim: int = 1) -> Tensor:
    """Divide `x` by the root of its mean square over `dim` (plus 1e-8)."""
    return x * torch.rsqrt(x.square().mean(dim=dim, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: [..., in] -> [..., out].

    The stored weight is ~ N(0, 1) / lr_mul; the effective one is ``weight * lr_mul / sqrt(in)`` and
    the effective bias ``bias * lr_mul``. The bias is always added on the last axis.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        lr_mul: float = 1.0,
        bias_init: float = 0.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = lr_mul / math.sqrt(in_features)
        self.bias_gain = lr_mul
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], same dtype."""
        # The gain goes to the input: scaling the weight would copy it at every call.
        y = linear(x * self.weight_gain, self.weight, self.bias * self.bias_gain)
        return scaled_leaky_relu(y) if self.activated else y


class PixelNorm(nn.Module):
    """`pixel_norm` as a module, so that layer numbers match the published state dicts."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return pixel_norm(x, self.dim)
