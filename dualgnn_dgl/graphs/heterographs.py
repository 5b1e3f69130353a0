"""Builds the DGL heterograph of users, micro-videos and user–user co-occurrence, and adjacencies.

Node types are `user` and `item` (a micro-video). Relations, over training pairs only:

========================  ======================================================================
user –interacts→ item     edata `weight`: 1/√(d_user · d_item), the symmetric normalisation
item –interacted_by→ user edata `weight`: the same
user –co_occurs→ user     from neighbour to user; edata `weight`: shared items (or cosine, Jaccard),
                          `rank`: 0 for the user's strongest neighbour, 1 for the next, …
========================  ======================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dualgnn_dgl._dgl import dgl
from dualgnn_dgl.data import Dataset, Modality
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.graphs.nearest import nearest, unit
from dualgnn_dgl.ops import Adjacency, normalise

CO_WEIGHTS = ("softmax", "mean", "proportional")
ITEM_WEIGHTS = ("mean", "cosine")


def heterograph(dataset: Dataset) -> dgl.DGLGraph:
    """Builds the heterogeneous graph of a prepared data set.

    Args:
        dataset: Data set, of which only `train` and `co_occurrence` are read. Without co-occurrence
            lists, the 200 strongest neighbours by shared items are computed.

    Returns:
        A graph with U `user` nodes, I `item` nodes, E edges `interacts`, E `interacted_by`, and at
        most 200·U `co_occurs`.
    """
    train = dataset.train
    user, item = torch.tensor(train.user), torch.tensor(train.item)
    lists = dataset.co_occurrence
    if lists is None:
        # Imported here, because only this needs numba.
        from dualgnn_dgl.graphs.cooccurrence import co_occurrence

        lists = co_occurrence(train)
    lengths = np.diff(lists.indptr)
    target = torch.from_numpy(np.repeat(np.arange(dataset.num_users), lengths))
    rank = torch.from_numpy(np.arange(len(lists.neighbour)) - np.repeat(lists.indptr[:-1], lengths))
    graph = dgl.heterograph(
        {
            ("user", "interacts", "item"): (user, item),
            ("item", "interacted_by", "user"): (item, user),
            ("user", "co_occurs", "user"): (torch.tensor(lists.neighbour), target),
        },
        num_nodes_dict={"user": dataset.num_users, "item": dataset.num_items},
    )
    user_degree = torch.bincount(user, minlength=dataset.num_users).float()
    item_degree = torch.bincount(item, minlength=dataset.num_items).float()
    weight = (user_degree[user] * item_degree[item]).rsqrt()
    graph.edges["interacts"].data["weight"] = weight
    graph.edges["interacted_by"].data["weight"] = weight
    graph.edges["co_occurs"].data["weight"] = torch.tensor(lists.weight)
    graph.edges["co_occurs"].data["rank"] = rank
    return graph


def user_item(graph: dgl.DGLGraph) -> Adjacency:
    """Returns the normalised adjacency D_u^-½ R D_i^-½ of the training pairs, (U, I).

    Its `.T` sends to items.

    Args:
        graph: Graph of `heterograph`.
    """
    item, user = graph.edges(etype="interacted_by")
    return normalise(
        user, item, (graph.num_nodes("user"), graph.num_nodes("item")), ("user", "item")
    )


def observed(graph: dgl.DGLGraph, present: Tensor) -> Tensor:
    """Returns whether any of a user's training items has modality m, (U, M) bool.

    Args:
        graph: Graph of `heterograph`.
        present: Modalities of the items, (I, M) bool.
    """
    watcher, watched = graph.edges(etype="interacts")  # (E,) each
    return (
        torch.zeros(graph.num_nodes("user"), present.shape[1]).index_add(
            0, watcher, present[watched].float()
        )
        > 0
    )


def nearest_items(
    modality: Modality, k: int, *, own: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Finds each present item's k nearest items by cosine in one modality.

    An item without the modality has no neighbour and is no neighbour.

    Args:
        modality: Features of the items.
        k: Neighbours of an item; all present items if there are fewer.
        own: Whether an item is the first of its own k.

    Returns:
        Item, neighbour and cosine, (E,) each, item by item.

    Raises:
        ConfigError: If k < 1.
    """
    if k < 1:
        raise ConfigError(f"{k} nearest items were asked for: give at least one")
    items = torch.from_numpy(np.flatnonzero(modality.present))  # (P,) present ones
    rows = unit(torch.tensor(modality.values[modality.present]))
    k = min(k, len(items) if own else len(items) - 1)
    if k < 1:
        return items[:0], items[:0], torch.empty(0)
    what = f"nearest of {len(items):,} items, items"
    neighbour, cosine = nearest(rows, rows, k, what, own=torch.inf if own else -torch.inf)  # (P, k)
    return items.repeat_interleave(k), items[neighbour.flatten()], cosine.flatten()


