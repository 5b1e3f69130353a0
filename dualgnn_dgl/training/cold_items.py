"""Measures a model on items without training pairs, from their features alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dualgnn_dgl.data import Interactions, Modality
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.evaluation import Evaluation, Evaluator
from dualgnn_dgl.graphs.arrivals import NewItems, TrainingIndex
from dualgnn_dgl.models.base import Recommender


def all_cold(train: Interactions, held_out: Interactions) -> bool:
    """Returns whether no held-out item was watched in training (`--split cold-items`).

    It is False if there are no held-out pairs.
    """
    watched = np.bincount(train.item, minlength=train.num_items) > 0
    return len(held_out) > 0 and not bool(watched[held_out.item].any())


class ColdItems:
    """Measures a model on the items without training pairs, from their features alone.

    The lists rank only these items. With `preprocess --split cold-items` they are the held-out
    ones; with other splits, held-out pairs of other items are left out.

    Args:
        train: Training pairs.
        modalities: `data.Modality` of the items by name, as the model was built with.
        truth: Held-out pairs.
        seen: Pairs to leave out of the lists, such as `valid` if `truth` is `test`.
        ks: List lengths, cut to the number of these items.

    Raises:
        DataError: If the data has no features, or no held-out pair of such an item.
    """

    def __init__(
        self,
        train: Interactions,
        modalities: Mapping[str, Modality],
        truth: Interactions,
        seen: Sequence[Interactions] = (),
        ks: Iterable[int] = (10, 20),
    ) -> None:
        index = TrainingIndex(train, modalities)
        self.items = np.flatnonzero(index.item_degree == 0)  # (N,)
        if not self.items.size:
            raise DataError(
                "every micro-video was watched in training, none is new: prepare the data with "
                "--split cold-items"
            )
        new = np.full(train.num_items, -1)
        new[self.items] = np.arange(self.items.size)

        def part(pairs: Interactions) -> Interactions:
            rows = new[pairs.item] >= 0
            return Interactions(
                pairs.user[rows], new[pairs.item[rows]], pairs.num_users, self.items.size
            )

        self.videos = NewItems(
            {name: modality.take(self.items) for name, modality in modalities.items()}, index
        )
        self.evaluator = Evaluator(
            part(truth), [part(pairs) for pairs in seen], [min(k, self.items.size) for k in ks]
        )

    def tables(self, model: Recommender) -> tuple[Tensor, Tensor]:
        """Returns users (U, D) of a model trained on the data, and these items (N, D)."""
        with torch.no_grad():
            if any(parameter.is_cuda for parameter in model.parameters()):
                model = copy.deepcopy(model).to("cpu")
            return model.embed()[0], model.item_foldin()(self.videos)

    def __call__(self, model: Recommender) -> Evaluation:
        """Returns the metrics of a model trained on the data."""
        return self.evaluator(*self.tables(model))
