"""Layers for processors against open_clip's and torch's own."""

import copy

import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import nn

from pipeline.models.fast_towers import FastLinear, FastMlp, FastSelfAttention, use_fast_products

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


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
