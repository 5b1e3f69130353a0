"""DualGNN as its equations stand, node by node and edge by edge, in float64.

Nothing here is fast or clever.

Source: Wang et al., IEEE TMM 25 (2023); letters as there: P preference, z encoded feature, α
    attention, Ω user-user weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Parameters:
    """Everything that is learned.

    `encoder[m]` is [W1, b1, W2, b2], [W, b] or []; `join` is [W, b] or [].
    """

    preference: list[Tensor]
    encoder: list[list[Tensor]]
    attention: Tensor | None = None
    join: Sequence[Tensor] = ()


@dataclass
class Setting:
    """The data and the switches, in plain lists."""

    pairs: list[tuple[int, int]]
    users: int
    items: int
    features: list[Tensor]
    present: list[list[bool]]
    layers: int = 2
    attention: str = "softmax"
    user_fusion: str = "sum"
    missing: str = "mask"
    log_base: float = math.e
    l2: float = 0.1
    omega: list[list[float]] | None = None  # Ω[u][w], None without the user graph


def unit(row: Tensor) -> Tensor:
    """The row at length one; a zero row stays zero."""
    length = row.square().sum().sqrt()
    return row / length if float(length.detach()) > 1e-12 else row * 0


def leaky_relu(row: Tensor) -> Tensor:
    return torch.stack([x if float(x.detach()) > 0 else 0.01 * x for x in row])


def encode(feature: Tensor, weights: list[Tensor]) -> Tensor:
    """z = W2 · LeakyReLU(W1 · F + b1) + b2, or one linear map, or the feature itself."""
    if not weights:
        return feature
    if len(weights) == 2:
        return weights[0] @ feature + weights[1]
    return weights[2] @ leaky_relu(weights[0] @ feature + weights[1]) + weights[3]


def single_modal(
    parameters: Parameters, setting: Setting, m: int
) -> tuple[list[Tensor], list[Tensor]]:
    """r_m of every user and item: the sum over layers of x⁰, Âx⁰, Â²x⁰, …"""
    s = setting
    user = [unit(parameters.preference[m][u]) for u in range(s.users)]
    item = [unit(encode(s.features[m][i], parameters.encoder[m])) for i in range(s.items)]
    if s.missing == "mask":
        item = [x if s.present[m][i] else torch.zeros_like(x) for i, x in enumerate(item)]
    if s.missing == "neighbours":
        item = filled(
            s, m, [x if s.present[m][i] else torch.zeros_like(x) for i, x in enumerate(item)]
        )
    degree_u = [sum(1 for v, _ in s.pairs if v == u) for u in range(s.users)]
    degree_i = [sum(1 for _, j in s.pairs if j == i) for i in range(s.items)]
    total_u, total_i = list(user), list(item)
    for _ in range(s.layers):
        next_u, next_i = [torch.zeros_like(x) for x in user], [torch.zeros_like(x) for x in item]
        for u, i in s.pairs:
            weight = 1 / math.sqrt(degree_u[u] * degree_i[i])
            next_u[u] = next_u[u] + weight * item[i]
            next_i[i] = next_i[i] + weight * user[u]
        user, item = next_u, next_i
        total_u = [a + b for a, b in zip(total_u, user, strict=True)]
        total_i = [a + b for a, b in zip(total_i, item, strict=True)]
    return total_u, total_i


def filled(setting: Setting, m: int, item: list[Tensor]) -> list[Tensor]:
    """Rows of items without the modality.

    Over all who watched it, the sum over all that they watched, at length one.
    """
    watched_by = [sum(1 for v, _ in setting.pairs if v == u) for u in range(setting.users)]
    watching = [sum(1 for _, j in setting.pairs if j == i) for i in range(setting.items)]
    rows = list(item)
    for i in range(setting.items):
        if setting.present[m][i]:
            continue
        total = torch.zeros_like(item[i])
        for u, _ in [pair for pair in setting.pairs if pair[1] == i]:
            for _, j in [pair for pair in setting.pairs if pair[0] == u]:
                total = total + item[j] / (watched_by[u] * math.sqrt(watching[i] * watching[j]))
        rows[i] = unit(total)
    return rows


def observed(setting: Setting, u: int) -> list[bool]:
    """Returns the modalities that a user's training items have; all of them if there are none."""
    have = [
        any(setting.present[m][i] for v, i in setting.pairs if v == u)
        for m in range(len(setting.features))
    ]
    return have if any(have) else [True] * len(have)


