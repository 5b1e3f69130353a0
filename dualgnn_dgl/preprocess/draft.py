"""Defines the draft of a data set that the steps of preprocessing change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from dualgnn_dgl.data import CoOccurrence, Dataset, Interactions, Modality
from dualgnn_dgl.data.projection import FeatureProjection
from dualgnn_dgl.data.raw import RawInput
from dualgnn_dgl.preprocess.filters import Pairs, renumber
from dualgnn_dgl.preprocess.options import Options
from dualgnn_dgl.preprocess.report import Counts
from dualgnn_dgl.preprocess.split import Ties


class Say(Protocol):
    """Receives the name of each step and, in a long one, the share that is done."""

    def __call__(self, text: str, share: float | None = None, /) -> None: ...


@dataclass(eq=False)
class Draft:
    """Collects a data set in the making; every step changes it.

    Attributes:
        raw: the log and the features as they were read.
        options: resolved, see `options.resolve`.
        say: called at the start of each step.
        compare: whether to count co-occurrence and to compare items that the same users watch.
        dropped: rows that were left out, by reason.
        found: sizes of the log before any filter.
        users, items: (U,) and (I,) position in the raw ids of each internal number.
        pairs: the pairs that are left, in internal numbers.
        labels: (E,) int8, the split of each pair.
        ties: equal times at a cut.
        splits, modalities, reductions, lists: parts of the data set.
        raw_widths: columns of each modality as it was read.
        dataset: the whole, once it is assembled.
    """

    raw: RawInput
    options: Options
    say: Say
    compare: bool
    dropped: dict[str, int]
    found: Counts = field(init=False)
    users: np.ndarray = field(init=False)
    items: np.ndarray = field(init=False)
    pairs: Pairs = field(init=False)
    labels: np.ndarray = field(init=False)
    ties: Ties = field(default_factory=Ties)
    splits: dict[str, Interactions] = field(init=False)
    modalities: dict[str, Modality] = field(default_factory=dict)
    projections: dict[str, FeatureProjection] = field(default_factory=dict)
    raw_widths: dict[str, int] = field(default_factory=dict)
    lists: CoOccurrence | None = None
    dataset: Dataset = field(init=False)

    @property
    def rule(self) -> str:
        """Returns the split rule."""
        assert self.options.split is not None  # `resolve` has set it
        return self.options.split

    @property
    def item_ids(self) -> np.ndarray:
        """Returns the ids (I,) of the items that are left, as text."""
        return np.asarray(self.raw.log.item_ids, np.str_)[self.items]

    def keep(self, rows: np.ndarray, reason: str) -> None:
        """Keeps the given pairs and counts the others under a reason.

        Args:
            rows: mask or ascending positions.
            reason: for the report.
        """
        kept = self.pairs.take(rows)
        if len(kept) < len(self.pairs):
            self.dropped[reason] = len(self.pairs) - len(kept)
        self.pairs = kept

    def renumber(self) -> None:
        """Numbers the users and items that are left 0…n-1, in their order."""
        users, old = renumber(self.pairs.user, self.users.size)
        self.users = self.users[old]
        items, old = renumber(self.pairs.item, self.items.size)
        self.items = self.items[old]
        self.pairs = replace(self.pairs, user=users, item=items)
