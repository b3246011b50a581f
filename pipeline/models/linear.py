"""Linear layers on processors by oneDNN, which uses the widest vectors of any maker's processor.

torch multiplies float32 matrices by MKL, whose kernels for AMD's processors stop at AVX2: half the
speed of AVX-512. In bfloat16 torch takes oneDNN itself. What follows a product, such as an
activation, oneDNN can do while the result is still in a register.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""What torch's own compiler calls for linear layers; None in builds of torch without oneDNN."""

_ONEDNN_BF16: Any = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x weight^T + bias`` as `torch.nn.functional.linear`, gradients of any order included.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out].

    Returns:
        [..., out], dtype and device of `x`. In float32 on a processor the last bits may differ from
        torch's, and those of a row may depend on the number of rows.
    """
    if not has_fast_products(x) or x.numel() == 0:
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    return _Linear.apply(rows, weight, bias).reshape(*x.shape[:-1], -1)


def has_fast_products(x: Tensor) -> bool:
    """Whether `linear` has a faster product than torch's for this dtype and device."""
    is_plain = (
        x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    )
    return is_plain and _ONEDNN is not None and torch.backends.mkldnn.is_available()


class _Linear(torch.autograd.Function):
    """[N, in], [out, in], [out] -> [N, out]; its gradients are such products again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _ONEDNN(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _Linear.apply(gradient, weight.t(), None) if wants_x else None,
            _Linear.apply(gradient.t(), x.t(), None) if wants_weight else None,
            gradient.sum(dim=0) if wants_bias else None,
        )


def activated_linear(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str, variant: str = ""
) -> Tensor:
    """An activation of `linear`, made inside the product; without gradients.

    Args:
        x: [N, in], of which `has_activated_products` is true.
        weight: [out, in].
        bias: [out].
        activation: as oneDNN calls it: ``gelu``, ``swish``.
        variant: of GELU: ``none`` or ``tanh``.
    """
    return _ONEDNN(x, weight, bias, activation, [], variant)


def has_activated_products(x: Tensor) -> bool:
    """Whether `activated_linear` takes this dtype on this device."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        is_plain = not torch.is_autocast_enabled("cpu") and _ONEDNN is not None
        return is_plain and _ONEDNN_BF16()
    return has_fast_products(x)
