"""`Adjacency @ x`: the only message passing that a model file needs, whatever kernel carries it
out.

To add a kernel: write one file with a function `spmm(matrix, x)` (see `ops/csr.py`) and name it in
`KERNELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.ops import bag, csr, dgl_kernel, triton_kernel
from dualgnn_dgl.ops.matrix import Matrix, compress

__all__ = [
    "KERNELS",
    "Adjacency",
    "Matrix",
    "average",
    "choose",
    "normalise",
    "one_wide_product",
    "use",
]

KERNELS = {"dgl": dgl_kernel, "csr": csr, "bag": bag, "triton": triton_kernel}
SKEW = 2.0  # see choose
_forced: str | None = None


@contextmanager
def use(kernel: str | None) -> Iterator[None]:
    """Force one kernel ('dgl', 'csr', 'bag', 'triton') inside the block.

    None lets `Adjacency` choose again.
    """
    global _forced
    if kernel is not None and kernel not in KERNELS:
        raise ConfigError(unknown("kernel", kernel, KERNELS))
    before, _forced = _forced, kernel
    try:
        yield
    finally:
        _forced = before


def choose(matrix: Matrix, x: Tensor) -> str:
    """Name of the kernel that fits: what `Adjacency @ x` runs unless `use` says otherwise.

    On CUDA, Triton where it is installed, else torch's CSR (cuSPARSE).

    On the CPU `embedding_bag` with the weights folded in, whether the matrix factorises or not: it
    is 1.2 to 2.5 times as fast as DGL's `copy_u` between two scalings, which makes two more passes,
    and 2 to 4 times as fast as torch's CSR (benchmarks/speed/bench_ops.py: five graphs, D = 64 to
    256, one and two threads). It has two limits. It has no fast loop for float64, which takes
    torch's CSR. And it gives every thread equally many rows, while DGL hands them out in small
    portions: where the fullest thread would get more than SKEW times its share of the edges, DGL
    takes float32 matrices that factorise. (Two threads cannot be that uneven; many threads on a log
    whose ids run by popularity can.)
    """
    if _forced is not None:
        return _forced
    if x.is_cuda:
        return "triton" if triton_kernel.fits(x.device) else "csr"
    if x.dtype == torch.float64:
        return "csr"
    uneven = (
        matrix.weight is None
        and x.dtype == torch.float32
        and matrix.skew(torch.get_num_threads()) > SKEW
    )
    return "dgl" if uneven and dgl_kernel.available() else "bag"


@cache
def _last_cache() -> int:
    """Bytes of the CPU's last-level cache as Linux tells them; 32 MiB where it does not."""
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
    """Whether several tables are better multiplied side by side, as one of `width` columns in all,
    than one by one.

    One product reads the indices once, but its tables leave the cache earlier. On the CPU it takes
    0.65 to 0.8 of the time while they are small and up to 1.5 times as long where they are large
    (benchmarks/speed/bench_ops.py: five graphs, two and three tables of 64 columns); within a whole
    training step it pays while they fill a third of the last-level cache. On CUDA it saves
    launches. The result is the same to the bit.
    """
    if adjacency._forward_indices.is_cuda:
        return True
    return 4 * width * sum(adjacency.shape) <= _last_cache() / 3


