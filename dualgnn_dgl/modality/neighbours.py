"""The graph of items watched by the same users, and how similar the features of neighbours are.

Source: Malitesta et al., "Do We Really Need to Drop Items with Missing Modalities in Multimodal
Recommendation?" (CIKM 2024, arXiv 2408.11767): the item graph RᵀR, top k, edges of weight one. Its
2026 sequel (arXiv 2602.17354) shows that imputing along a graph helps only as far as neighbours
resemble each other, their *feature homophily*.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from dualgnn_dgl.data import Interactions, Modality

PAIRS = 200_000  # largest number of pairs of items in `homophily`
ITEMS = 10_000  # largest number of items in `explained`
COLUMNS = 256  # features at once: bounds the working memory to a few (I, 256) arrays


def item_graph(train: Interactions, k: int = 20) -> sparse.csr_matrix:
    """Joins each item to the k items that share most training users with it, made symmetric.

    Ties go to the smaller internal number. An item without training pairs has no neighbour. The
    counts are those of `cooccurrence.co_occurrence` with users and items exchanged: exact, in
    bounded memory.

    Args:
        train: Training pairs.
        k: Neighbours per item before symmetrisation.

    Returns:
        (I, I) float32 of ones.
    """
    # It loads numba, which nothing else here needs.
    from dualgnn_dgl.graphs.cooccurrence import co_occurrence

    lists = co_occurrence(
        Interactions(train.item, train.user, train.num_items, train.num_users), k=k
    )
    ones = np.ones(len(lists.neighbour), dtype=np.float32)
    near = sparse.csr_matrix(
        (ones, lists.neighbour, lists.indptr), shape=(train.num_items, train.num_items)
    )
    return near.maximum(near.T).tocsr()


def normalised(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Returns H = D^-½ A D^-½, (I, I) float32; an item without neighbours has a zero row."""
    degree = np.asarray(graph.sum(axis=1)).ravel()
    scale = sparse.diags((1 / np.sqrt(np.maximum(degree, 1))).astype(np.float32))
    return (scale @ graph @ scale).tocsr()


def homophily(modality: Modality, graph: sparse.csr_matrix, seed: int = 0) -> dict[str, Any] | None:
    """Measures how much more neighbours resemble each other than random pairs of items do.

    Only rows with features of their own count, no imputed ones. At most 200,000 edges and as many
    random pairs are used.

    Args:
        modality: The features.
        graph: (I, I), symmetric, as `item_graph` makes it.
        seed: Seed of the random pairs.

    Returns:
        None where no two neighbours have the modality, else a dictionary. `neighbours` and `random`
        are the mean cosine of the ends of an edge and of random pairs. `gain` is (neighbours −
        random) / (1 − random): 0 where neighbours are no more alike than random pairs, 1 where they
        are equal. `pairs` is the number of edges used. `explained` is R², see the function
        `explained`.
    """
    rows = np.flatnonzero(modality.own)
    edges = sparse.triu(graph, k=1).tocoo()
    both = modality.own[edges.row] & modality.own[edges.col]
    one, two = edges.row[both], edges.col[both]  # (E,)
    if not one.size:
        return None
    rng = np.random.default_rng(seed)
    if one.size > PAIRS:
        chosen = np.sort(rng.choice(one.size, PAIRS, replace=False))
        one, two = one[chosen], two[chosen]
    first = rng.integers(rows.size, size=min(PAIRS, 20 * rows.size))
    # The offset is at least 1, so that no item is paired with itself.
    second = (first + rng.integers(1, rows.size, size=first.size)) % rows.size
    near, far = (
        _cosine(modality.values, one, two),
        _cosine(modality.values, rows[first], rows[second]),
    )
    gain = (near - far) / (1 - far) if far < 1 else 0.0
    share = explained(modality, graph, rng)
    return {
        "neighbours": near,
        "random": far,
        "gain": gain,
        "pairs": int(one.size),
        "explained": share,
    }


def explained(modality: Modality, graph: sparse.csr_matrix, rng: np.random.Generator) -> float:
    """Returns the R² of x̄ + β (n_i − x̄) as a prediction of the features x_i of items.

    n_i is the mean of the features of the item's neighbours, x̄ the mean of all, and β the best
    coefficient, one for all items. Features are scaled to length one, and only rows with features
    of their own count. 0: neighbours explain nothing; 1: they explain everything. At most 10,000
    items are predicted.
    """
    own = modality.own
    count = graph @ own.astype(np.float32)  # neighbours that have it, (I,)
    rows = np.flatnonzero(own & (count > 0))
    if rows.size > ITEMS:
        rows = np.sort(rng.choice(rows, ITEMS, replace=False))
    near = graph[rows]
    scale = np.where(own, 1 / np.maximum(np.linalg.norm(modality.values, axis=1), 1e-12), 0).astype(
        np.float32
    )[:, None]
    along = spread = predicted = 0.0
    for start in range(0, modality.width, COLUMNS):
        x = modality.values[:, start : start + COLUMNS] * scale  # (I, ≤ 256)
        mean = x[own].mean(axis=0, dtype=np.float64)
        this, those = x[rows] - mean, (near @ x) / count[rows, None] - mean
        along += float((this * those).sum())
        spread += float((this**2).sum())
        predicted += float((those**2).sum())
    # Without variation except for rounding there is nothing to explain.
    alike = min(spread, predicted) <= 1e-9 * rows.size
    return 0.0 if alike else along * max(along, 0.0) / (spread * predicted)


def _cosine(values: np.ndarray, one: np.ndarray, two: np.ndarray, block: int = 8192) -> float:
    """Returns the mean cosine of rows `one` and `two` of values (I, F), computed in blocks.

    A zero row has cosine zero with every other.
    """
    length = np.maximum(np.linalg.norm(values, axis=1), 1e-12)
    total = 0.0
    for start in range(0, one.size, block):
        a, b = one[start : start + block], two[start : start + block]
        dot = np.einsum("nf,nf->n", values[a], values[b], dtype=np.float64)
        total += float((dot / (length[a] * length[b])).sum())
    return total / one.size
