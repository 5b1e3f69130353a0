"""Users who come after training: from their history alone, close to what training would have made of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small
import torch

from dualgnn_dgl import checkpoint, data
from dualgnn_dgl.arrivals import Histories, Town
from dualgnn_dgl.cooccurrence import co_occurrence
from dualgnn_dgl.data import CoOccurrence
from dualgnn_dgl.errors import DataError, RunError
from dualgnn_dgl.evaluation import top_k
from dualgnn_dgl.graph import heterograph, user_item, user_user
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.newcomers import Newcomers, load
from dualgnn_dgl.training import TrainConfig, fit

FOLDED = ("dualgnn", "dualgnn_plus", "lightgcn", "freedom", "mgcn", "bm3")  # models with a rule of their own
HISTORY = ["v5", "v14", "v32"]


def trained(name, dataset, epochs=12, **switches):
    model = create(name, heterograph(dataset), dataset.modalities, model_class(name).Config(**switches), seed=1)
    return model, fit(model, dataset.train, dataset.valid, TrainConfig(epochs=epochs, lr=0.02, batch_size=350, seed=1))


def own_histories(dataset, *, exclude=True):
    """Every training user as if they were new: their own history, and nothing borrowed from themselves."""
    lists = dataset.co_occurrence
    town = Town(dataset.train, dataset.modalities, lists.measure)
    return Histories(dataset.train, town, np.arange(dataset.num_users) if exclude else None)


# ---------------------------------------------------------------- what a model is told


@pytest.mark.parametrize("measure", ["count", "cosine", "jaccard"])
@pytest.mark.parametrize("weight", ["softmax", "mean", "proportional"])
@pytest.mark.parametrize("k", [1, 3, 50])
def test_neighbours_are_those_of_the_user_graph(measure, weight, k):
    """A training user's own history finds the neighbours, the order and the weights of the co-occurrence lists."""
    dataset = small.dataset()
    dataset = dataclasses.replace(dataset, co_occurrence=co_occurrence(dataset.train, measure=measure))
    found = own_histories(dataset).neighbours(k, weight)
    torch.testing.assert_close(found.dense(), user_user(heterograph(dataset), k, weight).dense())


def test_what_a_history_sends_is_the_users_row_of_the_adjacency():
    dataset = small.dataset()
    assert torch.equal(own_histories(dataset).to_user.dense(), user_item(heterograph(dataset)).dense())


def test_many_histories_at_once_are_those_one_by_one(monkeypatch):
    dataset = small.dataset()
    whole = own_histories(dataset).neighbours(4).dense()
    monkeypatch.setattr("dualgnn_dgl.arrivals.VISITS", 7)  # every block holds a history or two
    assert torch.equal(own_histories(dataset).neighbours(4).dense(), whole)


def test_histories_of_another_catalogue_are_refused():
    dataset = small.dataset()
    with pytest.raises(DataError, match="count 4 items, the training pairs 19"):
        Histories(small.interactions([(0, 1)], 2, 4), Town(dataset.train, {}))


# ---------------------------------------------------------------- every model


@pytest.mark.parametrize("name", MODELS)
def test_every_model_places_a_new_user(name):
    dataset = small.dataset()
    door = Newcomers(create(name, heterograph(dataset), dataset.modalities), dataset)
    user = door.users([HISTORY, ["v8"]])
    assert user.shape == (2, door.item.shape[1]) and torch.isfinite(user.to_dense()).all() and not user.requires_grad
    items, scores = door.recommend([HISTORY, ["v8"]], k=5)
    assert items.shape == (2, 5) and torch.isfinite(scores).all()
    watched = {int(np.flatnonzero(dataset.item_ids == item)[0]) for item in HISTORY}
    assert not watched & set(items[0].tolist())
    assert watched & set(door.recommend([HISTORY], k=dataset.num_items, include_seen=True)[0][0].tolist()) == watched


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_a_history_changes_no_bit(name):
    dataset = small.dataset()
    door = Newcomers(create(name, heterograph(dataset), dataset.modalities), dataset)
    history = dataset.item_ids[[16, 3, 9, 0, 12, 6]].tolist()
    first = door.users([history]).to_dense()
    draw = np.random.default_rng(2)
    for _ in range(5):
        assert torch.equal(door.users([draw.permutation(history).tolist()]).to_dense(), first)
    assert torch.equal(door.users([history + history[:3]]).to_dense(), first), "a video watched twice is watched"


