"""FREEDOM, BM3 and MGCN against their slow twins in `reference/`.

Tables, loss and every gradient, over the switches.
"""

from __future__ import annotations

import pytest
import small
import torch
from reference import bm3 as slow_bm3
from reference import freedom as slow_freedom
from reference import mgcn as slow_mgcn
from twins import compare, named_leaves, plain_features, triples_of

from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import create, model_class
from dualgnn_dgl.models.freedom import shares_of

ALL = ("visual", "acoustic", "textual")
PRECISION = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-4)]
)


def edges_of(adjacency) -> list[tuple[int, int]]:
    """The pairs (row, column) that are not zero."""
    return [tuple(pair) for pair in adjacency.dense().nonzero().tolist()]


@PRECISION
@pytest.mark.parametrize(
    ("modalities", "switches"),
    [
        (ALL, {}),
        (ALL, {"weights": "acoustic=2,visual=0,textual=1", "l2": 0.3}),
        (ALL[:2], {"weights": "visual=0.1,acoustic=0.9", "item_layers": 2, "layers": 3}),
        (ALL[:1], {"dropout": 0.0, "item_k": 30, "feature_weight": 0.0}),
        (ALL[:2], {"layers": 0, "item_layers": 0, "feature_weight": 2.0}),
        (ALL[:2], {"dropout": 0.3, "item_k": 1}),
    ],
)
def test_freedom_equals_its_equations(modalities, switches, dtype, tolerance):
    data = small.dataset(modalities=modalities)
    config = model_class("freedom").Config(
        **{"width": 6, "item_k": 4, "feature_weight": 0.4, "dropout": 0.5, **switches}
    )
    model = create("freedom", heterograph(data), data.modalities, config, seed=3).to(dtype)
    model.new_epoch(torch.Generator().manual_seed(4))
    named, links = named_leaves(model)
    features, present = plain_features(data)
    similar = slow_freedom.item_graph(
        features, present, shares_of(config.weights, list(modalities)), config.item_k
    )
    maps = (
        [named[f"project.{m}.weight"] for m in range(len(modalities))]
        if config.feature_weight
        else []
    )
    user, item, batch, thinned = (
        named["user"],
        named["item"],
        small.batch(data, size=40),
        edges_of(model.thin_to_user),
    )
    parts = (features, present) if maps else ([], [])
    compare(
        model,
        links,
        model.embed(),
        slow_freedom.embed(user, item, small.pairs_of(data.train), similar, config),
        model.loss(*batch),
        slow_freedom.loss(user, item, maps, thinned, similar, *parts, triples_of(batch), config),
        tolerance,
    )


@PRECISION
@pytest.mark.parametrize(
    ("modalities", "switches"),
    [
        (ALL, {}),
        (ALL, {"layers": 2, "dropout": 0.0}),
        (ALL[:2], {"layers": 0, "dropout": 0.9, "penalty": "norm"}),
        (ALL[:1], {"penalty": "norm", "feature_weight": 0.0}),
    ],
)
def test_bm3_equals_its_equations(modalities, switches, dtype, tolerance):
    check_bm3(model_class("bm3"), modalities, switches, dtype, tolerance)


def check_bm3(kind, modalities, switches, dtype, tolerance):
    """BM3, or a class derived from it, against its twin."""
    data = small.dataset(modalities=modalities)
    config = kind.Config(
        **{"width": 6, "l2": 0.3, "feature_weight": 0.7, "dropout": 0.4, **switches}
    )
    model = create(kind, heterograph(data), data.modalities, config, seed=3).to(dtype)
    named, links = named_leaves(model)
    batch, pairs, source = (
        small.batch(data),
        small.pairs_of(data.train),
        torch.Generator().manual_seed(5),
    )
    model.new_epoch(source)
    model.loss(*batch)  # the second batch of the epoch is compared
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(5))) + 1
    draw = torch.Generator().manual_seed(seed)
    masks = [
        (torch.rand(len(batch.users), 6, generator=draw) >= config.dropout).double()
        for _ in range(2 + len(modalities))
    ]
    watched = [(u, i) for u, i, _ in triples_of(batch)]
    compare(
        model,
        links,
        model.embed(),
        slow_bm3.embed(named, pairs, config.layers),
        model.loss(*batch),
        slow_bm3.loss(named, pairs, *plain_features(data), watched, masks, config),
        tolerance,
    )


@PRECISION
@pytest.mark.parametrize(
    ("modalities", "switches"),
    [
        (ALL, {}),
        (ALL, {"layers": 3, "item_layers": 2, "temperature": 0.7}),
        (ALL[:2], {"layers": 0, "item_k": 1}),
        (ALL[:2], {"item_k": 30, "contrast": 0.0, "l2": 0.0}),
        (ALL[:1], {}),
    ],
)
def test_mgcn_equals_its_equations(modalities, switches, dtype, tolerance):
    data = small.dataset(modalities=modalities)
    config = model_class("mgcn").Config(
        **{"width": 6, "item_k": 4, "contrast": 0.4, "l2": 0.3, **switches}
    )
    model = create("mgcn", heterograph(data), data.modalities, config, seed=3)
    with torch.no_grad():
        if len(modalities) > 1:
            model.attend[2].weight.mul_(20)  # far from uniform
    model = model.to(dtype)
    named, links = named_leaves(model)
    features, present = plain_features(data)
    pairs, batch = small.pairs_of(data.train), small.batch(data, size=40)
    watched = [[i for v, i in pairs if v == u] for u in range(data.num_users)]
    observed = [[any(there[i] for i in items) for there in present] for items in watched]
    parts = slow_mgcn.views(named, pairs, features, present, observed, config)
    compare(
        model,
        links,
        model.embed(),
        slow_mgcn.embed(parts),
        model.loss(*batch),
        slow_mgcn.loss(parts, present, observed, triples_of(batch), config),
        tolerance,
    )
