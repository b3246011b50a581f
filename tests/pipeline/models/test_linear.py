"""Linear layers by oneDNN against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.models.linear import linear

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