@pytest.mark.parametrize("name", MODELS)
def test_degenerate_histories(name):
    """One video, all of them, one that nobody else watched, one without any modality."""
    dataset = small.dataset()
    door = Newcomers(create(name, heterograph(dataset), dataset.modalities), dataset)
    lonely, bare = (str(dataset.item_ids[item]) for item in (small.LONELY_ITEM, small.BARE_ITEM))
    histories = [["v5"], dataset.item_ids.tolist(), [lonely], [bare]]
    assert torch.isfinite(door.users(histories).to_dense()).all()
    items, scores = door.recommend(histories, k=3)
    assert (items[1] == -1).all() and (scores[1] == -torch.inf).all(), "who has seen everything is shown nothing"
    assert (items[[0, 2, 3]] >= 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_left_alone(name):
    dataset = small.dataset()
    model = create(name, heterograph(dataset), dataset.modalities)
    before = {label: tensor.clone() for label, tensor in (*model.named_parameters(), *model.named_buffers())}
    Newcomers(model, dataset).users([HISTORY])
    assert all(torch.equal(t, before[label]) for label, t in (*model.named_parameters(), *model.named_buffers()))


# ---------------------------------------------------------------- closeness


@pytest.mark.parametrize(
    ("name", "switches"),
    [
        *((name, {}) for name in FOLDED),
        ("dualgnn", {"user_fusion": "concat"}),
        ("dualgnn", {"user_fusion": "max"}),
        ("dualgnn", {"attention": "released"}),
        ("dualgnn", {"user_graph": False, "layers": 3}),
        ("dualgnn_plus", {"cooc_share": 0.5}),
    ],
)
def test_a_training_users_own_history_leads_back_to_their_row(name, switches):
    """Each user, told to the model as a stranger, lands nearer to their own trained row than to most others'."""
    dataset = small.checkerboard()
    model, done = trained(name, dataset, **switches)
    rule = model.user_rule()
    with torch.no_grad():
        folded = rule(own_histories(dataset))
    near = torch.nn.functional.cosine_similarity(folded, done.user)
    assert near.median() > 0.85, near.median()
    matrix = torch.nn.functional.normalize(folded) @ torch.nn.functional.normalize(done.user).T
    place = (matrix > near.unsqueeze(1)).sum(1)  # how many rows are nearer than their own
    assert place.float().mean() < 0.35 * len(place)
    parity = torch.arange(dataset.num_users) % 2
    same = (matrix.argmax(1) % 2) == parity
    assert same.all(), "nobody lands among those who watch the other half"


@pytest.mark.parametrize("name", ["lightgcn", "freedom", "mgcn", "bm3"])
def test_a_model_of_layers_misses_layer_zero_and_nothing_else(name):
    """With the layer-0 rows at zero a fold-in is the trained row, to the last bits."""
    dataset = small.dataset()
    model = create(name, heterograph(dataset), dataset.modalities)
    with torch.no_grad():
        model.user.zero_()
        torch.testing.assert_close(model.user_rule()(own_histories(dataset)), model.embed()[0])


def test_dualgnn_with_the_known_preference_and_attention_is_the_trained_row():
    """The rest of the rule (propagation, fusion, hop) is the model's own: with P and a as the rule guesses them, it is exact."""
    dataset = small.dataset()
    model = create("dualgnn", heterograph(dataset), dataset.modalities, model_class("dualgnn").Config(width=6, hidden=9))
    histories = own_histories(dataset)
    with torch.no_grad():
        model.attention.zero_()
        for _ in range(60):  # the guess looks at i¹ = Âᵀ u⁰, which depends on P in turn: until it stands still
            for m in range(3):
                model.preference[m].copy_(histories.to_user @ model.single_modal(m, 1)[1])
        torch.testing.assert_close(model.user_rule()(histories), model.embed()[0], rtol=1e-4, atol=1e-5)


def test_attention_comes_from_the_nearest_users_and_only_over_what_was_watched():
    dataset = small.dataset()
    model = create("dualgnn", heterograph(dataset), dataset.modalities, model_class("dualgnn").Config(width=6, hidden=9))
    seen, fuse = [], model.fuse_users

    def spy(users, *weights):
        seen.append(weights)
        return fuse(users, *weights)

    model.fuse_users = spy
    blind = [str(item) for item in dataset.item_ids[~dataset.modalities["visual"].present]]
    with torch.no_grad():
        model.attention.zero_()
        model.attention[:, 1] = 3.0
    Newcomers(model, dataset).users([blind, HISTORY])
    attention, heard = seen[-1]
    assert attention[0, 0] == 0 and not heard[0, 0], "no watched video has frames"
    torch.testing.assert_close(attention.sum(1), torch.ones(2))
    assert attention[1, 1] > 0.8, "everybody near weighs sound most, so the new user does"


# ---------------------------------------------------------------- ids and folders


def test_unknown_ids_are_named_or_skipped():
    dataset = small.dataset()
    door = Newcomers(create("lightgcn", heterograph(dataset), {}), dataset, "data/here")
    with pytest.raises(DataError, match=r"unknown micro-video 'v55' in data/here; did you mean 'v5.?'"):
        door.users([["v5", "v55"]])
    assert torch.equal(door.users([["v5", "v55"]], skip_unknown=True), door.users([["v5"]]))
    with pytest.raises(DataError, match="history 2 says nothing about its user .none of its 1 ids"):
        door.users([["v5"], ["zzz"]], skip_unknown=True)
    with pytest.raises(DataError, match="history 1 says nothing about its user .it is empty"):
        door.users([[]])
    assert door.users([]).shape == (0, door.item.shape[1])


@pytest.fixture
def run(tmp_path):
    dataset = small.dataset()
    model, done = trained("dualgnn", dataset, epochs=2, width=6, hidden=9)
    data.save(dataset, tmp_path / "data")
    checkpoint.save_run(
        tmp_path / "run",
        done,
        model="dualgnn",
        config=model.config,
        train=TrainConfig(epochs=2),
        data_path=tmp_path / "data",
        dataset=dataset,
        device="cpu",
    )
    return tmp_path / "run", dataset, model


def test_a_run_folder_holds_all_that_newcomers_need(run):
    folder, dataset, model = run
    door = load(folder)
    torch.testing.assert_close(door.item, checkpoint.load_run(folder).item)
    assert torch.equal(door.users([HISTORY]), Newcomers(model, dataset).users([HISTORY]))
    items, _ = door.recommend([HISTORY], k=4)
    assert torch.equal(items, top_k(door.users([HISTORY]), door.item, 4, door.pairs([HISTORY]))[0])


def test_a_run_of_another_version_says_what_to_do(run, monkeypatch):
    folder, _, _ = run
    monkeypatch.setattr("dualgnn_dgl.models.dualgnn.DualGNN.fuse_users", lambda self, users, *_: users[0])
    with pytest.raises(RunError, match="give other tables.*written by version .*train again"):
        load(folder)


def test_a_run_whose_options_are_gone_says_what_to_do(run):
    folder, dataset, _ = run
    loaded = checkpoint.load_run(folder)
    loaded.info["config"]["gone"] = 3
    with pytest.raises(RunError, match="unknown key 'gone'.*eval.*train again"):
        checkpoint.restore(loaded, dataset)
    del loaded.info["config"]["gone"]
    loaded.info["config"]["width"] = 7
    with pytest.raises(RunError, match="size mismatch.*train again"):
        checkpoint.restore(loaded, dataset)


def test_a_town_without_co_occurrence_lists_counts(run):
    _, dataset, model = run
    assert isinstance(dataset.co_occurrence, CoOccurrence)
    door = Newcomers(model, dataclasses.replace(dataset, co_occurrence=None))
    assert door.town.measure == "count"
