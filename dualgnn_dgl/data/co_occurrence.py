"""Defines the co-occurrence lists of a prepared data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualgnn_dgl.errors import DataError


@dataclass(frozen=True, eq=False)
class CoOccurrence:
    """Lists for each user those who share most training items, strongest first, in CSR form.

    The neighbours of user u are `neighbour[indptr[u]:indptr[u+1]]`, ordered by weight (descending),
    then by internal user index (ascending). Never u itself. Source: DualGNN, section on the user
    co-occurrence graph.

    Attributes:
        indptr: (U+1,) int64
        neighbour: (N,) int64
        weight: (N,) float32; the number of shared items, or their cosine or Jaccard similarity, as
            `measure` says.
        measure: 'count', 'cosine' or 'jaccard'
    """

    indptr: np.ndarray
    neighbour: np.ndarray
    weight: np.ndarray
    measure: str = "count"

    def __post_init__(self) -> None:
        for name, kind in (("indptr", np.int64), ("neighbour", np.int64), ("weight", np.float32)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind).reshape(-1))
        valid = (
            self.indptr.size >= 1
            and self.indptr[0] == 0
            and bool((np.diff(self.indptr) >= 0).all())
        )
        if (
            not valid
            or self.indptr[-1] != self.neighbour.size
            or self.neighbour.size != self.weight.size
        ):
            raise DataError("the co-occurrence lists do not fit together: run preprocess again")
        users = self.indptr.size - 1
        if (
            self.neighbour.size
            and not 0 <= int(self.neighbour.min()) <= int(self.neighbour.max()) < users
        ):
            raise DataError(
                f"the co-occurrence lists name a user outside 0…{users - 1}: run preprocess again"
            )

    @property
    def num_users(self) -> int:
        """Returns U."""
        return int(self.indptr.size - 1)
