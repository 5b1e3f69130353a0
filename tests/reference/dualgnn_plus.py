"""DualGNN-Plus as its equations stand, user by user and item by item, in float64.

See the model's docstring.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def nearest(features: Tensor, present: list[bool], k: int) -> list[list[int]]:
    """For each item the k others of largest cosine among those present; nothing for an absent
    one.
    """
    found = []
    for i, row in enumerate(features):
        if not present[i]:
            found.append([])
            continue
        others = [j for j in range(len(features)) if j != i and present[j]]
        cosine = {j: float(row @ features[j] / (row.norm() * features[j].norm())) for j in others}
        found.append(sorted(others, key=lambda j: -cosine[j])[:k])
    return found


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """0 where one of them is zero."""
    return (one @ other) / (one.norm() * other.norm()).clamp(min=1e-12)


def embed(
    p: Tensor,
    q: Tensor,
    bias: Tensor | None,
    attention: Tensor | None,
    pairs: list[tuple[int, int]],
    features: list[Tensor],
    present: list[list[bool]],
    omega: list[list[tuple[int, float]]],
    config,
    hidden: frozenset[tuple[int, int]] = frozenset(),
) -> tuple[Tensor, Tensor]:
    """Unit rows of û (U, D) and i (I, D), with 1 and b behind them where there is a bias (I, 1).

    The attention is a table of logits (U, M).
    The hidden pairs count in degrees and modalities seen, but send nothing.
    """
    watched = [[i for v, i in pairs if v == u] for u in range(len(p))]
    watchers = [[u for u, j in pairs if j == i] for i in range(len(q))]

    def weight(u: int, i: int) -> float:
        return 0.0 if (u, i) in hidden else 1 / math.sqrt(len(watched[u]) * len(watchers[i]))

    def send_to_users(items: list[Tensor]) -> list[Tensor]:
        zero = torch.zeros_like(p[0])
        return [sum((items[i] * weight(u, i) for i in watched[u]), zero) for u in range(len(p))]

    def send_to_items(users: list[Tensor]) -> list[Tensor]:
        zero = torch.zeros_like(p[0])
        return [sum((users[u] * weight(u, i) for u in watchers[i]), zero) for i in range(len(q))]

    users, items = [list(p)], [list(q)]
    for _ in range(config.layers):
        users, items = [*users, send_to_users(items[-1])], [*items, send_to_items(users[-1])]
    user = [sum(layer[u] for layer in users) / (config.layers + 1) for u in range(len(p))]
    item = [sum(layer[i] for layer in items) / (config.layers + 1) for i in range(len(q))]

    resembling = []
    for table, there in zip(features, present, strict=True):
        lists = nearest(table, there, config.item_k)
        resembling.append(
            [
                sum((q[j] for j in near), torch.zeros_like(q[0])) / max(len(near), 1)
                for near in lists
            ]
        )
    sent = [send_to_users(table) for table in resembling]
    for u in range(len(p)):
        seen = [m for m, there in enumerate(present) if any(there[i] for i in watched[u])] or list(
            range(len(present))
        )
        mass = {m: torch.ones(()) for m in seen}
        if attention is not None:
            mass = {m: attention[u, m].exp() for m in seen}
        total = sum(mass.values()) if attention is not None else 1
        for m in seen:
            user[u] = user[u] + config.user_weight * mass[m] / total * sent[m][u]
    for i in range(len(q)):
        item[i] = item[i] + config.item_weight * sum(table[i] for table in resembling) / len(
            resembling
        )
    user = [
        user[u]
        + config.cooc_share * sum((w * user[v] for v, w in omega[u]), torch.zeros_like(p[0]))
        for u in range(len(p))
    ]
    users_out = torch.stack([row / row.norm().clamp(min=1e-12) for row in user])
    items_out = torch.stack([row / row.norm() for row in item])
    if bias is None:
        return users_out, items_out
    return torch.cat([users_out, torch.ones_like(p[:, :1])], dim=1), torch.cat(
        [items_out, bias], dim=1
    )


def loss(
    tables: tuple[Tensor, Tensor], p: Tensor, q: Tensor, triples: list[tuple[int, int, int]], config
) -> Tensor:
    """Mean of −log softmax of the positive among itself and the shared negatives, and the
    penalty.
    """
    user, item = tables
    shared = [negative for _, _, negative in triples][: config.negatives]
    total = torch.zeros((), dtype=torch.float64)
    for u, positive, _ in triples:
        right = (user[u] @ item[positive] / config.temperature).exp()
        wrong = (
            sum((user[u] @ item[j] / config.temperature).exp() for j in shared)
            * (len(q) - 1)
            / len(shared)
        )
        total = total - torch.log(right / (right + wrong))
        total = total + config.l2 * ((p[u] ** 2).sum() + (q[positive] ** 2).sum()) / 2
    return total / len(triples)
