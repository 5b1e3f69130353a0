"""LightGCN: free tables, smoothed over the user–item graph.

Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for
Recommendation", SIGIR 2020.

    e_u^{l+1} = Σ_{i∈N(u)} e_i^l / √(d_u d_i),   e_i^{l+1} likewise          (eq. 3)
    e = mean of e⁰ … e^L                                                      (eq. 4, α = 1/(L+1))
    L = BPR + λ · ½ Σ ‖e⁰‖² / B over the rows of the batch                   (eq. 15)

Differences from the authors' code: Xavier-normal tables instead of N(0, 0.1²). Negatives are drawn
for every training pair; there, pairs are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import LAYERS, WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.graphs.arrivals import UserHistories
from dualgnn_dgl.graphs.heterographs import user_item
from dualgnn_dgl.models.base import Recommender, UserFoldin, shared_item_table, smoothed, table
from dualgnn_dgl.models.losses import PENALTIES, pick, row_penalty


@dataclass(frozen=True)
class Config(Options):
    """Options of LightGCN."""

    width: int = option(64, "embedding width D", low=1, high=WIDTH)
    layers: int = option(3, "propagation steps L", low=0, high=LAYERS)
    l2: float = option(1e-4, "weight of the penalty on a batch's layer-0 rows", low=0)
    penalty: str = option(
        "square", "form of that penalty: squares, or MMRec's lengths", choices=PENALTIES
    )


class LightGCN(Recommender):
    """User table (U, D) and item table (I, D), smoothed over the user–item graph."""

    Config = Config
    # A propagation costs the same for any batch; it leaves its plateau at popularity late
    # (benchmarks/LOG.md).
    TRAIN = {"batch_size": 16384, "lr": 1e-2, "patience": 30}
    SEARCH = {"layers": (1, 2, 3, 4), "l2": (1e-5, 1e-4, 1e-3, 1e-2), "lr": (3e-3, 1e-2, 3e-2)}

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.layers, self.l2, self.form = config.layers, config.l2, config.penalty
        self.to_user = user_item(graph)  # (U, I)
        self.to_item = self.to_user.T  # (I, U)
        self.user = table(graph.num_nodes("user"), config.width)
        self.item = table(graph.num_nodes("item"), config.width)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns e of users (U, D) and items (I, D)."""
        return smoothed(self.to_user, self.to_item, self.user, self.item, self.layers)

    def user_foldin(self) -> UserFoldin:
        """Returns a rule for users unseen in training: û = Σ_{l<L} D_û^-½ H D_i^-½ i^l / (L+1).

        These are the layers 1…L of a trained user. Layer 0 of an unseen user is left out.
        """
        with torch.no_grad():
            shared = shared_item_table(
                self.to_user, self.to_item, self.user, self.item, self.layers
            ).clone()
        return lambda histories: histories.to_user @ shared

    def newcomer_rows(self, name: str, histories: UserHistories) -> Tensor | None:
        """Returns zeros for layer 0 of new users, as in `user_foldin`."""
        return torch.zeros(len(histories), self.user.shape[1]) if name == "user" else None

    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the second part of the loss."""
        triple = pick(self.user, users), pick(self.item, positives), pick(self.item, negatives)
        return self.l2 * row_penalty(self.form, *triple)
