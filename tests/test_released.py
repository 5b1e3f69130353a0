"""The faults of published code, each as a class of the fidelity benchmark.

Fault numbers (A10, R1, …) are those of the survey of the released code (A, M of MMGCN, G of GRCN)
and of its best known port (R).
"""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
import small
import torch
from test_compare_script import BENCHMARKS, Packed, module, train_one, trainings
from test_models import bits
from test_references import check_dualgnn
from test_references_multimodal import check_bm3
from test_references_peers import check, trained_parameters
from test_references_peers import make as make_peer

from dualgnn_dgl import data
from dualgnn_dgl.core.files import write_json
from dualgnn_dgl.core.options import build
from dualgnn_dgl.data import CoOccurrence, Dataset
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.graphs.heterographs import CO_WEIGHTS, heterograph, user_user
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.training import TrainConfig, fit, train_model

released, fidelity = module("lib.released"), module("quality.fidelity")
resampled = released.resampled


def dualgnn(data=None, seed=0, **switches):
    data = data or small.dataset()
    config = released.DualGNN.Config(**{"width": 6, "hidden": 9, **switches})
    return create(released.DualGNN, heterograph(data), data.modalities, config, seed)


# ---------------------------------------------------------------- which class, which training


@pytest.mark.parametrize("case", fidelity.CASES, ids=lambda case: case.fault)
def test_a_fault_takes_the_class_that_has_it_and_the_fixed_side_the_model(case):
    kind = released.model_of(case.model, {**case.shared, **case.published})
    assert kind is released.RELEASED[case.model]
    assert released.model_of(case.model, case.shared) is model_class(case.model)
    with pytest.raises(ConfigError, match=r"was removed"):
        build(model_class(case.model).Config, case.published)


def test_other_options_and_models_take_the_model():
    assert released.model_of("dualgnn", {"lr": 0.1, "user_fusion": "concat"}) is model_class(
        "dualgnn"
    )
    for name in MODELS:
        assert released.model_of(name, {}) is model_class(name)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kept_trainings_are_found_and_nothing_is_trained(tmp_path, monkeypatch, seed):
    """Their names are made from the switches, which did not change."""
    packed = Packed.read(BENCHMARKS / "results" / "fidelity.parquet")
    kept, found = trainings.Trainings("fidelity", tmp_path), []
    monkeypatch.setattr(kept, "make", lambda name, *_: pytest.fail(f"{name} would be trained"))
    whole, reduced = (  # content hashes of the data with all features, and with 40 % removed
        next(packed[name]["data"] for name in packed if key in packed[name]["config"])
        for key in ("attention", "missing")
    )
    for case in fidelity.CASES:
        folder = tmp_path / case.fault
        folder.mkdir()
        write_json(folder / "dataset.json", {"hash": reduced if case.removed else whole})
        for switch in (case.published, {}):
            config, train = {**case.shared, **switch}, {**fidelity.TRAIN, **case.train}
            run = kept.run("tiktok", folder, case.model, config, seed, train, mask="all")
            found.append(run["name"])
    assert len(found) == 10 and set(found) <= set(packed)


def test_an_option_that_no_class_has_is_not_trained(tmp_path):
    """A removed option would otherwise be trained with its default under its own name."""
    data.save(small.dataset(), tmp_path / "data")
    spec = {"model": "dualgnn_plus", "train": {"epochs": 1}, "config": {"attention": "history"}}
    with pytest.raises(ConfigError, match='attention="history" was removed'):
        train_one.train_one(
            spec | {"folder": str(tmp_path / "data"), "seed": 0, "test": False, "threads": 1}
        )


@pytest.mark.parametrize("name", list(released.RELEASED))
def test_without_a_switch_it_trains_to_the_bits_of_the_model(name):
    data, train = small.dataset(), TrainConfig(epochs=2, batch_size=21)
    one, two = (
        train_model(kind, data, None, train).fit for kind in (name, released.RELEASED[name])
    )
    assert bits((one.user, one.item)) == bits((two.user, two.item))


# ---------------------------------------------------------------- DualGNN against its equations


SWITCHES = [
    {},
    {"user_fusion": "aliased"},
    {"user_fusion": "aliased", "attention": "released"},
    {"attention": "released"},
    {"attention": "released", "user_fusion": "concat"},
    {"attention": "released", "user_fusion": "max"},
    {"item_encoder": "none"},
    {"item_encoder": "none", "user_fusion": "concat"},
    {"cooc_pad": "resample", "cooc_k": 8},
    {"missing": "zero"},
    {"missing": "zero", "user_fusion": "max"},
    {"log_base": "2"},
    # all of the released code
    {
        "attention": "released",
        "cooc_pad": "resample",
        "missing": "zero",
        "log_base": "2",
        "cooc_k": 8,
    },
]


@pytest.mark.parametrize(
    "switches", SWITCHES, ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()) or "default"
)
def test_dualgnn_equals_its_equations(switches):
    width = 6 if switches.get("item_encoder") == "none" else None
    check_dualgnn(small.dataset(width=width), kind=released.DualGNN, **switches)


