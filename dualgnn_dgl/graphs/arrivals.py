"""What a model is told about users and videos that came after training, so that it can place them
without being trained again.

`UserHistories`: B new users, each known by the videos they watched. `NewItems`: N new videos, each
known by its modalities. Both look at the training pairs and features only through what a model asks
of them: an `Adjacency` from the trained items or users to the newcomers, which costs time by the
newcomers, not by the catalogue.
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

# entries of one block's product of histories and viewers at most, and bytes each
VISITS, ENTRY = 2**24, 16
BLOCK = 1024  # new videos compared together at most


class TrainingIndex:
    """The training pairs and features as newcomers meet them, made once.

    Who watched which video, and what it looks like.

    Parameters
    ----------
    train : training pairs, U users and I items.
    modalities : modality → `data.Modality` of the I items.
    measure : 'count', 'cosine' or 'jaccard', by which the data's co-occurrence lists rank.
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
        """Trained items that have the modality, (P,) int64, and their features at length one, (P,
        F).

        Trained means: watched in training. An item that nobody watched has nothing to lend.
        """
        if name not in self._unit:
            modality = self.modalities[name]
            items = torch.from_numpy(np.flatnonzero(modality.present & (self.item_degree > 0)))
            self._unit[name] = items, unit(torch.from_numpy(modality.values)[items])
        return self._unit[name]


class UserHistories:
    """B users known by their histories alone.

    Parameters
    ----------
    pairs : (B users, I items); any order of the pairs gives the same bits everywhere.
    index : the training pairs.
    exclude : (B,) int64, optional
        for each history one training user who must not count as a neighbour (the user in person, in
        a test); −1 for none.

    Raises
    ------
    DataError
        if the items are not those of the training pairs.
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
        """D_b^-½ H D_i^-½, shape (B, I): what a trained user's row of the normalised adjacency is,
        degrees d_i as in training.
        """
        row, column = self.edges()
        left = torch.from_numpy(np.diff(self.watched.indptr)).float().clamp(min=1).rsqrt()
        right = torch.from_numpy(self.index.item_degree).float().clamp(min=1).rsqrt()
        return Adjacency(row, column, self.watched.shape, left=left, right=right)

    def edges(self) -> tuple[Tensor, Tensor]:
        """History b (E,) and item (E,) of every pair, both ascending."""
        lengths = torch.from_numpy(np.diff(self.watched.indptr)).long()
        return torch.repeat_interleave(lengths), torch.from_numpy(self.watched.indices).long()

    def having(self, present: Tensor) -> Tensor:
        """Which modalities each history's videos have, (B, M) bool, where `present` (I, M) says it
        of the videos.
        """
        row, item = self.edges()
        return torch.zeros(len(self), present.shape[1]).index_add(0, row, present[item].float()) > 0

    def neighbours(self, k: int, weight: str = "softmax") -> Adjacency:
        """The k training users who share most videos with each history, row-stochastic, (B, U).

        Weights as `graph.user_user`.
        """
        row, user, strength = self._nearest(k)
        value = neighbour_weights(strength, row, len(self), weight)
        return Adjacency(row, user, (len(self), self.index.num_users), weight=value)

    def _nearest(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """History (N,), training user (N,), strength (N,).

        Strongest first, equal ones by index, as in `cooccurrence`.
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
    """Positions of the k largest, largest first, equal ones by position.

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
    """N videos known by their modalities alone.

    Parameters
    ----------
    features : modality → `data.Modality` of the N new videos; what is absent is zero. A modality
        may be left out for all.
    index : the catalogue they come into.

    Raises
    ------
    DataError
        if a name or a width is not the catalogue's, or the modalities count different numbers of
        videos.
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
        """Which modalities each video has, (N, M) bool."""
        return torch.stack(
            [torch.from_numpy(modality.present) for modality in self.features.values()], dim=1
        )

    def nearest(self, name: str, k: int) -> Adjacency:
        """Each video's k nearest trained ones by cosine in one modality, weight 1/k each, (N, I).

        A zero row where absent.
        """
        target, source = self._nearest(name, k)
        weight = 1 / torch.bincount(target, minlength=len(self)).clamp(min=1).float()
        return Adjacency(target, source, (len(self), self.index.num_items), weight=weight[target])

    def resembling(self, table: Tensor, k: int) -> Tensor:
        """Mean row of `table` (I, D) over the k nearest in each modality that a video has, (N, D).

        A video without any modality gets the mean over all trained videos: nothing tells it from
        another.
        """
        count = self.present.sum(1, keepdim=True)
        # (a table of similarities; there a video without any modality has an empty row)
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
        """New video (N·k,) and trained video (N·k,), nearest first; found once."""
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
