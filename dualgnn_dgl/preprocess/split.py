"""Splits pairs into train, validation and test by one of seven rules.

Each rule gives a label per pair, is seeded, and does not depend on the order of the log's rows.

Per-user rules order a user's pairs (shuffled, or by time), then cut off the end: the last `test`
pairs are test, the `valid` pairs before them validation. A user with fewer than three pairs keeps
all of them in training. Equal times are ordered by chance, with the seed, never by the ids.
`cold-items` holds out items instead, each with all its pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualgnn_dgl.core.vocabulary import SPLIT_RULES
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.preprocess.filters import Pairs

TRAIN, VALID, TEST = 0, 1, 2
BY_TIME = ("leave-one-out", "time-user", "time-global")


@dataclass(frozen=True)
class Ties:
    """Counts where chance decided between equal times.

    Attributes:
        users: users with equal times on both sides of a cut.
        pairs: pairs that share their time with such a cut.
    """

    users: int = 0
    pairs: int = 0


def check(pairs: Pairs, method: str) -> None:
    """Checks that the pairs have what the rule needs.

    Raises:
        ConfigError: for an unknown rule, a rule by time without times, `given` without a split
            column.
    """
    if method not in SPLIT_RULES:
        raise ConfigError(unknown("split", method, SPLIT_RULES))
    if method == "given" and pairs.split is None:
        raise ConfigError(
            "--split given needs a split in the log: name the column with --split-col, or choose "
            "--split random"
        )
    if method in ("time-user", "time-global") and pairs.time is None:
        raise ConfigError(
            f"--split {method} needs times: name the column with --time-col, or choose --split "
            f"random"
        )


def describe(method: str, timed: bool, ratios: tuple[int, int, int]) -> str:
    """Returns the rule in words, for the report."""
    share = ":".join(str(part) for part in ratios)
    few = "users with fewer than 3 pairs stay in train"
    chance = "equal times in random order"
    return {
        "random": f"each user's pairs shuffled, {share}, at least one valid and one test; {few}",
        "mmrec": f"each user's pairs shuffled; fewer than 10: 1 valid, 1 test; else the last "
        f"int(0.2 n), half and half; {few}",
        "leave-one-out": f"each user's {'latest' if timed else 'last shuffled'} pair is test, the "
        f"one before valid"
        f"{f', {chance}' if timed else ' (the log has no times)'}; {few}",
        "time-user": f"each user's pairs by time, {chance}, {share}, at least one valid and one "
        f"test; {few}",
        "time-global": f"all pairs by time, {chance}, {share}",
        "cold-items": f"items shuffled, {share} of the items: a held-out item is held out whole, "
        f"with all its pairs",
        "given": "as the log says",
    }[method]


def assign(
    pairs: Pairs,
    method: str,
    generator: np.random.Generator,
    ratios: tuple[int, int, int] = (8, 1, 1),
) -> np.ndarray:
    """Labels every pair.

    Args:
        pairs: E pairs sorted by (user, item).
        method: one of `SPLIT_RULES`.
        generator: source of the shuffles, and of the order of equal times; `given` does not use it.
        ratios: train, valid, test; for `random`, `time-user`, `time-global` and, there of the
            items, `cold-items`.

    Returns:
        (E,) int8: 0 train, 1 valid, 2 test.

    Raises:
        ConfigError: see `check`.
    """
    check(pairs, method)
    if method == "given" and pairs.split is not None:
        return pairs.split
    if method == "time-global":
        return _cut(_by_time(pairs, generator, per_user=False), ratios)
    if method == "cold-items":
        of_item = _cut(generator.permutation(int(pairs.item.max(initial=-1)) + 1), ratios)  # (I,)
        return of_item[pairs.item]
    counts = np.bincount(pairs.user)  # (U,)
    if pairs.time is not None and method in BY_TIME:
        order = _by_time(pairs, generator, per_user=True)
    else:
        # A permutation makes the keys distinct, so that any sort gives the same order.
        order = np.argsort(pairs.user * np.int64(len(pairs)) + generator.permutation(len(pairs)))
    valid, test = _held_out(counts, method, ratios)
    enough = counts >= 3
    test, held = np.where(enough, test, 0), np.where(enough, test + valid, 0)
    # How many of its user's pairs, itself included, come from a pair on; 1 for the last. The order
    # keeps users together and ascending, so user[order] is user itself.
    left = np.empty(len(pairs), dtype=np.int64)
    left[order] = np.cumsum(counts)[pairs.user] - np.arange(len(pairs))
    return (left <= held[pairs.user]).astype(np.int8) + (left <= test[pairs.user]).astype(np.int8)


def count_ties(pairs: Pairs, labels: np.ndarray, method: str) -> Ties:
    """Counts the equal times on both sides of a cut.

    Args:
        pairs: E pairs.
        labels: (E,) as `assign` gave them.
        method: the rule.
    """
    if pairs.time is None or method not in BY_TIME or len(pairs) < 2:
        return Ties()
    per_user = method != "time-global"
    group = pairs.user if per_user else np.zeros_like(pairs.user)
    order = np.lexsort((labels, pairs.time, group))
    user, time, label = pairs.user[order], pairs.time[order], labels[order]
    same = (time[1:] == time[:-1]) & (group[order][1:] == group[order][:-1])
    # (E,) number of the group of pairs that share user (or log) and time
    number = np.concatenate([[0], np.cumsum(~same)])
    cut = np.zeros(int(number[-1]) + 1, dtype=bool)
    cut[number[1:][same & (label[1:] != label[:-1])]] = True
    tied = cut[number]
    return Ties(int(np.unique(user[tied]).size), int(np.count_nonzero(tied)))


def _by_time(pairs: Pairs, generator: np.random.Generator, *, per_user: bool) -> np.ndarray:
    """Returns the positions (E,) of pairs by (user and) time, equal times in random order."""
    assert pairs.time is not None  # `check` has seen to it
    # The sorts are stable, so equal times keep the order of the permutation.
    shuffled = generator.permutation(len(pairs))
    time = pairs.time[shuffled]
    if per_user:
        return shuffled[np.lexsort((time, pairs.user[shuffled]))]
    return shuffled[np.argsort(time, kind="stable")]


def _cut(order: np.ndarray, ratios: tuple[int, int, int]) -> np.ndarray:
    """Returns the label (n,) of each position, by its place in `order`."""
    labels = np.empty(order.size, dtype=np.int8)
    bounds = [order.size * part // sum(ratios) for part in (ratios[0], ratios[0] + ratios[1])]
    for label, rows in enumerate(np.split(order, bounds)):
        labels[rows] = label
    return labels


def _held_out(
    counts: np.ndarray, method: str, ratios: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many pairs (U,) of each user are validation, and how many test."""
    if method == "leave-one-out":
        return np.ones_like(counts), np.ones_like(counts)
    if method == "mmrec":
        held = counts // 5  # int(0.2 n) in exact arithmetic
        return (
            np.where(counts < 10, 1, held // 2),
            np.where(counts < 10, 1, held - held // 2),
        )
    test = np.clip(_share(counts, ratios, TEST), min(ratios[TEST], 1), np.maximum(counts - 2, 0))
    valid = np.clip(
        _share(counts, ratios, VALID), min(ratios[VALID], 1), np.maximum(counts - 1 - test, 0)
    )
    return valid, test


def _share(counts: np.ndarray, ratios: tuple[int, int, int], part: int) -> np.ndarray:
    """Returns counts · ratio, rounded half up, in exact arithmetic; (U,) int64."""
    return (2 * counts * ratios[part] + sum(ratios)) // (2 * sum(ratios))


def only_positions(user: np.ndarray, time: np.ndarray) -> bool:
    """Returns whether times are only positions in each user's list.

    Such times count up from one common start in every list.

    Args:
        user: (E,) as read, before any row is dropped.
        time: (E,).
    """
    counts = np.bincount(user)  # (U,)
    if counts.size < 2:
        return False
    start = int(time.min())
    first, last = np.full(counts.size, np.iinfo(np.int64).max), np.full(counts.size, start)
    np.minimum.at(first, user, time)
    np.maximum.at(last, user, time)
    seen = counts > 0
    # modulo 2^64: a difference of int64 may overflow
    spans = last[seen].view(np.uint64) - np.array(start).view(np.uint64)
    return bool(
        (first[seen] == start).all()
        and (spans < counts[seen].astype(np.uint64)).all()
        and spans.any()  # all equal: dates of one day
    )
