"""Which item has which modality, and what follows from it for users, edges and attention.

For models that mask.

Source: DualGNN (Wang et al., TMM 2023) says that modalities are missing everywhere and that users
with similar tastes make up for it along the co-occurrence graph. Removing an item's edges in the
graph of a modality that it lacks is what the authors' code prepares; hiding features in training is
modality dropout (Neverova et al., ModDrop, TPAMI 2016; LRMM, EMNLP 2018).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.graphs import heterographs
from dualgnn_dgl.ops import Adjacency


class ModalityMask(nn.Module):
    """What is there, for one mask of items.

    Buffers that move with `.to()` and stay out of the state dict.

    Parameters
    ----------
    present : (I, M) bool
    drop_edges : give each modality a graph of its own, without the edges of items that lack it.
    omega : user co-occurrence Ω (U, U): users whose videos all lack a modality borrow it from
        neighbours whose videos have it.
        None: nobody borrows.

    Attributes
    ----------
    observed : (U, M) bool
        has any of u's training videos modality m?
    supplied : (U, M) bool
        not observed, but some co-occurring user observes it; nowhere without `omega`.
    """

    row_axes: ClassVar = {"present": "item", "observed": "user", "supplied": "user"}
    present: Tensor
    observed: Tensor
    supplied: Tensor

    def __init__(
        self,
        graph: dgl.DGLGraph,
        present: Tensor,
        *,
        drop_edges: bool = False,
        omega: Adjacency | None = None,
    ) -> None:
        super().__init__()
        users, count = graph.num_nodes("user"), present.shape[1]
        observed = heterographs.observed(graph, present)
        supplied = torch.zeros_like(observed)
        to_user = (
            [heterographs.user_item(graph, present[:, m]) for m in range(count)]
            if drop_edges
            else []
        )
        self.to_user = nn.ModuleList(to_user)  # (U, I) each
        self.to_item = nn.ModuleList(adjacency.T for adjacency in to_user)  # (I, U) each
        lenders = []
        for m in range(count if omega is not None else 0):
            target, source, weight = (part.cpu() for part in omega.edges())
            # from one who has it to one who has not
            lent = ~observed[target, m] & observed[source, m]
            target, source, weight = target[lent], source[lent], weight[lent]
            supplied[target, m] = True
            weight = (
                weight / torch.zeros(users, dtype=weight.dtype).index_add(0, target, weight)[target]
            )
            lenders.append(
                Adjacency(target, source, (users, users), weight=weight, axes=("user", "user"))
            )
        self.lenders = nn.ModuleList(lenders)
        self.complete = present.all(0).tolist()  # nothing to mask in modality m? [M]
        for name, value in (("present", present), ("observed", observed), ("supplied", supplied)):
            self.register_buffer(name, value.clone(), persistent=False)

    def graph(self, m: int) -> tuple[Adjacency, Adjacency] | None:
        """Adjacency (U, I) of modality m and its transpose; None for the whole graph."""
        return (self.to_user[m], self.to_item[m]) if len(self.to_user) else None

    def lend(self, m: int, user: Tensor) -> Tensor:
        """User vectors (U, D) of modality m, those of supplied users replaced by Σ_j ω_uj u_j over
        the neighbours who have it.
        """
        if not len(self.lenders):
            return user
        return torch.where(self.supplied[:, m : m + 1], self.lenders[m] @ user, user)
