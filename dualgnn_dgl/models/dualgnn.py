"""DualGNN: a graph convolution for each modality, fused by each user's attention.

Source: Wang, Wei, Yin, Wu, Song, Nie: "DualGNN: Dual Graph Neural Network for Multimedia
Recommendation", IEEE Transactions on Multimedia 25 (2023), doi 10.1109/TMM.2021.3138298.

For each modality m, with a free user preference table P_m (U, D) and item features F_m (I, F_m):

    (1) z_m     = W2 · LeakyReLU(W1 · F_m + b1) + b2      item encoder, (I, D)
    (2) u⁰, i⁰  = norm(P_m), norm(z_m)                    (U, D), (I, D)
        i⁰      = norm(Â_IU Â_UI i⁰)                      of an item that lacks the modality
    (3) u^{l+1} = Σ_{i∈N(u)} i^l / √(d_u d_i)             no weights, no activation
        i^{l+1} = Σ_{u∈N(i)} u^l / √(d_u d_i)
    (4) u_m     = Σ_{l=0..L} u^l                          single-modal module
        i_m     = Σ_{l=0..L} i^l

    (5) α_u     = softmax of a_u over u's modalities      attention of each user, (U, M)
    (6) u       = Σ_m α_{u,m} u_m                         multi-modal module; or concatenation,
        i       = Σ_m i_m                                 maximum, mean
    (7) û       = u + Σ_j ω_uj u_j                        user co-occurrence graph
    (8) score   = û · i
    (9) loss    = BPR + λ [ Σ_m mean P_m[batch]² + mean a² ]      (mean W² with concatenation)

A user's modalities are those of the user's training items; ω comes from shared training items.
Where the paper leaves something open, its code and its best known port decide if they agree.

Departures from the authors' code, which benchmarks/lib/released.py restores except the last:

- α is a softmax in every forward pass. The release takes the softmax of the initial values once,
  and then trains unconstrained numbers.
- Users with fewer than k neighbours share the mass among those they have. The release resamples
  up to k neighbours with replacement in each epoch.
- BPR uses the natural logarithm. The release uses log₂, so its λ acts like λ·ln 2 here.
- All data sets have the encoder, the release has none on TikTok. L is an option, always 2 there.
- Missing modalities are masked after the normalisation, and α covers the others only. The
  imputation in (2) is ours (`missing="neighbours"`; `missing="mask"` leaves i⁰ = 0). In the
  release, a missing item is encoded like a row of zeros.
- The port adds the other modalities' tables to the first one in place before users are fused:
  u = α_{u,1} Σ_m u_m + Σ_{m>1} α_{u,m} u_m.
- The release penalises an item-fusion table that nothing uses, which changes no output, and ranks
  with the tables of the last training batch, which is an accident of timing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import COUNT, LAYERS, WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.graphs.arrivals import NewItems, UserHistories
from dualgnn_dgl.graphs.heterographs import CO_WEIGHTS, observed, user_item, user_user
from dualgnn_dgl.models.base import (
    LOOK_ALIKES,
    Features,
    ItemFoldin,
    Recommender,
    UserFoldin,
    masked_softmax,
    table,
    unit_rows,
    weighted_sum,
)
from dualgnn_dgl.models.losses import pick
from dualgnn_dgl.ops import one_wide_product
from dualgnn_dgl.ops.dense import Linear


@dataclass(frozen=True)
class Config(Options):
    """Options of DualGNN; the defaults are the paper's model, with missing features imputed."""

    REMOVED = {"attention": "softmax", "cooc_pad": "none", "item_fusion": "sum", "log_base": "e"}
    REMOVED |= {"drop_edges": False, "borrow": False, "modality_dropout": 0.0}
    width: int = option(64, "embedding width D", low=1, high=WIDTH)
    layers: int = option(2, "propagation steps L in each modality", low=0, high=LAYERS)
    hidden: int = option(256, "hidden width of the item encoder", low=1, high=WIDTH)
    item_encoder: str = option(
        "mlp",
        "map from features to width D: two layers, or one",
        choices=("mlp", "linear"),
        removed=("none",),
    )
    user_fusion: str = option(
        "sum",
        "fusion of a user's modalities",
        choices=("sum", "concat", "max", "mean"),
        removed=("aliased",),
    )
    user_graph: bool = option(True, "propagation between users who watched the same videos")
    cooc_k: int = option(40, "neighbours a user in the co-occurrence graph", low=1, high=COUNT)
    cooc_weight: str = option("softmax", "weighting of shared items", choices=CO_WEIGHTS)
    missing: str = option(
        "neighbours",
        "initial vector of an item that lacks the modality: mean over co-watched items, or zero",
        choices=("neighbours", "mask"),
        removed=("learned", "zero"),
    )
    l2: float = option(0.1, "weight λ of the penalty on preferences and attention", low=0)


