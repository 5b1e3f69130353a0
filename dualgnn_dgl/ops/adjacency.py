"""`Adjacency`: a fixed sparse matrix with `A @ x`, its gradient and its transpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dualgnn_dgl.ops.kernels import KERNELS, choose
from dualgnn_dgl.ops.matrix import Matrix, compress


class _Product(torch.autograd.Function):
    """Computes A @ x, with the gradient Aᵀ @ g over the stored transpose.

    Autograd never transposes a sparse matrix. The gradient is the same kind of product again, so
    second derivatives are right with every kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Matrix, transpose: Matrix) -> Tensor:
        ctx.matrix, ctx.transpose = matrix, transpose
        return KERNELS[choose(matrix, x)].spmm(matrix, x.contiguous())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(gradient, ctx.transpose, ctx.matrix), None, None


class Adjacency(nn.Module):
    """A fixed sparse matrix A (dst, src); `A @ x` sums the rows of x that point at each row.

    It has plain index tensors (int32 if they fit), moves with `.to()`, stays out of the state dict,
    and needs no DGL graph on the device. A matrix that factorises as diag(left) · B · diag(right)
    with B of zeros and ones is stored so: some kernels take B only, others fold the scales into one
    weight an edge.

    Args:
        dst: Target of each edge, (E,) int. A pair that is given twice counts twice.
        src: Source of each edge, (E,) int.
        shape: (num_dst, num_src).
        weight: Edge weights, (E,) float.
        left: Row scales, (num_dst,) float; not together with `weight`.
        right: Column scales, (num_src,) float; not together with `weight`.
        axes: 'user' or 'item' for rows and columns; sampled blocks need it (training/blocks.py).
    """

    def __init__(
        self,
        dst: Tensor,
        src: Tensor,
        shape: tuple[int, int],
        *,
        weight: Tensor | None = None,
        left: Tensor | None = None,
        right: Tensor | None = None,
        axes: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        if weight is not None and (left is not None or right is not None):
            raise ValueError("give edge weights or row and column scales, not both")
        self.shape = (int(shape[0]), int(shape[1]))
        self.axes = axes
        left, right = (
            None if scale is None else scale.reshape(-1).contiguous() for scale in (left, right)
        )
        for scale, size in ((left, self.shape[0]), (right, self.shape[1])):
            if scale is not None and len(scale) != size:
                raise ValueError(
                    f"a scale of {len(scale)} numbers does not fit the shape {self.shape}"
                )
        self._register(
            Matrix(*compress(dst, src, self.shape, weight), left, right, self.shape),
            Matrix(*compress(src, dst, self.shape[::-1], weight), right, left, self.shape[::-1]),
        )

    @staticmethod
    def _of(forward: Matrix, backward: Matrix, axes: tuple[str, str] | None) -> Adjacency:
        """Returns an adjacency over an existing matrix and its transpose."""
        made = Adjacency.__new__(Adjacency)
        nn.Module.__init__(made)
        made.shape, made.axes = forward.shape, axes
        made._register(forward, backward)
        return made

    def _register(self, forward: Matrix, backward: Matrix) -> None:
        """Registers the tensors of the matrix and its transpose as buffers."""
        for prefix, matrix in (("forward", forward), ("backward", backward)):
            for part in ("indptr", "indices", "weight"):
                self.register_buffer(f"_{prefix}_{part}", getattr(matrix, part), persistent=False)
        self.register_buffer("_left", forward.left, persistent=False)
        self.register_buffer("_right", forward.right, persistent=False)
        self._matrices = (forward, backward)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves or casts the buffers, and builds the matrices again without kernels' caches."""
        super()._apply(function, recurse)
        self._matrices = tuple(
            Matrix(
                getattr(self, f"_{prefix}_indptr"),
                getattr(self, f"_{prefix}_indices"),
                getattr(self, f"_{prefix}_weight"),
                left,
                right,
                shape,
            )
            for prefix, left, right, shape in (
                ("forward", self._left, self._right, self.shape),
                ("backward", self._right, self._left, self.shape[::-1]),
            )
        )
        return self

    @property
    def T(self) -> Adjacency:
        """The transpose, over the same tensors."""
        forward, backward = self._matrices
        return Adjacency._of(
            backward, forward, None if self.axes is None else (self.axes[1], self.axes[0])
        )

    @property
    def num_edges(self) -> int:
        """E, the number of stored entries."""
        return int(self._forward_indices.numel())

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns targets and sources (E,) int64 and weights (E,), row by row."""
        matrix = self._matrices[0]
        values = matrix.entries(matrix.dtype)
        if values is None:
            values = torch.ones(self.num_edges, device=matrix.indices.device)
        return matrix.rows().long(), matrix.indices.long(), values

    def block(self, rows: Tensor, columns: Tensor) -> Adjacency:
        """Returns the entries in some rows and columns as an (R, C) adjacency.

        Weights stay. A row scale is raised by the entries that the block leaves out: d / d' for d'
        of d entries.

        Args:
            rows: Rows, (R,), ascending, each once.
            columns: Columns, (C,), ascending, each once.
        """
        forward, backward = (
            self._matrices[0].block(rows, columns),
            self._matrices[1].block(columns, rows),
        )
        if forward.left is not None:
            left = (
                forward.left
                * self._matrices[0].indptr.diff()[rows]
                / forward.indptr.diff().clamp(min=1)
            )
            forward, backward = replace(forward, left=left), replace(backward, right=left)
        return Adjacency._of(forward, backward, self.axes)

    def without(self, dst: Tensor, src: Tensor) -> Adjacency:
        """Returns the same matrix with zeros at (dst, src), (B,) int64 each; scales stay."""
        return Adjacency._of(
            self._matrices[0].without(dst, src), self._matrices[1].without(src, dst), self.axes
        )

    def neighbours(self, rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
        """Returns columns that send to some rows, int64, in no order and possibly repeated.

        Args:
            rows: Rows, (R,).
            most: Largest number a row. A row with more columns draws this many of them, with
                replacement; the others give all.
            generator: Source of the draws.
        """
        matrix = self._matrices[0]
        start, stop = matrix.indptr[rows].long(), matrix.indptr[rows + 1].long()
        degree = (stop - start).unsqueeze(1)  # (R, 1)
        place = torch.arange(most, device=rows.device).expand(len(rows), most)
        drawn = torch.rand(
            place.shape, dtype=torch.float64, device=rows.device, generator=generator
        )
        # of shape (R, most)
        place = torch.where(degree > most, (drawn * degree).long().minimum(degree - 1), place)
        return matrix.indices[(start.unsqueeze(1) + place)[place < degree]].long()

    def __matmul__(self, x: Tensor) -> Tensor:
        """Returns A @ x, (num_src, D) → (num_dst, D), differentiable in x."""
        if x.ndim != 2 or x.shape[0] != self.shape[1]:
            raise ValueError(
                f"adjacency {self.shape} cannot multiply a tensor of shape {tuple(x.shape)}"
            )
        return _Product.apply(x, *self._matrices)

    def dense(self) -> Tensor:
        """Returns the matrix as a dense (num_dst, num_src) tensor, for tests and small graphs."""
        matrix = self._matrices[0]
        values = matrix.entries(matrix.dtype)
        if values is None:
            values = torch.ones(self.num_edges, device=matrix.indices.device)
        full = torch.zeros(self.shape, dtype=values.dtype, device=values.device)
        return full.index_put_((matrix.rows(), matrix.indices.long()), values, accumulate=True)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, edges={self.num_edges}"


def normalise(
    dst: Tensor, src: Tensor, shape: tuple[int, int], axes: tuple[str, str] | None = None
) -> Adjacency:
    """Returns D_dst^-½ A D_src^-½ over the given edges, whose degrees count these edges.

    Degree 0 gives a zero row, never NaN. The arguments are those of `Adjacency`.
    """
    left = torch.bincount(dst.long(), minlength=shape[0]).float().clamp(min=1).rsqrt()
    right = torch.bincount(src.long(), minlength=shape[1]).float().clamp(min=1).rsqrt()
    return Adjacency(dst, src, shape, left=left, right=right, axes=axes)


def average(
    dst: Tensor, src: Tensor, shape: tuple[int, int], axes: tuple[str, str] | None = None
) -> Adjacency:
    """Returns D_dst^-1 A over the given edges: each row averages the rows that point at it.

    Degree 0 gives a zero row. The arguments are those of `Adjacency`.
    """
    left = 1 / torch.bincount(dst.long(), minlength=shape[0]).float().clamp(min=1)
    return Adjacency(dst, src, shape, left=left, axes=axes)


@cache
def _last_cache() -> int:
    """Returns the bytes of the CPU's last-level cache; 32 MiB where Linux does not report it."""
    try:
        return (
            int(
                Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
                .read_text()
                .removesuffix("K\n")
            )
            * 1024
        )
    except (OSError, ValueError):
        return 32 * 2**20


def one_wide_product(adjacency: Adjacency, width: int) -> bool:
    """Returns whether several tables are multiplied faster as one of `width` columns in all.

    One product reads the indices once, but its tables leave the cache earlier. On the CPU it takes
    0.65 to 0.8 of the time while they are small and up to 1.5 times as long when they are large
    (benchmarks/speed/bench_ops.py: five graphs, two and three tables of 64 columns). Within a whole
    training step it pays while they take a third of the last-level cache. On CUDA it saves
    launches. The bits of the result are the same.
    """
    if adjacency._forward_indices.is_cuda:
        return True
    return 4 * width * sum(adjacency.shape) <= _last_cache() / 3
