"""Places of hits in users' lists, and the sums over them that metrics share."""

from __future__ import annotations

import numpy as np


class Hits:
    """Marks the hits in the lists of B users and sums over their first K places.

    Args:
        places: Whether the item at a place is held out, (B, width) bool.
        positives: Held-out items n of each user, (B,) int, at least 1.
    """

    def __init__(self, places: np.ndarray, positives: np.ndarray) -> None:
        self.places, self.positives = places, positives
        self._number = np.arange(1, places.shape[1] + 1, dtype=np.float64)  # of each place
        self._discount = 1 / np.log2(self._number + 1)
        self._best = self._discount.cumsum()  # gain of a list that starts with only hits
        self._count = places.cumsum(axis=1)  # (B, width) hits up to each place
        self._gain = np.where(places, self._discount, 0.0).cumsum(axis=1)
        self._precisions = np.where(places, self._count / self._number, 0.0).cumsum(axis=1)

    def count(self, k: int) -> np.ndarray:
        """Returns the hits among the first k places, (B,)."""
        return self._count[:, k - 1]

    def gain(self, k: int) -> np.ndarray:
        """Returns the sum of 1 / log2(place + 1) over the hits among the first k places, (B,)."""
        return self._gain[:, k - 1]

    def possible(self, k: int) -> np.ndarray:
        """Returns the hits of the best possible list, min(n, k), (B,)."""
        return np.minimum(self.positives, k)

    def best_gain(self, k: int) -> np.ndarray:
        """Returns the gain of the best possible list, (B,)."""
        return self._best[self.possible(k) - 1]

    def precisions(self, k: int) -> np.ndarray:
        """Returns the sum of the precision at each hit among the first k places, (B,)."""
        return self._precisions[:, k - 1]

    def first(self) -> np.ndarray:
        """Returns the place of the first hit, (B,); infinite without a hit."""
        return np.where(self.places.any(axis=1), self.places.argmax(axis=1) + 1, np.inf)