class DualGNN(Recommender):
    """Fuses one graph convolution a modality by attention, then propagates between users."""

    Config = Config
    uses_modalities = True
    # A propagation costs the same for any batch, and few steps are enough (benchmarks/LOG.md).
    TRAIN = {"batch_size": 16384}
    SEARCH = {
        "l2": (1e-3, 1e-2, 1e-1, 1.0),
        "lr": (3e-4, 1e-3, 3e-3),
        "user_fusion": ("sum", "concat", "max"),
        "user_graph": (True, False),
        "cooc_k": (10, 40),
        "layers": (1, 2, 3),
    }
    row_axes = Recommender.row_axes | dict.fromkeys(("preference", "attention", "observed"), "user")
    observed: Tensor

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.features = Features(modalities)
        users, count = graph.num_nodes("user"), len(self.features)
        self.to_user = user_item(graph)  # Â_UI, (U, I)
        self.to_item = self.to_user.T  # Â_IU, (I, U)
        self.encoders = nn.ModuleList(self.encoder(columns) for columns in self.features.widths())
        # P_m, (U, D) each
        self.preference = nn.ParameterList(table(users, config.width) for _ in range(count))
        initial = nn.init.xavier_normal_(torch.empty(users, count, 1)).squeeze(-1)
        if config.user_fusion != "mean" and count > 1:
            self.attention = nn.Parameter(initial)  # a, (U, M)
        if config.user_fusion == "concat":
            self.join = nn.Linear(count * config.width, config.width)  # W
        self.co_occurrence = (
            user_user(graph, config.cooc_k, config.cooc_weight) if config.user_graph else None
        )  # Ω, (U, U)
        present = self.features.present  # (I, M)
        self.complete = present.all(0).tolist()  # for each modality, whether no item lacks it
        self.register_buffer("observed", observed(graph, present), persistent=False)  # (U, M)

    def encoder(self, columns: int) -> nn.Module:
        """Returns the map of equation (1) from `columns` features to width D."""
        width, hidden = self.config.width, self.config.hidden
        if self.config.item_encoder == "linear":
            return Linear(columns, width)
        activation = nn.LeakyReLU(0.01, inplace=True)
        return nn.Sequential(Linear(columns, hidden), activation, Linear(hidden, width))

    def encoded(self, m: int, features: Tensor, present: Tensor | None) -> Tensor:
        """Returns norm(z_m) of features (N, F_m), zero where `present` (N,) is False, (N, D)."""
        return unit_rows(self.encoders[m](features), present)  # (1), (2)

    def start(self, m: int) -> tuple[Tensor, Tensor]:
        """Returns u⁰ (U, D) and i⁰ (I, D) of modality m."""
        present = self.features.present[:, m]  # (I,)
        user = unit_rows(self.preference[m])  # (2)
        item = self.encoded(m, self.features[m], None if self.complete[m] else present)
        if self.config.missing == "neighbours" and not self.complete[m]:
            imputed = unit_rows(self.to_item @ (self.to_user @ item))  # (2), second line
            item = torch.where(present.unsqueeze(1), item, imputed)
        return user, item

    def propagate(
        self, user: Tensor, item: Tensor, layers: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns Σ_{l=0..L} of u^l (U, ·) and i^l (I, ·) from u⁰ and i⁰ of any width."""
        user_sum, item_sum = user, item
        for _ in range(self.config.layers if layers is None else layers):
            user, item = self.to_user @ item, self.to_item @ user  # (3)
            user_sum, item_sum = user_sum + user, item_sum + item  # (4)
        return user_sum, item_sum

    def single_modal(self, m: int, layers: int | None = None) -> tuple[Tensor, Tensor]:
        """Returns u_m (U, D) and i_m (I, D), with another number of layers if one is given."""
        return self.propagate(*self.start(m), layers)

    def single_modals(self) -> list[tuple[Tensor, Tensor]]:
        """Returns `single_modal` of every modality, in one product of width M·D where faster."""
        count, width = len(self.features), self.preference[0].shape[1]
        if count == 1 or not one_wide_product(self.to_user, count * width):
            return [self.single_modal(m) for m in range(count)]
        users, items = zip(*(self.start(m) for m in range(count)), strict=True)
        # (U, M·D), (I, M·D); the bits are those of single products.
        user, item = self.propagate(torch.cat(users, dim=1), torch.cat(items, dim=1))
        return list(zip(user.split(width, dim=1), item.split(width, dim=1), strict=True))

    def active(self, observed: Tensor) -> Tensor:
        """Returns the modalities to fuse, (N, M): those `observed` (N, M), or all if none is."""
        return observed | ~observed.any(-1, keepdim=True)

    def alpha(self, logits: Tensor | None, active: Tensor) -> Tensor:
        """Returns α (N, M) from a (N, M) over the active modalities; 1/M without a."""
        if logits is None:
            share = 1 / len(self.features)
            return torch.full_like(active, share, dtype=self.preference[0].dtype)
        return masked_softmax(logits, active)  # (5)

    def user_attention(self) -> Tensor:
        """Returns α of the trained users, (U, M); rows sum to one."""
        return self.alpha(getattr(self, "attention", None), self.active(self.observed))

    def fuse_users(self, users: list[Tensor], attention: Tensor, active: Tensor) -> Tensor:
        """Returns u (N, D) from M tables u_m (N, D) and α (N, M).

        The maximum is over the active modalities (N, M) only: the zero vector of a missing modality
        must not take part.
        """
        if self.config.user_fusion in ("sum", "mean"):
            return weighted_sum(attention, users)  # (6)
        weighted = attention.unsqueeze(-1) * torch.stack(users, dim=1)  # (N, M, D)
        if self.config.user_fusion == "concat":
            return self.join(weighted.flatten(1))
        return weighted.masked_fill(~active.unsqueeze(-1), -torch.inf).amax(1)

    def fused(self) -> tuple[Tensor, Tensor]:
        """Returns u (U, D) and i (I, D), before users are propagated."""
        users, items = zip(*self.single_modals(), strict=True)
        user = self.fuse_users(list(users), self.user_attention(), self.active(self.observed))
        return user, sum(items[1:], items[0])  # (6), second line

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns û (U, D) and i (I, D)."""
        user, item = self.fused()
        if self.co_occurrence is not None:
            user = user + self.co_occurrence @ user  # (7)
        return user, item

    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the second part of the loss, equation (9)."""
        penalty = sum(pick(preference, users).square().mean() for preference in self.preference)
        if self.config.user_fusion == "concat":
            penalty = penalty + self.join.weight.square().mean()
        elif hasattr(self, "attention"):
            penalty = penalty + self.attention.square().mean()
        return self.config.l2 * penalty

    def user_foldin(self) -> UserFoldin:
        """Returns a rule for û of users unseen in training, from their histories.

        The preference P_m is the sum that the watched items send, and its layers are those of every
        user. a is the weighted mean of the nearest co-occurring users' rows. α covers the
        modalities in the history. Then û follows as in equation (7).
        """
        c, count = self.config, len(self.features)
        with torch.no_grad():
            known = self.fused()[0].clone()  # u, (U, D)
            # Σ_{l<L} i_m^l, (I, D) each
            shared = [self.single_modal(m, max(c.layers - 1, 0))[1] for m in range(count)]
            logits = self.attention.clone() if hasattr(self, "attention") else None  # (U, M)

        @torch.no_grad()
        def rule(histories: UserHistories) -> Tensor:
            sent = [histories.to_user @ items for items in shared]  # Σ_{l=1..L} u_m^l, (B, D) each
            users = [unit_rows(own) + (own if c.layers else 0) for own in sent]
            near = histories.neighbours(c.cooc_k, c.cooc_weight)  # (B, U)
            active = self.active(histories.having(self.features.present))
            attention = self.alpha(None if logits is None else near @ logits, active)
            user = self.fuse_users(users, attention, active)
            return user + near @ known if self.co_occurrence is not None else user

        return rule

    def newcomer_rows(self, name: str, histories: UserHistories) -> Tensor | None:
        """Returns the preference P_m of new users, as in `user_foldin`; None for other tables."""
        part, _, m = name.partition(".")
        if part != "preference":
            return None
        return histories.to_user @ self.single_modal(int(m), max(self.config.layers - 1, 0))[1]

    def item_foldin(self) -> ItemFoldin:
        """Returns a rule for i of items unseen in training, from their features.

        Layer 0 is Σ_m norm(z_m) over the modalities that the item has. Layers 1…L are those of the
        trained items that resemble it.
        """
        count = len(self.features)
        with torch.no_grad():
            own = [self.start(m)[1] for m in range(count)]  # i_m⁰, (I, D) each
            received = sum(
                (self.single_modal(m)[1] - own[m] for m in range(1, count)),
                self.single_modal(0)[1] - own[0],
            )

        @torch.no_grad()
        def rule(items: NewItems) -> Tensor:
            item = items.resembling(received, LOOK_ALIKES)
            for m, modality in enumerate(items.features.values()):
                values, present = map(torch.from_numpy, (modality.values, modality.present))
                item = item + self.encoded(m, values, present)
            return item

        return rule
