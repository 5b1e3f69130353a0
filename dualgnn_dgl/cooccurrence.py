"""Who watches what you watch: for every user the k users who share the most training items, exactly.

The published builders intersect Python sets for all pairs of users and fill a dense (U, U) matrix. The same lists come
from counting: walk the viewers of each of a user's items and add one per visit, which costs the sum over items of
degree² and one row of memory. Two things keep it quick when a few items are watched by nearly everyone:

- The 64 most watched items are bits of one word per user. A viewer met through the other, *light* items gets his whole
  count at once: visits + popcount(word[u] & word[w]).
- A user met through no light item shares at most the r *heavy* items that are still unread, so the best score he can
  have is known. Once k better users are held, the remaining lists, the longest ones, are not read at all.

Both are exact, ties included: the tests compare with the dense product R·Rᵀ.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numba import njit
from scipy import sparse

from dualgnn_dgl.data import CoOccurrence, Interactions
from dualgnn_dgl.errors import ConfigError, unknown

MEASURES = ("count", "cosine", "jaccard")
HEAVY = 64  # bits of a uint64
WORKING_SPACE = 256 * 2**20
BLOCKS = 64  # at least so many, for balance between threads and a progress bar that moves
_COSINE, _JACCARD = MEASURES.index("cosine"), MEASURES.index("jaccard")

# Compiled at the first call, within a second or two: Numba's cache on disk is made of pickles, and we read none.
_compiled = partial(njit, nogil=True, error_model="numpy")


@_compiled
def _popcount(word):
    count = 0
    while word:
        word &= word - np.uint64(1)
        count += 1
    return count


@_compiled
def _key(measure, shared, mine, theirs):
    """What users are ranked by, for one user's list: the count, the squared cosine times his own degree, or Jaccard.

    All operands are whole numbers below 2^53 and IEEE division rounds correctly, so equal fractions give equal keys and
    the order never turns round. Different ones stay different as long as 1/(a·d) > 2^-52 for fractions a/b and c/d:
    up to 165,000 training items a user for the cosine (a·d ≤ D³), 47 million for Jaccard (a·d ≤ 2·D²).
    """
    if measure == _COSINE:
        return float(shared * shared) / float(theirs)
    if measure == _JACCARD:
        return float(shared) / float(mine + theirs - shared)
    return float(shared)


@_compiled
def _best(measure, shared, mine):
    """The largest key of a user who shares at most `shared` items: one who watched those and nothing else."""
    if measure == _JACCARD:
        return float(shared) / float(mine)
    return float(shared)


@_compiled
def _sink(keys, ids, size):
    """Let the root of a heap, whose worst (smallest key, then largest id) stands at the top, sink to its place."""
    key, user, at = keys[0], ids[0], 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (keys[other] < keys[child] or (keys[other] == keys[child] and ids[other] > ids[child])):
            child = other
        if keys[child] > key or (keys[child] == key and ids[child] < user):
            break
        keys[at], ids[at] = keys[child], ids[child]
        at = child
    keys[at], ids[at] = key, user


@_compiled
def _offer(keys, ids, size, key, user):
    """Put (key, user) on the heap, in place of the worst if it is full and this one is better; returns the size."""
    if size == keys.size:
        if key > keys[0] or (key == keys[0] and user < ids[0]):
            keys[0], ids[0] = key, user
            _sink(keys, ids, size)
        return size
    at = size
    while at > 0:
        parent = (at - 1) // 2
        if keys[parent] < key or (keys[parent] == key and ids[parent] > user):
            break
        keys[at], ids[at] = keys[parent], ids[parent]
        at = parent
    keys[at], ids[at] = key, user
    return size + 1


@_compiled
def _fill(
    first, last, measure, limit, degree, light_ptr, light_item, item_ptr, item_user, word, heavy, visits, ids, weight, length
):
    """Lists of the users first … last − 1, one after another in `ids` and `weight`; how long each is, in `length`."""
    seen = np.empty(degree.size + 1, np.uint32)  # users met, each once; one slot more, for the write that is not kept
    keys = np.empty(limit[first:last].max(), np.float64)
    start = 0
    for u in range(first, last):
        met = 0
        for e in range(light_ptr[u], light_ptr[u + 1]):
            item = light_item[e]
            for f in range(item_ptr[item], item_ptr[item + 1]):
                w = item_user[f]
                before = visits[w]
                seen[met] = w
                met += before == 0
                visits[w] = before + 1
        room, size, mine, own = limit[u], 0, word[u], degree[u]
        top, who = keys[:room], ids[start : start + room]
        for j in range(met):
            w = seen[j]
            if w != u:
                shared = np.int64(visits[w]) + _popcount(word[w] & mine)
                size = _offer(top, who, size, _key(measure, shared, own, degree[w]), np.int64(w))
        unread, read = _popcount(mine), np.uint64(0)
        for b in range(heavy.size):
            bit = np.uint64(1) << np.uint64(b)
            if room == 0 or not mine & bit:
                continue
            best = _best(measure, unread, own)
            for f in range(item_ptr[heavy[b]], item_ptr[heavy[b] + 1]):
                w = item_user[f]
                if size == room and (best < top[0] or (best == top[0] and w > who[0])):
                    break  # viewers are sorted: nobody further on can enter
                if w != u and visits[w] == 0 and not word[w] & read:
                    shared = _popcount(word[w] & mine)
                    size = _offer(top, who, size, _key(measure, shared, own, degree[w]), np.int64(w))
            read |= bit
            unread -= 1
        for j in range(met):
            visits[seen[j]] = 0
        for rest in range(size - 1, -1, -1):  # take the worst off and put it last: best first in the end
            key, w = top[0], who[0]
            top[0], who[0] = top[rest], who[rest]
            _sink(top, who, rest)
            who[rest] = w
            weight[start + rest] = np.sqrt(key / own) if measure == _COSINE else key
        length[u - first] = size
        start += size
    return start


@dataclass(frozen=True)
class _Viewers:
    """The training pairs as the kernel reads them.

    degree (U,), viewers of item i `item_user[item_ptr[i]:item_ptr[i+1]]` ascending, light items of user u likewise,
    `word` (U,) whose bit b says that the user watched item `heavy[b]`, heavy ascending by number of viewers.
    """

    degree: np.ndarray
    light_ptr: np.ndarray
    light_item: np.ndarray
    item_ptr: np.ndarray
    item_user: np.ndarray
    word: np.ndarray
    heavy: np.ndarray


def _viewers(train: Interactions) -> tuple[_Viewers, np.ndarray]:
    """The kernel's arrays, and how many visits each user's row costs; (U,) int64."""
    user, item = train.user.astype(np.int32), train.item.astype(np.int32)
    ones = np.ones(len(train), np.int8)
    shape = (train.num_users, train.num_items)
    columns = sparse.csr_matrix((ones, (user, item)), shape=shape).tocsc()  # (U, I), users ascending in each column
    popularity = np.diff(columns.indptr)
    heavy = np.argsort(popularity, kind="stable")[max(train.num_items - HEAVY, 0) :]
    word = np.zeros(train.num_users, np.uint64)
    for bit, i in enumerate(heavy.tolist()):
        word[columns.indices[columns.indptr[i] : columns.indptr[i + 1]]] |= np.uint64(1 << bit)
    light = np.ones(train.num_items, bool)
    light[heavy] = False
    keep = light[item]
    rows = sparse.csr_matrix((ones[: keep.sum()], (user[keep], item[keep])), shape=shape)
    degree = np.bincount(user, minlength=train.num_users)
    visits = np.bincount(user, weights=popularity[item], minlength=train.num_users).astype(np.int64)
    arrays = _Viewers(
        degree=degree,
        light_ptr=rows.indptr.astype(np.int64),
        light_item=rows.indices.astype(np.uint32),
        item_ptr=columns.indptr.astype(np.int64),
        item_user=columns.indices.astype(np.uint32),
        word=word,
        heavy=heavy,
    )
    return arrays, visits - degree


def _blocks(limit: np.ndarray, visits: np.ndarray, room: int) -> list[tuple[int, int]]:
    """Cut the users into runs whose lists fit `room` entries and which cost at most 1/BLOCKS of the visits, or one user."""
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
    """For each user the k others who share the most training items, exactly and in a fixed order.

    With c shared items and d training items each, the weight of w for u is c (count), c/√(d_u·d_w) (cosine) or
    c/(d_u+d_w−c) (jaccard). Only users with c ≥ 1 are listed, never u itself; the larger weight stands first, equal ones by
    internal index, and at the cut-off the smaller index stays. The order is decided before the weights are rounded to float32.

    Parameters
    ----------
    train : training pairs only; nothing else may enter the user graph.
    k : length of a list, at most.
    measure : 'count', 'cosine' or 'jaccard'.
    memory : bytes of working space beside the pairs and the result, default 256 MiB; it sets the size of the blocks and, if
        U is large, the number of threads. One thread needs 8·U bytes whatever this says.
    progress : called with the share of the work done, in (0, 1], ending with 1.

    Raises
    ------
    ConfigError
        for a k or memory below 1 and for an unknown measure.

    Notes
    -----
    Source: Wang et al., *DualGNN: Dual Graph Neural Network for Multimedia Recommendation*, IEEE TMM 2023: the user
    co-occurrence graph, of which the published code keeps the top 200 by count.

    Examples
    --------
    >>> pairs = Interactions(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), 4, 2)
    >>> lists = co_occurrence(pairs, k=2)
    >>> lists.indptr.tolist(), lists.neighbour.tolist(), lists.weight.tolist()
    ([0, 2, 4, 6, 6], [1, 2, 0, 2, 0, 1], [2.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    """
    if measure not in MEASURES:
        raise ConfigError(unknown("co-occurrence measure", measure, MEASURES))
    if k < 1:
        raise ConfigError(f"the co-occurrence lists cannot be {k} long: give a length of at least 1, such as 200")
    memory = WORKING_SPACE if memory is None else memory
    if memory < 1:
        raise ConfigError(f"{memory} bytes of working space are not enough: give at least 1, or nothing for 256 MiB")
    users = train.num_users
    if not len(train):
        return CoOccurrence(np.zeros(users + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), measure)
    viewers, visits = _viewers(train)
    limit = np.minimum(visits, min(k, users - 1))  # (U,): no list is longer
    counter = np.uint16 if viewers.degree.max() < 2**16 else np.uint32
    per_thread = users * (np.dtype(counter).itemsize + 4)
    threads = max(1, min(_cores(), memory // (2 * per_thread)))
    room = (memory - threads * per_thread) // (2 * threads * 8)  # two blocks a thread wait or run, 8 bytes an entry
    blocks = _blocks(limit, visits, room)

    def fill(first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = int(limit[first:last].sum())
        ids, weight, length = np.empty(size, np.int32), np.empty(size, np.float32), np.empty(last - first, np.int64)
        zeros = np.zeros(users, counter)
        end = _fill(first, last, MEASURES.index(measure), limit, *vars(viewers).values(), zeros, ids, weight, length)
        return ids[:end], weight[:end], length

    # As large as the lists can get; the part that stays unused is never touched and takes no memory.
    neighbour, weight = np.empty(int(limit.sum()), np.int64), np.empty(int(limit.sum()), np.float32)
    indptr = np.zeros(users + 1, np.int64)
    done, total = 0, max(int(visits.sum()), 1)
    waiting: deque[tuple[int, int, Future]] = deque()
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


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
