"""The nearest rows of a table by cosine, in blocks.

The one search behind item graphs and look-alikes of new items.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dualgnn_dgl.core import memory

BLOCK = 2**26  # cosines held at once


def unit(values: Tensor) -> Tensor:
    """Rows of `values` (N, F) at length one; zero rows stay zero."""
    return torch.nn.functional.normalize(values, dim=1)


def nearest(
    queries: Tensor,
    keys: Tensor,
    k: int,
    what: str,
    *,
    own: float | None = None,
    rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Finds for each query the k keys with the largest cosine, largest first.

    Ties are decided by `torch.topk`, for all callers alike: not by the order of the keys, but
    equally for equal input.

    Args:
        queries: (Q, F), rows at length one.
        keys: (P, F), rows at length one; k ≤ P.
        k: keys to find for a query, at least one.
        what: name of the work in messages about memory.
        own: where query n is key n, what takes the place of their cosine: `inf` puts the query
            first in its own list, `-inf` leaves it out. None compares all pairs.
        rows: queries in a block at most; a block holds at most 2²⁶ cosines, fewer where
            `memory.budget` is less.

    Returns:
        Places of the keys and their cosines, within −1…1, (Q, k) each.
    """
    places, cosines = [], []

    def find(start: int, stop: int) -> None:
        similar = queries[start:stop] @ keys.T  # (block, P)
        if own is not None:
            similar[torch.arange(len(similar)), start + torch.arange(len(similar))] = own
        cosine, place = similar.topk(k, dim=1)
        cosine = cosine.clamp(-1, 1)  # of a query with itself, put first, it is one
        # after all that takes memory: a block that is tried again must not stand twice
        places.append(place)
        cosines.append(cosine)

    # 4 bytes a cosine, and as much again to choose among them
    block = max(1, min(BLOCK, memory.budget() // 8) // len(keys))
    memory.in_blocks(len(queries), block if rows is None else min(block, rows), find, what=what)
    if not places:
        return torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)
    return torch.cat(places), torch.cat(cosines)
