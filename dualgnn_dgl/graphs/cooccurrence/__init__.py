"""Counts user co-occurrence: for every user the k users who share the most training items, exactly.

The published builders intersect Python sets for all pairs of users and allocate a dense (U, U)
matrix. The same lists follow from counting: visit the viewers of each of a user's items and add one
for each visit, the sum over items of degree² in all. Two measures keep this fast when a few items
are watched by nearly all users:

- The 64 most watched items are bits of one word a user. A viewer who is met through the other,
  light items gets the whole count at once: visits + popcount(word[u] & word[w]).
- A user who is met through no light item shares at most the r heavy items that are still unread,
  which bounds the score. Once k better users are known, the rest of the remaining lists, which are
  the longest, is not read.

If users meet few others, as in most logs of micro-videos, both cost more than they save, and plain
counting is faster: see `tally`. All ways are exact, ties included: the tests compare with Python
sets and with the dense product R·Rᵀ.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from scipy import sparse

from dualgnn_dgl.core.memory import budget, halving
from dualgnn_dgl.core.vocabulary import CO_MEASURES
from dualgnn_dgl.data import CoOccurrence, Interactions
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.graphs.cooccurrence.sweep import by_sweep
from dualgnn_dgl.graphs.cooccurrence.tally import by_tally

SPAN = 2**16  # users; the kernel numbers them with 16 bits
FEW = 8  # users meet few others if they make at most U / FEW visits each
WORKING_SPACE = 256 * 2**20
BLOCKS = 64  # least number, for balance between threads and a smooth progress bar


def _blocks(limit: np.ndarray, visits: np.ndarray, room: int) -> list[tuple[int, int]]:
    """Cuts the users into runs of one user or more.

    The lists of a run fit into `room` entries, and it costs at most 1/BLOCKS of the visits.
    """
    cost = limit / max(room, 1) + visits * (BLOCKS / max(int(visits.sum()), 1))
    cuts = np.flatnonzero(np.diff(np.floor(np.cumsum(cost)))) + 1
    edges = [0, *cuts.tolist(), len(limit)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def co_occurrence(
    train: Interactions,
    k: int = 200,
    measure: str = "count",
    *,
    memory: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> CoOccurrence:
    """Returns for each user the k others who share the most training items, in a fixed order.

    With c shared items and d training items each, the weight of w for u is c (count), c/√(d_u·d_w)
    (cosine) or c/(d_u+d_w−c) (jaccard). Only users with c ≥ 1 are listed, never u itself. Larger
    weights come first, equal ones by internal index, and the smaller index is kept at the cut-off.
    The order is decided before the weights are rounded to float32. Source: Wang et al., *DualGNN*,
    IEEE TMM 2023, the user co-occurrence graph; the published code keeps 200 by count.

    Args:
        train: Training pairs; nothing else may enter the user graph.
        k: Largest length of a list.
        measure: 'count', 'cosine' or 'jaccard'.
        memory: Bytes of working memory beside the pairs and the result; it sets the size of the
            blocks of users. A block has at least one user, and each thread needs 1 MB in any case.
            By default it is `memory.budget`, at most 256 MiB, and is halved, with a warning, when
            memory runs out.
        progress: Called with the share of the work done, in (0, 1], ending with 1.

    Raises:
        ConfigError: For a k or memory below 1, and for an unknown measure.
        MemoryError: If not even 1 MiB of working memory fits.

    Examples:
        >>> pairs = Interactions(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), 4, 2)
        >>> lists = co_occurrence(pairs, k=2)
        >>> lists.indptr.tolist(), lists.neighbour.tolist(), lists.weight.tolist()
        ([0, 2, 4, 6, 6], [1, 2, 0, 2, 0, 1], [2.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    """
    if measure not in CO_MEASURES:
        raise ConfigError(unknown("co-occurrence measure", measure, CO_MEASURES))
    if k < 1:
        raise ConfigError(
            f"the co-occurrence lists cannot be {k} long: give a length of at least 1, such as 200"
        )
    if memory is not None and memory < 1:
        raise ConfigError(
            f"{memory} bytes of working space are not enough: give at least 1, or nothing for a "
            f"share"
        )

    def within(size: int) -> CoOccurrence:
        return _count(train, k, measure, size, progress)

    if memory is not None:
        return within(memory)
    return halving(min(WORKING_SPACE, budget()), within, what="co-occurrence, bytes")


def _count(
    train: Interactions, k: int, measure: str, memory: int, progress: Callable[[float], None] | None
) -> CoOccurrence:
    """Returns the lists of `co_occurrence`, in blocks that fit into `memory` bytes."""
    users = train.num_users
    if not len(train):
        return CoOccurrence(
            np.zeros(users + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), measure
        )
    table = sparse.csr_matrix(
        (np.ones(len(train), np.int8), (train.user, train.item)), shape=(users, train.num_items)
    )
    owner = np.repeat(np.arange(users), np.diff(table.indptr))  # (E,)
    # Other viewers of each item.
    others = np.bincount(table.indices, minlength=train.num_items) - 1
    # Cost of a user's row, (U,).
    visits = np.bincount(owner, weights=others[table.indices], minlength=users).astype(np.int64)
    limit = np.minimum(visits, min(k, users - 1))  # (U,): no list is longer
    threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    # Two blocks a thread wait or run, with 16 bytes an entry.
    blocks = _blocks(limit, visits, memory // (2 * threads * 16))

    if measure == "count" and users <= SPAN and FEW * int(visits.sum()) <= users**2:
        fill = by_tally(table, limit)
    else:
        fill = by_sweep(table, limit, measure, SPAN)

    # As large as the lists can become; the unused part is never touched and takes no memory.
    neighbour, weight = np.empty(int(limit.sum()), np.int64), np.empty(int(limit.sum()), np.float32)
    indptr = np.zeros(users + 1, np.int64)
    done, total = 0, max(int(visits.sum()), 1)
    waiting: deque[tuple[int, int, Future[tuple[np.ndarray, np.ndarray, np.ndarray]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for block in [*blocks, *[None] * len(blocks)]:
            if block is not None:
                waiting.append((*block, pool.submit(fill, *block)))
            if waiting and (block is None or len(waiting) == 2 * threads):
                first, last, result = waiting.popleft()
                ids, values, length = result.result()
                start = int(indptr[first])
                indptr[first + 1 : last + 1] = start + np.cumsum(length)
                neighbour[start : start + ids.size], weight[start : start + ids.size] = ids, values
                done += int(visits[first:last].sum())
                if progress is not None:
                    progress(done / total)
    return CoOccurrence(indptr, neighbour[: indptr[-1]], weight[: indptr[-1]], measure)
