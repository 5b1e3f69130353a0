"""ItemKNN: recommends items similar to those in the user's history.

Source: Sarwar, Karypis, Konstan, Riedl, "Item-based Collaborative Filtering Recommendation
Algorithms", WWW 2001; users weighted and the conditional form after Deshpande & Karypis,
"Item-Based Top-N Recommendation Algorithms", TOIS 2004; shrinkage after Bell & Koren, "Improved
Neighborhood-based Collaborative Filtering", KDD Cup 2007.

With d_i users of item i, d_u items of user u, and c_ij = Σ 1/d_u^activity over the users who
watched both i and j in training:

    s_ij  = c_ij / (d_i + shrink)              conditional: share of i's users who watched j
          = c_ij / (√(d_i d_j) + shrink)       cosine
    score(u, j) = Σ s_ij over the items i that u watched among the k items most similar to j

Users are weighted because a few users with very long histories would otherwise decide the
similarities.

As two tables: user row u is the set of watched items, (U, I) of zeros and ones; item row j holds
s_ij for the k items of j, (I, I). Both are sparse, E and k·I numbers in all; the score is their
inner product as for every other model. Nothing is trained. Differences from the paper: watched or
not instead of ratings, so the sum is not divided by Σ |s_ij|, which would cancel the counts that
rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core import memory
from dualgnn_dgl.core.options import COUNT, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.graphs.arrivals import UserHistories
from dualgnn_dgl.models.base import Recommender, UserFoldin


@dataclass(frozen=True)
class Config(Options):
    """Options of ItemKNN."""

    k: int = option(500, "most similar items that an item keeps", low=1, high=COUNT)
    similarity: str = option(
        "conditional", "map from common users to similarity", choices=("conditional", "cosine")
    )
    activity: float = option(
        1.0,
        "power of 1 / (items of a user) in the user's weight; 0 weighs all users equally",
        low=0,
    )
    shrink: float = option(
        1.0, "users added to the denominator, which lowers similarities from few users", low=0
    )


class ItemKNN(Recommender):
    """score(u, j) = Σ of the similarities of j to u's items; sparse tables (U, I) and (I, I)."""

    Config = Config
    trainable = False
    SEARCH = {
        "k": (20, 50, 100, 200, 500, 1000),
        "similarity": ("conditional", "cosine"),
        "activity": (0.0, 0.5, 1.0),
        "shrink": (0.0, 1.0, 10.0, 100.0),
    }
    _user_index: Tensor
    _user_value: Tensor
    _item_index: Tensor
    _item_value: Tensor

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        users, items = graph.num_nodes("user"), graph.num_nodes("item")
        watcher, watched = (end.numpy() for end in graph.edges(etype="interacts"))
        matrix = sparse.csr_matrix(
            (np.ones(len(watcher), np.float32), (watcher, watched)), shape=(users, items)
        )
        for name, part in (("user", matrix), ("item", nearest(matrix, config))):
            part = part.tocoo()
            # (2, entries); rows ascend, and columns within a row.
            index = np.stack([part.row, part.col]).astype(np.int64)
            self.register_buffer(f"_{name}_index", torch.from_numpy(index), persistent=False)
            self.register_buffer(f"_{name}_value", torch.from_numpy(part.data), persistent=False)
        self._shape = (users, items)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns watched items (U, I) and similarities (I, I), both sparse."""
        users, items = self._shape
        user, item = self._user_index, self._item_index
        return _sparse(user, self._user_value, (users, items)), _sparse(
            item, self._item_value, (items, items)
        )

    def user_foldin(self) -> UserFoldin:
        """Returns a rule for users unseen in training: the row of their watched items."""

        def place(histories: UserHistories) -> Tensor:
            row, column = histories.watched.tocoo().coords
            index = torch.from_numpy(np.stack([row, column]).astype(np.int64))
            return _sparse(index, torch.ones(len(row)), histories.watched.shape)

        return place


def _sparse(index: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    """Returns a sparse table from its entries.

    Args:
        index: Rows and columns, (2, n); rows ascend, and columns within a row.
        value: Values, (n,).
        shape: Shape of the table.
    """
    return torch.sparse_coo_tensor(index, value, shape, is_coalesced=True, check_invariants=False)


def nearest(
    watched: sparse.csr_matrix, config: Config, room: int | None = None
) -> sparse.csr_matrix:
    """Finds the k most similar items of each item, (I, I) float32.

    Rows and columns are in order. Of equally similar items, those with the smaller index are kept.

    Args:
        watched: Training pairs, (U, I) of ones, each row's columns ascending.
        config: The model's options.
        room: Largest number of item pairs in a block; by default 2²⁴, or fewer if `memory.budget`
            is less. A block is halved, with a warning, when memory runs out.
    """
    items = watched.shape[1]
    by_item = watched.T.tocsr()  # (I, U)
    degree = np.diff(by_item.indptr).astype(np.float64)  # (I,), d_i
    weight = np.maximum(np.diff(watched.indptr), 1.0) ** -config.activity  # (U,)
    weighted = sparse.csr_matrix(
        (np.repeat(weight, np.diff(watched.indptr)), watched.indices, watched.indptr), watched.shape
    )
    if room is None:
        # 64 bytes a pair: entry, row, column, order, similarity, and the kept part.
        room = min(2**24, memory.budget() // 64)
    parts = []

    def find(start: int, stop: int) -> None:
        common = (by_item[start:stop] @ weighted).tocsr()  # (block, I), c_ij
        common.sort_indices()
        row, column = np.repeat(np.arange(common.shape[0]), np.diff(common.indptr)), common.indices
        other = column != row + start
        row, column, count = row[other], column[other], common.data[other]
        theirs = degree[column]
        total = np.sqrt(degree[row + start] * theirs) if config.similarity == "cosine" else theirs
        value = count / (total + config.shrink)
        order = np.lexsort((-value, row))  # Stable: equal ones stay in the order of columns.
        row, column, value = row[order], column[order], value[order]
        # 0 for the most similar, 1 for the next, …
        place = np.arange(len(row)) - np.searchsorted(row, row)
        keep = place < config.k
        shape = (stop - start, items)
        parts.append(
            sparse.csr_matrix(
                (value[keep].astype(np.float32), (row[keep], column[keep])), shape=shape
            )
        )

    memory.in_blocks(
        items, max(1, room // max(items, 1)), find, what=f"similarities of {items:,} items, items"
    )
    joined = sparse.vstack(parts, format="csr")
    joined.sort_indices()
    return joined
