"""DualGNN. Source: Wang, Wei, Yin, Wu, Song, Nie: "DualGNN: Dual Graph Neural Network for Multimedia Recommendation",
IEEE Transactions on Multimedia 25 (2023), doi 10.1109/TMM.2021.3138298.

For each modality m, with a free user preference table P_m (U, D) and item features F_m (I, F_m):

    z_m   = W2 · LeakyReLU(W1 · F_m + b1) + b2                       item encoder                      (I, D)
    u⁰, i⁰ = norm(P_m), norm(z_m), and norm(Â_IU Â_UI i⁰) of the others' i⁰ where the modality is missing (see below)
    u^{l+1} = Σ_{i∈N(u)} i^l / √(d_u d_i),  i^{l+1} likewise          no weights, no activation
    u_m, i_m = Σ_{l=0..L} u^l, Σ_{l=0..L} i^l                         single-modal module

    α_u   = softmax over the modalities that u's videos have          attention of each user            (U, M)
    u     = Σ_m α_{u,m} u_m     (or concatenation, or maximum)        multi-modal module
    i     = Σ_m i_m
    û     = u + Σ_j ω_uj u_j                                          user co-occurrence graph, ω from shared training items
    score = û · i;   loss = BPR + λ [ Σ_m mean P_m[batch]² + mean a² ]      (concatenation: mean W² of its map, not a²)

The paper's body gives the structure; where it leaves something open, this follows what its code and its best known
port agree on. Departures from the authors' released code, each of which a switch brings back unless said otherwise:

- α is a softmax in *every* forward pass; the release takes the softmax once, of the initial values, and then trains
  unconstrained numbers (`attention="released"`).
- Users with fewer than k neighbours share the mass among those they have; the release fills up to k by drawing with
  replacement, anew each epoch (`cooc_pad="resample"`).
- Natural logarithm in BPR; the release has log₂ (`log_base="2"`), so its λ acts like λ·ln 2 here.
- All data sets have the encoder; the release has none on TikTok (`item_encoder="none"`, D is then the features' width).
- Missing modalities are masked after the normalisation, and α is renormalised over what is there: i⁰ = 0 (`missing="mask"`),
  or by default what those who watched the video watched besides, over the normalised graph Â. Both are ours: the release's
  handling is inactive (`missing="zero"`: a missing item is encoded like a row of zeros). `drop_edges` is the other half of
  what it prepares; `borrow` is the paper's claim about the user graph in its strongest form: attention on a modality that
  none of u's videos has, if co-occurring users supply it, u_m being then theirs, Σ_j ω_uj u_{j,m}. Ours too are
  `missing="learned"`, `modality_dropout` and `item_fusion="rescaled"`.
- `layers` is used; the release hard-wires two.
- The best known port, not the release, adds the other modalities' tables into the first one in place before users are fused:
  u = α_{u,1} Σ_m u_m + Σ_{m>1} α_{u,m} u_m (`user_fusion="aliased"`).
- The release penalises an item-fusion table that nothing uses, and ranks with the tables left over from the last
  training batch. Neither is reproduced: the first changes no output, the second is an accident of timing.
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
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.graphs.arrivals import NewItems, UserHistories
from dualgnn_dgl.graphs.heterographs import CO_PADS, CO_WEIGHTS, user_item, user_user
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
from dualgnn_dgl.models.losses import bpr, pick
from dualgnn_dgl.models.mask import ModalityMask
from dualgnn_dgl.ops import Adjacency, one_wide_product
from dualgnn_dgl.ops.dense import Linear

MISSING = ("neighbours", "mask", "learned", "zero")


@dataclass(frozen=True)
class Config(Options):
    """Options of DualGNN; the defaults are the paper's model with its code's faults mended, and
    `missing`.
    """

    width: int = option(64, "embedding width D", low=1, high=WIDTH)
    layers: int = option(2, "propagation steps L in each modality", low=0, high=LAYERS)
    hidden: int = option(256, "hidden width of the item encoder", low=1, high=WIDTH)
    item_encoder: str = option(
        "mlp", "how features become D wide", choices=("mlp", "linear", "none")
    )
    attention: str = option(
        "softmax", "softmax in every pass, or only at the start", choices=("softmax", "released")
    )
    user_fusion: str = option(
        "sum", "how a user's modalities join", choices=("sum", "concat", "max", "mean", "aliased")
    )
    user_graph: bool = option(True, "propagate between users who watched the same videos")
    cooc_k: int = option(40, "neighbours a user in the co-occurrence graph", low=1, high=COUNT)
    cooc_weight: str = option("softmax", "how shared items become weights", choices=CO_WEIGHTS)
    cooc_pad: str = option(
        "none", "fewer than cooc_k neighbours: leave, or fill by resampling", choices=CO_PADS
    )
    missing: str = option(
        "neighbours",
        "an item without it: what its watchers' other items say, or else",
        choices=MISSING,
    )
    drop_edges: bool = option(
        False, "leave out, in each modality's graph, the edges of items that lack it"
    )
    borrow: bool = option(
        False,
        "attend to a modality that only co-occurring users' videos have, with those users' vectors",
    )
    modality_dropout: float = option(
        0.0, "share of the present features hidden in training, anew each epoch", low=0, high=0.95
    )
    item_fusion: str = option(
        "sum",
        "an item's modalities: summed, or times M / those it has",
        choices=("sum", "rescaled"),
    )
    log_base: str = option("e", "logarithm in BPR", choices=("e", "2"))
    l2: float = option(0.1, "weight λ of the penalty on preferences and attention", low=0)


class DualGNN(Recommender):
    """One graph convolution a modality, fused by each user's attention, then shared along
    co-occurrence edges.
    """

    Config = Config
    uses_modalities = True
    # A propagation costs the same for any batch, and few steps are enough (benchmarks/LOG.md).
    TRAIN = {"batch_size": 16384}
    SEARCH = {
        "l2": (1e-3, 1e-2, 1e-1, 1.0),
        "lr": (1e-4, 3e-4, 1e-3),
        "user_fusion": ("sum", "concat", "max"),
        "user_graph": (True, False),
        "cooc_k": (10, 40),
        "layers": (1, 2, 3),
    }
    row_axes = Recommender.row_axes | {"preference": "user", "attention": "user"}

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.features = Features(modalities)
        users, count = graph.num_nodes("user"), len(self.features)
        self.to_user = user_item(graph)  # (U, I)
        self.to_item = self.to_user.T  # (I, U)
        widths = self.features.widths()
        if config.item_encoder == "none" and len(set(widths)) > 1:
            raise ConfigError(
                f"item_encoder=none adds up features of widths {widths}: make them equal with "
                f"--feature-dim"
            )
        width = widths[0] if config.item_encoder == "none" else config.width
        self.encoders = nn.ModuleList(_encoder(config, columns) for columns in widths)
        # P_m, (U, D) each
        self.preference = nn.ParameterList(table(users, width) for _ in range(count))
        initial = nn.init.xavier_normal_(torch.empty(users, count, 1)).squeeze(-1)
        # α is 1 where M is 1
        if config.user_fusion != "mean" and (count > 1 or config.attention == "released"):
            # a of shape (U, M)
            self.attention = nn.Parameter(
                initial.softmax(-1) if config.attention == "released" else initial
            )
        if config.user_fusion == "concat":
            self.join = nn.Linear(count * width, width)
        if config.missing == "learned":
            # e_m, (1, D) each
            self.absent = nn.ParameterList(table(1, width) for _ in range(count))
        # Ω of shape (U, U)
        self.co_occurrence = (
            user_user(graph, config.cooc_k, config.cooc_weight) if config.user_graph else None
        )
        if config.modality_dropout and config.missing == "zero":
            raise ConfigError(
                "modality_dropout hides features behind the mask, which missing=zero has not: "
                "choose missing=mask"
            )
        if config.borrow and not config.user_graph:
            raise ConfigError(
                "borrow takes from co-occurring users: leave user_graph on, or borrow off"
            )
        self.mask = self._mask(graph, self.features.present)
        self.left: ModalityMask | None = None  # what modality dropout leaves in this epoch
        self._resamples = config.user_graph and config.cooc_pad == "resample"
        self._graph = graph if self._resamples or config.modality_dropout else None
        # the draw belongs to the epoch's state: without it the tables cannot be made again
        if self._resamples:
            self.register_buffer("draw", torch.zeros((), dtype=torch.int64))
            self.register_load_state_dict_post_hook(lambda model, _: model._resample())
            self._resample()

    def _resample(self) -> None:
        c, generator = self.config, torch.Generator().manual_seed(int(self.draw))
        omega = user_user(self._graph, c.cooc_k, c.cooc_weight, pad=c.cooc_pad, generator=generator)
        self.co_occurrence = omega.to(self.draw.device)

    def _mask(self, graph: dgl.DGLGraph, present: Tensor) -> ModalityMask:
        c = self.config
        omega = user_user(graph, c.cooc_k, c.cooc_weight) if c.borrow else None
        return ModalityMask(graph, present, drop_edges=c.drop_edges, omega=omega)

    def new_epoch(self, generator: torch.Generator) -> None:
        if self._resamples:
            self.draw.fill_(int(torch.randint(2**62, (), generator=generator)))
            self._resample()
        if self.config.modality_dropout:
            present = self.features.present
            hidden = torch.rand(present.shape, generator=generator) < self.config.modality_dropout
            self.left = self._mask(self._graph, present.cpu() & ~hidden).to(present.device)

    @property
    def observed(self) -> Tensor:
        """Has any of u's training videos modality m? (U, M)."""
        return self.mask.observed

    def start(self, m: int, mask: ModalityMask) -> tuple[Tensor, Tensor]:
        """u⁰ (U, D) and i⁰ (I, D) of modality m."""
        masked = self.config.missing != "zero" and not mask.complete[m]
        present = mask.present[:, m]  # (I,)
        user = unit_rows(self.preference[m])
        item = unit_rows(self.encoders[m](self.features[m]), present if masked else None)
        if masked and self.config.missing == "learned":
            item = torch.where(present.unsqueeze(1), item, unit_rows(self.absent[m]))
        if masked and self.config.missing == "neighbours":
            item = torch.where(
                present.unsqueeze(1), item, unit_rows(self.to_item @ (self.to_user @ item))
            )
        return user, item

    def propagate(
        self,
        user: Tensor,
        item: Tensor,
        layers: int | None = None,
        graph: tuple[Adjacency, Adjacency] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Σ_{l=0..L} of u^l and i^l, or fewer layers.

        Any width; over the whole graph or another (U, I) with its transpose.
        """
        to_user, to_item = (self.to_user, self.to_item) if graph is None else graph
        user_sum, item_sum = user, item
        for _ in range(self.config.layers if layers is None else layers):
            user, item = to_user @ item, to_item @ user
            user_sum, item_sum = user_sum + user, item_sum + item
        return user_sum, item_sum

    def single_modal(
        self, m: int, layers: int | None = None, mask: ModalityMask | None = None
    ) -> tuple[Tensor, Tensor]:
        """User (U, D) and item (I, D) as modality m alone sees them.

        The sum of layers 0…L, or fewer.
        """
        mask = self.mask if mask is None else mask
        return self.propagate(*self.start(m, mask), layers, mask.graph(m))

    def single_modals(self, mask: ModalityMask) -> list[tuple[Tensor, Tensor]]:
        """`single_modal` of every modality.

        Side by side in one M·D wide product where that is faster (the same bits).
        """
        count, width = len(self.features), self.preference[0].shape[1]
        if (
            count == 1
            or self.config.drop_edges
            or not one_wide_product(self.to_user, count * width)
        ):
            return [self.single_modal(m, mask=mask) for m in range(count)]
        users, items = zip(*(self.start(m, mask) for m in range(count)), strict=True)
        # of shapes (U, M·D), (I, M·D)
        user, item = self.propagate(torch.cat(users, dim=1), torch.cat(items, dim=1))
        return list(zip(user.split(width, dim=1), item.split(width, dim=1), strict=True))

    def user_attention(self, active: Tensor | None = None) -> Tensor:
        """α (U, M): rows sum to one with `attention="softmax"`; whatever training made of them with
        "released".
        """
        if not hasattr(self, "attention"):
            return torch.full_like(
                self.observed, 1 / len(self.features), dtype=self.preference[0].dtype
            )
        if self.config.attention == "released":
            return self.attention
        active = self.active(self.mask.observed | self.mask.supplied) if active is None else active
        return masked_softmax(self.attention, active)

    def active(self, observed: Tensor) -> Tensor:
        """Which modalities take part in a user's fusion, (U, M).

        Those that the user's videos have, or co-occurring users supply (`borrow`); all, if mask is
        none.
        """
        if self.config.missing == "zero" or self.config.attention == "released":
            return torch.ones_like(observed)
        return observed | ~observed.any(-1, keepdim=True)

    def fuse_users(self, users: list[Tensor], attention: Tensor, active: Tensor) -> Tensor:
        """M tables (U, D) → one (U, D), weighted by α (the paper's three constructions, and the
        plain mean).
        """
        if self.config.user_fusion == "aliased":
            users = [sum(users[1:], users[0]), *users[1:]]
        if self.config.user_fusion in ("sum", "mean", "aliased"):
            return weighted_sum(attention, users)
        weighted = attention.unsqueeze(-1) * torch.stack(users, dim=1)  # (U, M, D)
        if self.config.user_fusion == "concat":
            return self.join(weighted.flatten(1))
        # the unheard must not compete with its zero
        return weighted.masked_fill(~active.unsqueeze(-1), -torch.inf).amax(1)

    def fused(self, mask: ModalityMask) -> tuple[Tensor, Tensor]:
        """u (U, D), before the user–user hop, and i (I, D)."""
        users, items = zip(*self.single_modals(mask), strict=True)
        users = [mask.lend(m, user) for m, user in enumerate(users)]
        active = self.active(mask.observed | mask.supplied)
        user = self.fuse_users(users, self.user_attention(active), active)
        item = sum(items[1:], items[0])
        if self.config.item_fusion == "rescaled":
            item = item * (len(items) / mask.present.sum(1, keepdim=True).clamp(min=1))
        return user, item

    def tables(self, mask: ModalityMask) -> tuple[Tensor, Tensor]:
        """û (U, D) and i (I, D) with the given mask."""
        user, item = self.fused(mask)
        # û = u + Ω u
        return (user if self.co_occurrence is None else user + self.co_occurrence @ user), item

    def embed(self) -> tuple[Tensor, Tensor]:
        return self.tables(self.mask)

    def user_foldin(self) -> UserFoldin:
        """û from the history: the preference P_m is what the watched videos send, its layers as for
        everyone; attention is that of the nearest co-occurring users, over the modalities that the
        history has; then the user–user hop.
        """
        c, count = self.config, len(self.features)
        with torch.no_grad():
            known = self.fused(self.mask)[0].clone()  # (U, D), before the hop
            # Σ_{l<L} i_m^l, (I, D) each
            lent = [self.single_modal(m, max(c.layers - 1, 0))[1] for m in range(count)]
            logits = self.attention.clone() if hasattr(self, "attention") else None  # (U, M)

        @torch.no_grad()
        def rule(histories: UserHistories) -> Tensor:
            sent = [histories.to_user @ items for items in lent]  # Σ_{l=1..L} u_m^l, (B, D) each
            users = [unit_rows(own) + (own if c.layers else 0) for own in sent]
            near = histories.neighbours(c.cooc_k, c.cooc_weight)  # (B, U)
            active = self.active(histories.having(self.features.present))
            attention = torch.full(active.shape, 1 / count)
            if logits is not None and c.attention == "released":
                borrowed = near @ logits
                # all zero: nobody shares a video
                attention = borrowed.where(borrowed.any(1, keepdim=True), attention)
            elif logits is not None:
                attention = masked_softmax(near @ logits, active)
            user = self.fuse_users(users, attention, active)
            return user + near @ known if self.co_occurrence is not None else user

        return rule

    def newcomer_rows(self, name: str, histories: UserHistories) -> Tensor | None:
        """The preference P_m is what the watched videos send, as in `user_foldin`."""
        part, _, m = name.partition(".")
        return (
            histories.to_user @ self.single_modal(int(m), max(self.config.layers - 1, 0))[1]
            if part == "preference"
            else None
        )

    def item_foldin(self) -> ItemFoldin:
        """i from the modalities: layer 0 is the encoder's, Σ_m z_m over those it has; what users
        would send it in layers 1…L is what they send the trained videos that it resembles.
        """
        c, count = self.config, len(self.features)
        with torch.no_grad():
            own = [self.start(m, self.mask)[1] for m in range(count)]  # i_m⁰, (I, D) each
            received = sum(
                (self.single_modal(m)[1] - own[m] for m in range(1, count)),
                self.single_modal(0)[1] - own[0],
            )

        @torch.no_grad()
        def rule(videos: NewItems) -> Tensor:
            item = videos.resembling(received, LOOK_ALIKES)
            for m, modality in enumerate(videos.features.values()):
                present = torch.from_numpy(modality.present)
                new = unit_rows(
                    self.encoders[m](torch.from_numpy(modality.values)),
                    None if c.missing == "zero" else present,
                )
                if c.missing == "learned":
                    new = torch.where(present.unsqueeze(1), new, unit_rows(self.absent[m]))
                item = item + new
            return (
                item * (count / videos.present.sum(1, keepdim=True).clamp(min=1))
                if c.item_fusion == "rescaled"
                else item
            )

        return rule

    @property
    def static_step(self) -> bool:
        return not self._resamples and not self.config.modality_dropout

    def training_tables(self) -> tuple[Tensor, Tensor]:
        return self.tables(self.mask if self.left is None else self.left)

    def loss_of(
        self, tables: tuple[Tensor, Tensor], users: Tensor, positives: Tensor, negatives: Tensor
    ) -> Tensor:
        user, item = tables
        difference = (pick(user, users) * (pick(item, positives) - pick(item, negatives))).sum(-1)
        penalty = sum(pick(preference, users).square().mean() for preference in self.preference)
        if self.config.user_fusion == "concat":
            penalty = penalty + self.join.weight.square().mean()
        elif hasattr(self, "attention"):
            penalty = penalty + self.attention.square().mean()
        return (
            bpr(difference, 2 if self.config.log_base == "2" else math.e) + self.config.l2 * penalty
        )


def _encoder(config: Config, columns: int) -> nn.Module:
    """F_m → D: the paper's two-layer perceptron, one linear map, or nothing."""
    if config.item_encoder == "none":
        return nn.Identity()
    if config.item_encoder == "linear":
        return Linear(columns, config.width)
    return nn.Sequential(
        Linear(columns, config.hidden),
        nn.LeakyReLU(0.01, inplace=True),
        Linear(config.hidden, config.width),
    )
