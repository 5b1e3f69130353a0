"""Models with the faults of published code, for the fidelity table.

Each class adds options that restore what the authors' code or its best known port does. With the
defaults it is the model of the package. `model_of` picks the class that a configuration needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from dualgnn_dgl.core.options import keys, option
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.graphs.heterographs import neighbour_weights
from dualgnn_dgl.models import bm3, dualgnn, grcn, mmgcn, model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.models.losses import bpr, pick
from dualgnn_dgl.ops import Adjacency


def model_of(name: str, config: Mapping[str, object]) -> type[Recommender]:
    """Returns the class that a configuration needs.

    Args:
        name: Key of `dualgnn_dgl.models.MODELS`.
        config: Options by name, of the model or of training.

    Returns:
        The class in `RELEASED` if an option or its value is one that only this class has, else the
        model of the package.
    """
    kind = model_class(name)
    if name not in RELEASED:
        return kind
    choices = {field.name: field.metadata["choices"] for field in fields(kind.Config)}
    released = any(
        key not in choices or (choices[key] and value not in choices[key])
        for key, value in config.items()
        if key in keys(RELEASED[name].Config)
    )
    return RELEASED[name] if released else kind


@dataclass(frozen=True)
class DualGNNConfig(dualgnn.Config):
    """Options of DualGNN and of its released code."""

    item_encoder: str = option(
        "mlp", "as in DualGNN, or none: D is the features' width", choices=("mlp", "linear", "none")
    )
    user_fusion: str = option(
        "sum",
        "as in DualGNN, or aliased: the first modality is the sum of all",
        choices=("sum", "concat", "max", "mean", "aliased"),
    )
    missing: str = option(
        "neighbours",
        "as in DualGNN, or zero: a missing item is encoded like a row of zeros",
        choices=("neighbours", "mask", "zero"),
    )
    attention: str = option(
        "softmax", "softmax in every pass, or only at the start", choices=("softmax", "released")
    )
    cooc_pad: str = option(
        "none", "fewer than cooc_k neighbours: leave, or resample", choices=("none", "resample")
    )
    log_base: str = option("e", "logarithm in BPR", choices=("e", "2"))


class DualGNN(dualgnn.DualGNN):
    """DualGNN with the faults of its released code and of its port."""

    Config = DualGNNConfig

    def __init__(self, graph, modalities, config: DualGNNConfig) -> None:
        if config.item_encoder == "none":
            widths = [modality.width for modality in modalities.values()]
            if len(set(widths)) > 1:
                raise ConfigError(
                    f"item_encoder=none adds up features of widths {widths}: make them equal with "
                    f"--feature-dim"
                )
            config = replace(config, width=widths[0])
        super().__init__(graph, modalities, config)
        if config.attention == "released" and config.user_fusion != "mean":
            if not hasattr(self, "attention"):  # one modality, whose α does not stay at 1
                self.attention = nn.Parameter(torch.zeros(graph.num_nodes("user"), 1))
            with torch.no_grad():
                self.attention.copy_(self.attention.softmax(-1))
        self._resamples = config.user_graph and config.cooc_pad == "resample"
        if self._resamples:
            # The draw belongs to the epoch's state: the tables cannot be made again without it.
            self._graph = graph
            self.register_buffer("draw", torch.zeros((), dtype=torch.int64))
            self.register_load_state_dict_post_hook(lambda model, _: model._resample())
            self._resample()

    def encoder(self, columns: int) -> nn.Module:
        if self.config.item_encoder == "none":
            return nn.Identity()
        return super().encoder(columns)

    def encoded(self, m: int, features: Tensor, present: Tensor | None) -> Tensor:
        return super().encoded(m, features, None if self.config.missing == "zero" else present)

    def active(self, observed: Tensor) -> Tensor:
        if self.config.missing == "zero" or self.config.attention == "released":
            return torch.ones_like(observed)
        return super().active(observed)

    def alpha(self, logits: Tensor | None, active: Tensor) -> Tensor:
        if logits is None or self.config.attention != "released":
            return super().alpha(logits, active)
        # The row of a new user is zero if no trained user shares an item with them.
        return logits.where(logits.any(1, keepdim=True), 1 / len(self.features))

    def fuse_users(self, users: list[Tensor], attention: Tensor, active: Tensor) -> Tensor:
        if self.config.user_fusion == "aliased":
            users = [sum(users[1:], users[0]), *users[1:]]
            return dualgnn.weighted_sum(attention, users)
        return super().fuse_users(users, attention, active)

    def loss_of(
        self, tables: tuple[Tensor, Tensor], users: Tensor, positives: Tensor, negatives: Tensor
    ) -> Tensor:
        if self.config.log_base == "e":
            return super().loss_of(tables, users, positives, negatives)
        user, item = tables
        difference = (pick(user, users) * (pick(item, positives) - pick(item, negatives))).sum(-1)
        return bpr(difference) / math.log(2) + self.penalty(users, positives, negatives)

    @property
    def static_step(self) -> bool:
        return not self._resamples

    def new_epoch(self, generator: torch.Generator) -> None:
        if self._resamples:
            self.draw.fill_(int(torch.randint(2**62, (), generator=generator)))
            self._resample()

    def _resample(self) -> None:
        generator = torch.Generator().manual_seed(int(self.draw))
        omega = resampled(self._graph, self.config.cooc_k, self.config.cooc_weight, generator)
        self.co_occurrence = omega.to(self.draw.device)


def resampled(graph, k: int, weight: str, generator: torch.Generator) -> Adjacency:
    """Returns Ω (U, U) like `user_user`, with every list of neighbours resampled up to k.

    A list with neighbours, but fewer than k of them, grows by drawing uniformly from the list as it
    has grown so far.

    Args:
        graph: DGL heterograph of the data.
        k: Neighbours a user.
        weight: One of `heterographs.CO_WEIGHTS`.
        generator: Source of the draws.
    """
    users, relation = graph.num_nodes("user"), graph.edges["co_occurs"].data
    keep = relation["rank"] < k
    source, target = (end[keep] for end in graph.edges(etype="co_occurs"))
    rank, strength = relation["rank"][keep], relation["weight"][keep]
    length = torch.bincount(target, minlength=users)
    slot = torch.full((users, k), -1)  # number of the edge in each place of the list, (U, k)
    slot[target, rank] = torch.arange(len(target))
    for place in range(1, k):
        short = torch.nonzero((length > 0) & (length <= place)).flatten()
        draw = (torch.rand(len(short), generator=generator) * place).long()
        slot[short, place] = slot[short, draw]
    edge = slot[length > 0].flatten()
    source, target, strength = source[edge], target[edge], strength[edge]
    weights = neighbour_weights(strength, target, users, weight)
    return Adjacency(target, source, (users, users), weight=weights, axes=("user", "user"))


@dataclass(frozen=True)
class GRCNConfig(grcn.Config):
    """Options of GRCN and of its released code."""

    routing_edges: str = option(
        "intended",
        "routing from items to users, or without effect",
        choices=("intended", "released"),
    )


class GRCN(grcn.GRCN):
    """GRCN whose routing may have no effect.

    In the release, and in its port, the edges of the routing loop point from users to items, so
    users receive nothing.
    """

    Config = GRCNConfig

    def __init__(self, graph, modalities, config: GRCNConfig) -> None:
        if config.routing_edges == "released":
            config = replace(config, routing=0)
        super().__init__(graph, modalities, config)


@dataclass(frozen=True)
class MMGCNConfig(mmgcn.Config):
    """Options of MMGCN and of its released code."""

    frozen_embeddings: bool = option(False, "leave preferences and identities at their start")


class MMGCN(mmgcn.MMGCN):
    """MMGCN whose embeddings may stay at their random start, as in the release and in its port."""

    Config = MMGCNConfig

    def __init__(self, graph, modalities, config: MMGCNConfig) -> None:
        super().__init__(graph, modalities, config)
        if config.frozen_embeddings:
            for parameter in (*self.preference, self.user, self.item):
                parameter.requires_grad_(False)


@dataclass(frozen=True)
class BM3Config(bm3.Config):
    """Options of BM3 and of its released code."""

    train_features: bool = option(False, "train the features themselves")


class BM3(bm3.BM3):
    """BM3 that may train the features themselves, as the authors' code does."""

    Config = BM3Config
    row_axes = bm3.BM3.row_axes | {"trained": "item"}

    def __init__(self, graph, modalities, config: BM3Config) -> None:
        super().__init__(graph, modalities, config)
        if config.train_features and self.features is not None:
            count = len(self.features)
            self.trained = nn.ParameterList(
                nn.Parameter(self.features[m].clone()) for m in range(count)
            )

    def raw(self, m: int) -> Tensor:
        return self.trained[m] if self.config.train_features else super().raw(m)


RELEASED: dict[str, type[Recommender]] = {
    "dualgnn": DualGNN,
    "grcn": GRCN,
    "mmgcn": MMGCN,
    "bm3": BM3,
}
