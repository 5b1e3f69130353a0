"""`embedding_bag` in sum mode: each row of the matrix is a bag of rows of x. Fast for general weights on the CPU."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from dualgnn_dgl.ops.matrix import Matrix


def spmm(matrix: Matrix, x: Tensor) -> Tensor:
    """matrix @ x, (rows, D), not differentiable (see `Adjacency`)."""
    if matrix.indices.numel() == 0:
        return x.new_zeros(matrix.shape[0], x.shape[1])
    weight = None if matrix.weight is None else matrix.weight.to(x.dtype)
    return functional.embedding_bag(
        matrix.indices, x, matrix.indptr, mode="sum", per_sample_weights=weight, include_last_offset=True
    )
