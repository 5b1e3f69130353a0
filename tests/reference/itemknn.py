"""ItemKNN by its equations, by comparing sets.

Sources: Sarwar et al., WWW 2001; Deshpande & Karypis, TOIS 2004.
"""

from __future__ import annotations

import math


def scores(pairs: list[tuple[int, int]], users: int, items: int, config) -> list[list[float]]:
    """Returns Σ s_ij over the watched i among the k most similar of j; (U, I)."""
    watched = [{i for v, i in pairs if v == u} for u in range(users)]
    watchers = [{u for u, i in pairs if i == j} for j in range(items)]
    near: list[dict[int, float]] = []
    for j in range(items):
        found = {}
        for i in range(items):
            common = sum(1 / len(watched[u]) ** config.activity for u in watchers[i] & watchers[j])
            if i != j and common:
                cosine = config.similarity == "cosine"
                total = (
                    math.sqrt(len(watchers[i]) * len(watchers[j])) if cosine else len(watchers[i])
                )
                found[i] = common / (total + config.shrink)
        best = sorted(found, key=lambda i: (-round(found[i], 12), i))[: config.k]
        near.append({i: found[i] for i in best})
    return [
        [sum(s for i, s in near[j].items() if u in watchers[i]) for j in range(items)]
        for u in range(users)
    ]
