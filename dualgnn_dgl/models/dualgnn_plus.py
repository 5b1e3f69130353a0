"""DualGNN-Plus: identities by behaviour, modalities by similarity, fused by attention.

Source: none as a whole, it is ours. Its parts come from DualGNN (Wang et al., TMM 2023), LightGCN
(He et al., SIGIR 2020), FREEDOM (Zhou & Shen, ACM MM 2023) and sampled softmax (Wu et al., TOIS
2023).

DualGNN has no item identities, and its modality channels dominate any other channel that is added
to them (benchmarks/LOG.md). Here a behaviour channel has the identities, the modalities enter by
the similarity of items, and each user's attention weighs the modalities:

    (1) u_b, i_b = mean of layers 0…L of p, q over R          behaviour channel, (U, D), (I, D)
    (2) i_m      = S_m q                                      k nearest items in modality m, (I, D)
        u_m      = D_u^-½ R D_i^-½ i_m                        (U, D)
    (3) α_u      = softmax of a_u over u's modalities         attention of each user, (U, M)
    (4) u        = u_b + Σ_m α_{u,m} u_m
        i        = i_b + γ · mean_m i_m
    (5) û        = u + β · Σ_j ω_uj u_j                       user co-occurrence graph
    (6) score    = cosine of û and i + b_i
    (7) loss     = sampled softmax over shared negatives at temperature τ
                   + λ ½ Σ‖p, q rows‖² / B

R is the user–item graph of the training pairs. While a batch is trained, its own pairs are left out
of R (`hide`; degrees stay), at most a quarter of all. Otherwise u already contains the item that it
should find, which never happens at test. b (I), the popularity of an item among all users (`bias`),
is one more column of i, against a column of ones in û; cosines alone can hardly express it.

A missing modality is a zero row of S_m: the item neither receives nor sends there. A user whose
items all lack a modality has no attention on it. The model also works without any modality.

Departures from these sources: DualGNN's preference tables and feature encoders are left out.
FREEDOM mixes its item graphs by fixed weights and trains on a pruned graph; here users weigh them,
and the graph is whole. The softmax runs over cosines of the final vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import COUNT, LAYERS, WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.graphs.arrivals import NewItems, UserHistories
from dualgnn_dgl.graphs.heterographs import CO_WEIGHTS, item_item, observed, user_item, user_user
from dualgnn_dgl.models.base import (
    ItemFoldin,
    Recommender,
    UserFoldin,
    masked_softmax,
    shared_item_table,
    smoothed,
    table,
    unit_rows,
)
from dualgnn_dgl.models.losses import pick, row_penalty, sampled_softmax
from dualgnn_dgl.ops import Adjacency


@dataclass(frozen=True)
class Config(Options):
    """Options of DualGNN-Plus; γ, β or k of zero leave that part out."""

    REMOVED = {"attention": "free"}
    width: int = option(128, "embedding width D", low=1, high=WIDTH)
    layers: int = option(4, "propagation steps L of the behaviour channel", low=0, high=LAYERS)
    item_k: int = option(10, "nearest videos in each modality", low=1, high=COUNT)
    item_weight: float = option(1.0, "weight γ of the modalities on the item side", low=0)
    user_weight: float = option(1.0, "weight of the attended modalities on the user side", low=0)
    cooc_k: int = option(20, "neighbours a user in the co-occurrence graph", low=1, high=COUNT)
    cooc_weight: str = option("proportional", "weighting of shared items", choices=CO_WEIGHTS)
    cooc_share: float = option(0.0, "weight β of the user co-occurrence hop", low=0)
    bias: bool = option(True, "bias b of each video, added to the cosines")
    hide: bool = option(True, "leave a batch's own pairs out of the graph while they are trained")
    negatives: int = option(512, "shared negatives a batch", low=1, high=COUNT)
    temperature: float = option(0.15, "temperature τ of the softmax over cosines", low=1e-3)
    l2: float = option(1e-4, "weight λ of the penalty on a batch's rows of p and q", low=0)


HIDDEN = 0.25  # largest share of all pairs that a batch leaves out of the graph
FOLD_STEPS, FOLD_LR, FOLD_NEGATIVES = 20, 0.02, 1024  # training of a new user's row p


class DualGNNPlus(Recommender):
    """LightGCN's tables with attended modalities of similar items, and a user–user hop."""

    Config = Config
    uses_modalities = True
    needs_modalities = False
    SEARCH = {
        "width": (64, 128, 256),
        "layers": (3, 4),
        "bias": (True, False),
        "item_weight": (0.0, 0.5, 1.0),
        "user_weight": (0.0, 0.5, 1.0),
        "cooc_share": (0.0, 0.3),
        "temperature": (0.1, 0.15, 0.2),
        "lr": (5e-4, 1e-3, 2e-3),
    }
    row_axes = Recommender.row_axes | {
        "attention": "user",
        "observed": "user",
        "bias": "item",
        "present": "item",
    }

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        users, items = graph.num_nodes("user"), graph.num_nodes("item")
        self.to_user = user_item(graph)  # (U, I)
        self.to_item = self.to_user.T  # (I, U)
        # S_m, (I, I) each
        self.similar = nn.ModuleList(
            item_item(modality, config.item_k) for modality in modalities.values()
        )
        self.user, self.item = table(users, config.width), table(items, config.width)  # p, q
        if config.bias:
            self.bias = nn.Parameter(torch.zeros(items, 1))  # b
        self.attends = len(self.similar) > 1 and config.user_weight > 0
        if self.attends:
            self.attention = nn.Parameter(torch.zeros(users, len(self.similar)))  # a
        masks = [torch.tensor(modality.present) for modality in modalities.values()]
        # of shape (I, M)
        present = torch.stack(masks, dim=1) if masks else torch.zeros(items, 0, dtype=torch.bool)
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("observed", observed(graph, present), persistent=False)  # (U, M)
        self.co_occurrence = (
            user_user(graph, config.cooc_k, config.cooc_weight) if config.cooc_share > 0 else None
        )

    def user_attention(self) -> Tensor | None:
        """Returns α (U, M), rows sum to one; None if the user side weighs no modalities."""
        return masked_softmax(self.attention, self.observed) if self.attends else None

    def behaviour(self) -> tuple[Tensor, Tensor]:
        """Returns u_b (U, D) and i_b (I, D)."""
        return smoothed(self.to_user, self.to_item, self.user, self.item, self.config.layers)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns û (U, D) and i (I, D) of length one, with one column more each for b."""
        return self.over(self.to_user)

    def over(self, to_user: Adjacency) -> tuple[Tensor, Tensor]:
        """Returns the tables of `embed` over another user–item graph (U, I)."""
        c = self.config
        user, item = smoothed(to_user, to_user.T, self.user, self.item, c.layers)  # (1)
        resembling = [similar @ self.item for similar in self.similar]  # (2), (I, D) each
        logits = self.attention if self.attends else None
        user = self.with_modalities(user, resembling, to_user, logits, self.observed)
        if c.item_weight > 0 and resembling:
            item = item + c.item_weight * torch.stack(resembling).mean(0)  # (4), second line
        if self.co_occurrence is not None:
            user = user + c.cooc_share * (self.co_occurrence @ user)  # (5)
        item = unit_rows(item)
        return self.biased(unit_rows(user)), torch.cat([item, self.bias], dim=1) if c.bias else item

    def biased(self, user: Tensor) -> Tensor:
        """Returns users (N, D) with a column of ones for b, (N, D+1); unchanged without b."""
        return torch.cat([user, user.new_ones(len(user), 1)], dim=1) if self.config.bias else user

    def with_modalities(
        self,
        user: Tensor,
        resembling: list[Tensor],
        to_user: Adjacency,
        logits: Tensor | None,
        observed: Tensor,
    ) -> Tensor:
        """Returns u of B users, equation (4), (B, D).

        Args:
            user: u_b, (B, D).
            resembling: i_m of each modality, (I, D).
            to_user: Graph from the items to these users, (B, I).
            logits: a of these users, (B, M); None for equal weights.
            observed: Modalities of these users, (B, M) bool.
        """
        # (2), second line, (B, D) each
        sent = [to_user @ items for items in resembling] if self.config.user_weight > 0 else []
        attention = None if logits is None else masked_softmax(logits, observed)  # (3)
        for m, own in enumerate(sent):
            weight = 1 if attention is None else attention[:, m : m + 1]
            user = user + self.config.user_weight * weight * own  # (4)
        return user

    def user_foldin(self) -> UserFoldin:
        """Returns a rule for û of users unseen in training, from their histories.

        Layers 1…L of the behaviour channel and u_m are those of every user. a is the mean of the
        co-occurring users' rows, weighted as in Ω. Layer 0, the trained row p, starts at zero and
        takes a few steps of training on the same loss while all items are fixed: the mean of the
        items does not describe a user with a long history well enough (benchmarks/LOG.md).
        """
        c = self.config
        with torch.no_grad():
            resembling = [similar @ self.item for similar in self.similar]  # i_m, (I, D) each
            logits = self.attention.clone() if self.attends else None  # (U, M)
            parts = resembling, self.to_user, logits, self.observed
            known = self.with_modalities(self.behaviour()[0], *parts)  # u, (U, D)
            tables = self.to_user, self.to_item, self.user, self.item
            shared = shared_item_table(*tables, c.layers).clone()
            item = self.embed()[1].clone()
        drawn = torch.randperm(len(item), generator=torch.Generator().manual_seed(0))
        negatives = item[drawn[:FOLD_NEGATIVES]]

        @torch.no_grad()
        def rule(histories: UserHistories) -> Tensor:
            near = c.cooc_k, c.cooc_weight
            theirs = None if logits is None else histories.neighbours(*near) @ logits  # (B, M)
            behaviour, observed = histories.to_user @ shared, histories.having(self.present)
            user = self.with_modalities(behaviour, resembling, histories.to_user, theirs, observed)
            if self.co_occurrence is not None:
                user = user + c.cooc_share * (histories.neighbours(*near) @ known)
            return self.biased(unit_rows(user + self._own_rows(histories, user, item, negatives)))

        return rule

    def newcomer_rows(self, name: str, histories: UserHistories) -> Tensor | None:
        """Returns zeros for layer 0 of new users, as in `user_foldin`."""
        return torch.zeros(len(histories), self.user.shape[1]) if name == "user" else None

    def item_foldin(self) -> ItemFoldin:
        """Returns a rule for i of items unseen in training, from their features.

        i_b and b are means over the trained items that resemble it, and i_m is that of every item.
        """
        c = self.config
        with torch.no_grad():
            behaviour, item = self.behaviour()[1], self.item.clone()
            bias = self.bias.clone() if c.bias else None

        def rule(videos: NewItems) -> Tensor:
            new = videos.resembling(behaviour, c.item_k)
            if c.item_weight > 0:
                near = [videos.nearest(name, c.item_k) @ item for name in videos.features]
                new = new + c.item_weight * torch.stack(near).mean(0)
            new = unit_rows(new)
            return (
                new if bias is None else torch.cat([new, videos.resembling(bias, c.item_k)], dim=1)
            )

        return rule

    def _own_rows(
        self, histories: UserHistories, user: Tensor, item: Tensor, negatives: Tensor
    ) -> Tensor:
        """Returns p / (L+1) of users unseen in training, (B, D); `user` (B, D) is the rest of u.

        It takes FOLD_STEPS steps of Adam from zero on the mean softmax loss of each history against
        the given negatives (N, ·) among the items (I, ·).
        """
        row, watched = histories.edges()
        offset = math.log(len(item) / len(negatives))
        # of shape (B,)
        share = 1 / torch.bincount(row, minlength=len(histories)).clamp(min=1).to(user.dtype)
        own = torch.zeros_like(user, requires_grad=True)
        optimiser = torch.optim.Adam([own], lr=FOLD_LR)
        with torch.enable_grad():
            for _ in range(FOLD_STEPS):
                optimiser.zero_grad()
                unit = self.biased(unit_rows(user + own / (self.config.layers + 1)))
                right = (pick(unit, row) * item[watched]).sum(1) / self.config.temperature  # (E,)
                wrong = unit @ negatives.T / self.config.temperature + offset  # (B, N)
                fit = torch.logaddexp(right, wrong.logsumexp(1)[row]) - right
                (fit * share[row]).sum().backward()
                optimiser.step()
        return own.detach() / (self.config.layers + 1)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the loss (7) of B triples (user, watched item, unwatched item), ()."""
        to_user = self.to_user
        if self.config.hide:
            most = int(HIDDEN * to_user.num_edges)
            to_user = to_user.without(users[:most], positives[:most])
        user, item = self.over(to_user)
        shared = negatives[: self.config.negatives]
        chosen = pick(user, users), pick(item, positives), pick(item, shared)
        fit = sampled_softmax(*chosen, len(item), self.config.temperature)
        return fit + self.config.l2 * row_penalty(
            "square", pick(self.user, users), pick(self.item, positives)
        )
