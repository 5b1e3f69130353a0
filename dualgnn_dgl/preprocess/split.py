"""Train, validation and test: seven rules, each a label per pair, seeded, independent of the order
of the log's rows.

Per-user rules put a user's pairs in some order (shuffled, or by time), then cut off the end: the
last `test` pairs are test, the `valid` pairs before them validation. A user with fewer than three
pairs keeps all of them in training: nothing could be held out twice and still be learnt from. Equal
times are ordered by internal user, then item number.
`cold-items` holds out items instead, each with all its pairs.
"""

from __future__ import annotations

import numpy as np

from dualgnn_dgl.core.vocabulary import SPLIT_RULES
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.preprocess.filters import Pairs

TRAIN, VALID, TEST = 0, 1, 2


def check(pairs: Pairs, method: str) -> None:
    """Raise `ConfigError` unless the pairs carry what the rule needs.

    Raises
    ------
    ConfigError
        for an unknown rule, a rule by time without times, `given` without a split column.
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
    """The rule in words, for the report."""
    share = ":".join(str(part) for part in ratios)
    few = "users with fewer than 3 pairs stay in train"
    return {
        "random": f"each user's pairs shuffled, {share}, at least one valid and one test; {few}",
        "mmrec": f"each user's pairs shuffled; fewer than 10: 1 valid, 1 test; else the last "
        f"int(0.2 n), half and half; {few}",
        "leave-one-out": f"each user's {'latest' if timed else 'last shuffled'} pair is test, the "
        f"one before valid"
        f"{'' if timed else ' (the log has no times)'}; {few}",
        "time-user": f"each user's pairs by time, {share}, at least one valid and one test; {few}",
        "time-global": f"all pairs by time, {share}",
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
    """Label every pair.

    Parameters
    ----------
    pairs : E pairs sorted by (user, item)
    method : one of `SPLIT_RULES`
    generator : source of the shuffles; rules by time and `given` do not use it.
    ratios : train, valid, test; for `random`, `time-user`, `time-global` and, there of the items,
        `cold-items`.

    Returns
    -------
    (E,) int8
        0 train, 1 valid, 2 test.

    Raises
    ------
    ConfigError
        see `check`.
    """
    check(pairs, method)
    if method == "given" and pairs.split is not None:
        return pairs.split
    if method == "time-global" and pairs.time is not None:
        # stable: pairs are sorted by (user, item), which decides between equal times
        order = np.argsort(pairs.time, kind="stable")
        bounds = [len(pairs) * part // sum(ratios) for part in (ratios[0], ratios[0] + ratios[1])]
        labels = np.empty(len(pairs), dtype=np.int8)
        for label, rows in enumerate(np.split(order, bounds)):
            labels[rows] = label
        return labels
    if method == "cold-items":
        order = generator.permutation(int(pairs.item.max(initial=-1)) + 1)
        of_item = np.empty(order.size, dtype=np.int8)  # (I,)
        bounds = [order.size * part // sum(ratios) for part in (ratios[0], ratios[0] + ratios[1])]
        for part, items in enumerate(np.split(order, bounds)):
            of_item[items] = part
        return of_item[pairs.item]
    counts = np.bincount(pairs.user)  # (U,)
    by_time = pairs.time is not None and method in ("leave-one-out", "time-user")
    left = _left(pairs, counts, None if by_time else generator)
    if method == "leave-one-out":
        valid = test = np.ones_like(counts)
    elif method == "mmrec":
        held = counts // 5  # int(0.2 n) in exact arithmetic
        valid, test = (
            np.where(counts < 10, 1, held // 2),
            np.where(counts < 10, 1, held - held // 2),
        )
    else:
        test = np.clip(
            _share(counts, ratios, TEST), min(ratios[TEST], 1), np.maximum(counts - 2, 0)
        )
        valid = np.clip(
            _share(counts, ratios, VALID), min(ratios[VALID], 1), np.maximum(counts - 1 - test, 0)
        )
    enough = counts >= 3
    test, held = np.where(enough, test, 0), np.where(enough, test + valid, 0)
    return (left <= held[pairs.user]).astype(np.int8) + (left <= test[pairs.user]).astype(np.int8)


def _share(counts: np.ndarray, ratios: tuple[int, int, int], part: int) -> np.ndarray:
    """counts · ratio, rounded half up, in exact arithmetic; (U,) int64."""
    return (2 * counts * ratios[part] + sum(ratios)) // (2 * sum(ratios))


def _left(pairs: Pairs, counts: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
    """How many of its user's pairs, itself included, come from this pair on.

    1 for the last one; (E,) int64.

    The order is shuffled with `generator`, or by time where it is None.
    """
    user = pairs.user
    if generator is not None:
        # a permutation makes the keys distinct, so that any sort gives the same order
        order = np.argsort(user * np.int64(len(pairs)) + generator.permutation(len(pairs)))
    else:
        assert pairs.time is not None  # `check` has seen to it
        order = np.lexsort((pairs.time, user))
    left = np.empty(len(pairs), dtype=np.int64)
    # both orders keep users together and ascending, so user[order] is user itself
    left[order] = np.cumsum(counts)[user] - np.arange(len(pairs))
    return left


def only_positions(user: np.ndarray, time: np.ndarray) -> bool:
    """Whether times are no times but positions in each user's list.

    All count up from one common start.

    Parameters
    ----------
    user, time : (E,)
        rows as read, before any is dropped.
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
    return bool((first[seen] == start).all() and (spans < counts[seen].astype(np.uint64)).all())
