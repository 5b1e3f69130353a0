"""Which item has which modality, and what follows from it for users, edges and attention; for models that mask.

Source: DualGNN (Wang et al., TMM 2023) says that modalities are missing everywhere and that users with similar tastes make up for
it along the co-occurrence graph. Removing an item's edges in the graph of a modality that it lacks is what the authors' code
prepares; hiding features in training is modality dropout (Neverova et al., ModDrop, TPAMI 2016; LRMM, EMNLP 2018). Drawing a
noisy mean towards the mean of all, as far as it fails to predict, is shrinkage (James & Stein 1961).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dualgnn_dgl import graph as graphs
from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.ops import Adjacency

COLUMNS = 256  # features that travel at once in `lean`: bounds its working space


class Presence(nn.Module):
    """What is there, for one mask of items: buffers that move with `.to()` and stay out of the state dict.

    Parameters
    ----------
    present : (I, M) bool
    drop_edges : give each modality a graph of its own, without the edges of items that lack it.
    to_user : normalised Â (U, I) of the whole graph.
    features : (I, F_m) each; for `lean`. None needed where nobody asks for it.
    omega : user co-occurrence Ω (U, U): users whose videos all lack a modality borrow it from neighbours whose videos have it.
        None: nobody borrows.

    Attributes
    ----------
    observed : (U, M) bool
        has any of u's training videos modality m?
    supplied : (U, M) bool
        not observed, but some co-occurring user observes it; nowhere without `omega`.
    lean : how far the means of what watchers watched besides are to be trusted, [M]; 0 where no features are given.
    reach : (I, M) float
        Âᵀ Â p for p the mask of a modality: the weight with which two steps from a video end at videos that have it.
    """

    present: Tensor
    observed: Tensor
    supplied: Tensor
    reach: Tensor

    def __init__(
        self,
        graph: dgl.DGLGraph,
        present: Tensor,
        to_user: Adjacency,
        features: Sequence[Tensor] = (),
        *,
        drop_edges: bool = False,
        omega: Adjacency | None = None,
    ) -> None:
        super().__init__()
        users, count = graph.num_nodes("user"), present.shape[1]
        observed = graphs.observed(graph, present)
        supplied = torch.zeros_like(observed)
        dropped = [graphs.user_item(graph, present[:, m]) for m in range(count)] if drop_edges else []
        self.to_user = nn.ModuleList(dropped)  # (U, I) each
        self.to_item = nn.ModuleList(adjacency.T for adjacency in dropped)  # (I, U) each
        lenders = []
        for m in range(count if omega is not None else 0):
            target, source, weight = (part.cpu() for part in omega.edges())
            lent = ~observed[target, m] & observed[source, m]  # from one who has it to one who has not
            target, source, weight = target[lent], source[lent], weight[lent]
            supplied[target, m] = True
            weight = weight / torch.zeros(users, dtype=weight.dtype).index_add(0, target, weight)[target]
            lenders.append(Adjacency(target, source, (users, users), weight=weight))
        self.lenders = nn.ModuleList(lenders)
        self.complete = present.all(0).tolist()  # nothing to mask in modality m? [M]
        self.lean = [0.0] * count
        for m, table in enumerate(features):
            if not self.complete[m]:
                self.lean[m] = lean(table, present[:, m].to(table.device), to_user)
        device = next(to_user.buffers()).device  # where the model is; the graph and the mask stay on the CPU
        reach = to_user.T @ (to_user @ present.to(device).float())
        for name, value in (("present", present), ("observed", observed), ("supplied", supplied), ("reach", reach)):
            self.register_buffer(name, value.to(device, copy=True), persistent=False)

    def graph(self, m: int) -> tuple[Adjacency, Adjacency] | None:
        """Adjacency (U, I) of modality m and its transpose; None for the whole graph."""
        return (self.to_user[m], self.to_item[m]) if len(self.to_user) else None

    def lend(self, m: int, user: Tensor) -> Tensor:
        """User vectors (U, D) of modality m, those of supplied users replaced by Σ_j ω_uj u_j over the neighbours who have it."""
        if not len(self.lenders):
            return user
        return torch.where(self.supplied[:, m : m + 1], self.lenders[m] @ user, user)


def lean(features: Tensor, present: Tensor, to_user: Adjacency) -> float:
    """How far to trust, in one modality, what a video's watchers watched besides: 0 not at all, 1 as it is, and anything above.

    The β ≥ 0 for which x̄ + β (n_i − x̄) comes nearest to the features x_i of the videos that have them (least squares), x_i at
    length one, x̄ their mean, and n_i the mean over two steps Âᵀ Â of the *other* videos' features. 0 where no two videos that
    have the modality share a watcher. β above 1: n_i averages over so much that its direction is right and its length too small.

    Parameters
    ----------
    features : (I, F), present : (I,) bool
        rows of absent videos are not read.
    to_user : Â (U, I)
    """
    to_item, known = to_user.T, present.unsqueeze(1).to(features.dtype)  # p, (I, 1)
    _, item, weight = to_user.edges()
    itself = torch.zeros_like(known[:, 0]).index_add(0, item, weight.square().to(known.dtype)).unsqueeze(1)  # diagonal of Âᵀ Â
    reach = to_item @ (to_user @ known) - itself * known
    told = (present & (reach[:, 0] > 1e-6)).nonzero().squeeze(1)  # videos that have the modality, and neighbours with it, (N,)
    length = features[present].norm(dim=1)
    scale = torch.zeros_like(known[:, 0]).masked_scatter(present, 1 / length.clamp(min=1e-12)).unsqueeze(1)
    along, across = 0.0, 0.0
    for columns in features.split(COLUMNS, dim=1):
        x = torch.where(present.unsqueeze(1), columns * scale, 0.0)  # (I, ≤ 256)
        mean = x.sum(0) / present.sum().clamp(min=1)
        near = ((to_item @ (to_user @ x)) - itself * x)[told] / reach[told] - mean
        along += float((near * (x[told] - mean)).sum(dtype=torch.float64))
        across += float(near.square().sum(dtype=torch.float64))
    return max(along / across, 0.0) if across > 0 else 0.0
