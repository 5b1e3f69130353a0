"""Users who come after training: from their history alone, close to what training would have made
of them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small
import torch

from dualgnn_dgl import data
from dualgnn_dgl.data import CoOccurrence, Modality
from dualgnn_dgl.errors import DataError, RunError
from dualgnn_dgl.evaluation import Evaluator, top_k
from dualgnn_dgl.graphs.arrivals import NewItems, TrainingIndex, UserHistories
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.graphs.heterographs import heterograph, user_item, user_user
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.newcomers import Newcomers, load
from dualgnn_dgl.training import TrainConfig, fit
from dualgnn_dgl.training.cold_items import ColdItems, all_cold

FOLDED = [name for name in MODELS if model_class(name).trainable]
HISTORY = ["v5", "v14", "v32"]


def trained(name, dataset, epochs=12, **switches):
    model = create(
        name, heterograph(dataset), dataset.modalities, model_class(name).Config(**switches), seed=1
    )
    return model, fit(
        model,
        dataset.train,
        dataset.valid,
        TrainConfig(epochs=epochs, lr=0.02, batch_size=350, seed=1),
    )


def own_histories(dataset, *, exclude=True):
    """Every training user as if they were new.

    Their own history, and nothing borrowed from themselves.
    """
    lists = dataset.co_occurrence
    index = TrainingIndex(dataset.train, dataset.modalities, lists.measure)
    return UserHistories(dataset.train, index, np.arange(dataset.num_users) if exclude else None)


# ---------------------------------------------------------------- what a model is told


@pytest.mark.parametrize("measure", ["count", "cosine", "jaccard"])
@pytest.mark.parametrize("weight", ["softmax", "mean", "proportional"])
@pytest.mark.parametrize("k", [1, 3, 50])
def test_neighbours_are_those_of_the_user_graph(measure, weight, k):
    """A training user's own history finds the neighbours, the order and the weights of the
    co-occurrence lists.
    """
    dataset = small.dataset()
    dataset = dataclasses.replace(
        dataset, co_occurrence=co_occurrence(dataset.train, measure=measure)
    )
    found = own_histories(dataset).neighbours(k, weight)
    torch.testing.assert_close(found.dense(), user_user(heterograph(dataset), k, weight).dense())


def test_what_a_history_sends_is_the_users_row_of_the_adjacency():
    dataset = small.dataset()
    assert torch.equal(
        own_histories(dataset).to_user.dense(), user_item(heterograph(dataset)).dense()
    )


def test_many_histories_at_once_are_those_one_by_one(monkeypatch):
    dataset = small.dataset()
    whole = own_histories(dataset).neighbours(4).dense()
    # every block holds a history or two
    monkeypatch.setattr("dualgnn_dgl.graphs.arrivals.VISITS", 7)
    assert torch.equal(own_histories(dataset).neighbours(4).dense(), whole)


def test_histories_of_another_catalogue_are_refused():
    dataset = small.dataset()
    with pytest.raises(DataError, match="count 4 items, the training pairs 19"):
        UserHistories(small.interactions([(0, 1)], 2, 4), TrainingIndex(dataset.train, {}))


# ---------------------------------------------------------------- every model


@pytest.mark.parametrize(
    ("name", "features"), [*((name, {}) for name in MODELS), ("dualgnn_plus", {"modalities": ()})]
)
def test_every_model_places_a_new_user(name, features):
    dataset = small.dataset(**features)
    door = Newcomers(create(name, heterograph(dataset), dataset.modalities), dataset)
    user = door.users([HISTORY, ["v8"]])
    assert (
        user.shape == (2, door.item.shape[1])
        and torch.isfinite(user.to_dense()).all()
        and not user.requires_grad
    )
    items, scores = door.recommend([HISTORY, ["v8"]], k=5)
    assert items.shape == (2, 5) and torch.isfinite(scores).all()
    watched = {int(np.flatnonzero(dataset.item_ids == item)[0]) for item in HISTORY}
    assert not watched & set(items[0].tolist())
    assert (
        watched
        & set(door.recommend([HISTORY], k=dataset.num_items, include_seen=True)[0][0].tolist())
        == watched
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_a_history_changes_no_bit(name):
    dataset = small.dataset()
    door = Newcomers(create(name, heterograph(dataset), dataset.modalities), dataset)
    history = dataset.item_ids[[16, 3, 9, 0, 12, 6]].tolist()
    first = door.users([history]).to_dense()
    draw = np.random.default_rng(2)
    for _ in range(5):
        assert torch.equal(door.users([draw.permutation(history).tolist()]).to_dense(), first)
    assert torch.equal(door.users([history + history[:3]]).to_dense(), first), (
        "a video watched twice is watched"
    )


@pytest.mark.parametrize("name", MODELS)
def test_degenerate_histories(name):
    """One video, all of them, one that nobody else watched, one without any modality."""
    dataset = small.dataset()
    door = Newcomers(create(name, heterograph(dataset), dataset.modalities), dataset)
    lonely, bare = (str(dataset.item_ids[item]) for item in (small.LONELY_ITEM, small.BARE_ITEM))
    histories = [["v5"], dataset.item_ids.tolist(), [lonely], [bare]]
    assert torch.isfinite(door.users(histories).to_dense()).all()
    items, scores = door.recommend(histories, k=3)
    assert (items[1] == -1).all() and (scores[1] == -torch.inf).all(), (
        "who has seen everything is shown nothing"
    )
    assert (items[[0, 2, 3]] >= 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_left_alone(name):
    dataset = small.dataset()
    model = create(name, heterograph(dataset), dataset.modalities)
    before = {
        label: tensor.clone()
        for label, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    Newcomers(model, dataset).users([HISTORY])
    assert all(
        torch.equal(t, before[label])
        for label, t in (*model.named_parameters(), *model.named_buffers())
    )


# ---------------------------------------------------------------- closeness


@pytest.mark.parametrize(
    ("name", "switches"),
    [
        *((name, {}) for name in FOLDED),
        ("dualgnn", {"user_fusion": "concat"}),
        ("dualgnn", {"user_fusion": "max"}),
        ("dualgnn", {"user_graph": False, "layers": 3}),
        ("dualgnn_plus", {"cooc_share": 0.5}),
    ],
)
def test_a_training_users_own_history_leads_back_to_their_row(name, switches):
    """Each user, told to the model as a stranger, lands nearer to their own trained row than to
    most others'.
    """
    dataset = small.checkerboard()
    model, done = trained(name, dataset, **switches)
    rule = model.user_foldin()
    with torch.no_grad():
        folded = rule(own_histories(dataset))
    near = torch.nn.functional.cosine_similarity(folded, done.user)
    # the default rule knows nothing of the model
    bound = 0.85 if name in small.overriding("user_foldin") else 0.8
    assert near.median() > bound, near.median()
    matrix = torch.nn.functional.normalize(folded) @ torch.nn.functional.normalize(done.user).T
    place = (matrix > near.unsqueeze(1)).sum(1)  # how many rows are nearer than their own
    assert place.float().mean() < 0.35 * len(place)
    parity = torch.arange(dataset.num_users) % 2
    same = (matrix.argmax(1) % 2) == parity
    assert same.all(), "nobody lands among those who watch the other half"


LAYERED = sorted({*small.using("shared_item_table")} - {*small.overriding("user_attention")})


@pytest.mark.parametrize("name", LAYERED)
def test_a_model_of_layers_misses_layer_zero_and_nothing_else(name):
    """With the layer-0 rows at zero a fold-in is the trained row, to the last bits."""
    dataset = small.dataset()
    model = create(name, heterograph(dataset), dataset.modalities)
    with torch.no_grad():
        model.user.zero_()
        torch.testing.assert_close(model.user_foldin()(own_histories(dataset)), model.embed()[0])


def test_dualgnn_with_the_known_preference_and_attention_is_the_trained_row():
    """The rest of the rule (propagation, fusion, hop) is the model's own.

    With P and a as the rule guesses them, it is exact.
    """
    dataset = small.dataset()
    model = create(
        "dualgnn",
        heterograph(dataset),
        dataset.modalities,
        model_class("dualgnn").Config(width=6, hidden=9),
    )
    histories = own_histories(dataset)
    with torch.no_grad():
        model.attention.zero_()
        # the guess looks at i¹ = Âᵀ u⁰, which depends on P in turn: until it stands still
        for _ in range(60):
            for m in range(3):
                model.preference[m].copy_(histories.to_user @ model.single_modal(m, 1)[1])
        torch.testing.assert_close(
            model.user_foldin()(histories), model.embed()[0], rtol=1e-4, atol=1e-5
        )


def test_attention_comes_from_the_nearest_users_and_only_over_what_was_watched():
    dataset = small.dataset()
    model = create(
        "dualgnn",
        heterograph(dataset),
        dataset.modalities,
        model_class("dualgnn").Config(width=6, hidden=9),
    )
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
    with pytest.raises(
        DataError, match=r"unknown micro-video 'v55' in data/here; did you mean 'v5.?'"
    ):
        door.users([["v5", "v55"]])
    assert torch.equal(door.users([["v5", "v55"]], skip_unknown=True), door.users([["v5"]]))
    with pytest.raises(DataError, match="history 2 has no known video .none of its 1 ids"):
        door.users([["v5"], ["zzz"]], skip_unknown=True)
    with pytest.raises(DataError, match="history 1 has no known video .it is empty"):
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
    monkeypatch.setattr(
        "dualgnn_dgl.models.dualgnn.DualGNN.fuse_users", lambda self, users, *_: users[0]
    )
    with pytest.raises(RunError, match="give other tables.*written by version .*train again"):
        load(folder)


def test_a_run_whose_options_are_gone_says_what_to_do(run):
    folder, dataset, _ = run
    loaded = checkpoint.load_run(folder)
    loaded.info["config"]["gone"] = 3
    with pytest.raises(RunError, match="unknown key 'gone'.*eval.*train again"):
        checkpoint.restore(loaded, dataset)
    del loaded.info["config"]["gone"]
    loaded.info["config"]["width"] = 3
    with pytest.raises(RunError, match="size mismatch.*train again"):
        checkpoint.restore(loaded, dataset)
    loaded.info["config"]["width"] = 10**9
    # before memory is taken for it
    with pytest.raises(RunError, match="narrower than its width.*train again"):
        checkpoint.restore(loaded, dataset)


def test_a_town_without_co_occurrence_lists_counts(run):
    _, dataset, model = run
    assert isinstance(dataset.co_occurrence, CoOccurrence)
    door = Newcomers(model, dataclasses.replace(dataset, co_occurrence=None))
    assert door.index.measure == "count"


# ---------------------------------------------------------------- new videos


def dense(table):
    return table.to_dense() if table.is_sparse else table


FEATURED = [name for name in MODELS if name != "mostpop"]


def new_videos(dataset, count=4, seed=5, present=None):
    """New videos: the features of trained ones, a little off."""
    draw = np.random.default_rng(seed)
    features = {}
    for name, modality in dataset.modalities.items():
        rows = np.flatnonzero(modality.present)[:count]
        values = modality.values[rows] + draw.normal(scale=0.01, size=(count, modality.width))
        features[name] = Modality(
            values, np.ones(count, bool) if present is None else present[name]
        )
    return features


@pytest.mark.parametrize("name", MODELS)
def test_every_model_places_a_new_video(name):
    dataset = small.dataset()
    door = Newcomers(create(name, heterograph(dataset), dataset.modalities), dataset)
    item = dense(door.items(new_videos(dataset)))
    assert (
        item.shape == (4, door.item.shape[1])
        and torch.isfinite(item).all()
        and not item.requires_grad
    )
    assert dense(door.items({"visual": new_videos(dataset)["visual"]})).shape == item.shape, (
        "a modality may be left out for all"
    )


@pytest.mark.parametrize("name", MODELS)
def test_an_absent_modality_of_a_new_video_changes_nothing(name):
    """Whatever stands in an absent row; and a video that lacks all is placed as well."""
    dataset = small.dataset()
    door = Newcomers(create(name, heterograph(dataset), dataset.modalities), dataset)
    present = {
        name: np.array([True, m != 0, m != 1, False]) for m, name in enumerate(dataset.modalities)
    }
    clean = new_videos(dataset, present=present)
    junk = {
        name: Modality(
            np.where(
                present[name][:, None], modality.values, 1e3 * np.arange(1, modality.width + 1)
            ),
            present[name],
        )
        for name, modality in clean.items()
    }
    item = dense(door.items(clean))
    assert torch.equal(item, dense(door.items(junk))) and torch.isfinite(item).all()
    # video 1 has no frames anyway
    only = {name: modality for name, modality in clean.items() if name != "visual"}
    torch.testing.assert_close(dense(door.items(only))[1], item[1])


def test_nearest_are_the_nearest_trained_videos_by_cosine():
    dataset = small.dataset()
    index = TrainingIndex(dataset.train, dataset.modalities)
    videos = NewItems(new_videos(dataset), index)
    for name, modality in dataset.modalities.items():
        trained = modality.present & (
            np.bincount(dataset.train.item, minlength=dataset.num_items) > 0
        )
        unit = modality.values / np.maximum(
            np.linalg.norm(modality.values, axis=1, keepdims=True), 1e-12
        )
        mine = videos.features[name].values
        cosine = mine / np.linalg.norm(mine, axis=1, keepdims=True) @ unit.T
        cosine[:, ~trained] = -np.inf
        expected = np.zeros((4, dataset.num_items), np.float32)
        np.put_along_axis(expected, np.argsort(-cosine, axis=1)[:, :3], 1 / 3, axis=1)
        np.testing.assert_allclose(videos.nearest(name, 3).dense().numpy(), expected)
    assert videos.nearest("visual", 500).dense().sum(1).allclose(torch.ones(4)), (
        "fewer than k: all of them"
    )


@pytest.mark.parametrize("name", [name for name in FEATURED if name != "bprmf"])
def test_a_new_video_like_a_trained_one_lands_near_it(name):
    """On the checkerboard a new video shows its parity, and is shown to those who watch that
    parity.
    """
    dataset = small.checkerboard()
    model, done = trained(name, dataset)
    door = Newcomers(model, dataset)
    features = {
        name: modality.take(np.array([6, 9])) for name, modality in dataset.modalities.items()
    }
    score = dense(done.user) @ dense(door.items(features)).T  # (U, 2)
    parity = np.arange(dataset.num_users) % 2
    right = (score[:, 0] > score[:, 1]).numpy() == (parity == 0)
    assert right.mean() > 0.95


def test_dualgnn_encodes_a_new_video_as_it_encodes_a_trained_one():
    """An unwatched trained item is the encoder's output.

    As a new video it gets that, and what its like receive.
    """
    dataset = small.dataset()
    model = create(
        "dualgnn",
        heterograph(dataset),
        dataset.modalities,
        model_class("dualgnn").Config(width=6, hidden=9),
    )
    lonely = {
        name: modality.take(np.array([small.LONELY_ITEM]))
        for name, modality in dataset.modalities.items()
    }
    videos = NewItems(lonely, TrainingIndex(dataset.train, dataset.modalities))
    with torch.no_grad():
        received = sum(model.single_modal(m)[1] - model.start(m)[1] for m in range(3))
        expected = model.embed()[1][small.LONELY_ITEM] + videos.resembling(received, 10)
        torch.testing.assert_close(model.item_foldin()(videos), expected, rtol=1e-4, atol=1e-5)


def test_vbpr_sees_features_only():
    dataset = small.dataset()
    model = create(
        "vbpr", heterograph(dataset), dataset.modalities, model_class("vbpr").Config(bias=True)
    )
    whole = {
        name: modality.take(np.arange(dataset.num_items))
        for name, modality in dataset.modalities.items()
    }
    found = Newcomers(model, dataset).items(whole)
    with torch.no_grad():
        model.item.zero_()
        model.item_bias.zero_()
        torch.testing.assert_close(found, model.embed()[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: {**f, "smell": f["visual"]}, "unknown modality 'smell'"),
        (
            lambda f: {**f, "visual": Modality(np.ones((4, 3)), np.ones(4, bool))},
            "visual of the new videos has 3 columns",
        ),
        (
            lambda f: {**f, "visual": f["visual"].take(np.arange(2))},
            r"describe \[2, 4\] new videos",
        ),
        (lambda f: {}, "describe no new videos"),
    ],
)
def test_features_that_do_not_fit_are_refused(change, message):
    dataset = small.dataset()
    door = Newcomers(create("lightgcn", heterograph(dataset), {}), dataset)
    with pytest.raises(DataError, match=message):
        door.items(change(new_videos(dataset)))


# ---------------------------------------------------------------- cold items


def cold_dataset():
    """The small data with three items taken out of training whole.

    Two are held out for the test, one for validation.
    """
    dataset = small.dataset()
    pairs = small.pairs_of(dataset.train)
    split = {2: 1, 5: 2, 8: 2}
    parts = [[pair for pair in pairs if split.get(pair[1], 0) == part] for part in range(3)]
    train, valid, test = (
        small.interactions(part, dataset.num_users, dataset.num_items) for part in parts
    )
    return dataclasses.replace(
        dataset, train=train, valid=valid, test=test, co_occurrence=small.shared_items(train)
    )


def test_cold_items_are_ranked_among_themselves_and_placed_by_features():
    dataset = cold_dataset()
    model = create(
        "dualgnn",
        heterograph(dataset),
        dataset.modalities,
        model_class("dualgnn").Config(width=6, hidden=9),
    )
    measure = ColdItems(
        dataset.train, dataset.modalities, dataset.test, [dataset.train, dataset.valid], ks=[2, 50]
    )
    assert set(measure.items.tolist()) >= {2, 5, 8} and measure.evaluator.ks == (
        2,
        len(measure.items),
    )
    found = measure(model)
    assert (
        set(found.users.tolist()) == set(dataset.test.user.tolist())
        and found.means[f"recall@{len(measure.items)}"] == 1.0
    )
    with torch.no_grad():
        user, item = model.embed()[0], model.item_foldin()(measure.videos)
    user_of = {int(i): place for place, i in enumerate(measure.items)}
    for place, u in enumerate(found.users.tolist()):
        seen = [user_of[i] for v, i in small.pairs_of(dataset.valid) if v == u]
        scores = user[u] @ item.T
        scores[seen] = -torch.inf
        best = set(scores.topk(2).indices.tolist())
        truth = {user_of[i] for v, i in small.pairs_of(dataset.test) if v == u}
        assert found.per_user["recall@2"][place] == len(best & truth) / len(truth)


def test_a_cold_split_is_validated_on_new_videos():
    dataset = cold_dataset()
    assert all_cold(dataset.train, dataset.valid) and not all_cold(
        small.dataset().train, small.dataset().valid
    )
    model, config = (
        create("dualgnn", heterograph(dataset), dataset.modalities),
        TrainConfig(epochs=1, metric="recall@2"),
    )
    done = fit(model, dataset.train, dataset.valid, config, modalities=dataset.modalities)
    measure = ColdItems(dataset.train, dataset.modalities, dataset.valid, [dataset.train], ks=[2])
    assert done.best_value == measure(model).means["recall@2"]
    plain = fit(
        create("dualgnn", heterograph(dataset), dataset.modalities),
        dataset.train,
        dataset.valid,
        config,
    )
    assert (
        plain.best_value
        == Evaluator(dataset.valid, [dataset.train], ks=[2])(plain.user, plain.item).means[
            "recall@2"
        ]
    )


def test_without_new_videos_there_is_nothing_to_rank():
    dataset = small.checkerboard()
    with pytest.raises(
        DataError, match="every micro-video was watched in training.*--split cold-items"
    ):
        ColdItems(dataset.train, dataset.modalities, dataset.test)
