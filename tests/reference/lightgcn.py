"""LightGCN by its equations, edge by edge, in float64.

Source: He et al., SIGIR 2020, equations 3, 4 and 15.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def embed(
    user: Tensor, item: Tensor, pairs: list[tuple[int, int]], layers: int
) -> tuple[Tensor, Tensor]:
    """Returns the mean of e⁰ … e^L.

    e_u^{l+1} = Σ_{i∈N(u)} e_i^l / √(|N_u| |N_i|), and the same for items.
    """
    degree_u = [sum(1 for v, _ in pairs if v == u) for u in range(len(user))]
    degree_i = [sum(1 for _, j in pairs if j == i) for i in range(len(item))]
    users, items = [list(user)], [list(item)]
    for _ in range(layers):
        next_u, next_i = [torch.zeros_like(x) for x in user], [torch.zeros_like(x) for x in item]
        for u, i in pairs:
            next_u[u] = next_u[u] + items[-1][i] / math.sqrt(degree_u[u] * degree_i[i])
            next_i[i] = next_i[i] + users[-1][u] / math.sqrt(degree_u[u] * degree_i[i])
        users.append(next_u)
        items.append(next_i)
    mean_u = [sum(layer[u] for layer in users) / (layers + 1) for u in range(len(user))]
    mean_i = [sum(layer[i] for layer in items) / (layers + 1) for i in range(len(item))]
    return torch.stack(mean_u), torch.stack(mean_i)


def loss(
    user: Tensor,
    item: Tensor,
    pairs: list[tuple[int, int]],
    layers: int,
    triples: list[tuple[int, int, int]],
    l2: float,
    penalty: str = "square",
) -> Tensor:
    """Returns BPR over the triples plus λ times the penalty on the triples' rows.

    The penalty is ½ Σ ‖e⁰‖² / B ("square") or Σ ‖e⁰ rows‖_F / B ("norm").
    """
    final_u, final_i = embed(user, item, pairs, layers)
    total = torch.zeros((), dtype=torch.float64)
    squares = [torch.zeros((), dtype=torch.float64) for _ in range(3)]
    for u, p, n in triples:
        difference = final_u[u] @ final_i[p] - final_u[u] @ final_i[n]
        total = total + torch.log(1 + (-difference).exp())
        for part, row in enumerate((user[u], item[p], item[n])):
            squares[part] = squares[part] + (row * row).sum()
    size = len(triples)
    rule = sum(squares) / 2 if penalty == "square" else sum(square.sqrt() for square in squares)
    return total / size + l2 * rule / size
