"""Counts with bounds, for logs with very popular items, and for cosine and Jaccard.

The docstring of `dualgnn_dgl.graphs.cooccurrence` explains how the most watched items are handled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numba import njit
from scipy import sparse

from dualgnn_dgl.core.vocabulary import CO_MEASURES

HEAVY = 64  # bits of a uint64
# users first…last → ids, weights, lengths
Fill = Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
_COSINE, _JACCARD = CO_MEASURES.index("cosine"), CO_MEASURES.index("jaccard")

# Compiled at the first call, in a second or two. Numba's cache on disk consists of pickles, which
# this project never reads.
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
    """Returns the number that ranks users in one user's list.

    It is the count, the squared cosine times the user's own degree, or Jaccard. All operands are
    whole numbers below 2^53 and IEEE division rounds correctly, so equal fractions give equal keys
    and the order never reverses. Different ones stay different as long as 1/(a·d) > 2^-52 for
    fractions a/b and c/d: up to 165,000 training items a user for the cosine (a·d ≤ D³), 47 million
    for Jaccard (a·d ≤ 2·D²).
    """
    if measure == _COSINE:
        return float(shared * shared) / float(theirs)
    if measure == _JACCARD:
        return float(shared) / float(mine + theirs - shared)
    return float(shared)


@_compiled
def _place(keys, ids, size, key, user):
    """Replaces the root of a heap by (key, user).

    The root is the worst entry: the smallest key, then the largest index.
    """
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            keys[other] < keys[child] or (keys[other] == keys[child] and ids[other] > ids[child])
        ):
            child = other
        if keys[child] > key or (keys[child] == key and ids[child] < user):
            break
        keys[at], ids[at] = keys[child], ids[child]
        at = child
    keys[at], ids[at] = key, user


@_compiled
def _sweep(  # noqa: C901 — a compiled kernel is one function, its calls would cost time
    span,
    users,
    start,
    ptr,
    viewer,
    light_ptr,
    light_item,
    heavy,
    word,
    degree,
    limit,
    measure,
    visits,
    keys,
    ids,
):
    """Offers every viewer of one span of users to the heaps of one block of users.

    `span` and `users` are (first, last). `ptr` (I+1,) and `viewer` list, for each item, its viewers
    in the span, counted from the span's first user. The heap of user u starts at
    `start[u - users[0]]` in `keys` and `ids`; free places have the key −1.
    """
    base, here, word_here, degree_here = (
        span[0],
        span[1] - span[0],
        word[span[0] : span[1]],
        degree[span[0] : span[1]],
    )
    # Users met, each once, and one place more for a write that is not kept.
    seen = np.empty(here + 1, np.uint16)
    for u in range(users[0], users[1]):
        at, room, mine, own, myself = (
            start[u - users[0]],
            limit[u],
            word[u],
            np.int64(degree[u]),
            u - base,
        )
        if room == 0:
            continue
        top, who, met, unread, read = (
            keys[at : at + room],
            ids[at : at + room],
            0,
            _popcount(mine),
            np.uint64(0),
        )
        for e in range(light_ptr[u], light_ptr[u + 1]):
            item = light_item[e]
            for f in range(ptr[item], ptr[item + 1]):
                w = viewer[f]
                before = visits[w]
                seen[met] = w
                met += before == 0
                visits[w] = before + 1
        for j in range(met):
            w = seen[j]
            shared = np.int64(visits[w]) + _popcount(word_here[w] & mine)
            key = _key(measure, shared, own, np.int64(degree_here[w]))
            if (key > top[0] or (key == top[0] and base + w < who[0])) and w != myself:
                _place(top, who, room, key, base + w)
        for b in range(heavy.size):
            bit = np.uint64(1) << np.uint64(b)
            if not mine & bit:
                continue
            for f in range(ptr[heavy[b]], ptr[heavy[b] + 1]):
                w = viewer[f]
                theirs = np.int64(degree_here[w])
                # An upper bound of the key, if w was not met before.
                best = _key(measure, unread, own, theirs)
                if best < top[0] or (best == top[0] and base + w > who[0]):
                    break  # All later ones have a smaller bound, or the same and a larger index.
                if w != myself and visits[w] == 0 and not word_here[w] & read:
                    key = _key(measure, _popcount(word_here[w] & mine), own, theirs)
                    if key > top[0] or (key == top[0] and base + w < who[0]):
                        _place(top, who, room, key, base + w)
            read |= bit
            unread -= 1
        for j in range(met):
            visits[seen[j]] = 0


@_compiled
def _settle(users, start, degree, limit, measure, keys, ids, weight, length):
    """Sorts each user's heap, best first, and joins the lists without free places."""
    end = 0
    for u in range(users[0], users[1]):
        at, begin = start[u - users[0]], end
        top, who = keys[at : at + limit[u]], ids[at : at + limit[u]]
        for rest in range(limit[u] - 1, 0, -1):  # move the worst to the end
            worst, w = top[0], who[0]
            _place(top, who, rest, top[rest], who[rest])
            top[rest], who[rest] = worst, w
        for j in range(limit[u]):
            if top[j] < 0:
                break
            ids[end] = who[j]
            weight[end] = np.sqrt(top[j] / degree[u]) if measure == _COSINE else top[j]
            end += 1
        length[u - users[0]] = end - begin
    return end


