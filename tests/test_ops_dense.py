"""Dense products of encoders: oneDNN's against torch's own, value and gradient; where each is
taken.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional

from dualgnn_dgl.ops import dense
from dualgnn_dgl.ops.dense import Linear, linear

SIZES = [(13, 5, 7), (1, 9, 4), (257, 65, 33)]
needs_onednn = pytest.mark.skipif(
    not dense._AVAILABLE, reason="this torch has no oneDNN linear operator"
)


def tensors(rows, columns, width, dtype=torch.float32):
    draw = torch.Generator().manual_seed(rows)
    shapes = (rows, columns), (width, columns), (width,), (rows, width)
    return [torch.randn(shape, generator=draw, dtype=dtype) for shape in shapes]


def both(function, x, weight, bias, target):
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    bias = None if bias is None else bias.detach().requires_grad_()
    y = function(x, weight, bias)
    leaves = [leaf for leaf in (x, weight, bias) if leaf is not None]
    return [y.detach(), *torch.autograd.grad(y, leaves, target)]


@needs_onednn
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("biased", [True, False])
def test_equals_the_product_in_float64(sizes, biased):
    x, weight, bias, target = tensors(*sizes)
    found = both(linear, x, weight, bias if biased else None, target)
    exact = both(
        functional.linear,
        *(t.double() for t in (x, weight)),
        bias.double() if biased else None,
        target.double(),
    )
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_strided_input_and_strided_gradient():
    x, weight, bias, target = tensors(11, 6, 4)
    wide = torch.zeros(11, 12)
    wide[:, ::2] = x
    found = both(linear, wide[:, ::2], weight, bias, target.T.contiguous().T)
    for one, other in zip(found, both(functional.linear, x, weight, bias, target), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_float32_on_the_cpu_takes_onednn_and_nothing_else_does(monkeypatch):
    taken = []
    monkeypatch.setattr(
        dense, "_product", lambda *parts, real=dense._product: taken.append(1) or real(*parts)
    )
    x, weight, bias, _ = tensors(5, 3, 2)
    linear(x, weight, bias)
    assert len(taken) == 1
    linear(x.double(), weight.double(), bias.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    linear(x[:0], weight, bias)
    linear(x.unsqueeze(0), weight, bias)
    assert len(taken) == 1
    monkeypatch.setattr(dense, "_AVAILABLE", False)
    torch.testing.assert_close(
        linear(x, weight, bias), functional.linear(x, weight, bias), rtol=0, atol=0
    )
    assert len(taken) == 1


def test_the_layer_is_torchs_own_by_name_and_start():
    torch.manual_seed(0)
    ours = Linear(6, 4)
    torch.manual_seed(0)
    theirs = nn.Linear(6, 4)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    x = torch.randn(7, 6)
    torch.testing.assert_close(ours(x), theirs(x))


def test_only_asked_gradients_are_made():
    x, weight, _, target = tensors(5, 3, 2)
    weight.requires_grad_()
    (linear(x, weight) * target).sum().backward()
    assert x.grad is None and weight.grad is not None
