"""Ranks one user quickly: fast scores choose a shortlist, exact scores rank it.

A block of scores has at least 16 rows, so that every score has the same bits in every block. For
one user this is 16 times the necessary work. A product of the table with one vector is faster, but
may round differently. Both results are within γ ‖user‖ ‖item‖ of the true score, where
γ = D u / (1 − D u) and u = 2⁻²⁴. So an item of the list has a fast score of at least the K-th best
one less 4 γ ‖user‖ ‖longest item‖. These items are the shortlist. Their exact scores, computed in
whole tiles, are those of a block.

Source of the bound: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from dualgnn_dgl.evaluation.tables import TILE, whole_tiles

_SPARE = 16  # least number of further items on the shortlist
_SHARE = 8  # a shortlist of more than 1 / _SHARE of the items saves no time
_UNIT = 2.0**-24  # largest relative error of one rounding in float32
_TINY = 1e-30  # allows for sums that underflow


def rank_one(
    user: Tensor, items: Tensor, count: int, k: int, reach: float, hidden: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Returns the list and the scores of one user, bit-identical to those of a block.

    Args:
        user: The user's vector, padded to a tile, (16, D) float32; row 0 is the user.
        items: Item table, padded to whole tiles, (I + padding, D) float32, all finite.
        count: Number of items I.
        k: List length K.
        reach: ‖user‖ ‖longest item‖.
        hidden: Items to leave out, (n,) int64, or None.

    Returns:
        Items and scores, (1, K) each. None where this method does not apply: off the CPU, for a
        small catalogue, for near ties beyond the shortlist, or where the BLAS library rounds parts
        of a product differently.
    """
    size, width = whole_tiles(k + _SPARE), items.shape[1]
    if items.device.type != "cpu" or size * _SHARE > count or not rounds_alike(width):
        return None
    if torch.get_float32_matmul_precision() != "highest":  # Products may be in bfloat16.
        return None
    fast = torch.mm(user[:1], items[:count].T)[0]  # (I,)
    if hidden is not None:
        fast[hidden] = -torch.inf
    values, places = fast.topk(size)  # best first
    last, least = values[k - 1 :: size - k].tolist()  # the K-th best and the last of the shortlist
    gamma = width * _UNIT / (1 - width * _UNIT)
    # The comparison fails, too, where fewer than K items are left: both values are −inf.
    if not least < last - 4 * gamma * reach - _TINY:
        return None
    places = places.sort().values
    exact = torch.mm(user, items.index_select(0, places).T)[:1]  # (1, size)
    if hidden is not None:
        exact[0, fast[places] == -torch.inf] = -torch.inf
    # The order is stable, so the smaller item of a tie comes first.
    scores, order = exact.sort(dim=1, descending=True, stable=True)
    return places[order[:, :k]], scores[:, :k]


@cache
def rounds_alike(width: int) -> bool:
    """Returns whether a product of some items has the bits of the product of all.

    It is tested once per width, on random tables.
    """
    draw = torch.Generator().manual_seed(0)
    count = whole_tiles(max(256, 2**18 // max(width, 1)))
    user, item = torch.zeros(TILE, width), torch.randn(count, width, generator=draw)
    user[0] = torch.randn(width, generator=draw)
    whole = torch.mm(user, item.T)[0]
    for size in (2 * TILE, 4 * TILE):
        places = torch.arange(0, count, count // size)[:size]
        if not torch.equal(torch.mm(user, item[places].T)[0], whole[places]):
            return False
    return True
