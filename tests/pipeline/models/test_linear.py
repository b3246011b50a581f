"""Linear layers by oneDNN against torch's own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import nn

from pipeline.models.linear import (
    FastLinear,
    FastMlp,
    FastSelfAttention,
    linear,
    use_fast_products,
)

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def operands(*shape, out=24, dtype=torch.float32):
    torch.manual_seed(0)
    shapes = (shape, (out, shape[-1]), (out,))
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


@pytest.mark.parametrize("shape", [(5, 16), (1, 16), (2, 3, 16), (0, 16), (16,)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_products_and_gradients_are_those_of_torch(shape, has_bias):
    x, weight, bias = operands(*shape)
    bias = bias if has_bias else None
    ours, theirs = linear(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    wanted = [x, weight, *([bias] if has_bias else [])]
    towards = torch.randn_like(theirs)
    for ours_d, theirs_d in zip(
        torch.autograd.grad(ours, wanted, towards),
        torch.autograd.grad(theirs, wanted, towards),
        strict=True,
    ):
        torch.testing.assert_close(ours_d, theirs_d, **CLOSE)


def test_second_derivatives_are_those_of_torch():
    x, weight, bias = operands(7, 16)

    def penalty(product):
        y = product(x, weight, bias).square().sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), weight)[0]

    torch.testing.assert_close(penalty(linear), penalty(F.linear), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_left_to_torch(dtype):
    x, weight, bias = operands(5, 16, dtype=dtype)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


def test_autocast_is_left_to_torch():
    x, weight, bias = operands(5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16


class Block(nn.Module):
    def __init__(self, activation=None):
        super().__init__()
        self.attn = nn.MultiheadAttention(32, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(32, 64), activation or nn.GELU(), nn.Linear(64, 32))

    def forward(self, x):
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + self.mlp(x)


ACTIVATIONS = [nn.GELU(), nn.GELU(approximate="tanh"), QuickGELU()]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_a_tower_keeps_its_weights_their_names_and_its_output(activation):
    torch.manual_seed(0)
    plain = nn.Sequential(Block(activation), Block(activation)).eval()
    fast = copy.deepcopy(plain)
    use_fast_products(fast)
    assert {type(m) for m in fast.modules()} >= {FastLinear, FastMlp, FastSelfAttention}
    assert not any(type(m) in (nn.Linear, nn.MultiheadAttention) for m in fast.modules())
    assert fast.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(3, 5, 32)
    torch.testing.assert_close(fast(x), plain(x), **CLOSE)  # with gradients
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x), **CLOSE)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_gradients_through_a_tower_are_those_of_torch(activation):
    torch.manual_seed(0)
    plain = Block(activation).eval()
    fast = copy.deepcopy(plain)
    use_fast_products(fast)
    x = torch.randn(3, 5, 32, requires_grad=True)
    slopes = [torch.autograd.grad(tower(x).square().sum(), x)[0] for tower in (fast, plain)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_in_bfloat16_only_products_with_an_activation_are_replaced(activation):
    torch.manual_seed(0)
    exact = Block(activation).eval()
    plain = copy.deepcopy(exact).bfloat16()
    fast = copy.deepcopy(plain)
    use_fast_products(fast)
    assert type(fast.mlp) is FastMlp
    assert [type(m) for m in (fast.attn, *fast.mlp)] == [type(m) for m in (plain.attn, *plain.mlp)]
    x = torch.randn(300, 5, 32)
    with torch.no_grad():
        wanted = exact(x)
        errors = [
            (tower(x.bfloat16()).float() - wanted).square().mean().sqrt() for tower in (fast, plain)
        ]
    assert errors[0] < 1.1 * errors[1]
    assert errors[0] < 0.01 * wanted.std()


def test_attention_of_another_kind_is_left_alone():
    tower = nn.ModuleDict(
        {
            "of two widths": nn.MultiheadAttention(32, 4, kdim=16, vdim=16, batch_first=True),
            "sequence first": nn.MultiheadAttention(32, 4),
        }
    )
    use_fast_products(tower)
    assert all(type(child) is nn.MultiheadAttention for child in tower.values())
