"""The table of kernels, and the choice among them for a product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.ops import bag, csr, dgl_kernel, triton_kernel
from dualgnn_dgl.ops.matrix import Matrix


class Kernel(Protocol):
    """A module with the product of a matrix and a table; `ops/__init__.py` has the contract."""

    def spmm(self, matrix: Matrix, x: Tensor) -> Tensor:
        """Returns matrix @ x, (rows, D)."""


KERNELS: dict[str, Kernel] = {"dgl": dgl_kernel, "csr": csr, "bag": bag, "triton": triton_kernel}
SKEW = 2.0  # Largest share of the edges that one thread may get, over the mean; see `choose`.
_forced: str | None = None


@contextmanager
def use(kernel: str | None) -> Iterator[None]:
    """Forces one kernel inside the block.

    Args:
        kernel: A key of `KERNELS`; None lets `choose` decide again.

    Raises:
        ConfigError: For an unknown name.
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
    """Returns the name of the kernel that `Adjacency @ x` runs, unless `use` forces one.

    On CUDA it is Triton if it is installed, else torch's CSR (cuSPARSE).

    On the CPU it is `embedding_bag` with the weights folded in, whether the matrix factorises or
    not: it is 1.2 to 2.5 times as fast as DGL's `copy_u` between two scalings, which makes two more
    passes, and 2 to 4 times as fast as torch's CSR (benchmarks/speed/bench_ops.py: five graphs, D =
    64 to 256, one and two threads). It has two limits. It has no fast loop for float64, which takes
    torch's CSR. And it gives every thread equally many rows, while DGL assigns small portions: if
    the fullest thread would get more than SKEW times its share of the edges, DGL takes float32
    matrices that factorise. Two threads cannot be that uneven; many threads on a log whose ids are
    ordered by popularity can.
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
