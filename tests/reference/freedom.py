"""FREEDOM by its equations, node by node, in float64.

Source: Zhou & Shen, ACM MM 2023; letters as in the model's file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Rows = list[Tensor]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def nearest(features: Tensor, present: list[bool], k: int) -> list[list[int]]:
    """Returns for each item itself and the k − 1 present items of largest cosine.

    An absent item has none.
    """
    lists = []
    for i, row in enumerate(features):
        others = [j for j in range(len(features)) if j != i and present[j] and present[i]]
        ranked = sorted(others, key=lambda j: -cosine(row, features[j]))
        lists.append([i, *ranked[: k - 1]] if present[i] else [])
    return lists


def item_graph(
    features: list[Tensor], present: list[list[bool]], shares: list[float], k: int
) -> list[dict[int, float]]:
    """Returns S: in each modality D^-½ 1 D^-½ of the nearest, mixed by the item's shares.

    D are the row sums.
    """
    mixed: list[dict[int, float]] = [{} for _ in present[0]]
    for table, there, share in zip(features, present, shares, strict=True):
        lists = nearest(table, there, k)
        for i, near in enumerate(lists):
            had = sum(s for s, who in zip(shares, present, strict=True) if who[i])
            for j in near:
                weight = share / had / math.sqrt(len(near) * len(lists[j])) if had else 0.0
                mixed[i][j] = mixed[i].get(j, 0.0) + weight
    return mixed


def smooth(p: Tensor, q: Tensor, pairs: list[tuple[int, int]], layers: int) -> tuple[Rows, Rows]:
    """Returns LightGCN's mean of layers over the given pairs, with their degrees."""
    du = [sum(1 for v, _ in pairs if v == u) for u in range(len(p))]
    di = [sum(1 for _, j in pairs if j == i) for i in range(len(q))]
    users, items = [list(p)], [list(q)]
    for _ in range(layers):
        new_u, new_i = [torch.zeros_like(row) for row in p], [torch.zeros_like(row) for row in q]
        for u, i in pairs:
            new_u[u] = new_u[u] + items[-1][i] / math.sqrt(du[u] * di[i])
            new_i[i] = new_i[i] + users[-1][u] / math.sqrt(du[u] * di[i])
        users.append(new_u)
        items.append(new_i)
    mean = [
        [sum(layer[n] for layer in side) / (layers + 1) for n in range(len(side[0]))]
        for side in (users, items)
    ]
    return mean[0], mean[1]


def embed(
    p: Tensor, q: Tensor, pairs: list[tuple[int, int]], similar: list[dict[int, float]], config
) -> tuple[Tensor, Tensor]:
    """Returns u (U, D) and i + h (I, D)."""
    user, item = smooth(p, q, pairs, config.layers)
    h = list(q)
    for _ in range(config.item_layers):
        h = [sum((w * h[j] for j, w in row.items()), torch.zeros_like(q[0])) for row in similar]
    return torch.stack(user), torch.stack([a + b for a, b in zip(item, h, strict=True)])


def loss(
    p: Tensor,
    q: Tensor,
    maps: list[Tensor],
    pairs: list[tuple[int, int]],
    similar: list[dict[int, float]],
    features: list[Tensor],
    present: list[list[bool]],
    triples: list[tuple[int, int, int]],
    config,
) -> Tensor:
    """Returns BPR, the feature loss of each modality over its triples, and the penalty.

    `pairs` are the thinned ones.
    """
    user, item = embed(p, q, pairs, similar, config)
    total = torch.zeros((), dtype=torch.float64)
    for u, i, j in triples:
        total = total + torch.log(1 + torch.exp(user[u] @ item[j] - user[u] @ item[i])) / len(
            triples
        )
        total = total + config.l2 * ((p[u] ** 2).sum() + (q[i] ** 2).sum() + (q[j] ** 2).sum()) / (
            2 * len(triples)
        )
    for table, there, weight in zip(features, present, maps, strict=True):
        whole = [(u, i, j) for u, i, j in triples if there[i] and there[j]]
        for u, i, j in whole:
            difference = user[u] @ (weight @ table[i]) - user[u] @ (weight @ table[j])
            total = total + config.feature_weight * torch.log(1 + torch.exp(-difference)) / len(
                whole
            )
    return total
