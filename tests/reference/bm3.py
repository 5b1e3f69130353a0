"""BM3 by its equations, pair by pair, in float64.

Source: Zhou et al., WWW 2023; letters as in the model's file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def tables(
    p: Tensor, q: Tensor, pairs: list[tuple[int, int]], layers: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns u and i: the mean of layers 0…L, plus, for items, their own vector."""
    watched = [[i for v, i in pairs if v == u] for u in range(len(p))]
    watchers = [[u for u, j in pairs if j == i] for i in range(len(q))]
    users, items = [list(p)], [list(q)]
    for _ in range(layers):
        last_u, last_i = users[-1], items[-1]
        users.append(
            [
                sum(
                    (last_i[i] / math.sqrt(len(watched[u]) * len(watchers[i])) for i in watched[u]),
                    torch.zeros_like(p[0]),
                )
                for u in range(len(p))
            ]
        )
        items.append(
            [
                sum(
                    (
                        last_u[u] / math.sqrt(len(watched[u]) * len(watchers[i]))
                        for u in watchers[i]
                    ),
                    torch.zeros_like(q[0]),
                )
                for i in range(len(q))
            ]
        )
    user = [sum(layer[u] for layer in users) / (layers + 1) for u in range(len(p))]
    item = [sum(layer[i] for layer in items) / (layers + 1) + q[i] for i in range(len(q))]
    return user, item


def predict(named: dict[str, Tensor], x: Tensor) -> Tensor:
    return named["predictor.weight"] @ x + named["predictor.bias"]


def embed(
    named: dict[str, Tensor], pairs: list[tuple[int, int]], layers: int
) -> tuple[Tensor, Tensor]:
    """Returns ũ (U, D) and ĩ (I, D)."""
    user, item = tables(named["user"], named["item"], pairs, layers)
    return torch.stack([predict(named, x) for x in user]), torch.stack(
        [predict(named, x) for x in item]
    )


def apart(x: Tensor, y: Tensor) -> Tensor:
    """Returns 1 − cosine of two vectors; 1 where one is zero."""
    length = x.norm() * y.norm()
    return 1 - x @ y / length if float(length.detach()) > 0 else torch.ones((), dtype=torch.float64)


def loss(
    named: dict[str, Tensor],
    pairs: list[tuple[int, int]],
    features: list[Tensor],
    present: list[list[bool]],
    batch: list[tuple[int, int]],
    masks: list[Tensor],
    config,
) -> Tensor:
    """Returns the loss; `masks` keep parts of the targets of users, items, and each modality.

    Each mask is (B, D) of zeros and ones.
    """
    user, item = tables(named["user"], named["item"], pairs, config.layers)
    total = torch.zeros((), dtype=torch.float64)
    for b, (u, i) in enumerate(batch):
        total = total + apart(predict(named, user[u]), item[i].detach() * masks[1][b]) / len(batch)
        total = total + apart(predict(named, item[i]), user[u].detach() * masks[0][b]) / len(batch)
    if config.feature_weight:
        for m, there in enumerate(present):
            having = [(b, i) for b, (_, i) in enumerate(batch) if there[i]]
            for b, i in having:
                raw = named.get(f"trained.{m}", features[m])[i]
                feature = named[f"project.{m}.weight"] @ raw + named[f"project.{m}.bias"]
                each = apart(predict(named, feature), item[i].detach() * masks[1][b])
                each = each + apart(predict(named, feature), feature.detach() * masks[2 + m][b])
                total = total + config.feature_weight * each / len(having)
    if config.penalty == "square":
        squares = sum(user[u] @ user[u] + item[i] @ item[i] for u, i in batch)
        return total + config.l2 * squares / (2 * len(batch))
    lengths = torch.stack(user).square().sum().sqrt() + torch.stack(item).square().sum().sqrt()
    return total + config.l2 * lengths / len(item)
