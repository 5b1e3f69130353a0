"""Imputers with dense matrices in float64: the inverse, the exponential, loops over items."""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm


def item_graph(pairs: list[tuple[int, int]], items: int, k: int) -> np.ndarray:
    """Returns A (I, I), 1 where one item is among the k that share most users with the other."""
    watchers = [{u for u, j in pairs if j == i} for i in range(items)]
    graph = np.zeros((items, items))
    for i in range(items):
        shared = [
            (-len(watchers[i] & watchers[j]), j)
            for j in range(items)
            if j != i and watchers[i] & watchers[j]
        ]
        for _, j in sorted(shared)[:k]:
            graph[i, j] = graph[j, i] = 1
    return graph


def normalised(graph: np.ndarray) -> np.ndarray:
    """Returns H = D^-½ A D^-½, entry by entry."""
    degree = graph.sum(1)
    step = np.zeros_like(graph)
    for i, j in np.argwhere(graph > 0):
        step[i, j] = 1 / np.sqrt(degree[i] * degree[j])
    return step


def operator(
    method: str, graph: np.ndarray, present: np.ndarray, hops: int, alpha: float, time: float
) -> np.ndarray:
    """Returns L (I, I) of each method.

    For multi_hop it is the matrix of `hops` steps with known rows reset.
    """
    items, step = len(graph), normalised(graph)
    if method == "mean":
        return np.ones((items, items))
    if method == "neighbour_mean":
        return graph
    if method == "ppr":
        return alpha * np.linalg.inv(np.eye(items) - (1 - alpha) * step)
    if method == "heat":
        return expm(-time * (np.eye(items) - step))
    known = np.diag(present.astype(float))  # multi_hop: y ← K x + (1 − K) H y, from y = K x
    total = known
    for _ in range(hops):
        total = known + (np.eye(items) - known) @ step @ total
    return total


def impute(
    values: np.ndarray,
    present: np.ndarray,
    pairs: list[tuple[int, int]],
    method: str,
    k: int,
    hops: int,
    alpha: float,
    time: float,
) -> np.ndarray:
    """Returns x̃_i = (L X)_i / (L p)_i for absent i, (I, F).

    Where no weight arrives, it is the mean of the present rows.
    """
    known = [i for i in range(len(values)) if present[i]]
    filled = values.astype(np.float64).copy()
    weights = (
        operator(method, item_graph(pairs, len(values), k), present, hops, alpha, time)
        if method != "zero"
        else None
    )
    for i in range(len(values)):
        if present[i]:
            continue
        if weights is None:
            filled[i] = 0
            continue
        mass = sum(weights[i, j] for j in known)
        if mass > 1e-5:
            filled[i] = sum(weights[i, j] * values[j].astype(np.float64) for j in known) / mass
        else:
            filled[i] = np.mean([values[j] for j in known], axis=0)
    return filled
