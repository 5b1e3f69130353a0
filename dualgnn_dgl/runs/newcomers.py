"""Users and videos that come after training.

Placed in a trained run's tables at once, without training it again.

    door = newcomers.load("runs/dualgnn")
    items, scores = door.recommend([["v0655", "v1898"], ["v42"]], k=10)
    new = door.items({"visual": Modality(values, present)})

A new user's vector comes from what they watched (`Recommender.user_foldin`), a new video's from its
modalities (`Recommender.item_foldin`). A user costs time by the length of the history and the
popularity of its videos, not by the size of the catalogue; only ranking, and finding the videos
that a new one resembles, look at every video.
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
    """Places newcomers in the tables of a trained model; made once, called for every request.

    Parameters
    ----------
    model : trained, on the CPU; it is not changed.
    dataset : what it was trained on.
    where : the data's name in messages.
    modalities : what the model was built with, where its holes had been filled; by default the
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
        self._item_rule: ItemFoldin | None = None  # made when first asked for

    def pairs(
        self, histories: Sequence[Sequence[str]], *, skip_unknown: bool = False
    ) -> Interactions:
        """UserHistories in the user's own ids as pairs (B users, I items).

        A video named twice counts once.

        Raises
        ------
        DataError
            for an unknown id (the nearest ones are named) unless `skip_unknown`, and for a history
            without any known video.
        """
        items = [
            np.unique(self.item_ids.places(history, skip=skip_unknown)) for history in histories
        ]
        for number, (history, known) in enumerate(zip(histories, items, strict=True), start=1):
            if not known.size:
                said = (
                    f"none of its {len(history)} ids is in {self.item_ids.where}"
                    if len(history)
                    else "it is empty"
                )
                raise DataError(
                    f"history {number} says nothing about its user ({said}): name at least one "
                    f"watched micro-video"
                )
        user = np.repeat(np.arange(len(items)), [len(known) for known in items])
        item = np.concatenate(items) if items else np.empty(0, np.int64)
        return Interactions(user, item, len(items), self.dataset.num_items)

    def users(self, histories: Sequence[Sequence[str]], *, skip_unknown: bool = False) -> Tensor:
        """Vectors (B, D) of B new users from the ids of what they watched, in any order.

        See `pairs` for errors.
        """
        return self.place(self.pairs(histories, skip_unknown=skip_unknown))

    def place(self, pairs: Interactions, exclude: np.ndarray | None = None) -> Tensor:
        """Vectors (B, D) of B new users from pairs in internal numbers.

        Parameters
        ----------
        exclude : (B,) training users, or −1, each of whom must not lend to the history of the same
            number (see `UserHistories`).
        """
        with torch.no_grad():
            return self._user_rule(UserHistories(pairs, self.index, exclude))

    def items(self, features: Mapping[str, Modality]) -> Tensor:
        """Vectors (N, D) of N new videos, to stand below `item`.

        The score with a user is the inner product, as for everyone.

        Parameters
        ----------
        features : modality → `data.Modality` (N rows), as wide as the data's or, where `preprocess
            --feature-dim` reduced that, as wide as it was before. What is not present does not
            enter, whatever it holds.

        Raises
        ------
        DataError
            if a name or a width is not the catalogue's, or the catalogue has no features.
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
        """A modality of new videos as wide as the catalogue's.

        One that the catalogue does not know is left to `NewItems`.
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
        """The K best videos for each history, (B, K) internal numbers and scores, as
        `evaluation.top_k` gives them.

        What the history holds is left out unless `include_seen`. See `pairs` for errors.
        """
        pairs = self.pairs(histories, skip_unknown=skip_unknown)
        return self._ranker.top_k(self.place(pairs), k, None if include_seen else pairs)


def load(run: str | Path, data: str | Path | None = None) -> Newcomers:
    """The newcomers' door of a run folder.

    `data` says where its data folder lies now, if not where it was.

    Raises
    ------
    RunError, DataError
        if either folder is missing or damaged, they do not belong together, or another version
        wrote the run.
    """
    loaded = checkpoint.load_run(run)
    folder = checkpoint.locate(loaded.info["data"], loaded.folder) if data is None else str(data)
    return place_in(loaded, datasets.load(folder), str(folder))


def place_in(run: checkpoint.Run, dataset: Dataset, where: str = "the data") -> Newcomers:
    """The same for a run and data that are loaded already.

    Args:
        run: The run.
        dataset: The data it was trained on.
        where: The data's name in messages.

    Raises:
        RunError: If they do not belong together, or another version wrote the run.
    """
    model = checkpoint.restore(run, dataset)
    return Newcomers(
        model, dataset, where, training.features(dataset, build(TrainConfig, run.info["train"]))
    )
