"""BPR-MF: matrix factorisation with the BPR loss.

Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
score(u, i) = p_u · q_i; no biases, the form that the multimodal literature compares with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.core.options import WIDTH, Options, option
from dualgnn_dgl.data import Modality
from dualgnn_dgl.models.base import Recommender, table
from dualgnn_dgl.models.losses import PENALTIES, pick, row_penalty


@dataclass(frozen=True)
class Config(Options):
    """Options of BPR-MF."""

    width: int = option(64, "embedding width D", low=1, high=WIDTH)
    l2: float = option(1e-2, "weight of the penalty on a batch's rows", low=0)
    penalty: str = option(
        "square", "form of that penalty: squares, or MMRec's lengths", choices=PENALTIES
    )


class BPRMF(Recommender):
    """User table p (U, D) and item table q (I, D)."""

    Config = Config
    SEARCH = {"l2": (1e-3, 1e-2, 3e-2, 1e-1, 3e-1), "lr": (5e-4, 1e-3, 3e-3)}

    def __init__(
        self, graph: dgl.DGLGraph, modalities: Mapping[str, Modality], config: Config
    ) -> None:
        super().__init__()
        self.l2, self.form = config.l2, config.penalty
        self.user = table(graph.num_nodes("user"), config.width)
        self.item = table(graph.num_nodes("item"), config.width)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns p and q."""
        return self.user, self.item

    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the penalty on the rows of a batch."""
        triple = pick(self.user, users), pick(self.item, positives), pick(self.item, negatives)
        return self.l2 * row_penalty(self.form, *triple)
