"""DualGNN-Plus: what made DualGNN strong on sparse logs here. Ours, not a paper's; built from published parts. Source: none
as a whole; its parts come from DualGNN (Wang et al., TMM 2023), LightGCN (He et al., SIGIR 2020), FREEDOM (Zhou & Shen, ACM MM
2023) and sampled softmax (Wu et al., TOIS 2023). How it departs from each stands below.

DualGNN has no item identities, and its modality channels drown whatever is put beside them (benchmarks/LOG.md). Here a
behaviour channel carries the identities, the modalities enter through who resembles whom, and each user's attention
weighs what the modalities say:

    u_b, i_b = mean of layers 0…L of p, q over the user–item graph          behaviour channel (LightGCN)     (U, D), (I, D)
    i_m      = S_m q,  u_m = D_u^-½ R D_i^-½ i_m                            the k nearest videos in modality m
    α_u      = softmax over the modalities that u's videos have              attention of each user (DualGNN)  (U, M)
    u        = u_b + Σ_m α_{u,m} u_m;   i = i_b + γ · mean_m i_m
    û        = u + β · Σ_j ω_uj u_j                                          user co-occurrence (DualGNN)
    score    = cosine of û and i + b_i;   loss = sampled softmax over shared negatives at temperature τ + λ ½Σ‖·‖²/B of p, q rows

While a batch is learned, its own pairs are out of R (`hide`; degrees stay): otherwise u already holds the very video that it
shall find, which it never does when it counts, and with a video or two a user that is most of u. Of a batch larger than a
quarter of all pairs only so many are out, so that a graph is left where a batch is the whole log. b (I) says how popular a
video is with everybody (`bias`), which cosines alone can hardly say: one more column of i, against a column of ones in û.

A missing modality is a zero row of S_m: the video neither receives nor sends there, and where all a user's videos lack a
modality the user has no attention on it. Where the data have no modality at all, the behaviour channel, the bias and the
user–user hop are left. Departures: DualGNN's preference tables and feature encoders are gone, its attention and co-occurrence
hop stay; FREEDOM mixes its item graphs by fixed weights and trains on a thinned graph, here users weigh them and the graph is
whole; the softmax runs over cosines of the final vectors. u_m is a sum over what the user watched: no free table, so it holds
for newcomers too.
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
    cooc_weight: str = option("proportional", "how shared items become weights", choices=CO_WEIGHTS)
    cooc_share: float = option(0.0, "weight β of the user co-occurrence hop", low=0)
    bias: bool = option(True, "learn a bias b of each video beside the cosines")
    hide: bool = option(True, "leave a batch's own pairs out of the graph while they are learned")
    negatives: int = option(512, "shared negatives a batch", low=1, high=COUNT)
    temperature: float = option(0.15, "temperature τ of the softmax over cosines", low=1e-3)
    l2: float = option(1e-4, "weight λ of the penalty on a batch's rows of p and q", low=0)


HIDDEN = 0.25  # of all pairs at most that a batch hides
FOLD_STEPS, FOLD_LR, FOLD_NEGATIVES = 20, 0.02, 1024  # of a new user's own row, see `user_foldin`


class DualGNNPlus(Recommender):
    """Identities by behaviour, modalities by resemblance, fused by each user's attention, shared
    along co-occurrence.
    """

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
        "lr": (5e-4, 1e-3),
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
        # S_m of shape (I, I)
        self.similar = nn.ModuleList(
            item_item(modality, config.item_k) for modality in modalities.values()
        )
        self.user, self.item = table(users, config.width), table(items, config.width)  # p, q
        if config.bias:
            self.bias = nn.Parameter(torch.zeros(items, 1))  # b
        self.attends = len(self.similar) > 1 and config.user_weight > 0
        if self.attends:
            self.attention = nn.Parameter(torch.zeros(users, len(self.similar)))
        masks = [torch.tensor(modality.present) for modality in modalities.values()]
        # of shape (I, M)
        present = torch.stack(masks, dim=1) if masks else torch.zeros(items, 0, dtype=torch.bool)
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("observed", observed(graph, present), persistent=False)  # (U, M)
        self.co_occurrence = (
            user_user(graph, config.cooc_k, config.cooc_weight) if config.cooc_share > 0 else None
        )

    def user_attention(self) -> Tensor | None:
        """α (U, M), rows sum to one; None with one modality, or where modalities have no weight on
        the user side.
        """
        return masked_softmax(self.attention, self.observed) if self.attends else None

    def behaviour(self) -> tuple[Tensor, Tensor]:
        """u_b (U, D) and i_b (I, D)."""
        return smoothed(self.to_user, self.to_item, self.user, self.item, self.config.layers)

    def embed(self) -> tuple[Tensor, Tensor]:
        return self.over(self.to_user)

    def over(self, to_user: Adjacency) -> tuple[Tensor, Tensor]:
        """û (U, D) and i (I, D) at length one over the given user–item graph (U, I).

        With b, one column more each.
        """
        c = self.config
        user, item = smoothed(to_user, to_user.T, self.user, self.item, c.layers)
        resembling = [similar @ self.item for similar in self.similar]  # i_m, (I, D) each
        user = self.with_modalities(user, resembling, to_user, self.own_logits(), self.observed)
        if c.item_weight > 0 and resembling:
            item = item + c.item_weight * torch.stack(resembling).mean(0)
        if self.co_occurrence is not None:
            user = user + c.cooc_share * (self.co_occurrence @ user)
        item = unit_rows(item)
        return self.biased(unit_rows(user)), torch.cat([item, self.bias], dim=1) if c.bias else item

    def biased(self, user: Tensor) -> Tensor:
        """Users at length one (N, D) with the ones that b is multiplied by, (N, D+1).

        As they are without b.
        """
        return torch.cat([user, user.new_ones(len(user), 1)], dim=1) if self.config.bias else user

    def own_logits(self) -> Tensor | None:
        """The free rows behind α, (U, M); None where there are none."""
        return self.attention if self.attends else None

    def with_modalities(
        self,
        user: Tensor,
        resembling: list[Tensor],
        to_user: Adjacency,
        logits: Tensor | None,
        observed: Tensor,
    ) -> Tensor:
        """u_b + Σ_m α_{u,m} u_m, (B, D), with u_b and the graph (B, I) of B users and α over what
        they observed (B, M).
        """
        # u_m, (B, D) each
        sent = [to_user @ items for items in resembling] if self.config.user_weight > 0 else []
        attention = None if logits is None else masked_softmax(logits, observed)
        for m, own in enumerate(sent):
            weight = (
                self.config.user_weight
                if attention is None
                else self.config.user_weight * attention[:, m : m + 1]
            )
            user = user + weight * own
        return user

    def user_foldin(self) -> UserFoldin:
        """û from the history: layers 1…L of the behaviour channel, u_m as for everyone, attention
        that of the nearest users.

        Free logits of the attention are the mean of the co-occurring users', weighted as in Ω;
        modalities that no watched video has are left out as for everyone. Layer 0, the trained row
        p, starts at zero and takes a few of the steps that training would take, on the same loss,
        while all videos stand still: users with long histories are known by more than their videos'
        mean (benchmarks/LOG.md).
        """
        c = self.config
        with torch.no_grad():
            # i_m, (I, D) each
            known, resembling = (
                self.behaviour()[0],
                [similar @ self.item for similar in self.similar],
            )
            # before the hop
            known = self.with_modalities(
                known, resembling, self.to_user, self.own_logits(), self.observed
            )
            shared = shared_item_table(
                self.to_user, self.to_item, self.user, self.item, c.layers
            ).clone()
            own = self.own_logits()
            logits = None if own is None else own.clone()  # (U, M)
            item = self.embed()[1].clone()
        drawn = torch.randperm(len(item), generator=torch.Generator().manual_seed(0))[
            :FOLD_NEGATIVES
        ]
        negatives = item[drawn]

        @torch.no_grad()
        def rule(histories: UserHistories) -> Tensor:
            # of shape (B, M)
            theirs = (
                None if logits is None else histories.neighbours(c.cooc_k, c.cooc_weight) @ logits
            )
            behaviour, observed = histories.to_user @ shared, histories.having(self.present)
            user = self.with_modalities(behaviour, resembling, histories.to_user, theirs, observed)
            if self.co_occurrence is not None:
                user = user + c.cooc_share * (histories.neighbours(c.cooc_k, c.cooc_weight) @ known)
            return self.biased(unit_rows(user + self._own_rows(histories, user, item, negatives)))

        return rule

    def newcomer_rows(self, name: str, histories: UserHistories) -> Tensor | None:
        """Zero in layer 0, as in `user_foldin`: the other layers come from what they watched."""
        return torch.zeros(len(histories), self.user.shape[1]) if name == "user" else None

    def item_foldin(self) -> ItemFoldin:
        """i from the modalities: i_b and b of the trained videos that it resembles, and its i_m as
        for everyone.
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
        """p / (L+1), (B, D), after FOLD_STEPS steps of Adam from zero on each history's mean
        softmax loss; `user` is the rest.
        """
        row, watched = histories.edges()
        # of shape (B,)
        share = 1 / torch.bincount(row, minlength=len(histories)).clamp(min=1).to(user.dtype)
        own = torch.zeros_like(user, requires_grad=True)
        optimiser = torch.optim.Adam([own], lr=FOLD_LR)
        with torch.enable_grad():
            for _ in range(FOLD_STEPS):
                optimiser.zero_grad()
                unit = self.biased(unit_rows(user + own / (self.config.layers + 1)))
                right = (pick(unit, row) * item[watched]).sum(1) / self.config.temperature  # (E,)
                # of shape (B, N)
                wrong = unit @ negatives.T / self.config.temperature + math.log(
                    len(item) / len(negatives)
                )
                fit = torch.logaddexp(right, wrong.logsumexp(1)[row]) - right
                (fit * share[row]).sum().backward()
                optimiser.step()
        return own.detach() / (self.config.layers + 1)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
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
