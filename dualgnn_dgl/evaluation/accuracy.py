"""Accuracy metrics by name: how well a user's list matches the held-out items.

To add a metric, write a function of `hits` and `k` here and add its line to `METRICS`. Evaluation,
early stopping (`--set metric=`), `dualgnn eval` and `dualgnn compare` read the names from there.
The command line imports this file, so it imports no library: a function that needs NumPy imports it
in its body.

Notation: h_j = 1 where place j (from 1) of a user's list is a hit, and n is the number of held-out
items of that user. All sums run over j ≤ K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from dualgnn_dgl.evaluation.hits import Hits


def recall(hits: Hits, k: int) -> np.ndarray:
    """Returns Σ h_j / n."""
    return hits.count(k) / hits.positives


def precision(hits: Hits, k: int) -> np.ndarray:
    """Returns Σ h_j / K, also where fewer than K items were left."""
    return hits.count(k) / k


def ndcg(hits: Hits, k: int) -> np.ndarray:
    """Returns Σ h_j / log2(j + 1), divided by the same sum for the best possible list.

    The best possible list begins with min(n, K) *held-out* items. Dividing by the best order of the
    *hits* instead, as the DualGNN authors' code does, inflates the metric.
    """
    return hits.gain(k) / hits.best_gain(k)


def hit(hits: Hits, k: int) -> np.ndarray:
    """Returns 1 where the list has any hit, else 0."""
    return (hits.count(k) > 0).astype("float64")


def average_precision(hits: Hits, k: int) -> np.ndarray:
    """Returns Σ h_j · (hits up to j) / j, divided by min(n, K).

    MMRec and RecBole divide by min(n, K) too; other toolkits divide by n.
    """
    return hits.precisions(k) / hits.possible(k)


def reciprocal_rank(hits: Hits, k: int) -> np.ndarray:
    """Returns 1 / the place of the first hit, or 0 without a hit."""
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
