"""Counts without bounds, for logs in which a user meets few others.

It adds up visits, then selects by counting, without a heap. Counts of shared items are small whole
numbers, so no comparison is needed to order a user's list: a histogram of the counts gives the
count at the k-th place, a bitmap gives the users who reach it by index, and the running sum of the
histogram gives each of them a place. The cost is one visit for each viewer of each of the user's
items, U/64 words a user for the bitmap, and one write a place.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy import sparse

from dualgnn_dgl.graphs.cooccurrence.sweep import Fill

# Place of a single bit in a 64-bit word, by multiplication with a de Bruijn sequence (Leiserson,
# Prokop & Randall 1998).
_SEQUENCE = np.uint64(0x03F79D71B4CB0A89)
_PLACE = np.zeros(64, np.int64)
for _bit in range(64):
    _PLACE[(int(_SEQUENCE) << _bit & (2**64 - 1)) >> 58] = _bit


@njit(nogil=True)
def _tally(  # noqa: C901 — a compiled kernel is one function, its calls would cost time
    users, ptr, viewer, item_ptr, item, limit, degree_max, spare, ids, weight, length
):
    """Writes the lists of the users of one block, (first, last), one after the other.

    `ptr` (I+1,) and `viewer` list each item's viewers, `item_ptr` (U+1,) and `item` each user's
    items. The list of user u has at most `limit[u]` places. `spare` (U,) is working memory, all
    zero before and after. `length` receives each list's length; the result is their sum.
    """
    # Users met, each once, and one place more for a write that is not kept.
    seen = np.empty(spare.size + 1, np.int64)
    # Number of users met by count; afterwards the next place of each count.
    histogram = np.zeros(degree_max + 2, np.int64)
    bits = np.zeros(spare.size // 64 + 1, np.uint64)
    end = 0
    for u in range(users[0], users[1]):
        begin = end
        length[u - users[0]] = 0
        if limit[u] == 0:
            continue
        met, most = 0, 0
        for e in range(item_ptr[u], item_ptr[u + 1]):
            for f in range(ptr[item[e]], ptr[item[e] + 1]):
                w = viewer[f]
                seen[met] = w
                met += spare[w] == 0
                spare[w] += 1
        spare[u] = 0  # not a neighbour of themselves
        for j in range(met):
            count = np.int64(spare[seen[j]])
            histogram[count] += 1
            most = max(most, count)
        histogram[0] = 0
        # All users above `cut` enter the list, and the first `room` users at `cut`.
        cut, room = most, limit[u]
        while cut > 0 and histogram[cut] <= room:
            room -= histogram[cut]
            cut -= 1
        place = begin
        for count in range(most, cut, -1):
            held = histogram[count]
            histogram[count] = place
            place += held
        last_place = place + (room if cut > 0 else 0)
        least = max(cut, 1)
        for j in range(met):
            w = seen[j]
            if spare[w] >= least:
                bits[w >> 6] |= np.uint64(1) << np.uint64(w & 63)
        if cut > 0:
            histogram[cut] = place
        for word in range(bits.size):
            rest = bits[word]
            bits[word] = 0
            while rest:
                lone = rest & (~rest + np.uint64(1))
                rest ^= lone
                w = (word << 6) + _PLACE[(lone * _SEQUENCE) >> np.uint64(58)]
                count = np.int64(spare[w])
                at = histogram[count]
                if count == cut:
                    if at == last_place:
                        continue
                histogram[count] = at + 1
                ids[at] = w
                weight[at] = count
        end = last_place
        length[u - users[0]] = end - begin
        for j in range(met):
            spare[seen[j]] = 0
        for count in range(most + 1):
            histogram[count] = 0
    return end


def by_tally(table: sparse.csr_matrix, limit: np.ndarray) -> Fill:
    """Returns a function that makes the lists of a block of users by `_tally`."""
    by_item = table.tocsc()
    ptr, viewer = by_item.indptr.astype(np.int64), by_item.indices.astype(np.uint16)
    item_ptr, item, most = (
        table.indptr.astype(np.int64),
        table.indices,
        int(np.diff(table.indptr).max()),
    )
    counter = np.uint16 if most < 2**16 else np.uint32

    def fill(first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        room, length = int(limit[first:last].sum()), np.empty(last - first, np.int64)
        ids, weight = np.empty(room, np.int32), np.empty(room, np.float32)
        spare = np.zeros(len(limit), counter)
        end = _tally(
            (first, last), ptr, viewer, item_ptr, item, limit, most, spare, ids, weight, length
        )
        return ids[:end], weight[:end], length

    return fill
