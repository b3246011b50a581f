"""Layers of open_clip's image towers, made for processors; the weights are the plain ones."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from pipeline.models.linear import activated_linear, has_activated_products, linear

_QUICK_GELU = 1.702
"""OpenAI's CLIP has x sigmoid(1.702 x) where others have GELU."""

_MLP_LAYERS = 3


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
        layers: Any = list(self)
        first, activation, last = layers
        if torch.is_grad_enabled() or not has_activated_products(input):
            return super().forward(input)
        rows = input.reshape(-1, input.shape[-1])
        if isinstance(activation, nn.GELU):
            approximate = activation.approximate
            hidden = activated_linear(rows, first.weight, first.bias, "gelu", approximate)
            out = linear(hidden, last.weight, last.bias)
        else:
            # x sigmoid(a x) = swish(a x) / a, and oneDNN's swish has no a.
            a = _QUICK_GELU
            hidden = activated_linear(rows * a, first.weight, first.bias * a, "swish")
            out = linear(hidden, last.weight, last.bias * a) / a
        return out.reshape(*input.shape[:-1], -1)


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
