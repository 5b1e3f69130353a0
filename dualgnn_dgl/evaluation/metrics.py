"""Metrics of full ranking, computed from one boolean matrix.

The entry of user b at place k says whether the item there is held out. The metrics are the table
`accuracy.METRICS`.

Letters: U users, I items, D embedding width, B evaluated users (those with a held-out item), K list
length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dualgnn_dgl.data import Interactions
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.evaluation.accuracy import METRICS
from dualgnn_dgl.evaluation.hits import Hits
from dualgnn_dgl.evaluation.ranking import beyond_catalogue, top_k
from dualgnn_dgl.evaluation.selection import NO_ITEM
from dualgnn_dgl.evaluation.tables import pick_rows


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of an `Evaluator`.

    Attributes:
        ks: The list lengths.
        users: The evaluated users, those with at least one held-out item, (B,) int64.
        per_user: 'recall@10' and so on → (B,) float64, in the order of `users`; the basis of
            intervals and paired tests.
        means: Means of `per_user`, by the same names.
        coverage: 'coverage@10' and so on → share of the catalogue that is in any list.
    """

    ks: tuple[int, ...]
    users: np.ndarray
    per_user: dict[str, np.ndarray]
    means: dict[str, float]
    coverage: dict[str, float]


class Evaluator:
    """Ranks the whole catalogue for every user with a held-out item, and measures the lists.

    It is prepared once and called after every epoch.

    Args:
        truth: The held-out pairs.
        seen: Pairs to leave out of the lists, the training pairs and usually, at test, the
            validation pairs; they may overlap each other.
        ks: List lengths.

    Raises:
        DataError: If the sizes differ, `truth` is empty, or `truth` shares pairs with `seen`, which
            could never be hit.
        ConfigError: If a list length is not within 1…I.

    Examples:
        >>> import torch
        >>> train, test = Interactions([0, 1], [0, 2], 2, 3), Interactions([0], [1], 2, 3)
        >>> evaluate = Evaluator(test, [train], ks=(1, 2))
        >>> found = evaluate(torch.ones(2, 1), torch.tensor([[9.0], [3.0], [5.0]]))
        >>> len(found.users), found.means["recall@1"], found.means["recall@2"]
        (1, 0.0, 1.0)
    """

    def __init__(
        self, truth: Interactions, seen: Sequence[Interactions] = (), ks: Iterable[int] = (10, 20)
    ) -> None:
        self.ks = tuple(sorted({int(k) for k in ks}))
        if not self.ks or self.ks[0] < 1:
            raise ConfigError(
                f"lists of length {self.ks[0] if self.ks else 'none'} were asked for: ask for 1 "
                f"or more"
            )
        if self.ks[-1] > truth.num_items:
            raise ConfigError(beyond_catalogue(self.ks[-1], truth.num_items))
        if not len(truth):
            raise DataError(
                "no user has a held-out item: choose another split, or prepare the data with one"
            )
        self._shape = (truth.num_users, truth.num_items)
        positives, masked = truth.csr(), sparse.csr_matrix(self._shape, dtype=np.float32)
        for part in seen:
            if (part.num_users, part.num_items) != self._shape:
                raise DataError(
                    f"held-out pairs count {self._shape} users and items, masked pairs "
                    f"{(part.num_users, part.num_items)}"
                )
            masked = masked + part.csr()
        overlap = positives.multiply(masked).nnz
        if overlap:
            raise DataError(
                f"{overlap} held-out pairs are also masked and could never be hit: make the "
                f"splits disjoint"
            )
        self.users = np.flatnonzero(np.diff(positives.indptr)).astype(np.int64)  # (B,)
        self.truth: sparse.csr_matrix = positives[self.users]  # (B, I)
        self._seen: sparse.csr_matrix | None = masked[self.users] if masked.nnz else None  # (B, I)

    def __call__(self, user: Tensor, item: Tensor, block: int | None = None) -> Evaluation:
        """Ranks the catalogue and measures the lists.

        Args:
            user: User table, (U, D).
            item: Item table, (I, D).
            block: Users per block of scores, see `top_k`.

        Raises:
            DataError: If the tables are not of the data's size.
            RunError: If they contain NaN or infinity.
        """
        return self.measure(self.rank(user, item, block))

    def rank(self, user: Tensor, item: Tensor, block: int | None = None) -> np.ndarray:
        """Returns the lists (B, K) of the evaluated users, with K the largest list length.

        Arguments and errors are those of a call.
        """
        if (len(user), len(item)) != self._shape:
            raise DataError(
                f"the tables hold {len(user)} users and {len(item)} items, the data "
                f"{self._shape[0]} and {self._shape[1]}: "
                "run and data do not belong together"
            )
        ranked = pick_rows(user, torch.from_numpy(self.users).to(user.device))  # (B, D)
        return top_k(ranked, item, self.ks[-1], self._seen, block=block)[0].cpu().numpy()

    def measure(
        self, lists: np.ndarray, *, users: np.ndarray | None = None, items: np.ndarray | None = None
    ) -> Evaluation:
        """Measures lists that `rank` made, for all users or a part of them.

        Args:
            lists: One row for each evaluated user, (B, K); it is not changed.
            users: The users who count, (U,) bool; all by default.
            items: The held-out items that count, (I,) bool; all by default. Users without one are
                left out.

        Raises:
            DataError: If no chosen user has a chosen held-out item.
        """
        truth, rows = self.truth, self.users
        if users is not None or items is not None:
            if items is not None:
                truth = truth @ sparse.diags(items.astype(truth.dtype), format="csr")
                truth.eliminate_zeros()
            kept = np.diff(truth.indptr) > 0
            if users is not None:
                kept &= users[rows]
            if not kept.any():
                raise DataError("no user has a held-out item among the chosen ones: choose others")
            truth, rows, lists = truth[kept], rows[kept], lists[kept]
            truth.sort_indices()
        per_user = metrics_per_user(hit_matrix(lists, truth), np.diff(truth.indptr), self.ks)
        means = {name: float(values.mean()) for name, values in per_user.items()}
        covered = {f"coverage@{k}": coverage(lists[:, :k], self._shape[1]) for k in self.ks}
        return Evaluation(self.ks, rows, per_user, means, covered)