def alpha(parameters: Parameters, setting: Setting, u: int) -> list[Tensor]:
    """α_u: how much the user cares for each modality."""
    count = len(setting.features)
    if setting.user_fusion == "mean" or (count == 1 and setting.attention == "softmax"):
        return [torch.tensor(1 / count, dtype=torch.float64)] * count
    row = parameters.attention[u]
    if setting.attention == "released":
        return list(row)
    there = observed(setting, u) if setting.missing != "zero" else [True] * count
    mass = [
        row[m].exp() if there[m] else torch.zeros((), dtype=torch.float64) for m in range(count)
    ]
    return [value / sum(mass) for value in mass]


def fuse(parameters: Parameters, setting: Setting, u: int, seen: list[Tensor]) -> Tensor:
    """The user's modalities joined: Σ_m α u_m, their concatenation through one linear map, or their
    maximum.
    """
    if setting.user_fusion == "aliased":  # the first has become the sum of all
        seen = [sum(seen[1:], seen[0]), *seen[1:]]
    weighted = [a * x for a, x in zip(alpha(parameters, setting, u), seen, strict=True)]
    if setting.user_fusion == "concat":
        return parameters.join[0] @ torch.cat(weighted) + parameters.join[1]
    if setting.user_fusion == "max":
        # what is not there does not compete
        if setting.missing != "zero" and setting.attention == "softmax":
            weighted = [x for x, there in zip(weighted, observed(setting, u), strict=True) if there]
        columns = zip(*weighted, strict=True)  # the M values of one place
        return torch.stack(
            [max(column, key=lambda value: float(value.detach())) for column in columns]
        )
    return sum(weighted)


def embed(parameters: Parameters, setting: Setting) -> tuple[Tensor, Tensor]:
    """û = u + Σ_w Ω_uw w over the fused users, and the plain sum of the items' modalities."""
    views = [single_modal(parameters, setting, m) for m in range(len(setting.features))]
    user = [
        fuse(parameters, setting, u, [view[0][u] for view in views]) for u in range(setting.users)
    ]
    item = [sum(view[1][i] for view in views) for i in range(setting.items)]
    if setting.omega is not None:
        received = []
        for u in range(setting.users):
            total = torch.zeros_like(user[u])
            for w in range(setting.users):
                if setting.omega[u][w]:
                    total = total + setting.omega[u][w] * user[w]
            received.append(total)
        user = [a + b for a, b in zip(user, received, strict=True)]
    return torch.stack(user), torch.stack(item)


def loss(parameters: Parameters, setting: Setting, triples: list[tuple[int, int, int]]) -> Tensor:
    """BPR plus λ [ Σ_m mean P_m[batch]² + mean a² ].

    With concatenation, mean W² in the place of mean a².
    """
    user, item = embed(parameters, setting)
    total = torch.zeros((), dtype=torch.float64)
    for u, p, n in triples:
        difference = user[u] @ item[p] - user[u] @ item[n]
        total = total - torch.log(1 / (1 + (-difference).exp())) / math.log(setting.log_base)
    total = total / len(triples)
    penalty = torch.zeros((), dtype=torch.float64)
    for table in parameters.preference:
        penalty = penalty + sum(table[u].square().sum() for u, _, _ in triples) / (
            len(triples) * table.shape[1]
        )
    if setting.user_fusion == "concat":
        penalty = penalty + parameters.join[0].square().sum() / parameters.join[0].numel()
    elif parameters.attention is not None:
        penalty = penalty + parameters.attention.square().sum() / parameters.attention.numel()
    return total + setting.l2 * penalty


def user_graph(
    pairs: list[tuple[int, int]], users: int, k: int, weight: str, store: int = 200
) -> list[list[float]]:
    """Ω from shared training items: the k strongest (count down, then user number up), no filling
    up.
    """
    watched = [{i for v, i in pairs if v == u} for u in range(users)]
    omega = [[0.0] * users for _ in range(users)]
    for u in range(users):
        shared = [(len(watched[u] & watched[w]), w) for w in range(users) if w != u]
        near = sorted(((c, w) for c, w in shared if c >= 1), key=lambda pair: (-pair[0], pair[1]))[
            :store
        ][:k]
        mass = {
            w: {"softmax": math.exp(c), "mean": 1.0, "proportional": float(c)}[weight]
            for c, w in near
        }
        for w, value in mass.items():
            omega[u][w] = value / sum(mass.values())
    return omega
