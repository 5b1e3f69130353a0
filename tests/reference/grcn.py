"""GRCN by its equations, edge by edge, in float64. Source: Wei et al., ACM MM 2020."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.common import Setting, bpr, leaky_relu, released_penalty, unit

Named = dict[str, Tensor]
Weights = dict[tuple[int, int], Tensor]


def attend(own: Tensor, others: dict[int, Tensor]) -> dict[int, Tensor]:
    """Returns the softmax of own · other over the others."""
    mass = {name: (own @ other).exp() for name, other in others.items()}
    return {name: value / sum(mass.values()) for name, value in mass.items()}


def content(
    named: Named, setting: Setting, m: int, config
) -> tuple[list[Tensor], list[Tensor], Weights, Weights]:
    """Returns r_m of users and items, and α by (user, item) towards users and towards items."""
    item = []
    for i in range(setting.items):
        row = leaky_relu(
            named[f"encoders.{m}.weight"] @ setting.features[m][i] + named[f"encoders.{m}.bias"]
        )
        item.append(unit(row) if setting.present[m][i] else row * 0)
    user = [unit(named[f"preference.{m}"][u]) for u in range(setting.users)]
    for _ in range(config.routing):
        for u in range(setting.users):
            near = {i: item[i] for i in setting.watched(u)}
            user[u] = unit(
                user[u]
                + sum(
                    (a * near[i] for i, a in attend(user[u], near).items()),
                    torch.zeros_like(user[u]),
                )
            )
    to_user, to_item, users, items = {}, {}, list(user), list(item)
    for u in range(setting.users):
        for i, a in attend(user[u], {i: item[i] for i in setting.watched(u)}).items():
            to_user[u, i] = a
            users[u] = users[u] + a * item[i]
    for i in range(setting.items):
        for u, a in attend(item[i], {u: user[u] for u in setting.watchers(i)}).items():
            to_item[u, i] = a
            items[i] = items[i] + a * user[u]
    return users, items, to_user, to_item


def refined(alphas: list[Weights], confidence: Tensor | None, end: int, config) -> Weights:
    """Returns w by (user, item); `end` says which of the two sends."""
    weights = {}
    for pair in alphas[0]:
        values = [alpha[pair] for alpha in alphas]
        if config.edge_weight == "mean":
            weights[pair] = sum(values) / len(values)
            continue
        if config.edge_weight == "confidence":
            values = [value * confidence[pair[end], m] for m, value in enumerate(values)]
        best = max(values, key=lambda value: float(value.detach()))
        weights[pair] = (
            best * 0
            if config.edge_weight == "confidence" and config.prune and float(best.detach()) < 0
            else best
        )
    return weights


def embed(named: Named, setting: Setting, config) -> tuple[Tensor, Tensor]:
    """Returns [ e ‖ r_1 ‖ … ] of users and of items, joined by `fusion`."""
    views = [content(named, setting, m, config) for m in range(len(setting.features))]
    to_user = refined([view[2] for view in views], named.get("item_confidence"), 1, config)
    to_item = refined([view[3] for view in views], named.get("user_confidence"), 0, config)
    users = [[unit(row) for row in named["user"]]]
    items = [[unit(row) for row in named["item"]]]
    for _ in range(config.layers):
        next_user, next_item = [row * 0 for row in users[-1]], [row * 0 for row in items[-1]]
        for u, i in setting.pairs:
            next_user[u] = next_user[u] + to_user[u, i] * items[-1][i]
            next_item[i] = next_item[i] + to_item[u, i] * users[-1][u]
        users.append(next_user)
        items.append(next_item)
    tables = []
    for layers, place in ((users, 0), (items, 1)):
        parts = [torch.stack([sum(layer[n] for layer in layers) for n in range(len(layers[0]))])]
        parts += [torch.stack(view[place]) for view in views]
        if config.fusion == "concat":
            tables.append(torch.cat(parts, dim=1))
        else:
            tables.append(parts[0] if config.fusion == "id" else sum(parts) / len(parts))
    return tables[0], tables[1]


def loss(named: Named, setting: Setting, triples: list[tuple[int, int, int]], config) -> Tensor:
    """Returns BPR plus λ times the penalty on identities and preferences."""
    preference = [named[f"preference.{m}"] for m in range(len(setting.features))]
    penalty = released_penalty(named["user"], named["item"], preference, triples)
    return bpr(*embed(named, setting, config), triples) + config.l2 * penalty
