"""MostPop by counting, pair by pair."""

from __future__ import annotations


def scores(users: int, items: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Returns the number of training users of each item, the same row for every user."""
    counts = [sum(1 for _, watched in pairs if watched == item) for item in range(items)]
    return [list(counts) for _ in range(users)]
