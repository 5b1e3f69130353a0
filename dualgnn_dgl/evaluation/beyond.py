"""Measures beyond accuracy: properties of the lists that do not depend on held-out items.

To add a measure, write a function here and add its line to `beyond_accuracy`.

Letters: I items, F raw feature width, B evaluated users, K list length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from dualgnn_dgl.data import Interactions, Modality
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.evaluation.metrics import coverage
from dualgnn_dgl.evaluation.selection import NO_ITEM

_BUDGET = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Beyond:
    """Coverage, Gini, novelty and diversity of a set of lists.

    Attributes:
        whole: 'coverage@10', 'gini@10' → a number for all lists together.
        per_user: 'novelty@10', 'diversity visual@10' → (B,) float64, NaN for users without a value.
        means: Means of `per_user` over the users with a value, by the same names; NaN without any.
    """

    whole: dict[str, float]
    per_user: dict[str, np.ndarray]
    means: dict[str, float]


def beyond_accuracy(
    items: np.ndarray, ks: Sequence[int], train: Interactions, modalities: Mapping[str, Modality]
) -> Beyond:
    """Measures coverage, Gini, novelty and diversity of the lists at every length.

    Args:
        items: Lists of items, (B, K).
        ks: List lengths, each at most K.
        train: Training pairs.
        modalities: Modalities in which diversity is measured, by name.

    Raises:
        DataError: If there are no lists.

    >>> train = Interactions([0, 1, 1], [0, 0, 1], 4, 3)
    >>> found = beyond_accuracy(np.array([[0, 1], [0, 2]]), [2], train, {})
    >>> found.whole["coverage@2"], round(found.whole["gini@2"], 4)
    (1.0, 0.1667)
    >>> found.per_user["novelty@2"].tolist()
    [1.5, 1.5]
    """
    if not len(items):
        raise DataError("there are no lists to measure: rank for at least one user")
    watched = np.bincount(train.item, minlength=train.num_items)  # (I,)
    whole, per_user = {}, {}
    for k in ks:
        lists = items[:, :k]
        whole[f"coverage@{k}"] = coverage(lists, train.num_items)
        whole[f"gini@{k}"] = gini(lists, train.num_items)
        per_user[f"novelty@{k}"] = novelty(lists, watched, train.num_users)
        for name, modality in modalities.items():
            per_user[f"diversity {name}@{k}"] = diversity(lists, modality)
    means = {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
        for name, values in per_user.items()
    }
    return Beyond(whole, per_user, means)


def gini(items: np.ndarray, num_items: int) -> float:
    """Returns Gini's coefficient of how often each item is listed.

    G = Σ_i (2i − I − 1) x_(i) / (I Σ x), with x sorted in ascending order, over *all* I items,
    listed or not. 0: every item is listed equally often; 1 − 1/I: one item takes every place.
    Others divide by I − 1 instead of I, a negligible difference for a large catalogue.

    Args:
        items: Lists of items, (B, K).
        num_items: Number of items I.

    >>> gini(np.array([[0, 1], [2, 3]]), 4), gini(np.array([[1], [1]]), 4)
    (0.0, 0.75)
    """
    # The counts have shape (I,).
    often = np.sort(np.bincount(items[items != NO_ITEM], minlength=num_items)).astype(np.float64)
    place = np.arange(1, num_items + 1, dtype=np.float64)
    total = often.sum()
    return (
        float(((2 * place - num_items - 1) * often).sum() / (num_items * total)) if total else 0.0
    )


def novelty(items: np.ndarray, watched: np.ndarray, num_users: int) -> np.ndarray:
    """Returns the mean self-information of each user's list, in bits.

    The self-information of an item is −log2(users who watched it in training / users): how
    surprising the item is to a random user. It is infinite for an item that no user watched, so
    such an item counts as watched by one user.

    Args:
        items: Lists of items, (B, K).
        watched: Training users of each item, (I,).
        num_users: Number of users.

    Returns:
        (B,) float64; NaN for empty lists.

    Source: Zhou et al., Solving the apparent diversity–accuracy dilemma of recommender systems
    (2010).

    >>> novelty(np.array([[0, 1], [2, -1]]), np.array([4, 1, 0]), 8).tolist()
    [2.0, 3.0]
    """
    bits = -np.log2(np.maximum(watched, 1) / num_users)  # (I,)
    listed = items != NO_ITEM  # (B, K)
    count = listed.sum(axis=1)
    total = np.where(listed, bits[items], 0.0).sum(axis=1)  # (B,)
    return np.divide(total, count, out=np.full(len(items), np.nan), where=count > 0)


def diversity(items: np.ndarray, modality: Modality) -> np.ndarray:
    """Returns the intra-list diversity of each user's list.

    The diversity of a list is the mean of 1 − cosine over its pairs of items. Only items with
    features of their own count: rows that are missing, imputed, or all zero have no direction and
    are left out. With unit rows x̂ of n items, the sum of the cosines over ordered pairs is ‖Σ x̂‖²
    − n.

    Args:
        items: Lists of items, (B, K).
        modality: The features.

    Returns:
        (B,) float64; NaN for lists with fewer than two items that count.

    Source: Ziegler et al., Improving recommendation lists through topic diversification (2005),
    with the cosine of features instead of topics.

    >>> own = np.array([True, True, True, False])
    >>> angles = Modality(np.array([[1, 0], [0, 2], [-3, 0], [1, 1]]), own)
    >>> diversity(np.array([[0, 1, 3], [0, 2, -1], [1, 3, -1]]), angles).tolist()
    [1.0, 2.0, nan]
    """
    norm = np.linalg.norm(modality.values.astype(np.float64), axis=1)  # (I,)
    usable = modality.own & (norm > 0)
    found = np.full(len(items), np.nan)
    block = max(1, _BUDGET // (8 * max(modality.width, 1)))
    # The unit rows have shape (I, F).
    unit = np.divide(
        modality.values, norm[:, None], out=np.zeros(modality.values.shape), where=usable[:, None]
    )
    for start in range(0, len(items), block):
        lists = items[start : start + block]
        row, place = np.nonzero((lists != NO_ITEM) & usable[lists])
        chosen = sparse.csr_matrix(
            (np.ones(len(row)), (row, lists[row, place])), shape=(len(lists), len(usable))
        )
        n = np.bincount(row, minlength=len(lists)).astype(np.float64)  # (block,)
        cosines = ((chosen @ unit) ** 2).sum(axis=1) - n
        pairs = n * (n - 1)
        found[start : start + block] = 1 - np.divide(
            cosines, pairs, out=np.full(len(lists), np.nan), where=pairs > 0
        )
    return found
