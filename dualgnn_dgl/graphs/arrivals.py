"""Inputs for folding in users and items unseen in training.

`UserHistories` has B new users, each known by the items they watched; `NewItems` has N new items,
each known by its modalities. Both read the training pairs and features only through the requests of
a model: an `Adjacency` from the trained items or users to the new ones, whose cost depends on the
new ones, not on the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dualgnn_dgl.core import memory
from dualgnn_dgl.data import Interactions, Modality
from dualgnn_dgl.errors import DataError, unknown
from dualgnn_dgl.graphs.heterographs import neighbour_weights
from dualgnn_dgl.graphs.nearest import nearest, unit
from dualgnn_dgl.ops import Adjacency

# Largest number of entries in a block's product of histories and viewers, and bytes an entry.
VISITS, ENTRY = 2**24, 16
BLOCK = 1024  # largest number of new items that are compared together


class TrainingIndex:
    """The training pairs and features, indexed once for folding in.

    Args:
        train: Training pairs of U users and I items.
        modalities: `data.Modality` of the I items by name.
        measure: 'count', 'cosine' or 'jaccard', the order of the data's co-occurrence lists.
    """

    def __init__(
        self, train: Interactions, modalities: Mapping[str, Modality], measure: str = "count"
    ) -> None:
        watched = train.csr()
        self.num_users, self.num_items = train.num_users, train.num_items
        self.watched = watched  # (U, I)
        self.viewers: sparse.csr_matrix = watched.T.tocsr()  # (I, U)
        self.user_degree = np.diff(watched.indptr)  # (U,)
        self.item_degree = np.diff(self.viewers.indptr)  # (I,)
        self.modalities, self.measure = dict(modalities), measure
        self._unit: dict[str, tuple[Tensor, Tensor]] = {}

    def trained_features(self, name: str) -> tuple[Tensor, Tensor]:
        """Returns the trained items with a modality (P,) int64, and their unit features (P, F).

        Trained means watched in training: the vector of any other item has not been trained.
        """
        if name not in self._unit:
            modality = self.modalities[name]
            items = torch.from_numpy(np.flatnonzero(modality.present & (self.item_degree > 0)))
            self._unit[name] = items, unit(torch.from_numpy(modality.values)[items])
        return self._unit[name]


class UserHistories:
    """B users known by their histories alone.

    Args:
        pairs: Pairs of B users and I items; any order of the pairs gives the same bits.
        index: The training pairs.
        exclude: For each history one training user who must not count as a neighbour, (B,) int64
            (the same user, in a test); −1 for none.

    Raises:
        DataError: If the items are not those of the training pairs.
    """

    def __init__(
        self, pairs: Interactions, index: TrainingIndex, exclude: np.ndarray | None = None
    ) -> None:
        if pairs.num_items != index.num_items:
            raise DataError(
                f"histories count {pairs.num_items} items, the training pairs {index.num_items}: "
                f"number them alike"
            )
        self.watched: sparse.csr_matrix = pairs.csr()  # (B, I), columns ascending
        self.index, self.exclude = index, exclude
        self._lists: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return int(self.watched.shape[0])

    @cached_property
    def to_user(self) -> Adjacency:
        """D_b^-½ H D_i^-½, (B, I), with the degrees d_i of the training pairs.

        It is the row of the normalised adjacency that a trained user with this history has.
        """
        row, column = self.edges()
        left = torch.from_numpy(np.diff(self.watched.indptr)).float().clamp(min=1).rsqrt()
        right = torch.from_numpy(self.index.item_degree).float().clamp(min=1).rsqrt()
        return Adjacency(row, column, self.watched.shape, left=left, right=right)

    def edges(self) -> tuple[Tensor, Tensor]:
        """Returns history (E,) and item (E,) of every pair, both ascending."""
        lengths = torch.from_numpy(np.diff(self.watched.indptr)).long()
        return torch.repeat_interleave(lengths), torch.from_numpy(self.watched.indices).long()

    def having(self, present: Tensor) -> Tensor:
        """Returns the modalities of each history's items, (B, M) bool.

        Args:
            present: Modalities of the items, (I, M) bool.
        """
        row, item = self.edges()
        return torch.zeros(len(self), present.shape[1]).index_add(0, row, present[item].float()) > 0

    def neighbours(self, k: int, weight: str = "softmax") -> Adjacency:
        """Returns the k training users who share most items with each history, (B, U).

        Rows sum to one, with the weights of `heterographs.user_user`.
        """
        row, user, strength = self._nearest(k)
        value = neighbour_weights(strength, row, len(self), weight)
        return Adjacency(row, user, (len(self), self.index.num_users), weight=value)

    def _nearest(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns history (N,), training user (N,) and strength (N,), strongest first.

        Equally strong users are ordered by index, as in `cooccurrence`.
        """
        if k not in self._lists:
            cost = self.watched @ self.index.item_degree.astype(np.float64)  # (B,) viewers met

            def within(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                blocks = (
                    np.flatnonzero(np.diff(np.floor(np.cumsum(cost) / max(size // ENTRY, 1)))) + 1
                )
                found = [
                    self._nearest_of(part, k) for part in np.split(np.arange(len(self)), blocks)
                ]
                rows, users, strengths = (
                    np.concatenate(column) for column in zip(*found, strict=True)
                )
                return rows, users, strengths

            size = min(ENTRY * VISITS, memory.budget())
            self._lists[k] = memory.halving(size, within, what="users nearest to newcomers, bytes")
        row, user, strength = (torch.from_numpy(column) for column in self._lists[k])
        return row, user, strength.float()

    def _nearest_of(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shared = (self.watched[rows] @ self.index.viewers).tocsr()  # (block, U)
        shared.sort_indices()
        users, strengths, lengths = [], [], []
        for place, b in enumerate(rows.tolist()):
            here = slice(shared.indptr[place], shared.indptr[place + 1])
            user, count = shared.indices[here], shared.data[here].astype(np.float64)
            if self.exclude is not None and self.exclude[b] >= 0:
                user, count = user[user != self.exclude[b]], count[user != self.exclude[b]]
            mine, theirs = (
                self.watched.indptr[b + 1] - self.watched.indptr[b],
                self.index.user_degree[user],
            )
            strength = count
            if self.index.measure == "cosine":
                strength = count / np.sqrt(float(mine) * theirs)
            elif self.index.measure == "jaccard":
                strength = count / (mine + theirs - count)
            chosen = strongest(strength, k)
            users.append(user[chosen].astype(np.int64))
            strengths.append(strength[chosen])
            lengths.append(len(chosen))
        return np.repeat(rows, lengths), np.concatenate(users), np.concatenate(strengths)


def strongest(strength: np.ndarray, k: int) -> np.ndarray:
    """Returns positions of the k largest numbers, largest first, equal ones by position.

    >>> strongest(np.array([1.0, 3.0, 1.0, 3.0]), 3).tolist()
    [1, 3, 0]
    """
    if len(strength) > k:
        edge = np.partition(strength, len(strength) - k)[len(strength) - k]
        above, level = np.flatnonzero(strength > edge), np.flatnonzero(strength == edge)
        kept = np.sort(np.concatenate([above, level[: k - len(above)]]))
    else:
        kept = np.arange(len(strength))
    return kept[np.argsort(-strength[kept], kind="stable")]


class NewItems:
    """N items known by their modalities alone.

    Args:
        features: `data.Modality` of the N new items by name; a modality may be missing for all.
        index: The training pairs and features.

    Raises:
        DataError: If a name or a width is not the catalogue's, or the modalities have different
            numbers of items.
    """

    def __init__(self, features: Mapping[str, Modality], index: TrainingIndex) -> None:
        for name, modality in features.items():
            if name not in index.modalities:
                raise DataError(unknown("modality", name, index.modalities))
            if modality.width != index.modalities[name].width:
                raise DataError(
                    f"{name} of the new videos has {modality.width} columns, the catalogue's "
                    f"{index.modalities[name].width}: "
                    "make both with the same encoder"
                )
        sizes = {len(modality.present) for modality in features.values()}
        if len(sizes) != 1:
            raise DataError(
                f"the modalities describe {sorted(sizes) or 'no'} new videos: give one row per "
                f"video in each"
            )
        self.index, (self._count,) = index, sizes
        self._found: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        absent = np.zeros(self._count, dtype=bool)
        self.features = {  # in the catalogue's order
            name: features.get(name)
            or Modality(np.zeros((self._count, known.width), np.float32), absent)
            for name, known in index.modalities.items()
        }

    def __len__(self) -> int:
        return self._count

    @property
    def present(self) -> Tensor:
        """Modalities of each item, (N, M) bool."""
        return torch.stack(
            [torch.from_numpy(modality.present) for modality in self.features.values()], dim=1
        )

    def nearest(self, name: str, k: int) -> Adjacency:
        """Returns each item's k nearest trained items in one modality, weight 1/k each, (N, I).

        The row of an item without the modality is zero.
        """
        target, source = self._nearest(name, k)
        weight = 1 / torch.bincount(target, minlength=len(self)).clamp(min=1).float()
        return Adjacency(target, source, (len(self), self.index.num_items), weight=weight[target])

    def resembling(self, table: Tensor, k: int) -> Tensor:
        """Returns the mean row over the k nearest items in each modality that an item has, (N, D).

        An item without any modality gets the mean over all trained items, in a sparse table a zero
        row.

        Args:
            table: Table of the trained items, (I, D).
            k: Nearest items in each modality.
        """
        count = self.present.sum(1, keepdim=True)
        # A table of similarities, in which an item without any modality has an empty row.
        if table.is_sparse:
            ends = [self._nearest(name, k) for name in self.features]
            # of shape (2, entries)
            index = torch.stack([torch.cat([end[side] for end in ends]) for side in (0, 1)])
            share = 1 / torch.bincount(index[0], minlength=len(self)).clamp(min=1).float()
            blend = torch.sparse_coo_tensor(
                index, share[index[0]], (len(self), len(table)), check_invariants=False
            )
            return torch.sparse.mm(blend, table).coalesce()
        found = torch.stack([self.nearest(name, k) @ table for name in self.features]).sum(
            0
        ) / count.clamp(min=1)
        if not bool((count == 0).any()):
            return found
        trained = table[torch.from_numpy(self.index.item_degree > 0)]
        return found.where(count > 0, trained.mean(0) if len(trained) else trained.new_zeros(()))

    def _nearest(self, name: str, k: int) -> tuple[Tensor, Tensor]:
        """Returns new item (N·k,) and trained item (N·k,), nearest first, and keeps them."""
        if (name, k) not in self._found:
            items, known = self.index.trained_features(name)
            modality, count = self.features[name], min(k, len(items))
            rows = torch.from_numpy(np.flatnonzero(modality.present))
            source = items[:0]
            if count and len(rows):
                what = f"nearest of {len(items):,} items, new items"
                place, _ = nearest(
                    unit(torch.from_numpy(modality.values)[rows]), known, count, what, rows=BLOCK
                )
                source = items[place.flatten()]
            self._found[name, k] = rows.repeat_interleave(count), source
        return self._found[name, k]
