"""VBPR by its equations, item by item, in float64. Source: He & McAuley, AAAI 2016."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.common import Setting, bpr, unit

Named = dict[str, Tensor]


def feature(setting: Setting, m: int, i: int, form: str) -> Tensor:
    """Returns f_{m,i}: zero where it is missing, else at length one or unchanged."""
    row = setting.features[m][i]
    if not setting.present[m][i]:
        return torch.zeros_like(row)
    return unit(row) if form == "unit" else row


def vector(named: Named, setting: Setting, i: int, form: str) -> Tensor:
    """Returns γ_i ‖ x_i."""
    x = torch.zeros_like(named["item"][i])
    for m in range(len(setting.features)):
        for j, value in enumerate(feature(setting, m, i, form)):
            x = x + value * named[f"map.{m}"][j]
    return torch.cat([named["item"][i], x])


def embed(named: Named, setting: Setting, config) -> tuple[Tensor, Tensor]:
    """Returns tables whose inner product is γ_u · γ_i + θ_u · x_i + β_i + Σ β' · f."""
    users, items = [], []
    for u in range(setting.users):
        users.append(
            torch.cat([named["user"][u], torch.ones(1).double()])
            if config.bias
            else named["user"][u]
        )
    for i in range(setting.items):
        row = vector(named, setting, i, config.features)
        if config.bias:
            bias = named["item_bias"][i, 0]
            for m in range(len(setting.features)):
                bias = (
                    bias
                    + feature(setting, m, i, config.features) @ named[f"feature_bias.{m}"][:, 0]
                )
            row = torch.cat([row, bias.reshape(1)])
        items.append(row)
    return torch.stack(users), torch.stack(items)


def loss(named: Named, setting: Setting, triples: list[tuple[int, int, int]], config) -> Tensor:
    """Returns BPR plus λ times the penalty on user, items' vectors and item biases.

    The penalty is ½ Σ ‖row‖² / B, or Σ ‖rows‖_F / B.
    """
    user, item = embed(named, setting, config)
    parts = [[named["user"][u] for u, _, _ in triples]]
    for place in (1, 2):
        parts.append([vector(named, setting, triple[place], config.features) for triple in triples])
        if config.bias:
            parts.append([named["item_bias"][triple[place]] for triple in triples])
    squares = [sum((row**2).sum() for row in rows) for rows in parts]
    rule = (
        sum(squares) / 2 if config.penalty == "square" else sum(square.sqrt() for square in squares)
    )
    return bpr(user, item, triples) + config.l2 * rule / len(triples)
