"""Samples training triples (user, watched item, unwatched item) on the device, vectorised.

A negative is uniform over the items that its user has not watched in training, exactly and without
rejection: draw a rank among the unwatched items, then skip the watched ones below it with one
binary search.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dualgnn_dgl.data import Interactions
from dualgnn_dgl.errors import DataError


class TripleSampler:
    """Yields every training pair once an epoch, in random order, each with a new negative.

    Users who have watched every item have no negative and are left out.

    Args:
        train: Training pairs.
        device: Device of the triples.

    Raises:
        DataError: If no training pair is left.
    """

    def __init__(self, train: Interactions, device: torch.device | str = "cpu") -> None:
        order = train.keys().argsort(kind="stable")
        user, item = torch.from_numpy(train.user[order]), torch.from_numpy(train.item[order])
        degree = torch.bincount(user, minlength=train.num_users)
        start = degree.cumsum(0) - degree  # first pair of each user in sorted order, (U,)
        place = torch.arange(len(user)) - start[user]  # number of watched items below, (E,)
        usable = degree[user] < train.num_items
        if not bool(usable.any()):
            raise DataError(
                f"nothing to learn from: {len(train)} training pairs, {train.num_items} items, "
                f"and no user with an unwatched item"
            )
        self.num_items = train.num_items
        self.user, self.item = user[usable].to(device), item[usable].to(device)
        self._free = (train.num_items - degree).to(device)  # unwatched items of each user, (U,)
        self._start = start.to(device)
        # unwatched items below the watched one, as one sorted key for all users, (E,)
        self._below = (user * (train.num_items + 1) + item - place).to(device)

    def __len__(self) -> int:
        """Returns the number of pairs an epoch."""
        return int(self.user.numel())

    def negatives(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """Returns one unwatched item for each user, uniform, (B,) → (B,) int64."""
        free = self._free[users]
        draw = torch.rand(
            users.shape, dtype=torch.float64, device=users.device, generator=generator
        )
        rank = torch.minimum((draw * free).long(), free - 1)
        passed = torch.searchsorted(self._below, users * (self.num_items + 1) + rank, right=True)
        return rank + passed - self._start[users]

    def epoch(
        self, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields batches of (users, positives, negatives), (B,) int64 each; the last is a rest."""
        order = torch.randperm(len(self), device=self.user.device, generator=generator)
        users, positives = self.user[order], self.item[order]
        negatives = self.negatives(users, generator)
        yield from zip(
            users.split(batch_size),
            positives.split(batch_size),
            negatives.split(batch_size),
            strict=True,
        )