class _Product(torch.autograd.Function):
    """A @ x whose gradient is Aᵀ @ g over the stored transpose.

    Autograd never transposes a sparse matrix.

    The gradient is the same kind of product again, so that second derivatives are right with every
    kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Matrix, transpose: Matrix) -> Tensor:
        ctx.matrix, ctx.transpose = matrix, transpose
        return KERNELS[choose(matrix, x)].spmm(matrix, x.contiguous())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(gradient, ctx.transpose, ctx.matrix), None, None


class Adjacency(nn.Module):
    """A fixed sparse matrix A of shape (dst, src).

    `A @ x` sums the rows of x that point at each row.

    It holds plain index tensors (int32 where they fit), moves with `.to()`, stays out of the state
    dict, and needs no DGL graph on the device. A matrix that factorises as diag(left) · B ·
    diag(right) with B of zeros and ones is kept so: some kernels take B only, others fold the
    scales into one weight an edge.

    Parameters
    ----------
    dst, src : (E,) int
        edge e says that src[e] sends to dst[e]. A pair may stand twice: it then counts twice.
    shape : (num_dst, num_src)
    weight : (E,) float, optional
        general edge weights.
    left, right : (num_dst,), (num_src,) float, optional
        row and column scales; not together with `weight`.
    axes : what rows and columns stand for, each 'user' or 'item'; sampled blocks need it
        (blocks.py).
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
        """An adjacency over a matrix and its transpose that are there already."""
        made = Adjacency.__new__(Adjacency)
        nn.Module.__init__(made)
        made.shape, made.axes = forward.shape, axes
        made._register(forward, backward)
        return made

    def _register(self, forward: Matrix, backward: Matrix) -> None:
        for prefix, matrix in (("forward", forward), ("backward", backward)):
            for part in ("indptr", "indices", "weight"):
                self.register_buffer(f"_{prefix}_{part}", getattr(matrix, part), persistent=False)
        self.register_buffer("_left", forward.left, persistent=False)
        self.register_buffer("_right", forward.right, persistent=False)
        self._matrices = (forward, backward)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved or cast: the matrices are built again over the new buffers, without what kernels
        had cached.
        """
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
        """The transpose, over the same tensors (the name every array library uses)."""
        forward, backward = self._matrices
        return Adjacency._of(
            backward, forward, None if self.axes is None else (self.axes[1], self.axes[0])
        )

    @property
    def num_edges(self) -> int:
        """E, the number of stored entries."""
        return int(self._forward_indices.numel())

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, sources (E,) int64 and weights (E,), row by row."""
        matrix = self._matrices[0]
        values = matrix.entries(matrix.dtype)
        if values is None:
            values = torch.ones(self.num_edges, device=matrix.indices.device)
        return matrix.rows().long(), matrix.indices.long(), values

    def block(self, rows: Tensor, columns: Tensor) -> Adjacency:
        """Its entries in these rows (R,) and columns (C,), ascending and each once, as an (R, C)
        matrix.

        Weights stay. Where there is a row scale, a row's is raised by what the block leaves out: d
        / d' for d' of d entries.
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
        """The same matrix with zeros at (dst, src), (B,) int64 each.

        All other weights and scales as they are.
        """
        return Adjacency._of(
            self._matrices[0].without(dst, src), self._matrices[1].without(src, dst), self.axes
        )

    def neighbours(self, rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
        """Columns that send to these rows (R,), int64.

        All where there are at most so many, else that many draws of a row's (twice the same counts
        twice). In no order, and not each once.
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
        """A @ x: (num_src, D) → (num_dst, D), differentiable in x."""
        if x.ndim != 2 or x.shape[0] != self.shape[1]:
            raise ValueError(
                f"adjacency {self.shape} cannot multiply a tensor of shape {tuple(x.shape)}"
            )
        return _Product.apply(x, *self._matrices)

    def dense(self) -> Tensor:
        """The same matrix as a dense (num_dst, num_src) tensor; for tests and small graphs."""
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
    """D_dst^-½ A D_src^-½ over the given edges, degrees counted on these edges.

    Degree 0 gives a zero row, never NaN.
    """
    left = torch.bincount(dst.long(), minlength=shape[0]).float().clamp(min=1).rsqrt()
    right = torch.bincount(src.long(), minlength=shape[1]).float().clamp(min=1).rsqrt()
    return Adjacency(dst, src, shape, left=left, right=right, axes=axes)


def average(
    dst: Tensor, src: Tensor, shape: tuple[int, int], axes: tuple[str, str] | None = None
) -> Adjacency:
    """D_dst^-1 A over the given edges.

    Each row averages the rows that point at it; degree 0 gives a zero row.
    """
    left = 1 / torch.bincount(dst.long(), minlength=shape[0]).float().clamp(min=1)
    return Adjacency(dst, src, shape, left=left, axes=axes)
