"""`embedding_bag` in sum mode: each row of the matrix is a bag of rows of x, weighted or not.

It is the fastest kernel on most CPUs. Its float32 loop is machine code generated at run time for
the width (fbgemm), prefetches the next rows, and takes weights at almost no cost, so scales are
folded into them. It gives each thread equally many rows.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from dualgnn_dgl.ops.matrix import Matrix


def spmm(matrix: Matrix, x: Tensor) -> Tensor:
    """Returns matrix @ x, (rows, D); the contract is in `ops/__init__.py`."""
    if matrix.indices.numel() == 0:
        return x.new_zeros(matrix.shape[0], x.shape[1])
    return functional.embedding_bag(
        matrix.indices,
        x,
        matrix.indptr,
        mode="sum",
        per_sample_weights=matrix.entries(x.dtype),
        include_last_offset=True,
    )
