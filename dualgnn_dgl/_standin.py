"""A stand-in for the few parts of DGL that training needs, for systems without a DGL wheel.

It covers heterographs of edges in the order in which they were given, with data on nodes and
edges. DGL returns edges in the same order, so the weights of models are bit-identical. Kernels,
sampling, partitioning and distribution need DGL itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dualgnn_dgl.errors import DualGNNError

__version__ = "none"
NEEDED = (
    "{} needs DGL, which is not installed: use Python 3.11 or 3.12 on Linux, "
    "pip install 'dgl==2.1.0'"
)
Relation = tuple[str, str, str]


class Missing(DualGNNError, AttributeError):
    """A part of DGL that the stand-in lacks; an AttributeError, so that `hasattr` works."""


class _Frame:
    """Holds the data of one node or edge type."""

    def __init__(self) -> None:
        self.data: dict[str, Tensor] = {}


class _Edges:
    """`graph.edges(etype=...)` returns ends; `graph.edges[...]` returns the data of a relation."""

    def __init__(self, graph: DGLGraph) -> None:
        self._graph = graph
        self._frames: dict[Relation, _Frame] = {}

    def __call__(self, etype: str | Relation | None = None) -> tuple[Tensor, Tensor]:
        return self._graph._ends[self._graph.to_canonical_etype(etype)]

    def __getitem__(self, etype: str | Relation) -> _Frame:
        return self._frames.setdefault(self._graph.to_canonical_etype(etype), _Frame())


class _Nodes:
    """`graph.nodes[...]` returns the data of a node type."""

    def __init__(self) -> None:
        self._frames: dict[str, _Frame] = {}

    def __getitem__(self, ntype: str) -> _Frame:
        return self._frames.setdefault(ntype, _Frame())


class DGLGraph:
    """A heterograph on the CPU: ends of the edges of each relation, and data on nodes and edges."""

    def __init__(self, ends: Mapping[Relation, tuple[Tensor, Tensor]], counts: Mapping[str, int]):
        self._ends, self._counts = dict(ends), dict(counts)
        self.edges, self.nodes = _Edges(self), _Nodes()

    @property
    def ntypes(self) -> list[str]:
        """Names of the node types, sorted as in DGL."""
        return sorted(self._counts)

    @property
    def canonical_etypes(self) -> list[Relation]:
        """Relations as (source type, name, destination type), sorted as in DGL."""
        return sorted(self._ends)

    @property
    def etypes(self) -> list[str]:
        """Names of the relations, in the order of `canonical_etypes`."""
        return [name for _, name, _ in self.canonical_etypes]

    def to_canonical_etype(self, etype: str | Relation | None) -> Relation:
        """Returns the whole name of a relation; None names the only one."""
        found = [r for r in self._ends if etype is None or etype in (r, r[1])]
        if len(found) != 1:
            raise DualGNNError(f"unknown or ambiguous relation {etype!r}: one of {self.etypes}")
        return found[0]

    def num_nodes(self, ntype: str | None = None) -> int:
        """Number of nodes of a type, or of all."""
        return sum(self._counts.values()) if ntype is None else self._counts[ntype]

    def num_edges(self, etype: str | Relation | None = None) -> int:
        """Number of edges of a relation, or of all."""
        if etype is None:
            return sum(len(source) for source, _ in self._ends.values())
        return len(self._ends[self.to_canonical_etype(etype)][0])

    def in_degrees(self, etype: str | Relation | None = None) -> Tensor:
        """Edges that arrive at each node of the destination type, (n,) int64."""
        relation = self.to_canonical_etype(etype)
        return torch.bincount(self._ends[relation][1], minlength=self._counts[relation[2]])

    def out_degrees(self, etype: str | Relation | None = None) -> Tensor:
        """Edges that leave each node of the source type, (n,) int64."""
        relation = self.to_canonical_etype(etype)
        return torch.bincount(self._ends[relation][0], minlength=self._counts[relation[0]])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Missing(NEEDED.format(f"DGLGraph.{name}"))


def heterograph(
    data_dict: Mapping[Relation, tuple[Tensor, Tensor]], num_nodes_dict: Mapping[str, int]
) -> DGLGraph:
    """Returns a heterograph as `dgl.heterograph` does, from pairs of (source, destination).

    Args:
        data_dict: relation → (E,) int64 sources and (E,) int64 destinations.
        num_nodes_dict: node type → number of nodes.

    Raises:
        DualGNNError: for edges in another form, or ends outside their node types.
    """
    ends: dict[Relation, tuple[Tensor, Tensor]] = {}
    for relation, pair in data_dict.items():
        if len(pair) != 2 or not all(isinstance(end, Tensor) for end in pair):
            raise DualGNNError(NEEDED.format("a graph from compressed edges"))
        for end, ntype in zip(pair, (relation[0], relation[2]), strict=True):
            if end.numel() and not 0 <= int(end.min()) <= int(end.max()) < num_nodes_dict[ntype]:
                raise DualGNNError(
                    f"relation {relation[1]} names a node outside 0…{num_nodes_dict[ntype] - 1} "
                    f"of type {ntype}: check the edges"
                )
        ends[relation] = (pair[0].long(), pair[1].long())
    return DGLGraph(ends, num_nodes_dict)


def __getattr__(name: str) -> Any:
    """Says in one line that a part of DGL is missing."""
    if name.startswith("__"):
        raise AttributeError(name)
    raise Missing(NEEDED.format(f"dgl.{name}"))
