"""The sparse matrix that every kernel receives.

It has CSR index tensors, weights or scales, and a cache for kernels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

PARTS = ("indptr", "indices", "weight", "left", "right")  # the tensors of a matrix


@dataclass(frozen=True, eq=False)
class Matrix:
    """A CSR matrix with weights, or with ones between two diagonal scales.

    Row r has the columns `indices[indptr[r]:indptr[r+1]]`.

    Attributes:
        indptr: Start of each row, (rows+1,) int32 or int64.
        indices: Column of each entry, (E,), of the same type.
        weight: Value of each entry, (E,) float, or None.
        left: Row scales, (rows,) float, or None; never together with `weight`.
        right: Column scales, (columns,) float, or None; never together with `weight`.
        shape: (rows, columns).
        cache: Results of kernels that depend on weights or scales.
        pattern: Results that depend on the places of the entries only; matrices with other weights
            at the same places share it.
    """

    indptr: Tensor
    indices: Tensor
    weight: Tensor | None
    left: Tensor | None
    right: Tensor | None
    shape: tuple[int, int]
    cache: dict[str, Any] = field(default_factory=dict)
    pattern: dict[str, Any] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Matrix:
        """Copies the tensors without the cache: CSR tensors and DGL's graphs cannot be copied."""
        parts: dict[str, Any] = {name: copy.deepcopy(getattr(self, name), memo) for name in PARTS}
        return Matrix(**parts, shape=self.shape)

    @property
    def scaled(self) -> bool:
        """Whether it has row or column scales."""
        return self.left is not None or self.right is not None

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights or scales; float32 if it has none."""
        return next(
            (part.dtype for part in (self.weight, self.left, self.right) if part is not None),
            torch.float32,
        )

    def rows(self) -> Tensor:
        """Returns the row of every entry, (E,) int64."""
        return torch.repeat_interleave(self.indptr.diff().long(), output_size=self.indices.numel())

    def skew(self, threads: int) -> float:
        """Returns how uneven equal runs of rows are; 1 is even.

        It is the number of entries of the fullest of `threads` runs over their mean.
        """
        key = f"skew {threads}"
        if key not in self.cache:
            run = -(-self.shape[0] // threads)
            bounds = (run * torch.arange(threads + 1, device=self.indptr.device)).clamp(
                max=self.shape[0]
            )
            fullest = int(self.indptr[bounds].diff().max())
            self.cache[key] = fullest * threads / max(1, self.indices.numel())
        return self.cache[key]

    def entries(self, dtype: torch.dtype) -> Tensor | None:
        """Returns the value of every entry, (E,), left[row] · right[column] included.

        The result is None if all are one. It is made at the first call and kept, one tensor a type.
        A product with folded weights reads 4 bytes more an edge and saves the two passes over
        (rows, D) and (columns, D) that scaling would take.
        """
        if self.weight is None and not self.scaled:
            return None
        key = f"entries {dtype}"
        if key not in self.cache:
            value = self.weight
            if self.left is not None:
                value = self.left.to(torch.promote_types(self.left.dtype, dtype))[self.rows()]
            if self.right is not None:
                column = self.right.to(torch.promote_types(self.right.dtype, dtype))[
                    self.indices.long()
                ]
                value = column if value is None else value * column
            assert value is not None  # it has a weight or a scale
            self.cache[key] = value.to(dtype)
        return self.cache[key]

    def without(self, rows: Tensor, columns: Tensor) -> Matrix:
        """Returns the matrix with zeros at some entries; a pair that has no entry changes nothing.

        The entries are found by binary search, so only one of two equal entries becomes zero.
        Beyond the copied values, O(E), the search keeps a number an entry.

        Args:
            rows: Rows, (B,).
            columns: Columns, (B,).
        """
        entries = self.indices.numel()
        if entries == 0:
            return self
        if "keys" not in self.pattern:
            # (E,) int64, ascending
            self.pattern["keys"] = self.rows() * self.shape[1] + self.indices
        keys, wanted = self.pattern["keys"], rows * self.shape[1] + columns
        place = torch.searchsorted(keys, wanted)
        found = keys[place.clamp(max=entries - 1)] == wanted
        value = self.entries(self.dtype)
        value = torch.ones_like(self.indices, dtype=self.dtype) if value is None else value
        # One more place for pairs without an entry, so that no shape depends on the data.
        kept = torch.cat([value, value.new_zeros(1)])
        kept.index_fill_(0, torch.where(found, place, entries), 0)
        return Matrix(
            self.indptr, self.indices, kept[:-1], None, None, self.shape, pattern=self.pattern
        )

    def block(self, rows: Tensor, columns: Tensor) -> Matrix:
        """Returns the entries in some rows and columns, (R, C), in their order.

        Args:
            rows: Rows, (R,), ascending, each once.
            columns: Columns, (C,), ascending, each once.
        """
        start = self.indptr[rows].long()
        count = self.indptr[rows + 1].long() - start
        row = torch.repeat_interleave(count)
        entry = torch.arange(len(row), device=row.device) + (start - count.cumsum(0) + count)[row]
        column = places(columns, self.shape[1])[self.indices[entry].long()]
        kept = column >= 0
        counts = torch.bincount(row[kept], minlength=len(rows))
        kind = self.indptr.dtype
        return Matrix(
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(kind),
            column[kept].to(kind),
            None if self.weight is None else self.weight[entry[kept]],
            None if self.left is None else self.left[rows],
            None if self.right is None else self.right[columns],
            (len(rows), len(columns)),
        )


def places(chosen: Tensor, size: int) -> Tensor:
    """Returns the place of each number among the chosen ones, (size,) int64; −1 for the others.

    Args:
        chosen: Chosen numbers, (N,).
        size: The numbers are 0…size−1.
    """
    place = torch.full((size,), -1, dtype=torch.int64, device=chosen.device)
    place[chosen] = torch.arange(len(chosen), device=chosen.device)
    return place


def compress(
    row: Tensor, column: Tensor, shape: tuple[int, int], weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns edges as CSR: indptr (rows+1,), indices (E,) and weight; columns ascend within a row.

    Args:
        row: Row of each edge, (E,).
        column: Column of each edge, (E,).
        shape: (rows, columns).
        weight: Weight of each edge, (E,), or None.

    Raises:
        ValueError: For lists of different lengths, or an edge outside the shape.
    """
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
    return (
        indptr.to(kind),
        column[order].to(kind),
        None if weight is None else weight[order].contiguous(),
    )