@dataclass(frozen=True)
class _Viewers:
    """The training pairs as the kernel reads them, with users cut into spans.

    Spans keep random look-ups in the cache. The viewers of item i in span s are
    `viewer[ptr[s, i]:ptr[s, i + 1]]`, counted from the span's first user, ascending (those of heavy
    items by degree, for cosine and Jaccard). The light items of user u are
    `light_item[light_ptr[u]:light_ptr[u + 1]]`. Bit b of `word[u]` is set if u watched `heavy[b]`,
    and the heavy items ascend by number of viewers. `degree` (U,) counts training items.
    """

    ptr: np.ndarray
    viewer: np.ndarray
    light_ptr: np.ndarray
    light_item: np.ndarray
    heavy: np.ndarray
    word: np.ndarray
    degree: np.ndarray


def _viewers(table: sparse.csr_matrix, measure: str, span: int) -> _Viewers:
    """Sorts the pairs by user and, within each span of users, by item."""
    users, items = table.shape
    degree = np.diff(table.indptr)
    popularity = np.bincount(table.indices, minlength=items)
    owner = np.repeat(np.arange(users, dtype=np.int32), degree)  # (E,)
    heavy = np.argsort(popularity, kind="stable")[max(items - HEAVY, 0) :]
    word = np.zeros(users, np.uint64)
    for bit, item in enumerate(heavy.tolist()):
        word[owner[table.indices == item]] |= np.uint64(1 << bit)
    light = np.ones(items, bool)
    light[heavy] = False
    keep = light[table.indices]
    spans = [table[first : first + span].tocsc() for first in range(0, users, span)]
    if measure != "count":
        for base, part in zip(range(0, users, span), spans, strict=True):
            for begin, end in zip(part.indptr[heavy], part.indptr[heavy + 1], strict=True):
                viewers = part.indices[begin:end]
                part.indices[begin:end] = viewers[np.argsort(degree[base + viewers], kind="stable")]
    offsets = np.cumsum([0, *(part.nnz for part in spans)])
    return _Viewers(
        ptr=np.stack([part.indptr + offset for part, offset in zip(spans, offsets, strict=False)]),
        viewer=np.concatenate([part.indices.astype(np.uint16) for part in spans]),
        light_ptr=np.concatenate([[0], np.cumsum(np.bincount(owner[keep], minlength=users))]),
        light_item=table.indices[keep].astype(np.uint32),
        heavy=heavy,
        word=word,
        degree=degree,
    )


def by_sweep(table: sparse.csr_matrix, limit: np.ndarray, measure: str, span: int) -> Fill:
    """Returns a function that makes the lists of a block of users by `_sweep` and `_settle`."""
    v, users, rank = _viewers(table, measure, span), len(limit), CO_MEASURES.index(measure)
    counter = np.uint16 if v.degree.max() < 2**16 else np.uint32

    def fill(first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = np.cumsum(limit[first:last]) - limit[first:last]
        room = int(limit[first:last].sum())
        keys, ids, weight = (
            np.full(room, -1.0),
            np.full(room, users, np.int32),
            np.empty(room, np.float32),
        )
        length, counts = np.empty(last - first, np.int64), np.zeros(min(span, users), counter)
        for ptr, base in zip(v.ptr, range(0, users, span), strict=True):
            here = (base, min(base + span, users))
            where = (ptr, v.viewer, v.light_ptr, v.light_item, v.heavy, v.word, v.degree)
            _sweep(here, (first, last), start, *where, limit, rank, counts, keys, ids)
        end = _settle((first, last), start, v.degree, limit, rank, keys, ids, weight, length)
        return ids[:end].copy(), weight[:end].copy(), length

    return fill
