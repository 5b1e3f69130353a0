"""Top-K lists from two tables: every user against every item, in blocks, exact and reproducible.

Letters: U users, I items, D embedding width, B ranked users, K list length.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dualgnn_dgl.core import memory
from dualgnn_dgl.data import Interactions
from dualgnn_dgl.errors import ConfigError, DataError, RunError

NO_ITEM = -1
# One block of scores. On a CPU larger blocks leave the cache and gain nothing, on a GPU they fill
# it.
_BUDGET = {"cpu": 128 * 2**20, "cuda": 1024 * 2**20}
# BLAS libraries round the left-over rows and columns of a product differently from the bulk. Tables
# filled up to this multiple have none: equal item vectors get equal scores, and a user's scores
# depend neither on the block nor on its place.
_TILE = 16
_LOW = 2**32 - 1
_DIVERGED = "training diverged, train again with a smaller --lr"


@torch.no_grad()
def top_k(
    user: Tensor,
    item: Tensor,
    k: int,
    seen: Interactions | sparse.csr_matrix | None = None,
    users: np.ndarray | None = None,
    block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Ranks all items for each user by inner product and keeps the K best.

    Equal scores are ordered by the smaller item index, also at the end of the list. Scores are
    computed in float32; on a CPU they do not depend on `users` and `block` (on a GPU the last bit
    may: cuBLAS chooses a kernel by the shape).

    Args:
        user: User table, (U, D).
        item: Item table, (I, D), on the same device; both dense, or both sparse (COO, coalesced).
        k: List length K, at most I.
        seen: Pairs that must not be recommended, as `Interactions` or as a matrix (U, I) whose
            stored entries are the pairs.
        users: Internal users to rank for, in this order, (B,) int; all U by default.
        block: Users per block, rounded up to a multiple of 16. By default it fits `memory.budget`.
            It is halved, with a warning, when memory runs out.

    Returns:
        items: Internal items, best first, (B, K) int64; −1 where a user has fewer than K items
            left.
        scores: Their inner products, (B, K) float32; −inf beside −1.

    Raises:
        ConfigError: If K is not within 1…I.
        DataError: If tables, `seen` and `users` do not fit together.
        RunError: If the tables contain NaN, infinity or numbers too large to multiply.
        MemoryError: If not even the smallest block fits.

    Examples:
        >>> user, item = torch.tensor([[1.0], [-1.0]]), torch.tensor([[2.0], [5.0], [2.0]])
        >>> top_k(user, item, 2)[0].tolist()
        [[1, 0], [0, 2]]
    """
    _check(user, item, k)
    matrix = seen.csr() if isinstance(seen, Interactions) else seen
    if matrix is not None and matrix.shape != (len(user), len(item)):
        raise DataError(
            f"the tables hold {len(user)} users and {len(item)} items, the seen pairs count "
            f"{matrix.shape}"
        )
    if users is not None:
        users = np.asarray(users, dtype=np.int64).reshape(-1)
        if users.size and not 0 <= int(users.min()) <= int(users.max()) < len(user):
            raise DataError(
                f"users to rank for lie in {users.min()}…{users.max()}, the user table has rows "
                f"0…{len(user) - 1}"
            )
        user = pick_rows(user, torch.tensor(users, device=user.device))  # (B, D)
        matrix = matrix[users] if matrix is not None else None  # (B, I)
    count, num_items = len(user), len(item)
    items = torch.empty(count, k, dtype=torch.int64, device=user.device)
    scores = torch.empty(count, k, dtype=torch.float32, device=user.device)
    user, item = user.float(), item.float()
    turned = item.T.coalesce() if item.is_sparse else None  # (D, I)
    if turned is None:
        user, item = _tiled(user), _tiled(item)
    # bytes a user: scores, and a sparse product before it is made dense
    width = 4 * num_items * (1 if turned is None else 6)
    kind = user.device.type
    if block is None:
        # twice the scores of what is free: selecting the best takes as much again
        block = min(_BUDGET.get(kind, _BUDGET["cpu"]) // width, memory.budget(kind) // (2 * width))
    buffer: Tensor | None = None

    def rank(start: int, stop: int) -> None:
        nonlocal buffer
        rows = _tiles(stop - start)
        try:
            if turned is not None:
                ranked = _sparse_product(_run(user, start, stop), turned)  # (stop − start, I)
            else:
                if buffer is None:
                    buffer = torch.empty(rows, len(item), dtype=torch.float32, device=user.device)
                # of shape (B, I + padding)
                ranked = torch.mm(user[start : start + rows], item.T, out=buffer[:rows])[
                    : stop - start
                ]
                ranked[:, num_items:] = -torch.inf
            if matrix is not None:
                mask_seen(ranked, matrix, start, stop)
            items[start:stop], scores[start:stop] = select(ranked, k)
        except BaseException:
            buffer = None  # its place is needed for a smaller one
            raise

    block = _tiles(min(count, block))
    memory.in_blocks(
        count, block, rank, what=f"ranking {num_items:,} items, users", smallest=_TILE, device=kind
    )
    return items, scores


def pick_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Returns rows (B,) of a table (n, D) as (B, D), sparse if the table is sparse."""
    return table.index_select(0, rows).coalesce() if table.is_sparse else table[rows]


def entries(table: Tensor) -> Tensor:
    """Returns the numbers that a table stores: all of them, or those of a sparse one."""
    return table.coalesce().values() if table.is_sparse else table


def _run(table: Tensor, start: int, stop: int) -> Tensor:
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


def _sparse_product(left: Tensor, right: Tensor) -> Tensor:
    """Returns left (n, D) @ right (D, I), both sparse, as a dense table."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse.mm(left, right).to_dense()


def _tiles(count: int) -> int:
    """Returns `count`, at least 1, rounded up to whole tiles."""
    return -(-max(count, 1) // _TILE) * _TILE


def _tiled(table: Tensor) -> Tensor:
    """Returns a table (n, D) padded with zero rows to whole tiles."""
    return torch.nn.functional.pad(table, (0, 0, 0, _tiles(len(table)) - len(table)))


def mask_seen(scores: Tensor, seen: sparse.csr_matrix, start: int, stop: int) -> None:
    """Sets the scores of the pairs in rows start…stop of `seen` to −inf, in place.

    Args:
        scores: (stop − start, I or more).
        seen: Stored entries are the pairs, (B, I).
        start: First row.
        stop: Row after the last.
    """
    indptr = seen.indptr[start : stop + 1].astype(np.int64)
    row = np.repeat(np.arange(stop - start, dtype=np.int64), np.diff(indptr))
    # position in the flattened block
    flat = row * scores.shape[1] + seen.indices[indptr[0] : indptr[-1]]
    scores.view(-1)[torch.from_numpy(flat).to(scores.device)] = -torch.inf


def select(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The K best of each row of (B, I), ties by the smaller index; −1 for entries that are −inf.

    The float `topk` breaks ties as it likes. One entry more than K shows which rows have a tie at
    the cut-off; in these the places of the value at the cut-off are given to its first items anew.
    Then ties within a list are put in order.
    """
    count = scores.shape[1]
    values, items = scores.topk(min(k + 1, count))  # (B, K+1), best first
    if k < count:
        cut = (values[:, k - 1] == values[:, k]) & (values[:, k] > -torch.inf)
        values, items = values[:, :k].contiguous(), items[:, :k].contiguous()
        # small parts keep the memory down
        for rows in cut.nonzero().squeeze(1).split(max(1, len(scores) // 8)):
            edge = values[rows, k - 1 :]  # (rows, 1) the value at the cut-off
            above = (values[rows] > edge).sum(1)  # (rows,) places that are taken for good
            row, item = (scores[rows] == edge).nonzero(as_tuple=True)  # row by row, items ascending
            size = row.bincount(minlength=len(rows))
            place = torch.arange(len(row), device=row.device) - (size.cumsum(0) - size - above)[row]
            fits = place < k
            items[rows[row[fits]], place[fits]] = item[fits]
    rows = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    if len(rows):
        items[rows] = _LOW - (
            _keys(values[rows], items[rows]).sort(dim=1, descending=True).values & _LOW
        )
        values[rows] = scores[rows[:, None], items[rows]]
    return items.masked_fill_(values == -torch.inf, NO_ITEM), values


def _keys(scores: Tensor, items: Tensor) -> Tensor:
    """Returns int64 keys that order by score and then by the smaller item.

    The float's bits, made sortable, are the upper half; the item is the lower half.
    """
    # + 0.0 makes −0.0 and 0.0 equal, as they compare
    bits = (scores + 0.0).view(torch.int32).long()
    return (torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32) | (_LOW - items)


def _check(user: Tensor, item: Tensor, k: int) -> None:
    """Refuses tables that do not fit together, cannot be multiplied, or have fewer than K items."""
    if user.ndim != 2 or item.ndim != 2 or user.shape[1] != item.shape[1]:
        raise DataError(
            f"ranking needs tables (U, D) and (I, D), got {tuple(user.shape)} and "
            f"{tuple(item.shape)}"
        )
    if user.is_sparse != item.is_sparse:
        raise DataError("ranking needs two dense tables or two sparse ones, and got one of each")
    if k < 1:
        raise ConfigError(f"lists of length {k} were asked for: ask for 1 or more")
    if k > len(item):
        raise ConfigError(beyond_catalogue(k, len(item)))
    norms = {}
    for name, table in (("user", user), ("item", item)):
        norm = _lengths(table)
        if not bool(norm.isfinite().all()):
            row = int((~norm.isfinite()).nonzero()[0])
            raise RunError(f"the {name} table holds NaN or infinity in row {row}: {_DIVERGED}")
        norms[name] = float(norm.max()) if len(norm) else 0.0
    # |score| ≤ ‖user‖·‖item‖, so this one product rules out every overflow, and with it every NaN
    if norms["user"] * norms["item"] > torch.finfo(torch.float32).max:
        raise RunError(f"the tables hold numbers too large to multiply: {_DIVERGED}")


def _lengths(table: Tensor) -> Tensor:
    """Returns the length of each row, (n,), in float64."""
    if not table.is_sparse:
        return torch.linalg.vector_norm(table, dim=1, dtype=torch.float64)
    square = entries(table).double().square()
    return (
        torch.zeros(len(table), dtype=torch.float64, device=table.device)
        .index_add_(0, table.indices()[0], square)
        .sqrt()
    )


def beyond_catalogue(k: int, num_items: int) -> str:
    """Returns the message for lists longer than the catalogue."""
    return (
        f"lists of length {k} were asked for, but the catalogue holds {num_items} items: ask for "
        f"{num_items} at most"
    )
