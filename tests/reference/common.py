"""Shared parts of the slow twins of models with features: plain rows, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Setting:
    """Training pairs, sizes, features and which items have them, in plain lists."""

    pairs: list[tuple[int, int]]
    users: int
    items: int
    features: list[Tensor]
    present: list[list[bool]]

    def watched(self, u: int) -> list[int]:
        """Returns the items of a user."""
        return [i for v, i in self.pairs if v == u]

    def watchers(self, i: int) -> list[int]:
        """Returns the users of an item."""
        return [u for u, j in self.pairs if j == i]


def unit(row: Tensor) -> Tensor:
    """Returns the row at length one; a zero row stays zero."""
    length = row.square().sum().sqrt()
    return row / length if float(length.detach()) > 1e-12 else row * 0


def leaky_relu(row: Tensor) -> Tensor:
    return torch.stack([x if float(x.detach()) > 0 else 0.01 * x for x in row])


def bpr(user: Tensor, item: Tensor, triples: list[tuple[int, int, int]]) -> Tensor:
    """Returns the mean of −ln σ(s⁺ − s⁻)."""
    margins = [user[u] @ item[p] - user[u] @ item[n] for u, p, n in triples]
    return sum(torch.log(1 + (-margin).exp()) for margin in margins) / len(triples)


def released_penalty(
    user: Tensor, item: Tensor, preference: list[Tensor], triples: list[tuple[int, int, int]]
) -> Tensor:
    """Returns the penalty of MMGCN and GRCN.

    It is the mean of Q_u² + Q_i² over the pairs and columns, plus Σ_m mean P_m[batch]².
    """
    pairs = [(u, i) for u, p, n in triples for i in (p, n)]
    total = sum((user[u] ** 2 + item[i] ** 2).sum() for u, i in pairs) / (
        len(pairs) * user.shape[1]
    )
    for table in preference:
        total = total + sum((table[u] ** 2).sum() for u, _, _ in triples) / (
            len(triples) * table.shape[1]
        )
    return total
