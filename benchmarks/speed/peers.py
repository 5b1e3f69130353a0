"""Peers of our models in speed: the same work, written with torch_geometric as its users write it.

`PygDualGNN` has the equations of `dualgnn_dgl.models.dualgnn` with `missing=mask`, else its
defaults (tests/test_peers.py: the same parameters give the same embeddings, loss and gradients). It
has the usual style: one graph of N = U + I nodes with 2E directed edges, a `MessagePassing` layer
per modality and step, normalisation as a weight on every edge, users' neighbours as a gathered (U,
K, D) tensor. It has the care of a good user: the edge weights are computed once, a mask costs
nothing where no feature is missing, the neighbours' table is built once.

`lightgcn` is torch_geometric's own LightGCN with its own loss. `form="csr"` passes the normalised
adjacency as a sparse tensor, the fastest form that torch_geometric has without compiled extensions.

It needs `pip install -e '.[bench]'`, and was written for this comparison.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models import LightGCN

from dualgnn_dgl.data import CoOccurrence, Interactions, Modality
from dualgnn_dgl.training.sampling import TripleSampler


def edges(train: Interactions) -> Tensor:
    """Returns both directions of every pair in one graph, users first, (2, 2E) int64.

    Row 0 sends to row 1.
    """
    user, item = torch.tensor(train.user), torch.tensor(train.item) + train.num_users
    return torch.stack([torch.cat([user, item]), torch.cat([item, user])])


class Propagation(MessagePassing):
    """Computes x_i ← Σ_j w_ij x_j, (N, D) → (N, D)."""

    def __init__(self) -> None:
        super().__init__(aggr="add")

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return weight.view(-1, 1) * x_j  # (2E, D)


def neighbour_table(lists: CoOccurrence, k: int) -> tuple[Tensor, Tensor]:
    """Returns each user's k strongest neighbours and the softmax of their counts, (U, k) each.

    The weight is 0 where there are fewer.
    """
    users = lists.num_users
    target = np.repeat(np.arange(users), np.diff(lists.indptr))
    rank = np.arange(len(target)) - lists.indptr[target]
    kept = rank < k
    neighbour, score = torch.zeros(users, k, dtype=torch.int64), torch.full((users, k), -torch.inf)
    place = torch.from_numpy(target[kept]), torch.from_numpy(rank[kept])
    neighbour[place] = torch.from_numpy(lists.neighbour[kept])
    score[place] = torch.from_numpy(lists.weight[kept])
    # The scores of a user without neighbours are all −inf: their softmax is NaN, replaced by 0.
    return neighbour, score.softmax(-1).nan_to_num(0.0)


class Movable(nn.Module):
    """A module whose plain tensors, and lists of them, move with `.to()` like its parameters."""

    def _apply(self, function, recurse: bool = True):
        super()._apply(function, recurse)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, function(value))
            elif isinstance(value, list):
                setattr(
                    self,
                    name,
                    [function(part) if isinstance(part, Tensor) else part for part in value],
                )
        return self


class PygDualGNN(Movable):
    """DualGNN with message passing; parameters have the same names as in our model."""

    def __init__(
        self,
        train: Interactions,
        modalities: Mapping[str, Modality],
        lists: CoOccurrence,
        *,
        width: int = 64,
        layers: int = 2,
        hidden: int = 256,
        k: int = 40,
        l2: float = 0.1,
    ) -> None:
        super().__init__()
        self.users, self.l2 = train.num_users, l2
        nodes = train.num_users + train.num_items
        self.edge_index, self.weight = gcn_norm(edges(train), None, nodes, add_self_loops=False)
        self.features = [torch.tensor(modality.values) for modality in modalities.values()]
        # of shape (I, M)
        present = torch.from_numpy(
            np.stack([modality.present for modality in modalities.values()], axis=1)
        )
        # of shape (N, M)
        known = torch.cat([torch.ones(self.users, len(modalities), dtype=torch.bool), present])
        # (N, 1) each
        self.masks = [
            None if bool(column.all()) else column.float().unsqueeze(1) for column in known.T
        ]
        pairs = torch.tensor(train.user), torch.tensor(train.item)
        seen = torch.zeros(self.users, len(modalities)).index_add(
            0, pairs[0], present[pairs[1]].float()
        )
        observed = (seen > 0) | ~(seen > 0).any(1, keepdim=True)
        self.unheard = None if bool(observed.all()) else ~observed  # (U, M)
        self.neighbour, self.share = neighbour_table(lists, k)
        self.convs = nn.ModuleList(
            nn.ModuleList(Propagation() for _ in range(layers)) for _ in modalities
        )
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Linear(m.width, hidden), nn.LeakyReLU(0.01), nn.Linear(hidden, width))
            for m in modalities.values()
        )
        self.preference = nn.ParameterList(
            nn.Parameter(nn.init.xavier_normal_(torch.empty(self.users, width))) for _ in modalities
        )
        if len(modalities) > 1:
            self.attention = nn.Parameter(
                nn.init.xavier_normal_(torch.empty(self.users, len(modalities), 1)).squeeze(-1)
            )

    def single_modal(self, m: int) -> Tensor:
        """Returns all nodes in modality m, (N, D)."""
        x = functional.normalize(
            torch.cat([self.preference[m], self.encoders[m](self.features[m])])
        )
        if self.masks[m] is not None:
            x = x * self.masks[m]
        total = x
        for conv in self.convs[m]:
            x = conv(x, self.edge_index, self.weight)
            total = total + x
        return total

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns the tables user (U, D) and item (I, D)."""
        # of shape (N, M, D)
        tables = torch.stack([self.single_modal(m) for m in range(len(self.features))], dim=1)
        user, item = tables[: self.users], tables[self.users :].sum(1)
        if len(self.features) > 1:
            logits = (
                self.attention
                if self.unheard is None
                else self.attention.masked_fill(self.unheard, -torch.inf)
            )
            user = logits.softmax(-1).unsqueeze(-1) * user
        user = user.sum(1)
        near = user[self.neighbour]  # (U, K, D)
        return user + (self.share.unsqueeze(-1) * near).sum(1), item

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        user, item = self.embed()
        chosen = user[users]
        difference = (chosen * item[positives]).sum(-1) - (chosen * item[negatives]).sum(-1)
        penalty = sum(table[users].square().mean() for table in self.preference)
        if len(self.features) > 1:
            penalty = penalty + self.attention.square().mean()
        return -functional.logsigmoid(difference).mean() + self.l2 * penalty


