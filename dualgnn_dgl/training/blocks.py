"""Sampled blocks: a batch's loss from the nodes around it instead of the whole graph.

They serve graphs beyond memory. The block of a batch has its users and items and, for each of
`hops` steps, at most `fanout` neighbours of every node that the step before has reached, along
every graph of the model: user–item, user–user and item–item. The model then runs over the block as
if it were the data: rows of its tables and features, and all edges between nodes of the block. A
row of the user–item graph that keeps d' of its d edges counts them d / d' times. A block that
reaches everything gives the loss of the whole graph.

Source: a limit of neighbours a hop: GraphSAGE (Hamilton et al., NeurIPS 2017); all edges among the
drawn nodes: GraphSAINT (Zeng et al., ICLR 2020) and shaDow-GNN (Zeng et al., NeurIPS 2021).
Departure: rows are rescaled by the edges they kept, not by the probability with which an edge is
drawn. Means over users in a loss (DualGNN's penalty on attention) are over the block's users.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
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

    Args:
        model: Model whose graphs are sampled.
        users: Number of users U.
        items: Number of items I.
        fanout: Largest number of neighbours a node, step and graph.
        hops: Steps, as a rule the model's layers.
        generator: Source of the draws, on the model's device.

    Raises:
        ConfigError: For a model without a graph, or one that learns edge weights over the whole
            graph.
    """

    def __init__(
        self,
        model: Recommender,
        users: int,
        items: int,
        fanout: int,
        hops: int,
        generator: torch.Generator,
    ) -> None:
        if any(isinstance(module, Edges) for module in model.modules()):
            raise ConfigError(
                "fanout: this model learns weights for the edges of the whole graph: leave fanout "
                "at 0"
            )
        if not adjacencies(model):
            raise ConfigError("fanout: this model has no graph to draw from: leave fanout at 0")
        self.model, self.fanout, self.hops, self.generator = model, fanout, hops, generator
        self.sizes = {"user": users, "item": items}

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Returns the model's loss of B triples, (B,) int64 each, over their block, ()."""
        nodes = self.draw(users, torch.cat([positives, negatives]))
        place = [places(part, size) for part, size in zip(nodes, self.sizes.values(), strict=True)]
        block = restricted(self.model, dict(zip(self.sizes, nodes, strict=True)))
        return block.loss(place[0][users], place[1][positives], place[1][negatives])

    def draw(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Returns users (U',) and items (I',) of the block around some nodes, sorted and unique."""
        reached = {
            axis: torch.zeros(size, dtype=torch.bool, device=users.device)
            for axis, size in self.sizes.items()
        }
        for axis, nodes in zip(self.sizes, (users, items), strict=True):
            reached[axis][nodes] = True
        frontier, graphs = reached, adjacencies(self.model)
        for _ in range(self.hops):
            found = {axis: torch.zeros_like(mask) for axis, mask in reached.items()}
            for adjacency in graphs:
                target, source = axes_of(adjacency)
                found[source][
                    adjacency.neighbours(
                        frontier[target].nonzero().flatten(), self.fanout, self.generator
                    )
                ] = True
            frontier = {axis: found[axis] & ~reached[axis] for axis in self.sizes}
            reached = {axis: reached[axis] | found[axis] for axis in self.sizes}
        drawn = [reached[axis].nonzero().flatten() for axis in self.sizes]
        return drawn[0], drawn[1]


def adjacencies(model: nn.Module) -> list[Adjacency]:
    """Returns every graph of the model, each once."""
    return [module for module in model.modules() if isinstance(module, Adjacency)]


def axes_of(adjacency: Adjacency) -> tuple[str, str]:
    """Returns 'user' or 'item' for rows and columns of a model's graph."""
    if adjacency.axes is None:
        raise ValueError(
            f"an adjacency of shape {adjacency.shape} does not say what it joins: give it `axes`"
        )
    return adjacency.axes


def restricted(
    module: M,
    nodes: dict[str, Tensor],
    known: dict[int, nn.Module] | None = None,
    axis: str | None = None,
) -> M:
    """Returns the module over some users and items only.

    Graphs, tables and features are cut down to them; maps stay as they are. The tables' rows are
    differentiable: gradients reach the module's own parameters, which are shared.

    Args:
        module: A model or a part of it; its `row_axes` names its tables (see `models.base`).
        nodes: Users and items that stay, sorted, under 'user' and 'item'.
        known: Modules that are done, by `id`.
        axis: Axis of all members of a list.
    """
    known = {} if known is None else known
    if id(module) in known:
        return cast(M, known[id(module)])
    if isinstance(module, Adjacency):
        known[id(module)] = module.block(*(nodes[end] for end in axes_of(module)))
        return cast(M, known[id(module)])
    twin = known[id(module)] = copy.copy(module)
    twin._parameters, twin._buffers, twin._modules = {}, {}, {}
    marks: Mapping[str, str] = getattr(module, "row_axes", {})
    for name, parameter in module._parameters.items():
        rows = marks.get(name, axis)
        if parameter is not None and rows is not None:
            # These rows are not a leaf, so they cannot be a parameter.
            twin._buffers[name] = pick(parameter, nodes[rows])
        else:
            twin._parameters[name] = parameter
    for name, buffer in module._buffers.items():
        rows = marks.get(name, axis)
        twin._buffers[name] = buffer if buffer is None or rows is None else buffer[nodes[rows]]
    for name, child in module._modules.items():
        twin._modules[name] = (
            None if child is None else restricted(child, nodes, known, marks.get(name, axis))
        )
    return twin
