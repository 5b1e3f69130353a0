"""Turns log rows into distinct pairs in canonical order.

Rating filter, duplicates, k-core, internal numbering.

Everything here depends on the *set* of rows only, never on their order in the file: ids are ranked,
pairs are sorted by (user, item), and of rows that repeat a pair the earliest time and the earliest
split are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Pairs:
    """Represents distinct pairs, sorted by user, then item.

    Attributes:
        user, item: (E,) int32
        time: (E,) int64 or None; when the user first watched the item.
        split: (E,) int8 or None; 0 train, 1 valid, 2 test, as the log says.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None = None
    split: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.user.size)

    def take(self, rows: np.ndarray) -> Pairs:
        """Returns the given rows (mask or ascending positions), still sorted."""
        return Pairs(
            self.user[rows],
            self.item[rows],
            self.time[rows] if self.time is not None else None,
            self.split[rows] if self.split is not None else None,
        )


def id_order(ids: np.ndarray) -> np.ndarray:
    """Returns positions that sort ids: by number where every id is one, else as text.

    Ids of digits only are compared by length, then as text, which is numeric order without a size
    limit; so ids 0…n-1 keep their own number as internal number.

    Args:
        ids: (n,) text, each once

    Returns:
        (n,) int64

    >>> id_order(np.array(["10", "9", "0"])).tolist()
    [2, 1, 0]
    >>> id_order(np.array(["v10", "v9", "0"])).tolist()
    [2, 0, 1]
    """
    ids = np.asarray(ids, dtype=np.str_)
    if ids.size and bool(np.char.isdecimal(ids).all()):
        return np.lexsort((ids, np.char.str_len(ids)))
    return np.argsort(ids, kind="stable")


def ranks(order: np.ndarray) -> np.ndarray:
    """Returns the inverse of a permutation; (n,) int32."""
    rank = np.empty(order.size, dtype=np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    return rank


def distinct(
    user: np.ndarray,
    item: np.ndarray,
    num_items: int,
    time: np.ndarray | None = None,
    split: np.ndarray | None = None,
) -> tuple[Pairs, dict[str, int]]:
    """Takes every (user, item) pair once, with its earliest time and earliest split.

    The earlier split wins so that a pair seen in training is never evaluated, in any order of
    the rows.

    Args:
        user, item: (E,) int32
        num_items: I
        time, split: (E,) or None

    Returns:
        The pairs, and the number of rows left out by reason.
    """
    keys = user.astype(np.int64) * num_items + item
    if time is None and split is None:
        keys.sort()
        order = None
    else:
        order = np.argsort(keys)
        keys = keys[order]
    first = np.empty(keys.size, dtype=bool)
    first[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    repeats = keys.size - starts.size
    if repeats:
        keys = keys[starts]
    reasons = {"repeated pair": repeats} if repeats else {}

    def earliest(values: np.ndarray | None) -> np.ndarray | None:
        if values is None or not starts.size:
            return values
        values = values[order]
        return np.minimum.reduceat(values, starts) if repeats else values

    kept_split = earliest(split)
    if split is not None and kept_split is not None and repeats:
        # rows whose split is not the one kept: the pair was in two splits
        group = np.cumsum(first) - 1
        across = int((split[order] != kept_split[group]).sum())
        reasons = {"repeated pair": repeats - across, "pair already in an earlier split": across}
        reasons = {reason: count for reason, count in reasons.items() if count}
    users = (keys // num_items).astype(np.int32)
    items = (keys - users.astype(np.int64) * num_items).astype(np.int32)
    return Pairs(users, items, earliest(time), kept_split), reasons


def k_core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Returns the positions of pairs in the k-core: all users and items have k or more.

    Repeats until nothing changes; each round counts only what is left.

    Args:
        user, item: (E,) int
        k: int; 0 and 1 keep everything.

    Returns:
        (E',) int64, ascending
    """
    rows = np.arange(user.size)
    while user.size and k > 1:
        keep = (np.bincount(user) >= k)[user]
        keep &= (np.bincount(item) >= k)[item]
        if keep.all():
            break
        user, item, rows = user[keep], item[keep], rows[keep]
    return rows


def renumber(codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Closes the gaps in codes, keeping their order.

    Returns:
        new codes (E,) int32, and for each new code the old one, (n,) int64

    >>> renumber(np.array([7, 2, 7]), 9)
    (array([1, 0, 1], dtype=int32), array([2, 7]))
    """
    used = np.zeros(size, dtype=bool)
    used[codes] = True
    return (np.cumsum(used, dtype=np.int32) - np.int32(1))[codes], np.flatnonzero(used)