@pytest.mark.parametrize("switches", [{}, {"attention": "released", "user_fusion": "concat"}])
def test_dualgnn_in_float32_with_the_kernels_that_training_uses(switches):
    check_dualgnn(small.dataset(), torch.float32, released.DualGNN, **switches)


@pytest.mark.parametrize("attention", ["softmax", "released"])
def test_dualgnn_with_one_modality(attention):
    data = small.dataset(modalities=("visual",))
    check_dualgnn(data, kind=released.DualGNN, attention=attention, missing="zero")


@pytest.mark.parametrize("fusion", ["sum", "max"])
def test_dualgnn_where_a_modality_is_missing_for_all_items(fusion):
    data = small.dataset()
    silent = dataclasses.replace(
        data.modalities["acoustic"], present=np.zeros(data.num_items, bool)
    )
    data = dataclasses.replace(data, modalities={**data.modalities, "acoustic": silent})
    check_dualgnn(data, kind=released.DualGNN, missing="zero", user_fusion=fusion)


# ---------------------------------------------------------------- DualGNN's faults


def test_the_released_start_is_the_softmax_of_the_default_start():
    plain, once = (
        dualgnn(seed=5, attention=attention, missing="zero")
        for attention in ("softmax", "released")
    )
    torch.testing.assert_close(once.attention, plain.attention.softmax(-1))
    for one, other in zip(plain.embed(), once.embed(), strict=True):
        torch.testing.assert_close(one, other)


def test_a10_nothing_normalises_the_released_attention():
    model = dualgnn(user_graph=False, attention="released")
    torch.testing.assert_close(model.user_attention().sum(1), torch.ones(small.USERS))
    before = model.embed()[0].detach().clone()
    with torch.no_grad():
        model.attention.mul_(2)
    torch.testing.assert_close(model.embed()[0], 2 * before)
    data = small.dataset()
    trained = dualgnn(data, attention="released")
    fit(trained, data.train, data.valid, TrainConfig(epochs=15, lr=0.05, batch_size=16))
    assert (trained.user_attention().sum(1) - 1).abs().max() > 1e-5


def test_zero_filling_makes_one_loud_vector_of_all_missing_items():
    """The encoder's biases pass, and the normalisation brings them to length one, all alike."""
    data = small.dataset()
    for m, modality in enumerate(data.modalities.values()):
        absent = torch.from_numpy(~modality.present)
        _, item = dualgnn(data, missing="zero", layers=0).single_modal(m)
        rows = item[absent]
        assert len(rows) > 2
        torch.testing.assert_close(rows, rows[:1].expand_as(rows))
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))


def test_zeros_leave_attention_on_missing_modalities():
    assert (dualgnn(missing="zero").user_attention() > 0).all()


def test_features_of_different_widths_cannot_go_without_an_encoder():
    with pytest.raises(ConfigError, match=r"widths \[5, 7, 4\].*--feature-dim"):
        dualgnn(item_encoder="none")
    same = dualgnn(small.dataset(width=8), item_encoder="none")
    assert same.embed()[0].shape == (small.USERS, 8)


def test_resampling_draws_in_each_epoch_from_the_generator_given():
    data = small.dataset()
    model = dualgnn(data, cooc_pad="resample", cooc_k=9)
    source = torch.Generator().manual_seed(1)
    draws = []
    for _ in range(2):
        model.new_epoch(source)
        draws.append(bits(model.embed()))
    assert draws[0] != draws[1]
    other = dualgnn(data, cooc_pad="resample", cooc_k=9)
    other.new_epoch(torch.Generator().manual_seed(1))
    assert bits(other.embed()) == draws[0]
    copied = dualgnn(data, seed=8, cooc_pad="resample", cooc_k=9)
    copied.load_state_dict(other.state_dict())
    assert bits(copied.embed()) == draws[0], "the draw is part of the state"
    fixed = dualgnn(data)
    first = bits(fixed.embed())
    fixed.new_epoch(source)
    assert bits(fixed.embed()) == first and fixed.static_step and not model.static_step


def test_a_new_user_without_near_users_weighs_all_modalities_alike():
    model = dualgnn(attention="released")
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.9]])
    weights = model.alpha(logits, torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.tensor([[1 / 3] * 3, [0.2, 0.0, 0.9]]))


# ---------------------------------------------------------------- resampled neighbours


def slow_resampled_row(
    near: list[int], strength: list[float], k: int, weight: str, draw: random.Random
) -> dict[int, float]:
    """Returns one row of Ω, padded by draws from the list as it has grown so far."""
    places = list(range(len(near)))[:k]
    while len(places) < k:
        places.append(draw.choice(places))
    if weight == "mean":
        values = [1.0] * k
    elif weight == "proportional":
        values = [strength[p] for p in places]
    else:
        values = [math.exp(strength[p] - max(strength)) for p in places]
    row: dict[int, float] = {}
    for place, value in zip(places, values, strict=True):
        row[near[place]] = row.get(near[place], 0.0) + value / sum(values)
    return row


