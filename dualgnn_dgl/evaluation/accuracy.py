"""Metrics of accuracy, by name: does a user's list hold the items that were held out?

To add one, write a function of `hits` and `k` here and add its line to `METRICS`; evaluation, early
stopping (`--set metric=`),
`dualgnn eval` and `dualgnn compare` take the names from there. The command line reads this file, so
it imports nothing: a function that needs NumPy imports it inside.

With h_j = 1 where place j (from 1) of a user's list is a hit, and n held-out items of that user;
all sums run over j ≤ K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from dualgnn_dgl.evaluation.hits import Hits


def recall(hits: Hits, k: int) -> np.ndarray:
    """Σ h_j / n."""
    return hits.count(k) / hits.positives


def precision(hits: Hits, k: int) -> np.ndarray:
    """Σ h_j / K, also where fewer than K items were left."""
    return hits.count(k) / k


def ndcg(hits: Hits, k: int) -> np.ndarray:
    """Σ h_j / log2(j + 1) over the same sum for the first min(n, K) places, the best list possible
    for the *held-out* items.

    Dividing by the best order of the *hits* instead (as the DualGNN authors' code does) inflates
    it.
    """
    return hits.gain(k) / hits.best_gain(k)


def hit(hits: Hits, k: int) -> np.ndarray:
    """1 where the list holds any hit, else 0."""
    return (hits.count(k) > 0).astype("float64")


def average_precision(hits: Hits, k: int) -> np.ndarray:
    """Σ h_j · (hits up to j) / j, divided by min(n, K) (as in MMRec and RecBole.

    Others divide by n).
    """
    return hits.precisions(k) / hits.possible(k)


def reciprocal_rank(hits: Hits, k: int) -> np.ndarray:
    """1 / the place of the first hit, 0 where there is none."""
    first = hits.first()  # infinite where there is none
    return (first <= k) / first


METRICS: dict[str, Callable[[Hits, int], np.ndarray]] = {
    "recall": recall,
    "precision": precision,
    "ndcg": ndcg,
    "hit": hit,
    "map": average_precision,
    "mrr": reciprocal_rank,
}