def item_item(modality: Modality, k: int, *, weight: str = "mean", own: bool = False) -> Adjacency:
    """Returns the item graph of one modality, `nearest_items` weighted, (I, I).

    An item without the modality has a zero row and a zero column.

    Args:
        modality: Features of the items.
        k: Neighbours of an item.
        weight: 'mean', 1/k each, so that rows sum to one (a graph of ones under D^-½ S D^-½ with D
            its row sums: FREEDOM, Zhou & Shen, MM 2023), or 'cosine', D^-½ S D^-½ over cosines,
            negative ones as zero (LATTICE, Zhang et al., MM 2021; MGCN).
        own: Whether an item is among its own k nearest.

    Raises:
        ConfigError: If k < 1, or for an unknown weight.
    """
    if weight not in ITEM_WEIGHTS:
        raise ConfigError(unknown("item graph weight", weight, ITEM_WEIGHTS))
    target, source, cosine = nearest_items(modality, k, own=own)
    size = len(modality.present)
    if weight == "mean":
        value = torch.bincount(target, minlength=size).float().reciprocal()[target]
    else:
        cosine = cosine.clamp(min=0)
        scale = torch.zeros(size).index_add(0, target, cosine).clamp(min=1e-12).rsqrt()
        value = scale[target] * cosine * scale[source]
    return Adjacency(target, source, (size, size), weight=value, axes=("item", "item"))


def mixed_item_item(
    modalities: Sequence[Modality], shares: Sequence[float], k: int, *, own: bool = False
) -> Adjacency:
    """Returns one item graph of all modalities, Σ_m share_m S_m, (I, I): FREEDOM's frozen graph.

    S_m are the 'mean' graphs of `item_item`. The shares of the modalities that an item lacks go to
    those it has, so a row sums to one unless the item has no neighbour.

    Args:
        modalities: Features of the items.
        shares: Share of each modality.
        k: Neighbours of an item.
        own: Whether an item is among its own k nearest.

    Raises:
        ConfigError: If k < 1.
    """
    size = len(modalities[0].present)
    targets, sources, values = [], [], []
    for modality, share in zip(modalities, shares, strict=True):
        if share == 0:
            continue
        target, source, _ = nearest_items(modality, k, own=own)
        targets.append(target)
        sources.append(source)
        values.append(share * torch.bincount(target, minlength=size).float().reciprocal()[target])
    target, source, value = torch.cat(targets), torch.cat(sources), torch.cat(values)
    value = value / torch.zeros(size).index_add(0, target, value)[target]
    return Adjacency(target, source, (size, size), weight=value, axes=("item", "item"))


def pruned(graph: dgl.DGLGraph, dropout: float, generator: torch.Generator) -> Adjacency:
    """Returns `user_item` over a sample of the training pairs, under the remaining degrees, (U, I).

    Source: FREEDOM (Zhou & Shen, MM 2023), degree-sensitive edge pruning: a share 1 − dropout of
    the edges is drawn without replacement, with probabilities ∝ 1/√(d_u d_i), so that edges between
    popular ends are more likely to be left out.

    Args:
        graph: Graph of `heterograph`.
        dropout: Share of the edges that are left out.
        generator: Source of the draws.
    """
    item, user = graph.edges(etype="interacted_by")
    weight = graph.edges["interacted_by"].data["weight"].double()  # 1/√(d_u d_i), (E,)
    # Exponential clocks with these rates: the first n to ring are n draws without replacement.
    ring = torch.empty_like(weight).exponential_(generator=generator) / weight
    left = min(len(ring), max(1, round(len(ring) * (1 - dropout))))
    keep = ring.topk(left, largest=False).indices
    return normalise(
        user[keep], item[keep], (graph.num_nodes("user"), graph.num_nodes("item")), ("user", "item")
    )


def _row_softmax(score: Tensor, row: Tensor, rows: int) -> Tensor:
    """Returns the softmax of `score` (E,) within equal `row` (E,), stable for large counts."""
    top = torch.full((rows,), -torch.inf).scatter_reduce(0, row, score, "amax")
    value = (score - top[row]).exp()
    return value / torch.zeros(rows).index_add(0, row, value)[row]


def user_user(graph: dgl.DGLGraph, k: int, weight: str = "softmax") -> Adjacency:
    """Returns Ω, the k strongest neighbours of each user with weights that sum to one, (U, U).

    Users with fewer than k neighbours share the mass among those they have; a user without any has
    a zero row. Source: DualGNN, user co-occurrence graph (u ← u + Σ_j ω_uj u_j).

    Args:
        graph: Graph of `heterograph`.
        k: Largest number of neighbours a user.
        weight: 'softmax' over the stored weights (paper and released code), 'mean', or
            'proportional' to them.

    Raises:
        ConfigError: For an unknown weight, or k < 1.
    """
    if k < 1:
        raise ConfigError(
            f"cooc_k is {k}: give at least one neighbour, or switch the user graph off with "
            f"user_graph=false"
        )
    users = graph.num_nodes("user")
    keep = graph.edges["co_occurs"].data["rank"] < k
    source, target = (end[keep] for end in graph.edges(etype="co_occurs"))
    strength = graph.edges["co_occurs"].data["weight"][keep]
    weights = neighbour_weights(strength, target, users, weight)
    return Adjacency(target, source, (users, users), weight=weights, axes=("user", "user"))


def neighbour_weights(strength: Tensor, target: Tensor, users: int, weight: str) -> Tensor:
    """Returns weights of neighbours that sum to one for each target, (E,).

    Args:
        strength: Strength of each neighbour, (E,).
        target: User that it belongs to, (E,) in 0…users−1.
        users: Number of users.
        weight: One of `CO_WEIGHTS`.

    Raises:
        ConfigError: For an unknown weight.
    """
    if weight not in CO_WEIGHTS:
        raise ConfigError(unknown("cooc_weight", weight, CO_WEIGHTS))
    if weight == "proportional":
        return strength / torch.zeros(users).index_add(0, target, strength)[target]
    return _row_softmax(torch.zeros_like(strength) if weight == "mean" else strength, target, users)