@pytest.mark.parametrize("weight", CO_WEIGHTS)
def test_resampling_has_the_mean_and_spread_of_the_slow_simulation(weight):
    """4,000 users with the same three neighbours are 4,000 draws of one padded list."""
    repeats, strength, k = 4000, [4.0, 3.0, 3.0], 9
    # three more users, who have no neighbours themselves
    near = [repeats, repeats + 1, repeats + 2]
    users = repeats + 3
    indptr = np.minimum(np.arange(users + 1) * 3, 3 * repeats)
    lists = CoOccurrence(indptr, np.tile(near, repeats), np.tile(strength, repeats))
    empty = small.interactions([], users, 2)
    data = Dataset(
        small.interactions([(0, 0)], users, 2),
        empty,
        empty,
        {},
        np.arange(users).astype(str),
        np.array(["p", "q"]),
        None,
        lists,
    )
    omega = resampled(heterograph(data), k, weight, torch.Generator().manual_seed(0))
    assert omega.num_edges == k * repeats
    fast = (omega @ torch.zeros(users, 3).index_copy(0, torch.tensor(near), torch.eye(3))).numpy()
    assert (fast[repeats:] == 0).all()
    fast, draw = fast[:repeats], random.Random(0)
    rows = [slow_resampled_row(near, strength, k, weight, draw) for _ in range(repeats)]
    slow = np.array([[row[v] for v in near] for row in rows])
    np.testing.assert_allclose(fast.sum(1), 1, rtol=1e-5)
    error = np.sqrt((fast.var(0) + slow.var(0)) / repeats)
    assert (np.abs(fast.mean(0) - slow.mean(0)) < 4 * error).all(), (
        fast.mean(0),
        slow.mean(0),
        error,
    )
    # Pólya's urn spreads wider than draws from the real neighbours alone, so the spread must agree
    # as well.
    np.testing.assert_allclose(fast.std(0), slow.std(0), rtol=0.06)
    assert np.abs(np.corrcoef(fast[:-1, 0], fast[1:, 0])[0, 1]) < 0.08, (
        "users are padded independently"
    )


def test_resampling_keeps_every_real_neighbour_and_leaves_full_lists_alone():
    data = small.dataset()
    graph = heterograph(data)
    k = 5
    lengths = np.diff(data.co_occurrence.indptr)
    assert (lengths > k).any() and ((lengths > 0) & (lengths < k)).any(), (
        "the case must hold long and short lists"
    )
    plain = user_user(graph, k, "mean").dense()
    drawn = resampled(graph, k, "mean", torch.Generator().manual_seed(1)).dense()
    assert torch.equal(plain > 0, drawn > 0)
    full = torch.from_numpy(lengths >= k)
    torch.testing.assert_close(plain[full], drawn[full])
    places = drawn[~full & torch.from_numpy(lengths > 0)] * k
    torch.testing.assert_close(places, places.round(), atol=1e-4, rtol=0)
    torch.testing.assert_close(places.sum(1), torch.full((len(places),), float(k)))


def test_resampling_differs_in_each_draw_and_repeats_with_the_generator():
    graph = heterograph(small.dataset())
    one, same = (
        resampled(graph, 9, "softmax", torch.Generator().manual_seed(4)).dense() for _ in range(2)
    )
    assert torch.equal(one, same)
    source = torch.Generator().manual_seed(4)
    draws = [resampled(graph, 9, "mean", source).dense() for _ in range(3)]
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])
    before = torch.get_rng_state()
    resampled(graph, 9, "mean", source)
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------- MMGCN, GRCN, BM3


def test_m3_frozen_embeddings_are_not_trained():
    """M3, R8: in release and port they never leave their random start."""
    data = small.dataset()
    check("mmgcn", data, kind=released.MMGCN, frozen_embeddings=True, l2=0.5)
    model = make_peer(released.MMGCN, data, torch.float32, frozen_embeddings=True)
    changed, names = trained_parameters(model, data)
    frozen = {name for name in names if name.startswith("preference") or name in ("user", "item")}
    assert len(frozen) == 5 and changed == names - frozen


def test_g1_released_routing_has_no_effect():
    """G1: in release and port, users receive nothing: three steps are none."""
    data = small.dataset()
    check("grcn", data, kind=released.GRCN, routing_edges="released")
    one, two = (
        make_peer(released.GRCN, data, routing_edges="released"),
        make_peer("grcn", data, routing=0),
    )
    assert bits(one.embed()) == bits(two.embed())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bm3_with_trained_features_equals_its_equations(dtype):
    switches = {"layers": 2, "dropout": 0.0, "train_features": True}
    modalities = ("visual", "acoustic", "textual")
    tolerance = 1e-6 if dtype == torch.float64 else 2e-4
    check_bm3(released.BM3, modalities, switches, dtype, tolerance)


def test_bm3_trains_no_feature_of_a_missing_modality():
    data = small.dataset(modalities=("visual",))
    absent = torch.from_numpy(np.flatnonzero(~data.modalities["visual"].present))
    config = released.BM3.Config(train_features=True)
    model = create(released.BM3, heterograph(data), data.modalities, config)
    model.loss(*small.batch(data, size=200)).backward()
    touched = model.trained[0].grad.abs().sum(1) > 0
    assert touched.any() and not touched[absent].any()