def hit_matrix(items: np.ndarray, truth: sparse.csr_matrix) -> np.ndarray:
    """Returns which listed items are held out, (B, K) bool.

    Args:
        items: Lists of items, (B, K).
        truth: The held-out pairs, (B, I).

    >>> hit_matrix(np.array([[2, 0], [1, -1]]), sparse.csr_matrix([[1, 1, 0], [0, 0, 1]])).tolist()
    [[False, True], [False, False]]
    """
    width = np.int64(truth.shape[1])
    row = np.arange(len(items), dtype=np.int64)
    # The keys ascend: row by row, each with sorted columns.
    held = np.repeat(row, np.diff(truth.indptr)) * width + truth.indices
    keys = row[:, None] * width + items  # (B, K)
    place = np.minimum(np.searchsorted(held, keys), max(len(held) - 1, 0))
    # The key of item −1 would be that of the last item in the row above.
    return (held[place] == keys) & (items != NO_ITEM)


def metrics_per_user(
    hits: np.ndarray, positives: np.ndarray, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    """Computes every metric of `accuracy.METRICS` at every K for every user.

    Args:
        hits: Whether the item at a place is held out, (B, K) bool, with K at least the largest of
            `ks`.
        positives: Held-out items of each user, (B,) int, at least 1.
        ks: List lengths.

    Returns:
        'recall@10' and so on → (B,) float64.

    >>> found = metrics_per_user(np.array([[False, True]]), np.array([3]), [2])
    >>> for name, value in found.items():
    ...     print(name, round(float(value[0]), 4))
    recall@2 0.3333
    precision@2 0.5
    ndcg@2 0.3869
    hit@2 1.0
    map@2 0.25
    mrr@2 0.5
    """
    shared = Hits(hits[:, : max(ks)], positives)
    return {f"{name}@{k}": metric(shared, k) for k in ks for name, metric in METRICS.items()}


def coverage(items: np.ndarray, num_items: int) -> float:
    """Returns the share of the catalogue that is in at least one of the lists (B, K).

    >>> coverage(np.array([[0, 1], [1, -1]]), 4)
    0.5
    """
    return float(
        np.count_nonzero(np.bincount(items[items != NO_ITEM], minlength=num_items)) / num_items
    )
