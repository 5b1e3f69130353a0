"""Top-K lists from two tables: every user against every item, in blocks, exact and reproducible.

Letters: U users, I items, D embedding width, B ranked users, K list length.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dualgnn_dgl.core import memory
from dualgnn_dgl.data import Interactions
from dualgnn_dgl.errors import ConfigError, DataError, RunError
from dualgnn_dgl.evaluation.selection import mask_seen, select
from dualgnn_dgl.evaluation.shortlist import rank_one
from dualgnn_dgl.evaluation.tables import (
    TILE,
    lengths,
    pick_rows,
    rows_between,
    sparse_product,
    tiled,
    whole_tiles,
)

# Bytes of one block of scores. On a CPU larger blocks leave the cache and are no faster. A GPU
# needs large ones to be busy.
_BUDGET = {"cpu": 128 * 2**20, "cuda": 1024 * 2**20}
_LARGEST = torch.finfo(torch.float32).max
_DIVERGED = "training diverged, train again with a smaller --lr"


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
    may: cuBLAS chooses a kernel by the shape). Both tables are checked at every call; `Ranker`
    checks the item table once.

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
    return Ranker(item).top_k(user, k, seen, users, block)


class Ranker:
    """Ranks the items of one table for many requests: the table is checked and padded once.

    Args:
        item: Item table, (I, D), dense or sparse (COO, coalesced). It must not be changed
            afterwards.

    Examples:
        >>> ranker = Ranker(torch.tensor([[2.0], [5.0], [2.0]]))
        >>> [ranker.top_k(torch.tensor([[x]]), 2)[0].tolist() for x in (1.0, -1.0)]
        [[[1, 0]], [[0, 2]]]
    """

    def __init__(self, item: Tensor) -> None:
        self.item = item

    @torch.no_grad()
    def top_k(
        self,
        user: Tensor,
        k: int,
        seen: Interactions | sparse.csr_matrix | None = None,
        users: np.ndarray | None = None,
        block: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Ranks all items for each user; arguments, results and errors are those of `top_k`."""
        reach = self._check(user, k)
        matrix = seen.csr() if isinstance(seen, Interactions) else seen
        if matrix is not None and matrix.shape != (len(user), len(self.item)):
            raise DataError(
                f"the tables hold {len(user)} users and {len(self.item)} items, the seen pairs "
                f"count {matrix.shape}"
            )
        if users is not None:
            users = _valid_users(users, len(user))
            user = pick_rows(user, torch.tensor(users, device=user.device))  # (B, D)
            matrix = matrix[users] if matrix is not None else None  # (B, I)
        user = user.float()
        found = self._rank_one(user, k, matrix, reach) if len(user) == 1 else None
        return self._rank(user, k, matrix, block) if found is None else found

    def _rank(
        self, user: Tensor, k: int, seen: sparse.csr_matrix | None, block: int | None
    ) -> tuple[Tensor, Tensor]:
        """Ranks valid users (B, D), block by block."""
        count, num_items, kind = len(user), len(self.item), user.device.type
        items = torch.empty(count, k, dtype=torch.int64, device=user.device)
        scores = torch.empty(count, k, dtype=torch.float32, device=user.device)
        products = (_SparseProducts if self.item.is_sparse else _DenseProducts)(
            user, self._items, num_items
        )

        def rank(start: int, stop: int) -> None:
            try:
                found = products(start, stop)  # (stop − start, I or more)
                if seen is not None:
                    mask_seen(found, seen, start, stop)
                items[start:stop], scores[start:stop] = select(found, k)
            except BaseException:
                products.release()  # The memory is needed for a smaller block.
                raise

        memory.in_blocks(
            count,
            whole_tiles(min(count, self._block(kind) if block is None else block)),
            rank,
            what=f"ranking {num_items:,} items, users",
            smallest=TILE,
            device=kind,
        )
        return items, scores

    def _rank_one(
        self, user: Tensor, k: int, seen: sparse.csr_matrix | None, reach: float
    ) -> tuple[Tensor, Tensor] | None:
        """Ranks a single user by a shortlist, or returns None where that does not apply."""
        if self.item.is_sparse:
            return None
        try:
            hidden = None if seen is None else torch.from_numpy(seen.indices.astype(np.int64))
            return rank_one(tiled(user), self._items, len(self.item), k, reach, hidden)
        except (MemoryError, RuntimeError) as error:
            if not memory.ran_out(error):
                raise
            return None  # The ranking in blocks reports it, if its smallest block does not fit.

    def _block(self, kind: str) -> int:
        """Returns the number of users whose scores fit into the memory of a device."""
        # Bytes per user: the scores, and a sparse product before it becomes dense.
        width = 4 * len(self.item) * (6 if self.item.is_sparse else 1)
        # Selecting the best needs the memory of the scores again.
        return min(_BUDGET.get(kind, _BUDGET["cpu"]) // width, memory.budget(kind) // (2 * width))

    @cached_property
    def _items(self) -> Tensor:
        """The items as a factor of the product: padded (I + padding, D), or sparse (D, I)."""
        item = self.item.float()
        return item.T.coalesce() if item.is_sparse else tiled(item)

    @cached_property
    def _longest(self) -> float:
        """Length of the longest item vector; raises `RunError` unless all are finite."""
        return _longest("item", self.item)

    def _check(self, user: Tensor, k: int) -> float:
        """Refuses tables that do not fit together, cannot be multiplied, or lack K items.

        Returns:
            ‖longest user‖ ‖longest item‖, the bound of all scores.
        """
        item = self.item
        if user.ndim != 2 or item.ndim != 2 or user.shape[1] != item.shape[1]:
            raise DataError(
                f"ranking needs tables (U, D) and (I, D), got {tuple(user.shape)} and "
                f"{tuple(item.shape)}"
            )
        if user.is_sparse != item.is_sparse:
            raise DataError(
                "ranking needs two dense tables or two sparse ones, and got one of each"
            )
        if k < 1:
            raise ConfigError(f"lists of length {k} were asked for: ask for 1 or more")
        if k > len(item):
            raise ConfigError(beyond_catalogue(k, len(item)))
        # |score| ≤ ‖user‖·‖item‖, so this product excludes every overflow, and with it every NaN.
        reach = _longest("user", user) * self._longest
        if reach > _LARGEST:
            raise RunError(f"the tables hold numbers too large to multiply: {_DIVERGED}")
        return reach


class _SparseProducts:
    """Scores of runs of users, from sparse tables."""

    def __init__(self, user: Tensor, items: Tensor, num_items: int) -> None:
        self.user, self.items = user, items  # (B, D), (D, I)

    def __call__(self, start: int, stop: int) -> Tensor:
        return sparse_product(rows_between(self.user, start, stop), self.items)

    def release(self) -> None:
        """Does nothing: there is no buffer."""


class _DenseProducts:
    """Scores of runs of users, from dense tables, in one buffer.

    The columns that pad the items to whole tiles are −inf.
    """

    def __init__(self, user: Tensor, items: Tensor, num_items: int) -> None:
        self.user, self.items, self.num_items = tiled(user), items, num_items
        self.buffer: Tensor | None = None

    def __call__(self, start: int, stop: int) -> Tensor:
        rows = whole_tiles(stop - start)
        if self.buffer is None:
            self.buffer = self.user.new_empty(rows, len(self.items))
        found = torch.mm(self.user[start : start + rows], self.items.T, out=self.buffer[:rows])
        found[:, self.num_items :] = -torch.inf
        return found[: stop - start]

    def release(self) -> None:
        """Frees the buffer."""
        self.buffer = None


_Products = _SparseProducts | _DenseProducts


def _longest(name: str, table: Tensor) -> float:
    """Returns the length of the longest row; raises `RunError` unless all rows are finite."""
    norm = lengths(table)
    longest = float(norm.max()) if len(norm) else 0.0  # NaN if any row is NaN
    if not math.isfinite(longest):
        row = int((~norm.isfinite()).nonzero()[0])
        raise RunError(f"the {name} table holds NaN or infinity in row {row}: {_DIVERGED}")
    return longest


def _valid_users(users: np.ndarray, count: int) -> np.ndarray:
    """Returns users to rank for as (B,) int64; raises `DataError` unless all are in the table."""
    users = np.asarray(users, dtype=np.int64).reshape(-1)
    if users.size and not 0 <= int(users.min()) <= int(users.max()) < count:
        raise DataError(
            f"users to rank for are {users.min()}…{users.max()}, but the user table has rows "
            f"0…{count - 1}: choose others"
        )
    return users


def beyond_catalogue(k: int, num_items: int) -> str:
    """Returns the message for lists longer than the catalogue."""
    return (
        f"lists of length {k} were asked for, but the catalogue holds {num_items} items: ask for "
        f"{num_items} at most"
    )
