"""DGL's g-SpMM: `copy_u` with sum between two scalings, or `u_mul_e` with weights.

In float32, `copy_u` takes the libxsmm path. The graph handle is made once a matrix from its CSR
tensors (DGL calls that order CSC: by destination), and kept.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.ops.matrix import Matrix


def available() -> bool:
    """Whether DGL is installed; without it `Adjacency` chooses another kernel."""
    return importlib.util.find_spec("dgl") is not None


def spmm(matrix: Matrix, x: Tensor) -> Tensor:
    """Returns matrix @ x, (rows, D); the contract is in `ops/__init__.py`.

    On CUDA it needs one of DGL's CUDA builds, which name their CUDA in the version ("2.4.0+cu124").
    PyPI has none, and none is made for torch past 2.4; this path is untested.

    Raises:
        ConfigError: On CUDA with a CPU build of DGL.
    """
    from dualgnn_dgl._dgl import dgl  # takes seconds, so only if it runs

    if x.is_cuda and "+cu" not in dgl.__version__:
        raise ConfigError(
            "the dgl kernel needs a CUDA build of DGL on CUDA: use ops.use('csr') there"
        )
    if matrix.indices.numel() == 0:
        return x.new_zeros(matrix.shape[0], x.shape[1])
    if "dgl" not in matrix.cache:
        # Without edge numbers, copy_u assumes 0…E-1; u_mul_e has a path at D=1 that needs them.
        count = 0 if matrix.weight is None else matrix.indices.numel()
        number = torch.arange(count, dtype=matrix.indices.dtype, device=x.device)
        graph = dgl.heterograph(
            {("src", "to", "dst"): ("csc", (matrix.indptr, matrix.indices, number))},
            num_nodes_dict={"src": matrix.shape[1], "dst": matrix.shape[0]},
        )
        matrix.cache["dgl"] = graph.formats("csc")
    graph = matrix.cache["dgl"]
    with torch.no_grad():
        if matrix.weight is not None:
            return dgl.ops.u_mul_e_sum(graph, x, matrix.weight.to(x.dtype).reshape(-1, 1))
        y = dgl.ops.copy_u_sum(
            graph, x if matrix.right is None else matrix.right.to(x.dtype).reshape(-1, 1) * x
        )
        return y if matrix.left is None else y.mul_(matrix.left.to(x.dtype).reshape(-1, 1))
