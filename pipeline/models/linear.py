"""Linear layers on processors by oneDNN, which uses the widest vectors of any maker's processor.

torch multiplies float32 matrices by MKL, whose kernels for AMD's processors stop at AVX2: half the
speed of AVX-512. In bfloat16 torch takes oneDNN itself. What follows a product, such as an
activation, oneDNN can do while the result is still in a register.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUICK_GELU = 1.702
"""OpenAI's CLIP has x sigmoid(1.702 x) where others have GELU."""

_MLP_LAYERS = 3

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


class FastLinear(nn.Linear):
    """`nn.Linear` by `linear`, with the weights of another."""

    def __init__(self, other: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = other.in_features, other.out_features
        self.weight, self.bias = other.weight, other.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """[..., in] -> [..., out]."""
        return linear(input, self.weight, self.bias)


class FastSelfAttention(nn.Module):
    """`nn.MultiheadAttention` of an input with itself by `linear`, with the weights of another."""

    def __init__(self, other: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = other.num_heads
        self.in_proj_weight, self.in_proj_bias = other.in_proj_weight, other.in_proj_bias
        self.out_proj = FastLinear(other.out_proj)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """[N, T, D], three times the same -> ([N, T, D], None), as where no weights are needed."""
        assert query is key is value
        assert not need_weights
        heads = linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = heads.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


class FastMlp(nn.Sequential):
    """Linear layer, GELU or QuickGELU, linear layer, the activation made inside the first product.

    A pass of its own over the hidden values would read and write several times what the block
    takes in. With gradients it computes as its layers would one by one.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """[..., in] -> [..., out]."""
        first, activation, last = self
        if torch.is_grad_enabled() or not _has_fused_products(input):
            return super().forward(input)
        rows = input.reshape(-1, input.shape[-1])
        if isinstance(activation, nn.GELU):
            approximate = activation.approximate
            hidden = _ONEDNN(rows, first.weight, first.bias, "gelu", [], approximate)
            out = linear(hidden, last.weight, last.bias)
        else:
            # x sigmoid(a x) = swish(a x) / a, and oneDNN's swish has no a.
            a = QUICK_GELU
            hidden = _ONEDNN(rows * a, first.weight, first.bias * a, "swish", [], "")
            out = linear(hidden, last.weight, last.bias * a) / a
        return out.reshape(*input.shape[:-1], -1)


def _has_fused_products(x: Tensor) -> bool:
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        is_plain = not torch.is_autocast_enabled("cpu") and _ONEDNN is not None
        return is_plain and _ONEDNN_BF16()
    return has_fast_products(x)


def use_fast_products(tower: nn.Module) -> None:
    """Replace layers inside an image tower of open_clip by the faster ones of this module.

    Only exact types are replaced, and attention only as open_clip's towers use it: batch first, of
    an input with itself, no dropout. State-dict keys stay what they are.

    Args:
        tower: of float32 or bfloat16 weights; in bfloat16 torch's own products and attention are as
            fast, and only those with an activation are replaced.
    """
    for name, child in list(tower.named_children()):
        if _is_mlp(child):
            fused = FastMlp(OrderedDict(child.named_children()))
            use_fast_products(fused)
            setattr(tower, name, fused)
        elif type(child) is nn.Linear and child.weight.dtype == torch.float32:
            setattr(tower, name, FastLinear(child))
        elif type(child) is nn.MultiheadAttention and _is_plain(child):
            setattr(tower, name, FastSelfAttention(child))
        else:
            use_fast_products(child)


def _is_mlp(module: nn.Module) -> bool:
    from open_clip.transformer import QuickGELU

    if type(module) is not nn.Sequential or len(module) != _MLP_LAYERS:
        return False
    first, activation, last = module
    has_biases = all(type(m) is nn.Linear and m.bias is not None for m in (first, last))
    return has_biases and type(activation) in (nn.GELU, QuickGELU)


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    weight = attention.in_proj_weight
    if weight is None or weight.dtype != torch.float32:
        return False
    return attention.bias_k is None and attention.batch_first and not attention.add_zero_attn
