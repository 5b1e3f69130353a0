"""Applies a strategy to the data: imputes features, or leaves out the incomplete items."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dualgnn_dgl import training
from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.evaluation import slices
from dualgnn_dgl.experiments.robustness.plan import NO_FEATURES
from dualgnn_dgl.graphs import heterographs
from dualgnn_dgl.modality import impute

DEMOTED = -1e6  # added to the score of an item that left the catalogue


def complete(dataset: Dataset) -> np.ndarray:
    """Returns the items (I,) that have every modality themselves."""
    return slices.complete(dataset.modalities.values(), dataset.num_items)


def filled(holed: Dataset, strategy: str) -> Dataset:
    """Returns the data set as the strategy shows it to the model."""
    return (
        holed if strategy == NO_FEATURES or strategy.startswith("mask") else impute(holed, strategy)
    )


def reduced(holed: Dataset, kept: np.ndarray) -> training.Inputs:
    """Returns the inputs of a training on the kept items (I,) alone; all users stay.

    Raises:
        DataError: if no training pair is left.
    """
    place = np.cumsum(kept) - 1  # (I,) new number of a kept item

    def part(pairs: Interactions) -> Interactions:
        rows = kept[pairs.item]
        return Interactions(
            pairs.user[rows], place[pairs.item[rows]], pairs.num_users, int(kept.sum())
        )

    if not kept[holed.train.item].any():
        raise DataError(
            "no item that has every modality was watched in training: use another strategy"
        )
    modalities = {
        name: Modality(m.values[kept], m.present[kept], m.imputed[kept])
        for name, m in holed.modalities.items()
    }
    dataset = Dataset(
        part(holed.train),
        part(holed.valid),
        part(holed.test),
        modalities,
        holed.user_ids,
        holed.item_ids[kept],
    )
    return training.Inputs(dataset, heterographs.heterograph(dataset), modalities)


def demote(user: Tensor, item: Tensor, kept: np.ndarray) -> tuple[Tensor, Tensor]:
    """Adds a column to the tables that ranks every item (I,) that is not kept behind all others.

    `item` has a row for every item, or for the kept ones alone.
    """
    stays = torch.from_numpy(kept).to(item.device)
    full = item.new_zeros(len(kept), item.shape[1] + 1)
    full[stays, :-1] = item if len(item) < len(kept) else item[stays]
    full[~stays, -1] = DEMOTED
    return torch.cat([user, user.new_ones(len(user), 1)], dim=1), full
