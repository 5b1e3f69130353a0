"""Sparse operations with learned edge weights: attention over a graph, in plain torch.

`Edges` offers three, each with gradients to all inputs. None transposes a sparse matrix or loops in
Python:

    score(a, b)     s_e = a[dst_e] · b[src_e]                             (SDDMM)
    softmax(s)      w_e = exp(s_e) / Σ_{e' with the same dst} exp(s_e')
    sum(w, x)       y_d = Σ_{e with dst_e = d} w_e x[src_e]               (SpMM)

They are closed under differentiation: the gradients of `sum` are a `score` and a `sum` over the
transpose, those of `score` are two `sum`s. The kernels were chosen by measurement
(benchmarks/speed/bench_ops.py): torch's `sampled_addmm` for `score`, several times as fast as DGL's
g-SDDMM and tens of times as fast as gathering both ends; for `sum` the kernel of a weighted
`Adjacency`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from dualgnn_dgl import ops
from dualgnn_dgl.ops.csr import csr_tensor
from dualgnn_dgl.ops.matrix import Matrix


@dataclass(frozen=True, eq=False)
class Pattern:
    """The places of the entries, by row.

    Attributes:
        indptr: Start of each row, (rows+1,).
        indices: Column of each entry, (E,).
        rows: Row of each entry, (E,).
        order: Place here of each entry of the transpose's pattern, (E,).
        shape: (rows, columns).
        kept: Results of kernels.
    """

    indptr: Tensor
    indices: Tensor
    rows: Tensor
    order: Tensor
    shape: tuple[int, int]
    kept: dict[str, Any] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pattern:
        parts = (
            copy.deepcopy(part, memo) for part in (self.indptr, self.indices, self.rows, self.order)
        )
        return Pattern(*parts, self.shape)


class _Score(torch.autograd.Function):
    """Computes s (E,) from a (num_dst, D) and b (num_src, D)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, pattern: Pattern, transpose: Pattern) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.pattern, ctx.transpose = pattern, transpose
        if pattern.indices.numel() == 0:
            return a.new_zeros(0)
        empty = csr_tensor(
            pattern.indptr, pattern.indices, a.new_zeros(pattern.indices.numel()), pattern.shape
        )
        return torch.sparse.sampled_addmm(
            empty, a.contiguous(), b.contiguous().T, beta=0.0
        ).values()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (a, b), pattern, transpose = ctx.saved_tensors, ctx.pattern, ctx.transpose
        to_a = _Sum.apply(gradient, b, pattern, transpose) if ctx.needs_input_grad[0] else None
        to_b = (
            _Sum.apply(_Turn.apply(gradient, pattern, transpose), a, transpose, pattern)
            if ctx.needs_input_grad[1]
            else None
        )
        return to_a, to_b, None, None


