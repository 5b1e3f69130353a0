"""A day of log added to a trained run.

What stays, what comes, and that the result is a run like any other.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from click.testing import CliRunner, Result

from dualgnn_dgl import data, models, training
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.data import Modality
from dualgnn_dgl.data.raw import RawInput, RawLog, RawModality
from dualgnn_dgl.errors import DataError, RunError
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.runs import checkpoint, growth

# u900 is internal user 0, v5 internal item 0; ana, zoe and new1, new2 are new; ("u900", "v5") may
# be known
ROWS = [
    ("zoe", "v5"),
    ("zoe", "v14"),
    ("ana", "new1"),
    ("ana", "v14"),
    ("u900", "new2"),
    ("u900", "v59"),
    ("zoe", "v5"),
]


def log(rows=ROWS, **more) -> RawLog:
    users, items = (list(dict.fromkeys(column)) for column in zip(*rows, strict=True))
    user, item = (
        np.array([users.index(u) for u, _ in rows]),
        np.array([items.index(i) for _, i in rows]),
    )
    return RawLog(user, item, np.array(users), np.array(items), rows_read=len(rows), **more)


def day(rows=ROWS, **more) -> RawInput:
    draw = np.random.default_rng(4)
    ids = np.array(["new1", "v14", "v23", "nobody"])
    features = {
        "visual": RawModality(
            ids, draw.normal(size=(4, 5)).astype(np.float32), np.array([True, True, True, True])
        )
    }
    return RawInput(log(rows, **more), features, {"new1": "One"})


def test_old_numbers_and_splits_stay_and_the_new_comes_behind():
    dataset = replace(small.dataset(), titles=np.array([f"t{i}" for i in range(small.ITEMS)]))
    larger, added = growth.extend(dataset, day())
    assert larger.user_ids.tolist() == [*dataset.user_ids.tolist(), "ana", "zoe"]
    assert larger.item_ids.tolist() == [*dataset.item_ids.tolist(), "new1", "new2"]
    assert larger.titles.tolist()[-2:] == ["One", ""]
    for split in ("valid", "test"):
        assert small.pairs_of(getattr(larger, split)) == small.pairs_of(getattr(dataset, split))
    named = {(larger.user_ids[u], larger.item_ids[i]) for u, i in small.pairs_of(larger.train)}
    old = {
        (dataset.user_ids[u], dataset.item_ids[i])
        for s in data.SPLITS
        for u, i in small.pairs_of(getattr(dataset, s))
    }
    assert named - old == set(ROWS) - old and added.pairs == len(set(ROWS) - old)
    assert added.known_pairs == len(set(ROWS) & old) and (added.users, added.items) == (2, 2)
    expected = small.shared_items(larger.train)
    assert larger.co_occurrence.neighbour.tolist() == expected.neighbour.tolist()
    visual, before = larger.modalities["visual"], dataset.modalities["visual"]
    assert visual.present[-2:].tolist() == [True, False], "new1 has frames, new2 has none"
    place = dataset.item_ids.tolist().index("v14")
    if before.present[place]:
        assert np.array_equal(visual.values[place], before.values[place]), (
            "what an item has is left as it is"
        )
    assert not larger.modalities["textual"].present[-2:].any()


def test_an_item_that_lacked_a_modality_gets_it():
    dataset = small.dataset()
    hole = int(np.flatnonzero(~dataset.modalities["visual"].present)[0])
    raw = day()
    features = RawModality(
        np.array([str(dataset.item_ids[hole])]), np.full((1, 5), 2.0, np.float32), np.ones(1, bool)
    )
    larger, added = growth.extend(dataset, replace(raw, modalities={"visual": features}))
    assert added.filled == {"visual": 1} and larger.modalities["visual"].present[hole]
    assert (larger.modalities["visual"].values[hole] == 2).all()


def test_ratings_below_the_datas_limit_are_left_out():
    raw = day(rating=np.array([5, 5, 1, 5, 5, 5, 5.0]))
    larger, added = growth.extend(small.dataset(), raw, min_rating=3)
    assert (
        "new1" not in larger.item_ids
        and added.dropped == {"rating below 3": 1, "repeated pair": 1}
        and added.items == 1
    )


def test_a_log_without_anything_new_is_refused():
    dataset = small.dataset()
    user, item = small.pairs_of(dataset.valid)[0]
    with pytest.raises(DataError, match="is new to the data"):
        growth.extend(
            dataset, RawInput(log([(str(dataset.user_ids[user]), str(dataset.item_ids[item]))]))
        )


@pytest.mark.parametrize(
    ("name", "message"), [("smell", "unknown modality 'smell'"), ("visual", "has 2 columns")]
)
def test_features_that_do_not_fit_are_refused(name, message):
    features = {name: RawModality(np.array(["v5"]), np.ones((1, 2)), np.ones(1, bool))}
    with pytest.raises(DataError, match=message):
        growth.extend(small.dataset(), replace(day(), modalities=features))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_grows_and_keeps_what_it_has_learned(name):
    dataset = small.dataset()
    model = create(name, heterograph(dataset), dataset.modalities)
    larger, _ = growth.extend(dataset, day())
    config = model_class(name).Config()
    grown = growth.grow(model, dataset, larger, name, config)
    user, item = grown.embed()
    assert (user.shape[0], item.shape[0]) == (15, 21)
    if not user.is_sparse:
        assert torch.isfinite(user).all() and torch.isfinite(item).all()
    sizes = {15: 13, 21: 19}
    for key, old in model.state_dict().items():
        new = grown.state_dict()[key]
        if name != "mostpop":  # its counts are made anew
            assert torch.equal(new[: sizes.get(len(new), len(new))] if new.ndim else new, old), key


def test_users_without_neighbours_and_videos_without_features_start_from_the_mean():
    dataset = small.dataset(modalities=())
    model = create("bprmf", heterograph(dataset), {})
    larger, _ = growth.extend(
        dataset, RawInput(log([("solo", "new1"), ("solo", "new2"), ("pal", "v5")]))
    )
    grown = growth.grow(model, dataset, larger, "bprmf", model_class("bprmf").Config())
    # solo: only new videos
    torch.testing.assert_close(grown.user[14].detach(), model.user.mean(0).detach())
    torch.testing.assert_close(grown.item[-1].detach(), model.item.mean(0).detach())


def test_a_model_that_cannot_grow_says_so():
    dataset = small.dataset()
    model = create("lightgcn", heterograph(dataset), {})
    larger, _ = growth.extend(dataset, day())
    model.row_axes = {"item": "item"}  # a table of users that is not marked as one
    with pytest.raises(RunError, match="user of lightgcn cannot grow from"):
        growth.grow(model, dataset, larger, "lightgcn", model_class("lightgcn").Config())


# ---------------------------------------------------------------- the command


def call(*words: str | Path) -> Result:
    found = CliRunner().invoke(group, [str(word) for word in words])
    assert "Traceback" not in found.output and isinstance(
        found.exception, (SystemExit, type(None))
    ), found.exception
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    dataset = small.dataset(items=23)
    data.save(dataset, "data", options={"min_rating": None, "cooc_top": 5})
    config, train = model_class("dualgnn").Config(width=6, hidden=9), training.TrainConfig(epochs=2)
    model = models.create("dualgnn", heterograph(dataset), dataset.modalities, config)
    fit = training.fit(model, dataset.train, dataset.valid, train)
    given = dict(
        model="dualgnn", config=config, train=train, data_path="data", dataset=dataset, device="cpu"
    )
    checkpoint.save_run("runs/dualgnn", fit, **given)
    Path("day.csv").write_text("user,item\n" + "\n".join(f"{u},{i}" for u, i in ROWS) + "\n")
    np.save("visual.npy", np.ones((2, 5), np.float32))
    Path("visual_ids.txt").write_text("new1\nnew2\n")
    return tmp_path


def test_update_from_log_to_lists(folder):
    found = call("update", "--input", "day.csv", "--features", "visual.npy", "--json")
    assert found.exit_code == 0, found.output
    value = json.loads(found.stdout)
    assert (value["run"], value["data"]) == ("runs/dualgnn-updated", "data-updated") and value[
        "added"
    ]["users"] == 2
    dataset, run = data.load("data-updated"), checkpoint.load_run("runs/dualgnn-updated")
    assert np.diff(dataset.co_occurrence.indptr).max() <= 5, "lists as long as preprocess made them"
    assert run.user.shape[0] == 15 and value["kept"] == value["before"]
    checkpoint.restore(run, dataset)  # its parameters give its tables
    assert call("eval", "--run", "runs/dualgnn-updated", "--gpu", "-1").exit_code == 0
    lists = json.loads(
        call(
            "recommend", "--run", "runs/dualgnn-updated", "--user", "zoe", "--gpu", "-1", "--json"
        ).stdout
    )
    assert len(lists["users"][0]["items"]) == 10
    again = call("update", "--input", "day.csv")
    assert again.exit_code == 1 and "--force" in again.stderr
    twice = call("update", "--run", "runs/dualgnn-updated", "--input", "day.csv")
    assert twice.exit_code == 1 and "is new to the data" in twice.stderr


def test_training_on_keeps_the_better_of_before_and_after(folder):
    found = call("update", "--input", "day.csv", "--epochs", 2, "--lr", 0.01, "--json")
    value = json.loads(found.stdout)
    assert value["kept"] >= value["before"] and "training for 2 further epochs" in found.stderr
    old = call("eval", "--gpu", "-1", "--json")
    assert json.loads(old.stdout)["run"] == "runs/dualgnn", "the old run is still there"
    text = call("update", "--input", "day.csv", "--force").stdout
    assert "Added" in text and "2 users" in text and "Validation recall@20" in text


def test_every_row_of_the_new_log_is_accounted_for(folder):
    known = data.load("data")
    user, item = (
        ids[at]
        for ids, at in (
            (known.user_ids, known.train.user[0]),
            (known.item_ids, known.train.item[0]),
        )
    )
    Path("odd.csv").write_text(
        f"user,item\n{user},{item}\nzoe,{item}\nzoe,{item}\n,{item}\nzoe,\nyan,{item}\n"
    )
    value = json.loads(call("update", "--input", "odd.csv", "--json").stdout)["added"]
    assert (value["rows"], value["pairs"], value["known_pairs"]) == (6, 2, 1)
    assert value["dropped"]["repeated pair"] == 1 and sum(value["dropped"].values()) == 3, value
    text = call("update", "--input", "odd.csv", "--force").stdout
    assert "Dropped of 6 rows: " in text and "repeated pair: 1" in text


def test_nothing_is_written_when_the_log_does_not_fit(folder):
    Path("bad.csv").write_text("user,film_length\n1,2\n")
    assert call("update", "--input", "bad.csv").exit_code == 1
    assert not Path("data-updated").exists() and not Path("runs/dualgnn-updated").exists()


def test_modality_rows_taken():
    modality = Modality(np.arange(6).reshape(3, 2), np.array([True, False, True]))
    assert modality.take(np.array([2, 1])).values.tolist() == [[4, 5], [0, 0]]
