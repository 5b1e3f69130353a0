"""`embedding_bag` in sum mode: each row of the matrix is a bag of rows of x, weighted or not.

The fastest on most CPUs.

Its float32 loop is machine code made at run time for the width at hand (fbgemm), prefetches the
rows that come next, and takes the weights for next to nothing; so scales are folded into them. It
gives each thread equally many *rows*.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from dualgnn_dgl.ops.matrix import Matrix


def spmm(matrix: Matrix, x: Tensor) -> Tensor:
    """matrix @ x, (rows, D), not differentiable (see `Adjacency`)."""
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
