"""torch's own CSR product: MKL or a plain loop on the CPU, cuSPARSE on CUDA.

Scales are folded into the values.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from dualgnn_dgl.ops.matrix import Matrix


def spmm(matrix: Matrix, x: Tensor) -> Tensor:
    """Returns matrix @ x, (rows, D); the contract is in `ops/__init__.py`."""
    key = f"csr {x.dtype}"
    if key not in matrix.cache:
        values = matrix.entries(x.dtype)
        if values is None:
            values = torch.ones(matrix.indices.numel(), dtype=x.dtype, device=x.device)
        matrix.cache[key] = csr_tensor(matrix.indptr, matrix.indices, values, matrix.shape)
    return matrix.cache[key] @ x


def csr_tensor(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Returns torch's sparse CSR tensor, unchecked and without torch's warning about a beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(indptr, indices, values, shape, check_invariants=False)
