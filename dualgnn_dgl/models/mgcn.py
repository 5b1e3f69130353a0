"""MGCN: modality views purified by behaviour, propagated over item graphs, fused by attention.

Source: Yu, Tan, Lu, Bao: "Multi-View Graph Convolutional Network for Multimedia Recommendation",
ACM MM 2023.

    g_m      = q ⊙ σ(W_b,m (W_m F_m + b_m) + b_b,m)           behaviour-guided purifier, (I, D)
    i_m      = S_m g_m                                        (I, D)
    u_m      = D_u^-½ R D_i^-½ i_m                            (U, D)
    u_b, i_b = mean of layers 0…L of p, q over R              behaviour view (LightGCN)

S_m joins each item to the k nearest items in modality m by cosine, itself among them, under
D^-½ · D^-½. R is the user–item graph. Then for users and items x alike:

    α        = softmax over modalities of w · tanh(W_a x_m + b_a)     behaviour-aware fuser, (·, M)
    x_c      = Σ_m α_m x_m                                            common to the modalities
    x_s      = [ x_c + Σ_m (x_m − x_c) ⊙ σ(W_p,m x_b + b_p,m) ] / (M + 1)         side view
    x        = x_b + x_s
    score    = u · i
    loss     = BPR + λ ½ Σ‖u, i⁺, i⁻‖² / B + μ [ InfoNCE(u_s, u_b) + InfoNCE(i⁺_s, i⁺_b) ]

InfoNCE compares the rows of the batch; a row that is in the batch twice competes with itself.

A missing modality: the item's features open no gate, because it neither receives nor sends in S_m.
The softmax and the sum run over the modalities of the item, and M is their number. A user has the
modalities of the user's items. A row without any modality has no side view and no part in InfoNCE.

Differences from the authors' code:

- Any number of modalities from one on; there, image and text or nothing. With one, x_c is its view.
- The learning rate is constant; there it decays by 0.96 every 50 epochs.
- Features are not trained. Where the paper leaves it open, λ weighs the rows that BPR compares.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import COUNT, LAYERS, WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.graphs.arrivals import UserHistories
from dualgnn_dgl.graphs.heterographs import item_item, observed, user_item
from dualgnn_dgl.models.base import (
    Features,
    Recommender,
    UserFoldin,
    masked_softmax,
    shared_item_table,
    smoothed,
    table,
    unit_rows,
    weighted_sum,
)
from dualgnn_dgl.models.losses import bpr, pick, row_penalty
from dualgnn_dgl.ops.dense import Linear, linear


@dataclass(frozen=True)
class Config(Options):
    """Options of MGCN."""

    width: int = option(64, "embedding width D", low=1, high=WIDTH)
    layers: int = option(2, "propagation steps L of the behaviour view", low=0, high=LAYERS)
    item_layers: int = option(
        1, "propagation steps over each modality's item graph", low=1, high=LAYERS
    )
    item_k: int = option(10, "nearest videos in each modality, itself included", low=1, high=COUNT)
    contrast: float = option(1e-2, "weight μ of the contrast between side and behaviour", low=0)
    temperature: float = option(0.2, "temperature of InfoNCE", low=1e-3)
    l2: float = option(1e-4, "weight λ of the penalty on a batch's final rows", low=0)


class MGCN(Recommender):
    """A behaviour view and one view for each modality, fused by what the modalities share."""

    Config = Config
    uses_modalities = True
    SEARCH = {
        "contrast": (1e-3, 1e-2, 1e-1),
        "layers": (2, 3),
        "l2": (1e-5, 1e-4, 1e-3, 1e-2),
        "lr": (5e-4, 1e-3, 3e-3),
    }
    row_axes = Recommender.row_axes | {"observed": "user"}

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.features = Features(modalities)
        users, items, width = graph.num_nodes("user"), graph.num_nodes("item"), config.width
        widths = self.features.widths()
        self.to_user = user_item(graph)  # (U, I)
        self.to_item = self.to_user.T  # (I, U)
        self.similar = nn.ModuleList(
            item_item(modality, config.item_k, weight="cosine", own=True)
            for modality in modalities.values()
        )  # S_m, (I, I)
        self.user, self.item = table(users, width), table(items, width)  # p, q
        self.project = nn.ModuleList(Linear(columns, width) for columns in widths)
        self.gate = nn.ModuleList(Linear(width, width) for _ in widths)
        if len(widths) > 1:  # One modality needs no weight and has no specific part.
            self.attend = nn.Sequential(
                Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False)
            )
            self.prefer = nn.ModuleList(Linear(width, width) for _ in widths)
        # of shape (U, M)
        self.register_buffer("observed", observed(graph, self.features.present), persistent=False)

    def behaviour(self) -> tuple[Tensor, Tensor]:
        """Returns u_b (U, D) and i_b (I, D)."""
        return smoothed(self.to_user, self.to_item, self.user, self.item, self.config.layers)

    def modal(self, m: int) -> tuple[Tensor, Tensor]:
        """Returns u_m (U, D) and i_m (I, D)."""
        item = self.item * self.gate[m](self.project[m](self.features[m])).sigmoid()  # g_m
        for _ in range(self.config.item_layers):
            item = self.similar[m] @ item
        return self.to_user @ item, item

    def side(self, views: list[Tensor], behaviour: Tensor, mask: Tensor) -> Tensor:
        """Returns the side view x_s, (N, D).

        Args:
            views: x_m of M modalities, (N, D) each.
            behaviour: x_b, (N, D).
            mask: Modalities of each row, (N, M) bool.
        """
        if len(views) == 1:
            return views[0] / 2
        scores = torch.cat([self.attend(view) for view in views], dim=1)  # (N, M)
        common = weighted_sum(masked_softmax(scores, mask), views)  # x_c, (N, D)
        total = common
        for m, view in enumerate(views):
            total = (
                total + mask[:, m : m + 1] * (view - common) * self.prefer[m](behaviour).sigmoid()
            )
        return total / (mask.sum(1, keepdim=True) + 1)

    def views(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Returns the behaviour view (u_b, i_b) and the side view (u_s, i_s)."""
        behaviour = self.behaviour()
        users, items = zip(*(self.modal(m) for m in range(len(self.features))), strict=True)
        user_side = self.side(list(users), behaviour[0], self.observed)
        return behaviour, (user_side, self.side(list(items), behaviour[1], self.features.present))

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns u (U, D) and i (I, D)."""
        (user, item), (user_side, item_side) = self.views()
        return user + user_side, item + item_side

    def user_foldin(self) -> UserFoldin:
        """Returns a rule for u of users unseen in training, from their histories.

        Layers 1…L of the behaviour view, u_m and the fuser are those of every user. Layer 0 of an
        unseen user is unknown and left out.
        """
        twin = copy.deepcopy(self)  # The rule must not change when the model is trained on.
        with torch.no_grad():
            shared = shared_item_table(
                twin.to_user, twin.to_item, twin.user, twin.item, twin.config.layers
            )
            items = [twin.modal(m)[1] for m in range(len(twin.features))]  # i_m, (I, D) each

        @torch.no_grad()
        def rule(histories: UserHistories) -> Tensor:
            behaviour = histories.to_user @ shared  # u_b, (B, D)
            views = [histories.to_user @ item for item in items]  # u_m
            return behaviour + twin.side(views, behaviour, histories.having(twin.features.present))

        return rule

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the loss of B triples (user, watched item, unwatched item), ()."""
        (user, item), (user_side, item_side) = self.views()
        all_users, all_items = user + user_side, item + item_side
        # (B, D) each
        rows = pick(all_users, users), pick(all_items, positives), pick(all_items, negatives)
        total = bpr((rows[0] * (rows[1] - rows[2])).sum(-1)) + self.config.l2 * row_penalty(
            "square", *rows
        )
        if self.config.contrast > 0:
            for side, behaviour, mask, chosen in (
                (user_side, user, self.observed, users),
                (item_side, item, self.features.present, positives),
            ):
                pair = pick(side, chosen), pick(behaviour, chosen)
                total = total + self.config.contrast * info_nce(
                    *pair, self.config.temperature, mask[chosen].any(1)
                )
        return total


def info_nce(x: Tensor, y: Tensor, temperature: float, counted: Tensor) -> Tensor:
    """Returns the mean over the counted rows of −log of y's share among all rows of y, ().

    The share is that of the cosine with x. The result is zero if no row is counted. Source: van den
    Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018.

    Args:
        x: Rows, (B, D).
        y: Rows that belong to them, (B, D).
        temperature: Divisor of the cosines.
        counted: Rows that the mean counts, (B,) bool.
    """
    cosines = linear(unit_rows(x) / temperature, unit_rows(y))  # (B, B), over the temperature
    each = functional.cross_entropy(
        cosines, torch.arange(len(x), device=x.device), reduction="none"
    )
    return (each * counted).sum() / counted.sum().clamp(min=1)
