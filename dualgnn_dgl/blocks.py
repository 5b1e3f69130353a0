"""Sampled blocks: a batch's loss from the users and micro-videos around it instead of the whole graph, for graphs beyond memory.

The block of a batch holds its users and items and, for each of `hops` steps, at most `fanout` neighbours of every node that the
step before has reached, along every graph of the model: user–item, user–user and item–item. The model then runs over the block
as if it were the data: rows of its tables and features, and *all* edges between nodes of the block. A row of the user–item graph
that lost d − d' of its d edges counts the others d / d' times; a block that reaches everything gives the loss of the whole graph.

Source: at most so many neighbours a hop: GraphSAGE (Hamilton et al., NeurIPS 2017); all edges among what was drawn: GraphSAINT
(Zeng et al., ICLR 2020) and shaDow-GNN (Zeng et al., NeurIPS 2021). Departure: rows are rescaled by the edges they kept, not by
the probability with which an edge is drawn. Means over users in a loss (DualGNN's penalty on attention) run over the block's.
"""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.models.losses import pick
from dualgnn_dgl.ops import Adjacency
from dualgnn_dgl.ops.learned import Edges
from dualgnn_dgl.ops.matrix import places

M = TypeVar("M", bound=nn.Module)


class Blocks:
    """Draws the blocks of a model's batches.

    Parameters
    ----------
    users, items : how many there are, U and I.
    fanout : neighbours a node, step and graph at most.
    hops : steps, as a rule the model's layers.
    generator : on the model's device; what is drawn depends on it alone.

    Raises
    ------
    ConfigError
        for a model without a graph, or whose edge weights are learned over the whole one, and where U = I, so that a table
        does not tell whose it is.
    """

    def __init__(self, model: Recommender, users: int, items: int, fanout: int, hops: int, generator: torch.Generator) -> None:
        if any(isinstance(module, Edges) for module in model.modules()):
            raise ConfigError("fanout: this model learns weights for the edges of the whole graph: leave fanout at 0")
        if not adjacencies(model):
            raise ConfigError("fanout: this model has no graph to draw from: leave fanout at 0")
        if users == items:
            raise ConfigError(f"fanout: {users} users and as many micro-videos, tables cannot be told apart: leave fanout at 0")
        self.model, self.fanout, self.hops, self.generator = model, fanout, hops, generator
        self.sizes = users, items

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """The model's loss of B triples, (B,) int64 each, over their block; a scalar."""
        nodes = self.draw(users, torch.cat([positives, negatives]))
        place = [places(part, size) for part, size in zip(nodes, self.sizes, strict=True)]
        block = restricted(self.model, dict(zip(self.sizes, nodes, strict=True)))
        return block.loss(place[0][users], place[1][positives], place[1][negatives])

    def draw(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Users (U',) and items (I',) of the block around these, ascending and each once."""
        reached = {size: torch.zeros(size, dtype=torch.bool, device=users.device) for size in self.sizes}
        for size, nodes in zip(self.sizes, (users, items), strict=True):
            reached[size][nodes] = True
        frontier, graphs = reached, adjacencies(self.model)
        for _ in range(self.hops):
            found = {size: torch.zeros_like(mask) for size, mask in reached.items()}
            for adjacency in graphs:
                target, source = adjacency.shape
                found[source][adjacency.neighbours(frontier[target].nonzero().flatten(), self.fanout, self.generator)] = True
            frontier = {size: found[size] & ~reached[size] for size in self.sizes}
            reached = {size: reached[size] | found[size] for size in self.sizes}
        drawn = [reached[size].nonzero().flatten() for size in self.sizes]
        return drawn[0], drawn[1]


def adjacencies(model: nn.Module) -> list[Adjacency]:
    """Every graph of the model, each once."""
    return [module for module in model.modules() if isinstance(module, Adjacency)]


def restricted(module: M, nodes: dict[int, Tensor], known: dict[int, nn.Module] | None = None) -> M:
    """The module over some users and items only: graphs, tables and features cut down to them, maps as they are.

    `nodes` has, for the U users and the I items, those that stay, ascending. The tables' rows are differentiable: gradients
    arrive at the module's own parameters, which are shared. A table is a parameter or buffer with a row a user or item; the
    weights of `nn.Linear` are none, whatever their shape.
    """
    known = {} if known is None else known
    if id(module) in known:
        return cast(M, known[id(module)])
    if isinstance(module, Adjacency):
        known[id(module)] = module.block(*(nodes[size] for size in module.shape))
        return cast(M, known[id(module)])
    twin = known[id(module)] = copy.copy(module)
    twin._parameters, twin._buffers, twin._modules = {}, {}, {}
    for name, parameter in module._parameters.items():
        if parameter is not None and not isinstance(module, nn.Linear) and parameter.ndim > 0 and len(parameter) in nodes:
            twin._buffers[name] = pick(parameter, nodes[len(parameter)])  # the rows are no leaf, hence no parameter
        else:
            twin._parameters[name] = parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.ndim > 0 and len(buffer) in nodes:
            buffer = buffer[nodes[len(buffer)]]
        twin._buffers[name] = buffer
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else restricted(child, nodes, known)
    return twin
