"""Data at their edge, for every model.

One user, one item, everything watched, nobody in common, nothing to see or hear.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import small
import torch

from dualgnn_dgl.core.options import keys
from dualgnn_dgl.data import Dataset, Modality, load, save
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.evaluation import Evaluator, top_k
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.checkpoint import load_run, save_run
from dualgnn_dgl.training import TrainConfig, fit

TRAIN = TrainConfig(epochs=2, batch_size=4, lr=0.05)
Pairs = list[tuple[int, int]]


def make(
    users: int, items: int, train: Pairs, valid: Pairs = (), test: Pairs = (), **change
) -> Dataset:
    """A data set of these pairs with two modalities, (I, 3) and (I, 5).

    `change` maps (name, values, present) to others.
    """
    draw = np.random.default_rng(3)
    features = {}
    for name, width in (("visual", 3), ("textual", 5)):
        values, present = draw.normal(size=(items, width)).astype(np.float32), np.ones(items, bool)
        if name in change:
            values, present = change[name](values, present)
        features[name] = Modality(values, present)
    parts = [small.interactions(list(part), users, items) for part in (train, valid, test)]
    ids = {"user_ids": np.arange(users).astype(str), "item_ids": np.arange(items).astype(str)}
    return Dataset(*parts, modalities=features, **ids, co_occurrence=small.shared_items(parts[0]))


def nothing(values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values, np.zeros_like(present)


def only_first(values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values, np.arange(len(present)) == 0


def zeros(values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(values), present


def alike(values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones_like(values), present


def huge(values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values * np.float32(1e4), present


PLAIN = {
    "train": [(0, 0), (0, 1), (1, 1), (1, 2), (2, 3)],
    "valid": [(0, 2), (2, 1)],
    "test": [(1, 3), (2, 0)],
}
LEARNABLE = {
    "one user": make(1, 6, [(0, 0), (0, 2), (0, 3)], [(0, 1)], [(0, 4)]),
    "one user, one pair": make(1, 2, [(0, 0)], [(0, 1)]),
    "two items": make(3, 2, [(0, 0), (1, 1), (2, 0)], [(0, 1)], [(1, 0)]),
    "one user has seen everything": make(
        3, 4, [(0, i) for i in range(4)] + [(1, 2), (2, 0)], [(1, 3)], [(2, 1)]
    ),
    "all users but one have seen everything": make(
        3, 4, [(u, i) for u in (0, 2) for i in range(4)] + [(1, 2)], [(1, 3)]
    ),
    "no two users have an item in common": make(
        4, 5, [(0, 0), (0, 4), (1, 1), (2, 2), (3, 3)], [(0, 1)], [(1, 0)]
    ),
    "users without any training pair": make(5, 4, [(3, 0), (3, 2)], [(0, 1), (3, 1)], [(4, 3)]),
    "items nobody watched": make(3, 9, PLAIN["train"], PLAIN["valid"], PLAIN["test"]),
    "empty validation": make(3, 4, PLAIN["train"], [], PLAIN["test"]),
    "empty test": make(3, 4, PLAIN["train"], PLAIN["valid"], []),
    "one modality all missing": make(3, 4, **PLAIN, visual=nothing),
    "the other modality all missing": make(3, 4, **PLAIN, textual=nothing),
    "all modalities all missing": make(3, 4, **PLAIN, visual=nothing, textual=nothing),
    "one item only has features": make(3, 4, **PLAIN, visual=only_first, textual=only_first),
    "features of zeros": make(3, 4, **PLAIN, visual=zeros, textual=zeros),
    "all items alike": make(3, 4, **PLAIN, visual=alike, textual=alike),
    "large features": make(3, 4, **PLAIN, visual=huge, textual=huge),
}
NOTHING_TO_LEARN = {
    "one item": make(3, 1, [(0, 0), (2, 0)], [(1, 0)]),
    "one user, one item": make(1, 1, [(0, 0)]),
    "everybody has seen everything": make(2, 3, [(u, i) for u in range(2) for i in range(3)]),
    "empty training": make(3, 4, [], PLAIN["valid"], PLAIN["test"]),
}


def model_of(name: str, data: Dataset):
    kind = model_class(name)
    narrow = {key: 6 for key in ("width", "hidden") if key in keys(kind.Config)}
    config = kind.Config(**narrow)
    return create(name, heterograph(data), data.modalities, config, seed=1), config


def check(name: str, data: Dataset, tmp_path) -> None:
    """Trains, or is made, with finite numbers.

    Ranks; is saved and read back; says only what JSON can hold.
    """
    model, config = model_of(name, data)
    done = fit(model, data.train, data.valid, TRAIN)
    k = min(3, data.num_items)
    items, scores = top_k(done.user, done.item, k, data.train.csr())
    assert items.shape == (data.num_users, k)
    known = set(small.pairs_of(data.train))
    for user in range(data.num_users):
        listed = [i for i in items[user].tolist() if i >= 0]
        assert len(listed) == min(k, data.num_items - sum(u == user for u, _ in known)) and len(
            set(listed)
        ) == len(listed)
        assert not any((user, i) in known for i in listed)
    assert torch.isfinite(scores[items >= 0]).all()
    if len(data.test):
        means = Evaluator(data.test, [data.train, data.valid], ks=(k,))(done.user, done.item).means
        assert all(0 <= value <= 1 for value in means.values()), means
    if done.attention is not None:
        torch.testing.assert_close(done.attention.sum(1), torch.ones(data.num_users))
    options = {
        "model": name,
        "config": config,
        "train": TRAIN,
        "data_path": "data",
        "dataset": data,
        "device": "cpu",
    }
    info = save_run(tmp_path / "run", done, **options)
    json.dumps(info, allow_nan=False)
    run = load_run(tmp_path / "run")
    assert torch.equal(run.user.to_dense(), done.user.to_dense()) and torch.equal(
        run.item.to_dense(), done.item.to_dense()
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", LEARNABLE)
def test_what_can_be_learned_from_is(name, case, tmp_path, monkeypatch):
    # half of the time, and nothing to do with it
    monkeypatch.setattr(checkpoint, "draw_curve", lambda *arguments: None)
    check(name, LEARNABLE[case], tmp_path)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", NOTHING_TO_LEARN)
def test_where_nothing_can_be_learned_it_is_said_or_nothing_is_needed(name, case, tmp_path):
    data = NOTHING_TO_LEARN[case]
    if not model_class(name).trainable:
        return check(name, data, tmp_path)
    with pytest.raises(DataError, match="nothing to learn from") as error:
        fit(model_of(name, data)[0], data.train, data.valid, TRAIN)
    assert "\n" not in str(error.value)


BLOCKED = TrainConfig(epochs=2, batch_size=4, lr=0.05, fanout=2)
WHOLE_GRAPH_ONLY = small.whole_graph_only()


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).trainable])
@pytest.mark.parametrize("case", LEARNABLE)
def test_sampled_blocks_of_it_are_learned_from_or_refused(name, case):
    data = LEARNABLE[case]
    model, _ = model_of(name, data)
    if name in WHOLE_GRAPH_ONLY:
        with pytest.raises(ConfigError, match="^fanout: this model .*: leave fanout at 0$"):
            fit(model, data.train, data.valid, BLOCKED)
        return
    done = fit(model, data.train, data.valid, BLOCKED)
    assert len(done.history) == 2 and all(np.isfinite(row["loss"]) for row in done.history)
    assert done.user.shape[0] == data.num_users and torch.isfinite(done.user).all()
    assert done.item.shape[0] == data.num_items and torch.isfinite(done.item).all()


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).trainable])
@pytest.mark.parametrize("case", NOTHING_TO_LEARN)
def test_sampled_blocks_of_nothing_are_refused(name, case):
    data = NOTHING_TO_LEARN[case]
    with pytest.raises(DataError, match="nothing to learn from"):
        fit(model_of(name, data)[0], data.train, data.valid, BLOCKED)


@pytest.mark.parametrize(
    "name",
    [name for name in MODELS if model_class(name).trainable and name not in WHOLE_GRAPH_ONLY],
)
def test_sampled_blocks_of_as_many_users_as_items_are_learned_from(name):
    data = make(4, 4, **PLAIN)
    for config in (BLOCKED, TRAIN):
        found = fit(model_of(name, data)[0], data.train, data.valid, config)
        assert all(torch.isfinite(entries).all() for entries in (found.user, found.item))


SHARED = TrainConfig(epochs=1, batch_size=2, lr=0.05, share_propagation=3)


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).trainable])
@pytest.mark.parametrize(
    "case",
    ["one user", "one user, one pair", "users without any training pair", "empty validation"],
)
def test_shared_propagations_of_it_are_learned_from_or_refused(name, case):
    data = LEARNABLE[case]
    model, _ = model_of(name, data)
    if type(model).loss is not Recommender.loss:
        with pytest.raises(ConfigError, match="^share_propagation: .*: leave it at 1$"):
            fit(model, data.train, data.valid, SHARED)
        return
    done = fit(model, data.train, data.valid, SHARED)
    assert torch.isfinite(done.user).all() and torch.isfinite(done.item).all()


@pytest.mark.parametrize("case", [*LEARNABLE, *NOTHING_TO_LEARN])
def test_prepared_folders_at_the_edge_come_back_equal(case, tmp_path):
    data = {**LEARNABLE, **NOTHING_TO_LEARN}[case]
    save(data, tmp_path / "data")
    assert load(tmp_path / "data").hash == data.hash == dataclasses.replace(data).hash
