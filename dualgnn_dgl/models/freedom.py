"""FREEDOM: a frozen item graph, and a user–item graph that is pruned in each epoch.

Source: Zhou & Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
Recommendation", ACM MM 2023.

    S     = Σ_m a_m S_m                                       frozen item graph, (I, I)
    h     = S^L' q                                            item side, (I, D)
    R'    = D^-½ (sample of the training pairs) D^-½          pruned graph, (U, I)
    u, i  = mean of layers 0…L of p, q                        over R' in training, over R in ranking
    score = u · (i + h)
    loss  = BPR(u · (i⁺ + h⁺) − u · (i⁻ + h⁻))
            + μ Σ_m BPR(u · W_m f_m⁺ − u · W_m f_m⁻) + λ ½ Σ‖p, q rows‖² / B

S_m joins each item to the k nearest items in modality m, itself among them, under D^-½ · D^-½. The
sample is drawn in each epoch with probability ∝ 1/√(d_u d_i).

A missing modality: the item has no neighbour in S_m and is no neighbour there. Its shares a_m go to
the modalities that it has. A triple enters the feature loss of a modality only if both its items
have the modality; the mean is over these triples.

Differences from the authors' code:

- Any number of modalities. There, image and text with a = 0.1 and 0.9; here equal shares unless
  `weights` names others ("image=0.1,text=0.9" is the published setting).
- There, the feature loss compares `W_m f_m + b_m`. b_m cancels in the difference and is left out.
- λ is ours, and 0 by default: the published model has no such penalty, and its `reg_weight` is μ.
- The draw of an epoch is a number in the state dict, from which the pruned graph is built again.
  Before the first `new_epoch` the whole graph is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import COUNT, LAYERS, WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.graphs.heterographs import mixed_item_item, pruned, user_item
from dualgnn_dgl.models.base import (
    Features,
    Recommender,
    UserFoldin,
    shared_item_table,
    smoothed,
    table,
)
from dualgnn_dgl.models.losses import bpr, pick, row_penalty
from dualgnn_dgl.ops import Adjacency
from dualgnn_dgl.ops.dense import Linear


@dataclass(frozen=True)
class Config(Options):
    """Options of FREEDOM."""

    width: int = option(64, "embedding width D", low=1, high=WIDTH)
    layers: int = option(2, "propagation steps L over users and items", low=0, high=LAYERS)
    item_layers: int = option(1, "propagation steps L' over the item graph", low=0, high=LAYERS)
    item_k: int = option(10, "nearest videos in each modality, itself included", low=1, high=COUNT)
    weights: str = option(
        "equal", "share of each modality in the item graph: equal, or such as image=0.1,text=0.9"
    )
    dropout: float = option(
        0.8, "share of the training pairs left out of an epoch's graph", low=0, high=0.999
    )
    feature_weight: float = option(1e-3, "weight μ of the feature loss", low=0)
    l2: float = option(
        0.0, "weight λ of the penalty on a batch's layer-0 rows (the paper has none)", low=0
    )


class FREEDOM(Recommender):
    """LightGCN on a pruned graph, plus the similarity of items."""

    Config = Config
    uses_modalities = True
    # A propagation costs the same for any batch; it leaves its plateau at popularity late
    # (benchmarks/LOG.md).
    TRAIN = {"batch_size": 16384, "lr": 3e-3, "patience": 30}
    SEARCH = {
        "dropout": (0.5, 0.8, 0.9),
        "feature_weight": (0.0, 1e-5, 1e-4, 1e-3),
        "layers": (2, 3),
        "l2": (0.0, 1e-4, 1e-3, 1e-2),
        "lr": (1e-3, 3e-3, 1e-2),
    }

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.to_user = user_item(graph)  # R, (U, I)
        self.to_item = self.to_user.T  # (I, U)
        shares = shares_of(config.weights, list(modalities))
        # S of shape (I, I)
        self.similar = mixed_item_item(list(modalities.values()), shares, config.item_k, own=True)
        self.user = table(graph.num_nodes("user"), config.width)  # p
        self.item = table(graph.num_nodes("item"), config.width)  # q
        self.features = Features(modalities) if config.feature_weight > 0 else None
        if self.features is not None:
            self.project = nn.ModuleList(
                Linear(columns, config.width, bias=False) for columns in self.features.widths()
            )
        self._graph = graph if config.dropout > 0 else None
        self.thin_to_user, self.thin_to_item = self.to_user, self.to_item
        # The draw belongs to the epoch's state: a resumed epoch needs the same graph.
        if self._graph is not None:
            # 0 means that no graph has been drawn: the whole one is used.
            self.register_buffer("draw", torch.zeros((), dtype=torch.int64))
            self.register_load_state_dict_post_hook(lambda model, _: model._thin())

    def _thin(self) -> None:
        """Builds R' and its transpose from the present draw."""
        drawn = int(self.draw)
        if drawn == 0:
            self.thin_to_user, self.thin_to_item = self.to_user, self.to_item
            return
        generator = torch.Generator().manual_seed(drawn)
        self.thin_to_user = pruned(self._graph, self.config.dropout, generator).to(self.draw.device)
        self.thin_to_item = self.thin_to_user.T

    def new_epoch(self, generator: torch.Generator) -> None:
        """Draws the epoch's pruned graph."""
        if self._graph is not None:
            self.draw.fill_(int(torch.randint(1, 2**62, (), generator=generator)))
            self._thin()

    @property
    def static_step(self) -> bool:
        """Whether no graph is drawn."""
        return self._graph is None

    def tables(self, to_user: Adjacency, to_item: Adjacency) -> tuple[Tensor, Tensor]:
        """Returns u (U, D) and i + h (I, D) over a user–item graph and its transpose."""
        user, item = smoothed(to_user, to_item, self.user, self.item, self.config.layers)
        resembling = self.item  # h
        for _ in range(self.config.item_layers):
            resembling = self.similar @ resembling
        return user, item + resembling

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns u (U, D) and i + h (I, D) over the whole graph."""
        return self.tables(self.to_user, self.to_item)

    def user_foldin(self) -> UserFoldin:
        """Returns a rule for users unseen in training: layers 1…L from their histories.

        Layer 0 of an unseen user is unknown and left out.
        """
        with torch.no_grad():
            shared = shared_item_table(
                self.to_user, self.to_item, self.user, self.item, self.config.layers
            ).clone()
        return lambda histories: histories.to_user @ shared

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the loss of B triples (user, watched item, unwatched item), ()."""
        user, item = self.tables(self.thin_to_user, self.thin_to_item)
        own = pick(user, users)  # (B, D)
        total = bpr((own * (pick(item, positives) - pick(item, negatives))).sum(-1))
        if self.features is not None:
            total = total + self.config.feature_weight * self.feature_loss(
                own, positives, negatives
            )
        if self.config.l2 > 0:
            rows = pick(self.user, users), pick(self.item, positives), pick(self.item, negatives)
            total = total + self.config.l2 * row_penalty("square", *rows)
        return total

    def feature_loss(self, user: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns Σ_m BPR of users against projected features, ().

        The mean of modality m is over the triples whose items both have it.

        Args:
            user: Users of the batch, (B, D).
            positives: Watched items, (B,).
            negatives: Unwatched items, (B,).
        """
        total = user.new_zeros(())
        for m, project in enumerate(self.project):
            # of shape (B,)
            mask = self.features.present[positives, m] & self.features.present[negatives, m]
            # W f⁺ − W f⁻, (B, D)
            apart = project(self.features[m][positives] - self.features[m][negatives])
            each = -nn.functional.logsigmoid((user * apart).sum(-1))
            total = total + (each * mask).sum() / mask.sum().clamp(min=1)
        return total


def shares_of(weights: str, names: list[str]) -> list[float]:
    """Returns the share of each modality in the item graph; the shares sum to one.

    >>> shares_of("text=3,image=1", ["image", "text"])
    [0.25, 0.75]

    Args:
        weights: The option `weights`.
        names: Names of the modalities.

    Raises:
        ConfigError: For an unknown or missing modality, a share that is no number of at least zero,
            or shares that are all zero.
    """
    if weights.strip() == "equal":
        return [1 / len(names)] * len(names)
    shares: dict[str, float] = {}
    for pair in weights.split(","):
        name, _, text = (part.strip() for part in pair.rpartition("="))
        if name not in names:
            raise ConfigError(f"weights={weights:.80}: {unknown('modality', name, names)}")
        try:
            shares[name] = float(text)
        except ValueError:
            shares[name] = -1.0
        if not 0 <= shares[name] < float("inf"):
            raise ConfigError(
                f"weights gives {name} the share '{text:.20}': give a number of at least zero, as "
                f"in {name}=0.5"
            )
    left_out = [name for name in names if name not in shares]
    if left_out or sum(shares.values()) == 0:
        what = f"leaves out {', '.join(left_out)}" if left_out else "gives all modalities zero"
        raise ConfigError(
            f"weights={weights:.80} {what}: name every modality, one of them above zero, or write "
            f"equal"
        )
    return [shares[name] / sum(shares.values()) for name in names]
