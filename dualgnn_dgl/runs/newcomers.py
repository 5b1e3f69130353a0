"""Folds users and videos that came after training into a trained run, without training it again.

    service = newcomers.load("runs/dualgnn")
    items, scores = service.recommend([["v0655", "v1898"], ["v42"]], k=10)
    new = service.items({"visual": Modality(values, present)})

The vector of a new user comes from the videos they watched (`Recommender.user_foldin`), that of a
new video from its modalities (`Recommender.item_foldin`). The cost of a user depends on the length
of the history and the popularity of its videos, not on the size of the catalogue. Only ranking, and
the search for videos similar to a new one, look at every video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualgnn_dgl import data as datasets
from dualgnn_dgl import training
from dualgnn_dgl.core.ids import Ids
from dualgnn_dgl.core.options import build
from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.data.projection import narrow
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.evaluation.ranking import Ranker
from dualgnn_dgl.graphs.arrivals import NewItems, TrainingIndex, UserHistories
from dualgnn_dgl.models.base import ItemFoldin, Recommender
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.training import TrainConfig


class Newcomers:
    """Folds newcomers into the tables of a trained model; built once, called for every request.

    Args:
        model: trained model, on the CPU; it is not changed.
        dataset: data set of the training.
        where: the data's name in messages.
        modalities: modalities that the model was built with, if they were imputed; by default the
            data's own.
    """

    def __init__(
        self,
        model: Recommender,
        dataset: Dataset,
        where: str = "the data",
        modalities: Mapping[str, Modality] | None = None,
    ) -> None:
        measure = dataset.co_occurrence.measure if dataset.co_occurrence is not None else "count"
        self.dataset, self.model = dataset, model
        self.index = TrainingIndex(
            dataset.train, dataset.modalities if modalities is None else modalities, measure
        )
        self.item_ids = Ids(dataset.item_ids, "micro-video", where)
        with torch.no_grad():
            # of shapes (U, D), (I, D)
            self.user, self.item = (table.detach().clone() for table in model.embed())
            self._user_rule = model.user_foldin()
        self._ranker = Ranker(self.item)
        self._item_rule: ItemFoldin | None = None  # built on first use

    def pairs(
        self, histories: Sequence[Sequence[str]], *, skip_unknown: bool = False
    ) -> Interactions:
        """Converts histories in the user's own ids to pairs (B users, I items).

        A video named twice counts once.

        Raises:
            DataError: for an unknown id (the nearest ones are named) unless `skip_unknown`, and for
                a history without any known video.
        """
        items = [
            np.unique(self.item_ids.places(history, skip=skip_unknown)) for history in histories
        ]
        for number, (history, known) in enumerate(zip(histories, items, strict=True), start=1):
            if not known.size:
                reason = (
                    f"none of its {len(history)} ids is in {self.item_ids.where}"
                    if len(history)
                    else "it is empty"
                )
                raise DataError(
                    f"history {number} has no known video ({reason}): name at least one watched "
                    f"micro-video"
                )
        user = np.repeat(np.arange(len(items)), [len(known) for known in items])
        item = np.concatenate(items) if items else np.empty(0, np.int64)
        return Interactions(user, item, len(items), self.dataset.num_items)

    def users(self, histories: Sequence[Sequence[str]], *, skip_unknown: bool = False) -> Tensor:
        """Returns vectors (B, D) of B new users from the ids of their videos, in any order.

        See `pairs` for errors.
        """
        return self.place(self.pairs(histories, skip_unknown=skip_unknown))

    def place(self, pairs: Interactions, exclude: np.ndarray | None = None) -> Tensor:
        """Returns vectors (B, D) of B new users from pairs in internal numbers.

        Args:
            pairs: pairs (B users, I items).
            exclude: (B,) a training user for each history, or −1. This user is not among the
                neighbours of the history (see `UserHistories`).
        """
        with torch.no_grad():
            return self._user_rule(UserHistories(pairs, self.index, exclude))

    def items(self, features: Mapping[str, Modality]) -> Tensor:
        """Returns vectors (N, D) of N new videos, as further rows of `item`.

        The score with a user is the inner product, as for every video.

        Args:
            features: modality → `data.Modality` (N rows), as wide as the data's or, where
                `preprocess --feature-dim` reduced those, as wide as before. The values of missing
                rows are ignored.

        Raises:
            DataError: if a name or a width is not the catalogue's, or the catalogue has no
                features.
        """
        with torch.no_grad():
            if self._item_rule is None:
                self._item_rule = self.model.item_foldin()
            return self._item_rule(
                NewItems(
                    {name: self._narrow(name, new) for name, new in features.items()}, self.index
                )
            )

    def _narrow(self, name: str, new: Modality) -> Modality:
        """Reduces a modality of new videos to the width of the catalogue's.

        `NewItems` refuses a modality that the catalogue does not have.
        """
        if name not in self.index.modalities:
            return new
        width, map_ = self.index.modalities[name].width, self.dataset.projections.get(name)
        values = narrow(f"{name} of the new videos", name, new.values, new.present, width, map_)
        return Modality(values, new.present, new.imputed)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        include_seen: bool = False,
        skip_unknown: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Returns the K best videos for each history: (B, K) internal numbers and scores.

        They have the form of `evaluation.top_k`. Videos of the history are left out unless
        `include_seen`. See `pairs` for errors.
        """
        pairs = self.pairs(histories, skip_unknown=skip_unknown)
        return self._ranker.top_k(self.place(pairs), k, None if include_seen else pairs)


def load(run: str | Path, data: str | Path | None = None) -> Newcomers:
    """Loads a run folder for folding in newcomers.

    Args:
        run: the run folder.
        data: its data folder, if it is not where it was.

    Raises:
        RunError, DataError: if either folder is missing or damaged, they do not belong together, or
            another version wrote the run.
    """
    loaded = checkpoint.load_run(run)
    folder = checkpoint.locate(loaded.info["data"], loaded.folder) if data is None else str(data)
    return place_in(loaded, datasets.load(folder), str(folder))


def place_in(run: checkpoint.Run, dataset: Dataset, where: str = "the data") -> Newcomers:
    """Prepares a loaded run and its data for folding in newcomers.

    Args:
        run: the run.
        dataset: the data it was trained on.
        where: the data's name in messages.

    Raises:
        RunError: if they do not belong together, or another version wrote the run.
    """
    model = checkpoint.restore(run, dataset)
    return Newcomers(
        model, dataset, where, training.features(dataset, build(TrainConfig, run.info["train"]))
    )