class _Sum(torch.autograd.Function):
    """Computes y (num_dst, D) from w (E,) and x (num_src, D)."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, x: Tensor, pattern: Pattern, transpose: Pattern
    ) -> Tensor:
        ctx.save_for_backward(weight, x)
        ctx.pattern, ctx.transpose = pattern, transpose
        matrix = Matrix(
            pattern.indptr,
            pattern.indices,
            weight.contiguous(),
            None,
            None,
            pattern.shape,
            pattern=pattern.kept,
        )
        return ops.KERNELS[ops.choose(matrix, x)].spmm(matrix, x.contiguous())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight, x), pattern, transpose = ctx.saved_tensors, ctx.pattern, ctx.transpose
        to_weight = (
            _Score.apply(gradient, x, pattern, transpose) if ctx.needs_input_grad[0] else None
        )
        to_x = None
        if ctx.needs_input_grad[1]:
            to_x = _Sum.apply(_Turn.apply(weight, pattern, transpose), gradient, transpose, pattern)
        return to_weight, to_x, None, None


class _Turn(torch.autograd.Function):
    """Reorders values (E,) from a pattern's order into its transpose's, by a permutation."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, pattern: Pattern, transpose: Pattern) -> Tensor:
        ctx.pattern, ctx.transpose = pattern, transpose
        return value.index_select(0, pattern.order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Turn.apply(gradient, ctx.transpose, ctx.pattern), None, None


class _RowSum(torch.autograd.Function):
    """Sums entries (E,) by row (rows,); its gradient is `_Spread`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        return _reduce(value, pattern, "sum")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Spread.apply(gradient, ctx.pattern), None


class _Spread(torch.autograd.Function):
    """Gives a number of each row (rows,) to its entries (E,); its gradient is `_RowSum`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        return value.index_select(0, pattern.rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _RowSum.apply(gradient, ctx.pattern), None


class _Softmax(torch.autograd.Function):
    """Computes w (E,) from s (E,); rows sum to one."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, pattern: Pattern) -> Tensor:
        top = _reduce(score, pattern, "max")  # −inf for an empty row, which has no entry
        value = (score - top.index_select(0, pattern.rows)).exp_()
        value /= _reduce(value, pattern, "sum").index_select(0, pattern.rows)
        ctx.pattern = pattern
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (value,) = ctx.saved_tensors
        pulled = value * gradient
        return pulled - value * _Spread.apply(_RowSum.apply(pulled, ctx.pattern), ctx.pattern), None


def _reduce(value: Tensor, pattern: Pattern, how: str) -> Tensor:
    """Returns 'sum' or 'max' of the entries (E,) of each row in a fixed order, (rows,)."""
    if value.numel() == 0:
        return value.new_zeros(pattern.shape[0])
    return torch.segment_reduce(value.contiguous(), how, offsets=pattern.indptr.long(), unsafe=True)


class Edges(nn.Module):
    """The pattern of an `Adjacency`, for weights that change with every pass.

    Entries are ordered by destination, then source; `ends()` returns both. It moves with `.to()`,
    stays out of the state dict, and needs no DGL graph on the device.

    Args:
        adjacency: The adjacency; its weights and scales are not read.
    """

    def __init__(self, adjacency: ops.Adjacency) -> None:
        super().__init__()
        forward, backward = adjacency._matrices
        kind = forward.indices.dtype
        rows = forward.rows()
        # Stable, because the same pair may be given twice.
        order = torch.argsort(forward.indices.long() * forward.shape[0] + rows, stable=True)
        back = torch.empty_like(order).scatter_(
            0, order, torch.arange(len(order), device=order.device)
        )
        self._register(
            Pattern(forward.indptr, forward.indices, rows.to(kind), order.to(kind), forward.shape),
            Pattern(
                backward.indptr,
                backward.indices,
                backward.rows().to(kind),
                back.to(kind),
                backward.shape,
            ),
        )

    def _register(self, *patterns: Pattern) -> None:
        self._patterns = patterns
        self.shape = patterns[0].shape
        for prefix, pattern in zip(("forward", "backward"), patterns, strict=True):
            for part in ("indptr", "indices", "rows", "order"):
                self.register_buffer(f"_{prefix}_{part}", getattr(pattern, part), persistent=False)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the buffers, and builds the patterns again without kernels' results."""
        super()._apply(function, recurse)
        self._patterns = tuple(
            Pattern(
                *(
                    getattr(self, f"_{prefix}_{part}")
                    for part in ("indptr", "indices", "rows", "order")
                ),
                pattern.shape,
            )
            for prefix, pattern in zip(("forward", "backward"), self._patterns, strict=True)
        )
        return self

    @property
    def T(self) -> Edges:
        """The reversed edges, ordered by source, then destination; over the same tensors."""
        transpose = Edges.__new__(Edges)
        nn.Module.__init__(transpose)
        transpose._register(*self._patterns[::-1])
        return transpose

    @property
    def num_edges(self) -> int:
        """E, the number of edges."""
        return int(self._forward_indices.numel())

    def ends(self) -> tuple[Tensor, Tensor]:
        """Returns destination and source of every edge, (E,) int64 each."""
        return self._forward_rows.long(), self._forward_indices.long()

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns a[dst] · b[src] of every edge, (num_dst, D) and (num_src, D) → (E,)."""
        if a.ndim != 2 or b.ndim != 2 or (len(a), len(b)) != self.shape or a.shape[1] != b.shape[1]:
            raise ValueError(
                f"edges {self.shape} cannot score tensors of shapes {tuple(a.shape)} and "
                f"{tuple(b.shape)}"
            )
        return _Score.apply(a, b, *self._patterns)

    def softmax(self, score: Tensor) -> Tensor:
        """Returns the softmax of (E,) among the edges of each destination, (E,)."""
        self._check(score)
        return _Softmax.apply(score, self._patterns[0])

    def sum(self, weight: Tensor, x: Tensor) -> Tensor:
        """Returns Σ weight · x[src] of each destination, (E,) and (num_src, D) → (num_dst, D)."""
        self._check(weight)
        if x.ndim != 2 or len(x) != self.shape[1]:
            raise ValueError(
                f"edges {self.shape} cannot multiply a tensor of shape {tuple(x.shape)}"
            )
        return _Sum.apply(weight, x, *self._patterns)

    def turn(self, value: Tensor) -> Tensor:
        """Returns the same (E,) values in the order of `.T`'s edges."""
        self._check(value)
        return _Turn.apply(value, *self._patterns)

    def from_source(self, value: Tensor) -> Tensor:
        """Returns the source's number of every edge, (num_src,) → (E,); gradients sum by row."""
        if value.shape != self.shape[1:]:
            raise ValueError(
                f"{self.shape[1]} sources need as many numbers, not a tensor of shape "
                f"{tuple(value.shape)}"
            )
        here, back = self._patterns
        return _Turn.apply(_Spread.apply(value, back), back, here)

    def _check(self, value: Tensor) -> None:
        if value.shape != (self.num_edges,):
            raise ValueError(
                f"{self.num_edges} edges need as many numbers, not a tensor of shape "
                f"{tuple(value.shape)}"
            )

    def extra_repr(self) -> str:
        return f"shape={self.shape}, edges={self.num_edges}"
