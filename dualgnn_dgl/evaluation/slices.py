"""For whom, and for which videos, is it better? Slices by how much a user watched and how popular the held-out video is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dualgnn_dgl.data import Interactions
from dualgnn_dgl.evaluation.metrics import Evaluation, Evaluator


def ranges(values: np.ndarray, parts: int = 4) -> list[tuple[int, int]]:
    """Cut whole numbers into ranges (low, high), both inclusive, that hold about equally many each; zero is one of its own.

    Equal numbers are never parted, so there may be fewer than `parts` + 1.

    >>> ranges(np.array([0, 1, 1, 1, 2, 3, 5, 9, 9]), parts=2)
    [(0, 0), (1, 2), (3, 9)]
    """
    found = [(0, 0)] if (values == 0).any() else []
    rest = np.sort(values[values > 0])
    start = 0
    for part in range(1, parts + 1):
        stop = int(np.searchsorted(rest, rest[-(-len(rest) * part // parts) - 1], side="right")) if len(rest) else 0
        if stop > start:
            found.append((int(rest[start]), int(rest[stop - 1])))
            start = stop
    return found


def label(bounds: tuple[int, int]) -> str:
    """A range for people.

    >>> label((0, 0)), label((3, 3)), label((1000, 2500))
    ('0', '3', '1,000–2,500')
    """
    low, high = bounds
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def by_activity(found: Evaluation, train: Interactions, parts: int = 4) -> Iterator[tuple[tuple[int, int], Evaluation]]:
    """The evaluation for users by their number of training pairs; coverage stays that of all users' lists.

    Yields
    ------
    (low, high) training pairs, and the users who have so many.
    """
    pairs = np.bincount(train.user, minlength=train.num_users)[found.users]  # (B,)
    for low, high in ranges(pairs, parts):
        inside = (low <= pairs) & (pairs <= high)
        per_user = {name: values[inside] for name, values in found.per_user.items()}
        means = {name: float(values.mean()) for name, values in per_user.items()}
        yield (low, high), Evaluation(found.ks, found.users[inside], per_user, means, found.coverage)


def by_popularity(
    evaluator: Evaluator, items: np.ndarray, truth: Interactions, train: Interactions, parts: int = 4
) -> Iterator[tuple[tuple[int, int], Evaluation]]:
    """The evaluation by the number of training users of the held-out item; 0 means a cold item, which training never saw.

    The lists (B, K) stay as they are; of the held-out items only those of the slice count, for the users who have one, so
    that a user may be in several slices.

    Yields
    ------
    (low, high) training users, and the evaluation.
    """
    watched = np.bincount(train.item, minlength=train.num_items)  # (I,)
    for low, high in ranges(watched[truth.item], parts):
        yield (low, high), evaluator.measure(items, (low <= watched) & (watched <= high))
