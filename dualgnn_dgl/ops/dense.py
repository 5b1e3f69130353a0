"""Dense products of encoders: oneDNN for float32 on the CPU, else torch's own `linear`.

torch sends float32 products on the CPU to MKL, which uses AVX2 only on processors that are not
Intel's. With AVX-512, oneDNN, the other library in every torch wheel, is 2.2 times as fast there
(445 against 195 GFLOP/s on two cores of an AMD EPYC, 7,050 × 4,096 × 256) and no slower elsewhere.
It computes in float32 as well; only the order of sums differs.

The operator is the one that torch's own compiler emits for a linear layer. A torch without it
takes `linear`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Returns whether oneDNN takes this product: plain float32 matrices on the CPU, no autocast."""
    plain = (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.ndim == 2
        and x.numel() > 0
    )
    return plain and _AVAILABLE and not torch.is_autocast_enabled("cpu")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x · weightᵀ + bias, (N, F) and (D, F) → (N, D), for any strides."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """Computes the three products of a linear layer: one forward, two backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            _product(gradient, weight.T) if wanted[0] else None,  # (N, F)
            _product(gradient.T, x.T) if wanted[1] else None,  # (D, F)
            gradient.sum(0) if wanted[2] else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x · weightᵀ + bias, (N, F), (D, F), (D,) → (N, D), like torch's `linear`.

    Differentiable once.
    """
    if _fits(x, weight):
        return _Linear.apply(x, weight, bias)
    return functional.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` over `linear`: the same parameters under the same names."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def _available() -> bool:
    """Returns whether this torch has oneDNN and its operator."""
    try:
        one = torch.ones(1, 1)
        return torch.backends.mkldnn.is_available() and float(_product(one, one)) == 1.0
    except (AttributeError, RuntimeError):
        return False


_AVAILABLE = _available()
