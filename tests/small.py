"""Small data sets for the tests, built slowly and plainly. Sizes are never equal to one another.

Planted on purpose: users without any training item, items that no user watched, items without any
modality, and a user none of whose items has the first modality.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dualgnn_dgl.data import CoOccurrence, Dataset, Interactions, Modality
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.ops import Adjacency
from dualgnn_dgl.ops.learned import Edges

torch.set_num_threads(1)  # on tensors this small a second thread only waits for the first

USERS, ITEMS = 13, 19
WIDTHS = {"visual": 5, "acoustic": 7, "textual": 4}
LONELY_USER, LONELY_ITEM = 11, 17  # no training pair at all
BARE_ITEM = 6  # watched, but has no modality whatsoever
BLIND_USER = 4  # watched items only that lack the first modality


def interactions(pairs: list[tuple[int, int]], users: int, items: int) -> Interactions:
    """Returns interactions from a list of (user, item)."""
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Interactions(array[:, 0], array[:, 1], users, items)


def pairs_of(part: Interactions) -> list[tuple[int, int]]:
    """Returns the pairs as a plain list."""
    return list(zip(part.user.tolist(), part.item.tolist(), strict=True))


def shared_items(train: Interactions, store: int = 200) -> CoOccurrence:
    """Counts shared training items of users by sets: count descending, then user ascending."""
    watched = [{i for v, i in pairs_of(train) if v == u} for u in range(train.num_users)]
    indptr, neighbour, weight = [0], [], []
    for u in range(train.num_users):
        counts = [
            (-len(watched[u] & watched[v]), v)
            for v in range(train.num_users)
            if v != u and watched[u] & watched[v]
        ]
        kept = sorted(counts)[:store]
        neighbour += [v for _, v in kept]
        weight += [float(-count) for count, _ in kept]
        indptr.append(len(neighbour))
    return CoOccurrence(
        np.array(indptr), np.array(neighbour, dtype=np.int64), np.array(weight, dtype=np.float32)
    )


def dataset(
    *,
    modalities: tuple[str, ...] = ("visual", "acoustic", "textual"),
    users: int = USERS,
    items: int = ITEMS,
    holes: bool = True,
    width: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Returns a data set of 13 users and 19 items with every awkward case of the module's head."""
    draw = np.random.default_rng(seed)
    present = {name: np.ones(items, bool) for name in modalities}
    if holes:
        for m, name in enumerate(modalities):
            present[name][BARE_ITEM] = False
            present[name][[1 + m, 9 + 2 * m]] = False
    train, valid, test = [], [], []
    for u in range(users):
        if u == LONELY_USER:
            continue
        allowed = [i for i in range(items) if i != LONELY_ITEM]
        if u == BLIND_USER and holes and modalities:
            allowed = [i for i in allowed if not present[modalities[0]][i]]
            train += [(u, i) for i in allowed]
            continue
        chosen = draw.permutation(allowed)[: 4 + u % 5].tolist()
        train += [(u, i) for i in chosen[:-2]]
        valid.append((u, chosen[-2]))
        test.append((u, chosen[-1]))
    if (0, BARE_ITEM) not in train + valid + test:
        train.append((0, BARE_ITEM))
    parts = [interactions(part, users, items) for part in (train, valid, test)]
    features = {}
    for name in modalities:
        values = draw.normal(size=(items, width or WIDTHS[name])).astype(np.float32)
        features[name] = Modality(values, present[name])
    return Dataset(
        *parts,
        modalities=features,
        user_ids=np.array([f"u{900 - 7 * u}" for u in range(users)]),
        item_ids=np.array([f"v{3 * i + 5}" for i in range(items)]),
        co_occurrence=shared_items(parts[0]),
    )


def checkerboard(users: int = 50, items: int = 44, seed: int = 0) -> Dataset:
    """Returns users who watch the items of their own parity, all but one, held out for the test.

    The items' features have only the parity and noise; the held-out item is the one right answer
    for every user.
    """
    train, test = [], []
    for u in range(users):
        own = [i for i in range(items) if i % 2 == u % 2]
        left_out = own[(u // 2) % len(own)]
        train += [(u, i) for i in own if i != left_out]
        test.append((u, left_out))
    draw = np.random.default_rng(seed)
    parity = np.arange(items) % 2
    features = {}
    for name, width in (("visual", 6), ("textual", 3)):
        values = draw.normal(scale=0.05, size=(items, width)).astype(np.float32)
        values[:, 0] += np.where(parity == 0, 1.0, -1.0).astype(np.float32)
        features[name] = Modality(values, np.ones(items, bool))
    pair = interactions(train, users, items)
    return Dataset(
        pair,
        interactions([], users, items),
        interactions(test, users, items),
        modalities=features,
        user_ids=np.arange(users).astype(str),
        item_ids=np.arange(items).astype(str),
        co_occurrence=shared_items(pair, store=30),
    )


@dataclass(frozen=True)
class Batch:
    """Three index tensors (B,): users, watched items, unwatched items."""

    users: Tensor
    positives: Tensor
    negatives: Tensor

    def __iter__(self):
        return iter((self.users, self.positives, self.negatives))


def batch(data: Dataset, size: int = 11, seed: int = 3) -> Batch:
    """Draws triples plainly: training pairs, each with an item that its user has not watched."""
    draw = np.random.default_rng(seed)
    pairs = pairs_of(data.train)
    chosen = [pairs[p] for p in draw.integers(len(pairs), size=size)]
    known = set(pairs)
    negatives = [
        draw.choice([i for i in range(data.num_items) if (u, i) not in known]) for u, _ in chosen
    ]
    return Batch(
        *(
            torch.tensor(np.array(column))
            for column in ([u for u, _ in chosen], [i for _, i in chosen], negatives)
        )
    )


def relabel(data: Dataset, user_order: np.ndarray, item_order: np.ndarray) -> Dataset:
    """Returns the same data under other internal numbers.

    New user `n` is old user `user_order[n]`, items likewise.
    """
    user_new, item_new = np.argsort(user_order), np.argsort(item_order)
    parts = [
        Interactions(user_new[part.user], item_new[part.item], part.num_users, part.num_items)
        for part in (data.train, data.valid, data.test)
    ]
    features = {
        n: Modality(m.values[item_order], m.present[item_order]) for n, m in data.modalities.items()
    }
    titles = None if data.titles is None else np.asarray(data.titles)[item_order]
    return Dataset(
        *parts,
        modalities=features,
        user_ids=data.user_ids[user_order],
        item_ids=data.item_ids[item_order],
        titles=titles,
        co_occurrence=shared_items(parts[0]),
    )


# -------------------- which models a test applies to, read from their classes


def overriding(method: str) -> list[str]:
    """Returns the names of the trained models that define this method themselves."""
    trained = [name for name in MODELS if model_class(name).trainable]
    return [
        name
        for name in trained
        if getattr(model_class(name), method) is not getattr(Recommender, method)
    ]


def using(helper: str) -> list[str]:
    """Returns the names of the models whose file uses this helper of `models.base`."""
    return [name for name in MODELS if hasattr(sys.modules[model_class(name).__module__], helper)]


def whole_graph_only() -> list[str]:
    """Returns the names of the trained models that cannot use sampled blocks.

    Their edges have learned weights, or they have no graph.
    """
    data, found = dataset(), []
    for name in MODELS:
        if model_class(name).trainable:
            parts = list(create(name, heterograph(data), data.modalities).modules())
            if any(isinstance(part, Edges) for part in parts) or not any(
                isinstance(part, Adjacency) for part in parts
            ):
                found.append(name)
    return found
