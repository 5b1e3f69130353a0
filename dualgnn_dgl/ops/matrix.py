"""The sparse matrix that every kernel receives: CSR index tensors, and a place for what a kernel wants to keep."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Matrix:
    """CSR: row r holds columns `indices[indptr[r]:indptr[r+1]]`, with `weight` or with ones.

    `indptr` (rows+1,), `indices` (E,) int32 or int64, `weight` (E,) float or None; `cache` belongs to the kernels.
    """

    indptr: Tensor
    indices: Tensor
    weight: Tensor | None
    shape: tuple[int, int]
    cache: dict[str, Any] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Matrix:
        """A copy without the cache: neither torch's CSR tensors nor DGL's graphs can be copied."""
        parts = (copy.deepcopy(part, memo) for part in (self.indptr, self.indices, self.weight))
        return Matrix(*parts, self.shape)


def compress(row: Tensor, column: Tensor, shape: tuple[int, int], weight: Tensor | None) -> Matrix:
    """Edges (row, column, weight) → CSR, columns ascending within a row; (E,) each."""
    row, column = row.long(), column.long()
    if row.shape != column.shape or (weight is not None and weight.shape != row.shape):
        raise ValueError("edges need as many rows as columns, and as many weights")
    for end, size in ((row, shape[0]), (column, shape[1])):
        if end.numel() and not 0 <= int(end.min()) <= int(end.max()) < size:
            raise ValueError(f"an edge points outside the shape {shape}")
    order = torch.argsort(row * shape[1] + column, stable=True)
    counts = torch.bincount(row, minlength=shape[0])
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    kind = torch.int32 if max(row.numel(), *shape) < 2**31 - 1 else torch.int64
    return Matrix(
        indptr.to(kind), column[order].to(kind), None if weight is None else weight[order].contiguous(), shape
    )
