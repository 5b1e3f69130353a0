"""MostPop: ranks items by their number of training users, the same for every user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import Options
from dualgnn_dgl.data import Modality
from dualgnn_dgl.models.base import Recommender


@dataclass(frozen=True)
class Config(Options):
    """MostPop has no options."""


class MostPop(Recommender):
    """score(u, i) = number of training users who watched i.

    As two tables: user (U, 1) of ones, item (I, 1) of counts.
    """

    Config = Config
    trainable = False

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.register_buffer("user", torch.ones(graph.num_nodes("user"), 1))
        self.register_buffer("item", graph.in_degrees(etype="interacts").float().unsqueeze(1))

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns ones (U, 1) and counts (I, 1)."""
        return self.user, self.item