class PygLightGCN(Movable):
    """torch_geometric's LightGCN as its documentation uses it.

    `form` is 'edges' (the usual one) or 'csr'.
    """

    def __init__(
        self,
        train: Interactions,
        *,
        width: int = 64,
        layers: int = 3,
        l2: float = 1e-4,
        form: str = "edges",
    ) -> None:
        super().__init__()
        self.users, self.l2 = train.num_users, l2
        nodes = train.num_users + train.num_items
        self.graph = edges(train)
        if form == "csr":
            index, weight = gcn_norm(self.graph, None, nodes, add_self_loops=False)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse (invariant|CSR)")
                self.graph = (
                    torch.sparse_coo_tensor(index, weight, (nodes, nodes))
                    .coalesce()
                    .to_sparse_csr()
                )
        self.model = LightGCN(nodes, width, layers, normalize=form != "csr")

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns the tables user (U, D) and item (I, D)."""
        return self.model.get_embedding(self.graph).tensor_split([self.users])

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        # of shape (2, 2B)
        pairs = torch.stack([users.repeat(2), torch.cat([positives, negatives]) + self.users])
        positive, negative = self.model(self.graph, pairs).chunk(2)
        return self.model.recommendation_loss(
            positive, negative, node_id=pairs.unique(), lambda_reg=self.l2
        )


def train_steps(
    model: nn.Module, train: Interactions, batch_size: int, lr: float, seed: int = 0
) -> Iterator[tuple[int, int]]:
    """Trains without end, epoch after epoch.

    It is the usual loop, with our sampler: the comparison is of models, not of sampling in Python.

    Yields:
        After each step, its number in the epoch (from 1) and the steps per epoch.
    """
    device = next(model.parameters()).device
    sampler, draw = TripleSampler(train, device), torch.Generator(device).manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    steps = -(-len(sampler) // batch_size)
    while True:
        model.train()
        total = 0.0
        for step, (users, positives, negatives) in enumerate(
            sampler.epoch(batch_size, draw), start=1
        ):
            optimiser.zero_grad()
            loss = model.loss(users, positives, negatives)
            loss.backward()
            optimiser.step()
            total += loss.item()
            yield step, steps
