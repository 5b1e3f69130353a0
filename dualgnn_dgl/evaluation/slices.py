"""Metrics by group: users by activity; items by popularity, warmth and completeness.

`sliced` measures any groups. A new grouping is a function that returns masks by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from dualgnn_dgl.data import Interactions, Modality
from dualgnn_dgl.evaluation.metrics import Evaluation, Evaluator

Name = TypeVar("Name", str, tuple[int, int])


def ranges(values: np.ndarray, parts: int = 4) -> list[tuple[int, int]]:
    """Cuts whole numbers into ranges of about equally many numbers each.

    Zero has a range of its own. Equal numbers are never separated, so there may be fewer than
    `parts` + 1 ranges.

    Args:
        values: Whole numbers of at least 0.
        parts: Ranges above zero at most.

    Returns:
        Ranges (low, high), both ends included.

    >>> ranges(np.array([0, 1, 1, 1, 2, 3, 5, 9, 9]), parts=2)
    [(0, 0), (1, 2), (3, 9)]
    """
    found = [(0, 0)] if (values == 0).any() else []
    rest = np.sort(values[values > 0])
    start = 0
    for part in range(1, parts + 1):
        stop = (
            int(np.searchsorted(rest, rest[-(-len(rest) * part // parts) - 1], side="right"))
            if len(rest)
            else 0
        )
        if stop > start:
            found.append((int(rest[start]), int(rest[stop - 1])))
            start = stop
    return found


def label(bounds: tuple[int, int]) -> str:
    """Formats a range.

    >>> label((0, 0)), label((3, 3)), label((1000, 2500))
    ('0', '3', '1,000–2,500')
    """
    low, high = bounds
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


@dataclass(frozen=True, eq=False)
class Mask:
    """A group of users or of items.

    Attributes:
        axis: Whether `chosen` marks users or items.
        chosen: The members, (U,) or (I,) bool.
    """

    axis: Literal["user", "item"]
    chosen: np.ndarray


def sliced(
    evaluator: Evaluator, lists: np.ndarray, groups: Mapping[Name, Mask]
) -> Iterator[tuple[Name, Evaluation]]:
    """Measures the same lists for each group; a group without a held-out pair is left out.

    For a group of users, their rows count. For a group of items, only held-out items of the group
    count, for the users who have one, so that a user may be in several groups. Coverage is that of
    the lists of the group's users.

    Args:
        evaluator: Evaluator that made the lists.
        lists: Lists of items, (B, K).
        groups: Masks by name.

    Yields:
        The group's name and its evaluation.
    """
    for name, mask in groups.items():
        if mask.axis == "user":
            inside = mask.chosen[evaluator.users].any()
        else:
            inside = mask.chosen[evaluator.truth.indices].any()
        if inside:
            yield name, evaluator.measure(lists, **{f"{mask.axis}s": mask.chosen})


def activity(train: Interactions, users: np.ndarray, parts: int = 4) -> dict[tuple[int, int], Mask]:
    """Groups users by their number of training pairs.

    Args:
        train: Training pairs.
        users: Evaluated users, (B,).
        parts: Ranges above zero at most; each has about equally many of `users`.

    Returns:
        Range (low, high) → mask of users.
    """
    pairs = np.bincount(train.user, minlength=train.num_users)  # (U,)
    return {
        (low, high): Mask("user", (low <= pairs) & (pairs <= high))
        for low, high in ranges(pairs[users], parts)
    }


def popularity(
    train: Interactions, truth: Interactions, parts: int = 4
) -> dict[tuple[int, int], Mask]:
    """Groups items by their number of training users; an item with 0 is cold.

    Args:
        train: Training pairs.
        truth: Held-out pairs.
        parts: Ranges above zero at most; each has about equally many held-out pairs.

    Returns:
        Range (low, high) → mask of items.
    """
    watched = np.bincount(train.item, minlength=train.num_items)  # (I,)
    return {
        (low, high): Mask("item", (low <= watched) & (watched <= high))
        for low, high in ranges(watched[truth.item], parts)
    }


def warmth(train: Interactions) -> dict[str, Mask]:
    """Groups items into those with a training pair, `warm`, and those without, `cold`."""
    watched = np.bincount(train.item, minlength=train.num_items) > 0  # (I,)
    return {"warm": Mask("item", watched), "cold": Mask("item", ~watched)}


def completeness(modalities: Iterable[Modality], num_items: int) -> dict[str, Mask]:
    """Groups items into those with every modality of their own, `complete`, and `incomplete`."""
    whole = complete(modalities, num_items)
    return {"complete": Mask("item", whole), "incomplete": Mask("item", ~whole)}


def complete(modalities: Iterable[Modality], num_items: int) -> np.ndarray:
    """Returns which items have every modality, neither missing nor imputed, (I,) bool."""
    return np.logical_and.reduce(
        [np.ones(num_items, dtype=bool), *(modality.own for modality in modalities)]
    )
