"""BM3: learns from watched pairs alone, without negatives.

Source: Zhou, Zhou, Liu, Zeng, Miao, Wang, You, Jiang: "Bootstrap Latent Representations for
Multi-modal Recommendation", WWW 2023.

    u     = mean of layers 0…L of p, q over the user–item graph       LightGCN, (U, D)
    i     = the same + q                                              residual, (I, D)
    f_m   = W_m F_m + b_m                                             of the items with modality m
    x̃     = W_p x + b_p                                               one predictor for all
    ẋ     = dropout(x), without gradient                              target
    C     = 1 − cosine
    loss  = C(ũ, i̇) + C(ĩ, u̇) + μ Σ_m [ C(f̃_m, i̇) + C(f̃_m, ḟ_m) ]     over watched pairs (u, i)
            + λ ½ Σ ‖u, i rows‖² / B
    score = ũ · ĩ

A missing modality: the item has no part in the two terms of the modality; their mean is over the
pairs whose item has it.

Differences from the authors' code:

- Any number of modalities; there, image and text.
- Dropout is applied to the rows of the batch, a new mask for every pair. There, it is applied to
  the whole tables once a batch. The masks come from a seed that `new_epoch` draws from its
  generator, and from the number of the batch since: a resumed epoch has the same masks.
- Features are not trained. There, they are (benchmarks/lib/released.py restores this).
- λ weighs half squared lengths of the batch's rows of u and i, the paper's form. There, it weighs
  the lengths of the whole tables, ‖u‖_F + ‖i‖_F, over the number of items (`penalty="norm"`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import LAYERS, WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.graphs.heterographs import user_item
from dualgnn_dgl.models.base import (
    Features,
    Recommender,
    UserFoldin,
    shared_item_table,
    smoothed,
    table,
)
from dualgnn_dgl.models.losses import PENALTIES, pick, row_penalty
from dualgnn_dgl.ops.dense import Linear


@dataclass(frozen=True)
class Config(Options):
    """Options of BM3."""

    REMOVED = {"train_features": False}
    width: int = option(64, "embedding width D", low=1, high=WIDTH)
    layers: int = option(2, "propagation steps L", low=0, high=LAYERS)
    dropout: float = option(0.3, "share of a target's entries set to zero", low=0, high=0.999)
    feature_weight: float = option(2.0, "weight μ of the terms with features", low=0)
    l2: float = option(1e-4, "weight λ of the penalty on u and i", low=0)
    penalty: str = option(
        "square",
        "form of that penalty: squares of rows, or lengths of whole tables",
        choices=PENALTIES,
    )


class BM3(Recommender):
    """LightGCN's tables behind one predictor, which is trained to predict their own targets."""

    Config = Config
    uses_modalities = True
    # It falls from an early peak at popularity before it learns (benchmarks/LOG.md).
    TRAIN = {"batch_size": 8192, "lr": 3e-3, "patience": 50}
    SEARCH = {
        "layers": (1, 2),
        "dropout": (0.3, 0.5),
        "l2": (1e-4, 1e-3, 1e-2, 1e-1),
        "feature_weight": (0.5, 2.0),
        "lr": (1e-3, 3e-3, 1e-2),
    }

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.to_user = user_item(graph)  # (U, I)
        self.to_item = self.to_user.T  # (I, U)
        self.user = table(graph.num_nodes("user"), config.width)  # p
        self.item = table(graph.num_nodes("item"), config.width)  # q
        self.predictor = nn.Linear(config.width, config.width)
        nn.init.xavier_normal_(self.predictor.weight)
        self.features = Features(modalities) if config.feature_weight > 0 else None
        if self.features is not None:
            widths = self.features.widths()
            self.project = nn.ModuleList(Linear(columns, config.width) for columns in widths)
        self._seed, self._batches = 0, 0

    def new_epoch(self, generator: torch.Generator) -> None:
        """Draws the seed of the epoch's dropout masks."""
        self._seed, self._batches = int(torch.randint(2**62, (), generator=generator)), 0

    def resume_epoch(self, batches: int) -> None:
        """Continues the masks after a number of batches."""
        self._batches = batches

    def tables(self) -> tuple[Tensor, Tensor]:
        """Returns u (U, D) and i (I, D), before the predictor."""
        user, item = smoothed(self.to_user, self.to_item, self.user, self.item, self.config.layers)
        return user, item + self.item

    def raw(self, m: int) -> Tensor:
        """Returns F_m (I, F_m)."""
        return self.features[m]

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns ũ (U, D) and ĩ (I, D)."""
        user, item = self.tables()
        return self.predictor(user), self.predictor(item)

    def user_foldin(self) -> UserFoldin:
        """Returns a rule for users unseen in training: layers 1…L from their histories.

        The predictor follows, as for every user. Layer 0 of an unseen user is unknown and left out.
        """
        with torch.no_grad():
            shared = shared_item_table(
                self.to_user, self.to_item, self.user, self.item, self.config.layers
            ).clone()
        weight, bias = (
            parameter.detach().clone() for parameter in (self.predictor.weight, self.predictor.bias)
        )
        return lambda histories: functional.linear(histories.to_user @ shared, weight, bias)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the loss of B pairs (user, watched item), (); the negatives are not read."""
        c = self.config
        draw = torch.Generator(users.device).manual_seed(self._seed + self._batches)
        self._batches += 1
        all_users, all_items = self.tables()
        user, item = pick(all_users, users), pick(all_items, positives)  # (B, D) each
        user_target, item_target = blurred(user, c.dropout, draw), blurred(item, c.dropout, draw)
        total = (
            apart(self.predictor(user), item_target).mean()
            + apart(self.predictor(item), user_target).mean()
        )
        if self.features is not None:
            for m, project in enumerate(self.project):
                # f_m of shape (B, D)
                feature = project(pick(self.raw(m), positives))
                predicted, target = self.predictor(feature), blurred(feature, c.dropout, draw)
                present = self.features.present[positives, m]  # (B,)
                each = (apart(predicted, item_target) + apart(predicted, target)) * present
                total = total + c.feature_weight * each.sum() / present.sum().clamp(min=1)
        # The penalty is divided by the rows of the first table.
        rows = (user, item) if c.penalty == "square" else (all_items, all_users)
        return total + c.l2 * row_penalty(c.penalty, *rows)


def blurred(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Returns a target: x with a share of its entries at zero, without gradient.

    The rescaling of dropout is left out, because it does not change a cosine.
    """
    return x.detach() * (
        torch.rand(x.shape, dtype=torch.float32, device=x.device, generator=generator) >= share
    )


def apart(x: Tensor, y: Tensor) -> Tensor:
    """Returns one minus the cosine of the rows of two tables, (B, D) each, (B,)."""
    return 1 - functional.cosine_similarity(x, y, dim=-1, eps=1e-12)
