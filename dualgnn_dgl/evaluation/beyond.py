"""Beyond accuracy: what the lists are like, whatever was held out.

To add a measure: a function here and a line in `beyond_accuracy`.

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
from dualgnn_dgl.evaluation.ranking import NO_ITEM

_BUDGET = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Beyond:
    """What the lists are like.

    Parameters
    ----------
    whole : 'coverage@10', 'gini@10' -> a number for all lists together.
    per_user : 'novelty@10', 'diversity visual@10' -> (B,) float64, NaN for users who have none.
    means : the means of `per_user` over the users who have one, by the same names; NaN where nobody
        has.
    """

    whole: dict[str, float]
    per_user: dict[str, np.ndarray]
    means: dict[str, float]


def beyond_accuracy(
    items: np.ndarray, ks: Sequence[int], train: Interactions, modalities: Mapping[str, Modality]
) -> Beyond:
    """Measure the lists (B, K) at every length of `ks`.

    Coverage, Gini, novelty, and diversity in each modality.

    Raises
    ------
    DataError
        if there are no lists.

    >>> train = Interactions([0, 1, 1], [0, 0, 1], 4, 3)
    >>> found = beyond_accuracy(np.array([[0, 1], [0, 2]]), [2], train, {})
    >>> found.whole["coverage@2"], round(found.whole["gini@2"], 4), found.per_user["novelty@2"].tolist()
    (1.0, 0.1667, [1.5, 1.5])
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
    """How unevenly the lists (B, K) spread over the catalogue.

    Gini's coefficient of how often each item is listed.

    G = Σ_i (2i − I − 1) x_(i) / (I Σ x), x sorted ascending, over *all* I items, listed or not. 0:
    each equally often; 1 − 1/I: one item takes every place. Others divide by I − 1 instead of I,
    which makes no difference here.

    >>> gini(np.array([[0, 1], [2, 3]]), 4), gini(np.array([[1], [1]]), 4)
    (0.0, 0.75)
    """
    # of shape (I,)
    often = np.sort(np.bincount(items[items != NO_ITEM], minlength=num_items)).astype(np.float64)
    place = np.arange(1, num_items + 1, dtype=np.float64)
    total = often.sum()
    return (
        float(((2 * place - num_items - 1) * often).sum() / (num_items * total)) if total else 0.0
    )


def novelty(items: np.ndarray, watched: np.ndarray, num_users: int) -> np.ndarray:
    """Mean self-information of each user's list (B, K) in bits.

    How surprising its items are to a random user.

    −log2(users who watched the item in training / users). An item nobody watched would be
    infinitely surprising: it counts as watched by one. Source: Zhou et al., Solving the apparent
    diversity–accuracy dilemma of recommender systems (2010).

    >>> novelty(np.array([[0, 1], [2, -1]]), np.array([4, 1, 0]), 8).tolist()
    [2.0, 3.0]
    """
    bits = -np.log2(np.maximum(watched, 1) / num_users)  # (I,)
    listed = items != NO_ITEM  # (B, K)
    count = listed.sum(axis=1)
    total = np.where(listed, bits[items], 0.0).sum(axis=1)  # (B,)
    return np.divide(total, count, out=np.full(len(items), np.nan), where=count > 0)


def diversity(items: np.ndarray, modality: Modality) -> np.ndarray:
    """Intra-list diversity of each user's list (B, K).

    The mean of 1 − cosine over its pairs of items.

    Only items whose features were read count: rows that are missing, filled in, or all zero have no
    direction and are left out; a list with fewer than two of the others has no diversity, NaN. With
    unit rows x̂ of n items the sum of the cosines over ordered pairs is ‖Σ x̂‖² − n. Source:
    Ziegler et al., Improving recommendation lists through topic diversification (2005), with the
    cosine of features for topics.

    >>> angles = Modality(np.array([[1, 0], [0, 2], [-3, 0], [1, 1]]), np.array([True, True, True, False]))
    >>> diversity(np.array([[0, 1, 3], [0, 2, -1], [1, 3, -1]]), angles).tolist()
    [1.0, 2.0, nan]
    """
    norm = np.linalg.norm(modality.values.astype(np.float64), axis=1)  # (I,)
    usable = modality.own & (norm > 0)
    found = np.full(len(items), np.nan)
    block = max(1, _BUDGET // (8 * max(modality.width, 1)))
    # of shape (I, F)
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
