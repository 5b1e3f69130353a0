"""Searches the nearest rows of a table by cosine, in blocks.

Item graphs and the fold-in of new items use this one search.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dualgnn_dgl.core import memory

BLOCK = 2**26  # cosines of a block


def unit(values: Tensor) -> Tensor:
    """Returns the rows of `values` (N, F) at length one; zero rows stay zero."""
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

    Args:
        queries: Rows at length one, (Q, F).
        keys: Rows at length one, (P, F).
        k: Number of keys, at most P.
        what: Name of the search in messages about memory.
        own: Replaces the cosine of query n with key n, if both are the same row: `inf` puts the
            query first in its own list, `-inf` leaves it out. None compares all pairs.
        rows: Largest number of queries in a block. A block has at most 2²⁶ cosines, or fewer if
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
        cosine = cosine.clamp(-1, 1)  # that of a query with itself becomes one
        # Appended last, because a block that runs out of memory is tried again.
        places.append(place)
        cosines.append(cosine)

    # 4 bytes a cosine, and as many again for the selection.
    block = max(1, min(BLOCK, memory.budget() // 8) // len(keys))
    memory.in_blocks(len(queries), block if rows is None else min(block, rows), find, what=what)
    if not places:
        return torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)
    return torch.cat(places), torch.cat(cosines)
