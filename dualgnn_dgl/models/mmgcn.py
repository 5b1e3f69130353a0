"""MMGCN: one graph convolution network for each modality, averaged.

Source: Wei, Wang, Nie, He, Hong, Chua: "MMGCN: Multi-modal Graph Convolution Network for
Personalized Recommendation of Micro-video", ACM MM 2019.

For each modality m, with a user preference table P_m, item features F_m, and identities Q (U, D),
(I, D) that all modalities share:

    x⁰   = norm([P_m ; F_m])                                  wide features are projected first
    h    = LeakyReLU( mean_{j∈N(v)} x^{l-1}_j W_l )           aggregation
    g    = LeakyReLU( L_l x^{l-1} + b ) + Q                   identity
    x^l  = LeakyReLU( G_l [h ‖ g] + b' )                      combination
           or LeakyReLU( G_l h + b' + g )
    user, item = mean over m of x^L,  score = user · item
    loss = BPR + λ [ mean of Q_u² + Q_i² over the batch's pairs + Σ_m mean P_m[batch]² ]

Departures from the authors' code:

- P_m and Q are trained. In the release, and in its best known port, no optimiser updates them: they
  stay at their random start, and their penalty has no effect. Published results are made so;
  benchmarks/lib/released.py restores it.
- `combine` and `layers` are options. The release always concatenates, in three layers: its flag is
  a text, hence always true.
- The release penalises the visual preference only, of all users; here all modalities are penalised
  equally, on the batch.
- The release projects its visual features to 256; here every modality wider than `project_above` is
  projected to that width.
- All maps start Xavier-normal; the release leaves G_2 and G_3 at another start.
- An item that lacks the modality has x⁰ = 0, after the normalisation; the release expects every
  feature.
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
from dualgnn_dgl.models.base import Features, Recommender, node_table, table, unit_rows
from dualgnn_dgl.models.losses import released_penalty
from dualgnn_dgl.ops import Adjacency, average
from dualgnn_dgl.ops.dense import Linear


@dataclass(frozen=True)
class Config(Options):
    """Options of MMGCN."""

    REMOVED = {"frozen_embeddings": False}
    width: int = option(64, "embedding width D of every layer's output", low=1, high=WIDTH)
    layers: int = option(3, "layers L in each modality", low=1, high=LAYERS)
    combine: str = option(
        "concat", "combination of a node's neighbourhood and itself", choices=("concat", "sum")
    )
    project_above: int = option(
        256, "largest width of features; wider ones are projected to it", low=1, high=WIDTH
    )
    l2: float = option(1e-3, "weight λ of the penalty on identities and preferences", low=0)


class MMGCN(Recommender):
    """One graph convolution network over the user–item graph for each modality, averaged."""

    Config = Config
    uses_modalities = True
    SEARCH = {
        "l2": (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        "layers": (2, 3),
        "combine": ("concat", "sum"),
        "lr": (1e-4, 5e-4, 1e-3, 5e-3),
    }
    row_axes = Recommender.row_axes | {"preference": "user"}

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.features = Features(modalities)
        users, items = graph.num_nodes("user"), graph.num_nodes("item")
        watcher, watched = graph.edges(etype="interacts")
        # (U, I), rows sum to one
        self.to_user = average(watcher, watched, (users, items), ("user", "item"))
        # (I, U), rows sum to one
        self.to_item = average(watched, watcher, (items, users), ("item", "user"))
        widths = [min(width, config.project_above) for width in self.features.widths()]
        self.preference = nn.ParameterList(table(users, width) for width in widths)  # P_m
        self.user, self.item = node_table(users, items, config.width)  # Q
        self.project = nn.ModuleList(
            _linear(wide, width) if wide > width else nn.Identity()
            for wide, width in zip(self.features.widths(), widths, strict=True)
        )
        self.layers = nn.ModuleList(
            nn.ModuleList(
                _Layer(width if layer == 0 else config.width, config)
                for layer in range(config.layers)
            )
            for width in widths
        )

    def single_modal(self, m: int) -> tuple[Tensor, Tensor]:
        """Returns x^L of users (U, D) and items (I, D) in modality m."""
        user = unit_rows(self.preference[m])
        item = unit_rows(self.project[m](self.features[m]), self.features.present[:, m])
        for layer in self.layers[m]:
            from_items, from_users = (
                layer.received(self.to_user, item),
                layer.received(self.to_item, user),
            )
            user, item = layer(from_items, user, self.user), layer(from_users, item, self.item)
        return user, item

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns the mean over the modalities for users (U, D) and items (I, D)."""
        users, items = zip(*(self.single_modal(m) for m in range(len(self.features))), strict=True)
        return torch.stack(users).mean(0), torch.stack(items).mean(0)

    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the second part of the loss."""
        return self.config.l2 * released_penalty(
            self.user, self.item, self.preference, users, positives, negatives
        )


class _Layer(nn.Module):
    """W_l, L_l and G_l of one layer of one modality, for input of the given width."""

    def __init__(self, width: int, config: Config) -> None:
        super().__init__()
        self.concat = config.combine == "concat"
        self.send = _linear(width, width, bias=False)  # W_l
        self.keep = _linear(width, config.width)  # L_l
        self.join = _linear(width + config.width if self.concat else width, config.width)  # G_l

    def received(self, mean: Adjacency, sent: Tensor) -> Tensor:
        """Returns mean(x_j) W_l, (N, width), from x^{l-1} of the senders.

        W_l is the most expensive part, so it is applied on the side that has fewer rows.
        """
        receivers, senders = mean.shape
        return self.send(mean @ sent) if receivers < senders else mean @ self.send(sent)

    def forward(self, received: Tensor, own: Tensor, identity: Tensor) -> Tensor:
        """x^l (N, D) of the mean message (N, width), x^{l-1} (N, width) and Q (N, D)."""
        h = leaky_relu(received)
        g = leaky_relu(self.keep(own)) + identity
        return (
            leaky_relu(self.join(torch.cat([h, g], dim=1)))
            if self.concat
            else leaky_relu(self.join(h) + g)
        )


def _linear(columns: int, width: int, bias: bool = True) -> nn.Linear:
    """Returns a linear map with Xavier-normal weights."""
    linear = Linear(columns, width, bias=bias)
    nn.init.xavier_normal_(linear.weight)
    return linear
