"""Selects the K best items of each row of scores, with a defined order of ties.

Letters: B users, I items, K list length.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

NO_ITEM = -1
_LOW = 2**32 - 1


def mask_seen(scores: Tensor, seen: sparse.csr_matrix, start: int, stop: int) -> None:
    """Sets the scores of the pairs in rows start…stop of `seen` to −inf, in place.

    Args:
        scores: (stop − start, I or more).
        seen: Stored entries are the pairs, (B, I).
        start: First row.
        stop: Row after the last.
    """
    indptr = seen.indptr[start : stop + 1].astype(np.int64)
    row = np.repeat(np.arange(stop - start, dtype=np.int64), np.diff(indptr))
    # The position in the flattened block.
    flat = row * scores.shape[1] + seen.indices[indptr[0] : indptr[-1]]
    scores.view(-1)[torch.from_numpy(flat).to(scores.device)] = -torch.inf


def select(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the K best items of each row of scores (B, I) and their scores, (B, K) each.

    Ties are ordered by the smaller index. An entry that is −inf gives item −1.
    """
    values, items = _best(scores, k)
    _order_ties(scores, values, items)
    return items.masked_fill_(values == -torch.inf, NO_ITEM), values


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns values and items of the K best, ties at the cut-off by the smaller index.

    `topk` breaks ties arbitrarily. One entry more than K shows which rows have a tie at the
    cut-off.
    """
    values, items = scores.topk(min(k + 1, scores.shape[1]))  # (B, K + 1), best first
    if k == scores.shape[1]:
        return values, items
    cut = (values[:, k - 1] == values[:, k]) & (values[:, k] > -torch.inf)
    values, items = values[:, :k].contiguous(), items[:, :k].contiguous()
    tied = cut.nonzero().squeeze(1)
    if len(tied):
        for rows in tied.split(max(1, len(scores) // 8)):  # Small parts limit the memory.
            _assign_cut(scores, values, items, rows)
    return values, items


def _assign_cut(scores: Tensor, values: Tensor, items: Tensor, rows: Tensor) -> None:
    """Gives the last places of the rows to the first items with the value at the cut-off."""
    k = values.shape[1]
    edge = values[rows, k - 1 :]  # (rows, 1)
    above = (values[rows] > edge).sum(1)  # (rows,), number of places with a better value
    row, item = (scores[rows] == edge).nonzero(as_tuple=True)  # row by row, items ascending
    size = row.bincount(minlength=len(rows))
    place = torch.arange(len(row), device=row.device) - (size.cumsum(0) - size - above)[row]
    fits = place < k
    items[rows[row[fits]], place[fits]] = item[fits]


def _order_ties(scores: Tensor, values: Tensor, items: Tensor) -> None:
    """Orders equal scores within a list by the smaller item, in place."""
    rows = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    if len(rows):
        keys = _keys(values[rows], items[rows]).sort(dim=1, descending=True).values
        items[rows] = _LOW - (keys & _LOW)
        values[rows] = scores[rows[:, None], items[rows]]


def _keys(scores: Tensor, items: Tensor) -> Tensor:
    """Returns int64 keys that order by score and then by the smaller item.

    The float's bits, made sortable, are the upper half; the item is the lower half.
    """
    # Adding 0.0 turns −0.0 into 0.0, which is equal in comparisons.
    bits = (scores + 0.0).view(torch.int32).long()
    return (torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32) | (_LOW - items)
