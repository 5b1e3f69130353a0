"""VBPR: matrix factorisation with a linear view of the features.

Source: He & McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback", AAAI
2016.

With features f_m of any number of modalities, each row at length one, and zero where the item lacks
the modality:

    x_i   = Σ_m E_m f_{m,i}                                   one linear map of all features
    score = γ_u · γ_i + θ_u · x_i + β_i + Σ_m β'_m · f_{m,i}
    loss  = BPR + λ · penalty of the batch's rows [γ_u ‖ θ_u], [γ_i ‖ x_i], β_i

As two tables: user [γ_u ‖ θ_u ‖ 1], item [γ_i ‖ x_i ‖ β_i + Σ_m β'_m · f_{m,i}]. The paper's terms
of the user alone and of all pairs do not change the order of items and are left out.

Departures from the paper:

- β and β' are an option (`bias=true`), off by default as in the comparisons of the literature.
- Any number of modalities instead of images alone.
- Feature rows have length one (`features="raw"`: as they are in the data).
- x_i is penalised instead of E and β'.
- The best known port has a constant in its map, which items without features share; here the map
  has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.graphs.arrivals import NewItems
from dualgnn_dgl.models.base import Features, ItemFoldin, Recommender, table, unit_rows
from dualgnn_dgl.models.losses import PENALTIES, bpr, pick, row_penalty


@dataclass(frozen=True)
class Config(Options):
    """Options of VBPR."""

    width: int = option(64, "width D of γ and of θ", low=1, high=WIDTH)
    bias: bool = option(False, "item bias β and feature bias β'")
    features: str = option(
        "unit", "feature rows at length one, or as they are", choices=("unit", "raw")
    )
    l2: float = option(1e-2, "weight λ of the penalty on a batch's rows", low=0)
    penalty: str = option(
        "square", "form of that penalty: squares, or MMRec's lengths", choices=PENALTIES
    )


class VBPR(Recommender):
    """Identities and a linear view of the features, side by side."""

    Config = Config
    uses_modalities = True
    SEARCH = {
        "l2": (1e-3, 1e-2, 3e-2, 1e-1, 3e-1),
        "bias": (True, False),
        "features": ("unit", "raw"),
        "lr": (5e-4, 1e-3, 3e-3),
    }
    row_axes = Recommender.row_axes | {"item_bias": "item"}

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.config = config
        self.features = Features(modalities)
        users, items, widths = (
            graph.num_nodes("user"),
            graph.num_nodes("item"),
            self.features.widths(),
        )
        self.user = table(users, 2 * config.width)  # γ_u ‖ θ_u
        self.item = table(items, config.width)  # γ_i
        maps = table(sum(widths), config.width).detach().split(widths)
        self.map = nn.ParameterList(part.clone() for part in maps)  # E_m, (F_m, D) each
        if config.bias:
            self.item_bias = nn.Parameter(torch.zeros(items, 1))  # β
            self.feature_bias = nn.ParameterList(torch.zeros(width, 1) for width in widths)  # β'_m

    def feature(self, m: int, rows: Tensor | None) -> Tensor:
        """Returns f_m of the given items (B, F_m), or of all without `rows`."""
        value, present = self.features[m], self.features.present[:, m]
        if rows is not None:
            value, present = value[rows], present[rows]
        return (
            unit_rows(value, present)
            if self.config.features == "unit"
            else value.where(present.unsqueeze(1), 0)
        )

    def items(self, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns γ_i ‖ x_i (B, 2D), and with biases also β_i and Σ β'_m · f_m, (B, 1) each.

        Args:
            rows: Items, (B,); None for all.
        """
        features = [self.feature(m, rows) for m in range(len(self.features))]
        own = self.item if rows is None else pick(self.item, rows)
        vector = torch.cat(
            [own, sum(f @ weight for f, weight in zip(features, self.map, strict=True))], dim=1
        )
        if not self.config.bias:
            return (vector,)
        bias = self.item_bias if rows is None else pick(self.item_bias, rows)
        return (
            vector,
            bias,
            sum(f @ weight for f, weight in zip(features, self.feature_bias, strict=True)),
        )

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns the two tables, (U, ·) and (I, ·)."""
        vector, *bias = self.items()
        if not bias:
            return self.user, vector
        one = self.user.new_ones(len(self.user), 1)
        return torch.cat([self.user, one], dim=1), torch.cat([vector, sum(bias)], dim=1)

    def item_foldin(self) -> ItemFoldin:
        """Returns a rule for items unseen in training: [0 ‖ x ‖ Σ β'_m · f_m].

        An unseen item has no identity and no bias of its own.
        """
        maps = [weight.detach().clone() for weight in self.map]
        biases = (
            [weight.detach().clone() for weight in self.feature_bias] if self.config.bias else []
        )

        def rule(videos: NewItems) -> Tensor:
            # The rows of missing features are zero.
            features = [torch.from_numpy(modality.values) for modality in videos.features.values()]
            if self.config.features == "unit":
                features = [unit_rows(f) for f in features]
            # x of shape (N, D)
            seen = torch.stack([f @ weight for f, weight in zip(features, maps, strict=True)]).sum(
                0
            )
            parts = [seen.new_zeros(seen.shape), seen]
            if biases:
                parts.append(
                    torch.stack(
                        [f @ weight for f, weight in zip(features, biases, strict=True)]
                    ).sum(0)
                )
            return torch.cat(parts, dim=1)

        return rule

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the loss of B triples, without a pass over the catalogue, ()."""
        user = pick(self.user, users)
        (positive, *p_bias), (negative, *n_bias) = self.items(positives), self.items(negatives)
        difference = (user * (positive - negative)).sum(-1)
        if p_bias:
            difference = difference + (sum(p_bias) - sum(n_bias)).squeeze(1)
        penalty = row_penalty(
            self.config.penalty, user, positive, negative, *p_bias[:1], *n_bias[:1]
        )
        return bpr(difference) + self.config.l2 * penalty
