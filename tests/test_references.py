"""Each model against its slow twin in `reference/`.

Tables, loss and every gradient, over the switches.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import small
import torch
from reference import dualgnn as slow_dualgnn
from reference import dualgnn_plus as slow_plus
from reference import lightgcn as slow_lightgcn
from reference import mostpop as slow_mostpop
from twins import compare, leaf

from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import create, model_class
from dualgnn_dgl.models.bprmf import Config as BPRMFConfig
from dualgnn_dgl.models.lightgcn import Config as LightGCNConfig

DualGNN = model_class("dualgnn")
ALL = ("visual", "acoustic", "textual")


def parameters_of(
    model,
) -> tuple[slow_dualgnn.Parameters, list[tuple[torch.Tensor, torch.nn.Parameter]]]:
    """The model's parameters as the twin wants them, and the pairs (twin's, model's) to compare
    gradients by.
    """
    links = []

    def link(parameter):
        twin = leaf(parameter)
        links.append((twin, parameter))
        return twin

    preference = [link(p) for p in model.preference]
    encoder = [[link(p) for p in part.parameters()] for part in model.encoders]
    attention = link(model.attention) if hasattr(model, "attention") else None
    join = [link(p) for p in model.join.parameters()] if hasattr(model, "join") else []
    assert len(links) == len(list(model.parameters())), "a parameter that no equation names"
    return slow_dualgnn.Parameters(preference, encoder, attention, join), links


def setting_of(data, config, omega) -> slow_dualgnn.Setting:
    parts = data.modalities.values()
    return slow_dualgnn.Setting(
        pairs=small.pairs_of(data.train),
        users=data.num_users,
        items=data.num_items,
        features=[torch.from_numpy(np.array(m.values)).double() for m in parts],
        present=[m.present.tolist() for m in parts],
        layers=config.layers,
        attention=getattr(config, "attention", "softmax"),
        user_fusion=config.user_fusion,
        missing=config.missing,
        log_base=2 if getattr(config, "log_base", "e") == "2" else math.e,
        l2=config.l2,
        omega=omega,
    )


def check_dualgnn(data, dtype=torch.float64, kind=DualGNN, **switches):
    config = kind.Config(**{"width": 6, "hidden": 9, "cooc_k": 3, **switches})
    model = create(kind, heterograph(data), data.modalities, config, seed=1)
    with torch.no_grad():
        if hasattr(model, "attention"):
            # far from uniform
            model.attention.mul_(3).add_(0.1 * torch.arange(len(data.modalities)))
    model = model.to(dtype)
    omega = None
    if not model.static_step:  # it draws Ω
        model.new_epoch(torch.Generator().manual_seed(2))
        omega = model.co_occurrence.dense().double().tolist()
    elif config.user_graph:
        omega = slow_dualgnn.user_graph(
            small.pairs_of(data.train), data.num_users, config.cooc_k, config.cooc_weight
        )
    twin, links = parameters_of(model)
    setting = setting_of(data, config, omega)
    batch = small.batch(data)
    triples = list(zip(*(column.tolist() for column in batch), strict=True))
    compare(
        model,
        links,
        model.embed(),
        slow_dualgnn.embed(twin, setting),
        model.loss(*batch),
        slow_dualgnn.loss(twin, setting, triples),
        1e-6 if dtype == torch.float64 else 2e-4,
    )


SWITCHES = [
    {},
    {"user_fusion": "concat"},
    {"user_fusion": "max"},
    {"user_fusion": "mean"},
    {"item_encoder": "linear"},
    {"layers": 0},
    {"layers": 1},
    {"layers": 3},
    {"user_graph": False},
    {"user_graph": False, "layers": 0, "item_encoder": "linear"},
    {"cooc_weight": "mean"},
    {"cooc_weight": "proportional"},
    {"cooc_k": 1},
    {"cooc_k": 40},
    {"missing": "mask"},
    {"missing": "mask", "user_fusion": "max", "item_encoder": "linear"},
    {"missing": "neighbours"},
    {"missing": "neighbours", "cooc_weight": "proportional", "user_fusion": "max", "layers": 1},
    {"l2": 0.0},
    {"l2": 2.5, "user_fusion": "concat"},
]


@pytest.mark.parametrize(
    "switches", SWITCHES, ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()) or "default"
)
def test_dualgnn_equals_its_equations(switches):
    check_dualgnn(small.dataset(), **switches)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("fusion", ["sum", "concat", "max", "mean"])
def test_dualgnn_with_one_to_three_modalities(count, fusion):
    check_dualgnn(small.dataset(modalities=ALL[:count]), user_fusion=fusion)


@pytest.mark.parametrize("switches", [{}, {"user_fusion": "max"}, {"user_fusion": "concat"}])
def test_dualgnn_in_float32_with_the_kernels_that_training_uses(switches):
    check_dualgnn(small.dataset(), torch.float32, **switches)


@pytest.mark.parametrize("missing", ["mask", "neighbours"])
@pytest.mark.parametrize("fusion", ["sum", "max"])
def test_dualgnn_where_a_modality_is_there_for_nobody(missing, fusion):
    """No item has any sound: no user may pay attention to it."""
    data = small.dataset()
    silent = dataclasses.replace(
        data.modalities["acoustic"], present=np.zeros(data.num_items, bool)
    )
    check_dualgnn(
        dataclasses.replace(data, modalities={**data.modalities, "acoustic": silent}),
        missing=missing,
        user_fusion=fusion,
    )


def test_dualgnn_where_no_user_shares_anything():
    pairs = [(u, u) for u in range(5)] + [(u, 5 + u) for u in range(4)]
    data = small.dataset()
    alone = small.interactions(pairs, data.num_users, data.num_items)
    empty = small.interactions([], data.num_users, data.num_items)
    check_dualgnn(
        dataclasses.replace(
            data, train=alone, valid=empty, test=empty, co_occurrence=small.shared_items(alone)
        )
    )


# ---------------------------------------------------------------- LightGCN, BPR-MF, most popular


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("penalty", ["square", "norm"])
def test_lightgcn_equals_its_equations(layers, penalty, dtype):
    data = small.dataset()
    config = LightGCNConfig(width=5, layers=layers, l2=0.3, penalty=penalty)
    model = create("lightgcn", heterograph(data), data.modalities, config, seed=2).to(dtype)
    user, item = leaf(model.user), leaf(model.item)
    pairs, batch = small.pairs_of(data.train), small.batch(data)
    triples = list(zip(*(column.tolist() for column in batch), strict=True))
    compare(
        model,
        [(user, model.user), (item, model.item)],
        model.embed(),
        slow_lightgcn.embed(user, item, pairs, layers),
        model.loss(*batch),
        slow_lightgcn.loss(user, item, pairs, layers, triples, 0.3, penalty),
        1e-6 if dtype == torch.float64 else 1e-4,
    )


@pytest.mark.parametrize("penalty", ["square", "norm"])
def test_bprmf_is_lightgcn_without_a_layer(penalty):
    data = small.dataset()
    model = create(
        "bprmf", heterograph(data), {}, BPRMFConfig(width=5, l2=0.3, penalty=penalty), seed=2
    ).double()
    user, item = leaf(model.user), leaf(model.item)
    batch = small.batch(data)
    triples = list(zip(*(column.tolist() for column in batch), strict=True))
    links = [(user, model.user), (item, model.item)]
    expected = slow_lightgcn.loss(user, item, [], 0, triples, 0.3, penalty)
    compare(model, links, model.embed(), (user, item), model.loss(*batch), expected, 1e-9)


def test_mostpop_counts_training_users():
    data = small.dataset()
    user, item = create("mostpop", heterograph(data), {}).embed()
    counts = [sum(j == i for _, j in small.pairs_of(data.train)) for i in range(data.num_items)]
    assert (user @ item.T).tolist() == [[float(c) for c in counts]] * data.num_users


@pytest.mark.parametrize(
    ("modalities", "switches"),
    [
        (ALL, {}),
        (ALL, {"cooc_share": 0.7, "cooc_k": 3, "layers": 1}),
        (ALL[:1], {"item_k": 30}),
        (ALL[:2], {"user_weight": 0.0, "layers": 0, "negatives": 5, "temperature": 0.5}),
        (ALL[:2], {"item_weight": 0.0, "cooc_weight": "softmax", "cooc_share": 0.2}),
        (ALL[:2], {"hide": False, "bias": False}),
        (ALL[:2], {"hide": False, "layers": 1, "user_weight": 0.4}),
    ],
)
def test_dualgnn_plus_equals_its_equations(modalities, switches):
    data = small.dataset(modalities=modalities)
    config = dataclasses.replace(
        model_class("dualgnn_plus").Config(width=6, item_k=4, l2=0.01), **switches
    )
    model = create("dualgnn_plus", heterograph(data), data.modalities, config, seed=3)
    with torch.no_grad():
        if hasattr(model, "attention"):
            model.attention.normal_(generator=torch.Generator().manual_seed(5))
    if config.bias:
        with torch.no_grad():
            model.bias.normal_(generator=torch.Generator().manual_seed(6))
    links = [(leaf(parameter), parameter) for parameter in model.parameters()]
    named = dict(
        zip(
            (name for name, _ in model.named_parameters()), (twin for twin, _ in links), strict=True
        )
    )
    omega = [[] for _ in range(data.num_users)]
    if config.cooc_share:
        dense = model.co_occurrence.dense()
        omega = [
            [(v, float(dense[u, v])) for v in range(data.num_users) if dense[u, v]]
            for u in range(data.num_users)
        ]
    parts = data.modalities.values()
    features = [torch.from_numpy(np.array(m.values)).double() for m in parts]
    present = [m.present.tolist() for m in parts]
    p, q = named["user"], named["item"]
    parts = (
        p,
        q,
        named.get("bias"),
        named.get("attention"),
        small.pairs_of(data.train),
        features,
        present,
        omega,
        config,
    )
    expected = slow_plus.embed(*parts)
    batch = small.batch(data, size=len(data.train) // 4 + 9)  # more than may be hidden
    triples = list(zip(*(part.tolist() for part in batch), strict=True))
    hidden = (
        frozenset((u, positive) for u, positive, _ in triples[: len(data.train) // 4])
        if config.hide
        else frozenset()
    )
    assert not config.hide or 0 < len(hidden) < len(set(small.pairs_of(data.train)))
    expected_loss = slow_plus.loss(slow_plus.embed(*parts, hidden), p, q, triples, config)
    compare(model, links, model.embed(), expected, model.loss(*batch), expected_loss, 2e-5)


def test_mostpop_equals_its_counts():
    data = small.dataset()
    user, item = create("mostpop", heterograph(data), {}).embed()
    expected = slow_mostpop.scores(data.num_users, data.num_items, small.pairs_of(data.train))
    assert (user @ item.T).tolist() == expected
