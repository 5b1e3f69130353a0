"""How good a model is for videos that nobody watched in training, each placed by its modalities
alone, as a new one would be.
"""

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
    """Whether there are held-out pairs, and none of their videos was watched in training (`--split
    cold-items`).
    """
    watched = np.bincount(train.item, minlength=train.num_items) > 0
    return len(held_out) > 0 and not bool(watched[held_out.item].any())


class ColdItems:
    """Measures a model on the videos that nobody watched in training, each placed by its modalities
    alone.

    Only these videos stand in the lists: every one that no training pair holds. With `preprocess
    --split cold-items` they are the held-out ones; elsewhere, held-out pairs of other videos are
    left out.

    Parameters
    ----------
    train : training pairs.
    modalities : modality → `data.Modality` of the items, as the model was built with.
    truth : held-out pairs.
    seen : pairs to leave out of the lists, such as `valid` when `truth` is `test`.
    ks : list lengths, cut to the number of these videos.

    Raises
    ------
    DataError
        if the data has no features, or no held-out pair of such a video.
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
        """User (U, D) of a model trained on the data, and these videos (N, D)."""
        with torch.no_grad():
            if any(parameter.is_cuda for parameter in model.parameters()):
                model = copy.deepcopy(model).to("cpu")
            return model.embed()[0], model.item_foldin()(self.videos)

    def __call__(self, model: Recommender) -> Evaluation:
        """The figures of a model trained on the data."""
        return self.evaluator(*self.tables(model))
