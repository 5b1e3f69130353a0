"""MGCN by its equations, node by node, in float64.

Source: Yu et al., ACM MM 2023; letters as in the model's file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Rows = list[Tensor]


def item_graph(features: Tensor, present: list[bool], k: int) -> list[dict[int, float]]:
    """Returns S: each present item itself and its k − 1 nearest, as D^-½ S D^-½.

    S has cosines, negative ones as zero, and D the row sums.
    """
    rows: list[dict[int, float]] = []
    for i, row in enumerate(features):
        if not present[i]:
            rows.append({})
            continue
        cosine = {
            j: float(row @ other / row.norm() / other.norm())
            for j, other in enumerate(features)
            if present[j] and j != i
        }
        near = sorted(cosine, key=lambda j: -cosine[j])[: k - 1]
        rows.append({i: 1.0} | {j: max(cosine[j], 0.0) for j in near})
    degree = [sum(row.values()) for row in rows]
    return [
        {j: w / math.sqrt(degree[i] * degree[j]) for j, w in row.items()}
        for i, row in enumerate(rows)
    ]


def to_users(items: Rows, pairs: list[tuple[int, int]], users: int) -> Rows:
    """Returns for each user the sum of watched items over √(d_u d_i)."""
    du = [sum(1 for v, _ in pairs if v == u) for u in range(users)]
    di = [sum(1 for _, j in pairs if j == i) for i in range(len(items))]
    found = [torch.zeros_like(items[0]) for _ in range(users)]
    for u, i in pairs:
        found[u] = found[u] + items[i] / math.sqrt(du[u] * di[i])
    return found


def to_items(users: Rows, pairs: list[tuple[int, int]], items: int) -> Rows:
    return to_users(users, [(i, u) for u, i in pairs], items)


def linear(named: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = named[f"{name}.weight"] @ x
    return y + named[f"{name}.bias"] if f"{name}.bias" in named else y


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def side(named: dict[str, Tensor], views: Rows, behaviour: Tensor, there: list[bool]) -> Tensor:
    """Returns x_s of one user or item from its view in each modality."""
    having = [m for m, has in enumerate(there) if has]
    if not having:
        return torch.zeros_like(behaviour)
    weight = {m: torch.ones((), dtype=torch.float64) for m in having}
    if len(there) > 1:
        weight = {
            m: torch.exp(
                linear(named, "attend.2", torch.tanh(linear(named, "attend.0", views[m])))[0]
            )
            for m in having
        }
    common = sum(weight[m] * views[m] for m in having) / sum(weight.values())
    total = common
    for m in having if len(there) > 1 else []:
        total = total + (views[m] - common) * sigmoid(linear(named, f"prefer.{m}", behaviour))
    return total / (len(having) + 1)


def views(
    named: dict[str, Tensor],
    pairs: list[tuple[int, int]],
    features: list[Tensor],
    present: list[list[bool]],
    observed: list[list[bool]],
    config,
) -> tuple[Rows, Rows, Rows, Rows]:
    """Returns u_b, i_b, u_s, i_s."""
    p, q = list(named["user"]), list(named["item"])
    users, items = [p], [q]
    for _ in range(config.layers):
        last = items[-1]
        items.append(to_items(users[-1], pairs, len(q)))
        users.append(to_users(last, pairs, len(p)))
    user = [sum(layer[u] for layer in users) / (config.layers + 1) for u in range(len(p))]
    item = [sum(layer[i] for layer in items) / (config.layers + 1) for i in range(len(q))]
    user_views: list[Rows] = [[] for _ in p]
    item_views: list[Rows] = [[] for _ in q]
    for m, table in enumerate(features):
        rows = [
            q[i] * sigmoid(linear(named, f"gate.{m}", linear(named, f"project.{m}", table[i])))
            for i in range(len(q))
        ]
        similar = item_graph(table, present[m], config.item_k)
        for _ in range(config.item_layers):
            rows = [
                sum((w * rows[j] for j, w in near.items()), torch.zeros_like(q[0]))
                for near in similar
            ]
        for found, view in zip(item_views, rows, strict=True):
            found.append(view)
        for found, view in zip(user_views, to_users(rows, pairs, len(p)), strict=True):
            found.append(view)
    user_side = [side(named, user_views[u], user[u], observed[u]) for u in range(len(p))]
    item_side = [
        side(named, item_views[i], item[i], [there[i] for there in present]) for i in range(len(q))
    ]
    return user, item, user_side, item_side


def embed(parts: tuple[Rows, Rows, Rows, Rows]) -> tuple[Tensor, Tensor]:
    """Returns u (U, D) and i (I, D)."""
    user, item, user_side, item_side = parts
    both = zip((user, item), (user_side, item_side), strict=True)
    return tuple(torch.stack([a + b for a, b in zip(x, s, strict=True)]) for x, s in both)


def info_nce(
    side: Rows, behaviour: Rows, chosen: list[int], counted: list[bool], temperature: float
) -> Tensor:
    """Returns the mean of −log softmax of a row's cosine with its own behaviour, over counted rows.

    The softmax is over all rows of the batch.
    """
    total, rows = torch.zeros((), dtype=torch.float64), [n for n in chosen if counted[n]]
    for n in rows:
        shares = [
            torch.exp(side[n] @ behaviour[j] / (side[n].norm() * behaviour[j].norm()) / temperature)
            for j in chosen
        ]
        own = torch.exp(
            side[n] @ behaviour[n] / (side[n].norm() * behaviour[n].norm()) / temperature
        )
        total = total - torch.log(own / sum(shares)) / len(rows)
    return total


def loss(
    parts: tuple[Rows, Rows, Rows, Rows],
    present: list[list[bool]],
    observed: list[list[bool]],
    triples: list[tuple[int, int, int]],
    config,
) -> Tensor:
    """Returns BPR, the penalty on the rows that it compares, and both InfoNCE terms."""
    user, item = embed(parts)
    total = torch.zeros((), dtype=torch.float64)
    for u, i, j in triples:
        total = total + torch.log(1 + torch.exp(user[u] @ item[j] - user[u] @ item[i])) / len(
            triples
        )
        squares = user[u] @ user[u] + item[i] @ item[i] + item[j] @ item[j]
        total = total + config.l2 * squares / (2 * len(triples))
    user_b, item_b, user_s, item_s = parts
    has_any = [any(there[i] for there in present) for i in range(len(item))]
    total = total + config.contrast * info_nce(
        user_s,
        user_b,
        [u for u, _, _ in triples],
        [any(row) for row in observed],
        config.temperature,
    )
    return total + config.contrast * info_nce(
        item_s, item_b, [i for _, i, _ in triples], has_any, config.temperature
    )
