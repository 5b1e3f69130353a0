"""GRCN: identities over a user–item graph that the modalities refine.

Source: Wei, Wang, Nie, He, Chua: "Graph-Refined Convolutional Network for Multimedia Recommendation
with Implicit Feedback", ACM MM 2020.

For each modality m, with a user preference table P_m and item features F_m; identities Q and
confidences C of all nodes:

    f_i   = norm(LeakyReLU(W F_m + b)),  p_u = norm(P_m)
    T times:  α_ui = softmax_{i∈N(u)} (p_u · f_i)             prototypes by routing
              p_u ← norm( p_u + Σ_i α_ui f_i )
    x     = [p ; f]
    α_st  = softmax_{s∈N(t)} (x_t · x_s)                      in both directions of every edge
    r_m   = x + Σ_s α_st x_s                                  content channel
    w_st  = ReLU( max_m α^m_st C[s, m] )                      refined graph
    e⁰    = norm(Q),  e^{l+1}_t = Σ_s w_st e^l_s              identity channel
    e     = e⁰ + e¹ + e²
    representation = [ e ‖ r_1 ‖ … ‖ r_M ],  score = their inner product
    loss  = BPR + λ [ mean of Q_u² + Q_i² over the batch's pairs + Σ_m mean P_m[batch]² ]

Departures from the authors' code:

- Routing sends from items to users. In the release, and in its port, the edges of the loop point
  from users to items, so p never changes. Published results are made so;
  benchmarks/lib/released.py restores it.
- The preferences of all modalities are penalised equally, on the batch; the port counts the visual
  ones twice.
- The best epoch is chosen on validation; the release's training script chooses it on test.
- An item that lacks the modality has f_i = 0: it sends zero and has the neutral score p_u · 0 = 0.
  The other modalities decide about its edges in the refined graph.
- Any number of modalities, also one alone (release and port stop with text alone). Left out: the
  release's edge dropout and LeakyReLU of the identity channel, both off by default, and its
  confidence penalty, which it computes and does not use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import LAYERS, WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.graphs.heterographs import user_item
from dualgnn_dgl.models.base import Features, Recommender, node_table, table, unit_rows
from dualgnn_dgl.models.losses import released_penalty
from dualgnn_dgl.ops.dense import Linear
from dualgnn_dgl.ops.learned import Edges


@dataclass(frozen=True)
class Config(Options):
    """Options of GRCN."""

    REMOVED = {"routing_edges": "intended"}
    width: int = option(64, "embedding width D of each channel", low=1, high=WIDTH)
    routing: int = option(3, "routing steps T", low=0, high=LAYERS)
    layers: int = option(2, "propagation steps of the identity channel", low=0, high=LAYERS)
    edge_weight: str = option(
        "confidence", "map from α to w", choices=("confidence", "max", "mean")
    )
    prune: bool = option(True, "removal of edges of negative weight, which only confidence has")
    fusion: str = option("concat", "fusion of the channels", choices=("concat", "mean", "id"))
    l2: float = option(1e-3, "weight λ of the penalty on identities and preferences", low=0)


class GRCN(Recommender):
    """Identities over a graph that the modalities refine, beside the modalities' own channels."""

    Config = Config
    uses_modalities = True
    SEARCH = {
        "l2": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        "routing": (1, 3),
        "prune": (True, False),
        "fusion": ("concat", "id"),
        "lr": (1e-4, 5e-4, 1e-3, 5e-3),
    }
    row_axes = Recommender.row_axes | {
        "preference": "user",
        "user_confidence": "user",
        "item_confidence": "item",
    }

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.features = Features(modalities)
        users, items, count = graph.num_nodes("user"), graph.num_nodes("item"), len(self.features)
        self.edges = Edges(user_item(graph))  # (U, I): user ← item
        self.back = self.edges.T  # (I, U): item ← user
        self.preference = nn.ParameterList(table(users, config.width) for _ in range(count))  # P_m
        self.encoders = nn.ModuleList(
            Linear(columns, config.width) for columns in self.features.widths()
        )
        for encoder in self.encoders:
            nn.init.xavier_normal_(encoder.weight)
        self.user, self.item = node_table(users, items, config.width)  # Q
        if config.edge_weight == "confidence":
            self.user_confidence, self.item_confidence = node_table(users, items, count)  # C

    def routed(self, m: int) -> tuple[Tensor, Tensor]:
        """Returns p after routing (U, D) and f (I, D) of modality m."""
        item = unit_rows(
            leaky_relu(self.encoders[m](self.features[m])), self.features.present[:, m]
        )
        user = unit_rows(self.preference[m])
        for _ in range(self.config.routing):
            weight = self.edges.softmax(self.edges.score(user, item))  # α (E,)
            user = unit_rows(user + self.edges.sum(weight, item))
        return user, item

    def content(self, m: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Returns the content channel of modality m.

        Returns:
            r_m of users (U, D) and items (I, D), and α of the edges to users and of those to items,
            (E,) each in their own order.
        """
        user, item = self.routed(m)
        score = self.edges.score(user, item)
        to_user, to_item = self.edges.softmax(score), self.back.softmax(self.edges.turn(score))
        return (user + self.edges.sum(to_user, item), item + self.back.sum(to_item, user)), (
            to_user,
            to_item,
        )

    def refined(self, edges: Edges, attention: list[Tensor], confidence: Tensor | None) -> Tensor:
        """Returns w of the refined graph, (E,).

        Args:
            edges: The edges in one direction.
            attention: α of each modality, (E,) each.
            confidence: C of the senders, (num_src, M), if edge weights use it.
        """
        if confidence is None:
            weight = torch.stack(attention, dim=1)  # (E, M)
            return weight.mean(1) if self.config.edge_weight == "mean" else weight.amax(1)
        sure = (edges.from_source(column) for column in confidence.unbind(1))
        best = torch.stack(
            [weight * own for weight, own in zip(attention, sure, strict=True)], dim=1
        ).amax(1)
        return best.relu() if self.config.prune else best

    def identity(self, to_user: Tensor, to_item: Tensor) -> tuple[Tensor, Tensor]:
        """Returns e of users (U, D) and items (I, D) over the refined graph."""
        user, item = unit_rows(self.user), unit_rows(self.item)
        user_sum, item_sum = user, item
        for _ in range(self.config.layers):
            user, item = self.edges.sum(to_user, item), self.back.sum(to_item, user)
            user_sum, item_sum = user_sum + user, item_sum + item
        return user_sum, item_sum

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns the representations of users and items, (U, ·) and (I, ·)."""
        channels, attention = zip(
            *(self.content(m) for m in range(len(self.features))), strict=True
        )
        to_user, to_item = ([pair[end] for pair in attention] for end in (0, 1))
        confident = self.config.edge_weight == "confidence"
        from_items = self.refined(self.edges, to_user, self.item_confidence if confident else None)
        from_users = self.refined(self.back, to_item, self.user_confidence if confident else None)
        own = self.identity(from_items, from_users)
        if self.config.fusion == "id":
            return own
        parts = list(zip(own, *channels, strict=True))  # of users, then of items; (N, D) each
        if self.config.fusion == "mean":
            return torch.stack(parts[0]).mean(0), torch.stack(parts[1]).mean(0)
        return torch.cat(parts[0], dim=1), torch.cat(parts[1], dim=1)

    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the second part of the loss."""
        return self.config.l2 * released_penalty(
            self.user, self.item, self.preference, users, positives, negatives
        )
