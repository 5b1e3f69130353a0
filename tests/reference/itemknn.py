"""ItemKNN as its equations stand, by comparing sets. Source: Sarwar et al., WWW 2001."""

from __future__ import annotations

import math


def scores(pairs: list[tuple[int, int]], users: int, items: int, k: int, shrink: float, similarity: str) -> list[list[float]]:
    """Σ s_ij over the watched i among the k most similar of j; (U, I)."""
    watchers = [{u for u, i in pairs if i == j} for j in range(items)]
    near: list[dict[int, float]] = []
    for j in range(items):
        found = {}
        for i in range(items):
            common = len(watchers[i] & watchers[j])
            if i != j and common:
                size = len(watchers[i]) * len(watchers[j])
                total = math.sqrt(size) if similarity == "cosine" else len(watchers[i] | watchers[j])
                found[i] = common / (total + shrink)
        best = sorted(found, key=lambda i: (-found[i], i))[:k]
        near.append({i: found[i] for i in best})
    return [[sum(s for i, s in near[j].items() if u in watchers[i]) for j in range(items)] for u in range(users)]
