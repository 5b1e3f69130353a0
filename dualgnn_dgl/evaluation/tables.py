"""Operations on user and item tables, dense or sparse (COO, coalesced).

Letters: n rows, D embedding width, I items, B chosen rows.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

# BLAS libraries round the left-over rows and columns of a product differently from the bulk. Tables
# padded to a multiple of this number have none: equal item vectors get equal scores, and a user's
# scores depend neither on the block nor on the place in it.
TILE = 16


def pick_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Returns rows (B,) of a table (n, D) as (B, D), sparse if the table is sparse."""
    return table.index_select(0, rows).coalesce() if table.is_sparse else table[rows]


def rows_between(table: Tensor, start: int, stop: int) -> Tensor:
    """Returns rows start…stop of a sparse table."""
    index, value = table.indices(), table.values()  # rows ascend
    first, last = torch.searchsorted(
        index[0].contiguous(), torch.tensor([start, stop], device=index.device)
    ).tolist()
    index = index[:, first:last] - torch.tensor([[start], [0]], device=index.device)
    shape = (stop - start, table.shape[1])
    return torch.sparse_coo_tensor(
        index, value[first:last], shape, is_coalesced=True, check_invariants=False
    )


def entries(table: Tensor) -> Tensor:
    """Returns the numbers that a table stores: all of them, or those of a sparse one."""
    return table.coalesce().values() if table.is_sparse else table


def lengths(table: Tensor) -> Tensor:
    """Returns the length of each row, (n,), in float64."""
    if not table.is_sparse:
        return torch.linalg.vector_norm(table, dim=1, dtype=torch.float64)
    square = entries(table).double().square()
    return (
        torch.zeros(len(table), dtype=torch.float64, device=table.device)
        .index_add_(0, table.indices()[0], square)
        .sqrt()
    )


def sparse_product(left: Tensor, right: Tensor) -> Tensor:
    """Returns left (n, D) @ right (D, I), both sparse, as a dense table."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse.mm(left, right).to_dense()


def whole_tiles(count: int) -> int:
    """Returns `count`, at least 1, rounded up to whole tiles."""
    return -(-max(count, 1) // TILE) * TILE


def tiled(table: Tensor) -> Tensor:
    """Returns a dense table (n, D) padded with zero rows to whole tiles.

    A table of whole tiles is returned as it is, without a copy.
    """
    missing = whole_tiles(len(table)) - len(table)
    if not missing:
        return table.contiguous()
    return torch.nn.functional.pad(table, (0, 0, 0, missing))
