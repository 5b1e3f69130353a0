"""MMGCN by its equations, node by node, in float64. Source: Wei et al., ACM MM 2019."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.common import Setting, bpr, leaky_relu, released_penalty, unit

Named = dict[str, Tensor]


def layer(
    named: Named, where: str, own: Tensor, others: list[Tensor], identity: Tensor, combine: str
) -> Tensor:
    """Returns x^l of one node from itself, its neighbours and its identity."""
    message = torch.zeros_like(own)
    for other in others:
        message = message + named[f"{where}.send.weight"] @ other / len(others)
    h = leaky_relu(message)
    g = leaky_relu(named[f"{where}.keep.weight"] @ own + named[f"{where}.keep.bias"]) + identity
    weight, bias = named[f"{where}.join.weight"], named[f"{where}.join.bias"]
    return leaky_relu(
        weight @ torch.cat([h, g]) + bias if combine == "concat" else weight @ h + bias + g
    )


def embed(named: Named, setting: Setting, config) -> tuple[Tensor, Tensor]:
    """Returns the mean of x^L over the modalities."""
    per_modality = []
    for m, features in enumerate(setting.features):
        user = [unit(named[f"preference.{m}"][u]) for u in range(setting.users)]
        item = []
        for i in range(setting.items):
            row = features[i]
            if f"project.{m}.weight" in named:
                row = named[f"project.{m}.weight"] @ row + named[f"project.{m}.bias"]
            item.append(unit(row) if setting.present[m][i] else row * 0)
        for step in range(config.layers):
            where = f"layers.{m}.{step}"
            next_user = [
                layer(
                    named,
                    where,
                    user[u],
                    [item[i] for i in setting.watched(u)],
                    named["user"][u],
                    config.combine,
                )
                for u in range(setting.users)
            ]
            item = [
                layer(
                    named,
                    where,
                    item[i],
                    [user[u] for u in setting.watchers(i)],
                    named["item"][i],
                    config.combine,
                )
                for i in range(setting.items)
            ]
            user = next_user
        per_modality.append((torch.stack(user), torch.stack(item)))
    users, items = zip(*per_modality, strict=True)
    return sum(users) / len(users), sum(items) / len(items)


def loss(named: Named, setting: Setting, triples: list[tuple[int, int, int]], config) -> Tensor:
    """Returns BPR plus λ times the penalty on identities and preferences."""
    preference = [named[f"preference.{m}"] for m in range(len(setting.features))]
    penalty = released_penalty(named["user"], named["item"], preference, triples)
    return bpr(*embed(named, setting, config), triples) + config.l2 * penalty
