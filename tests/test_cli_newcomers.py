"""`dualgnn recommend --history` and `--histories`, as a person meets them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from small import dataset

from dualgnn_dgl import checkpoint, data, models, newcomers, training
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.graph import heterograph

ITEMS = 23
LOG = "user,item\nana,v5\nben,v14\nana,v32\nana,v5\nben,zzz\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data and a trained DualGNN."""
    folder = tmp_path_factory.mktemp("newcomers")
    prepared = replace(dataset(items=ITEMS), titles=np.array([f"Video {i}" for i in range(ITEMS)]))
    data.save(prepared, folder / "data")
    config, train = models.model_class("dualgnn").Config(width=6, hidden=9), training.TrainConfig(epochs=2)
    model = models.create("dualgnn", heterograph(prepared), prepared.modalities, config)
    fit = training.fit(model, prepared.train, prepared.valid, train)
    given = dict(model="dualgnn", config=config, train=train, data_path="data", dataset=prepared, device="cpu")
    checkpoint.save_run(folder / "runs" / "dualgnn", fit, **given)
    (folder / "new.csv").write_text(LOG)
    return folder


@pytest.fixture
def folder(made, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def call(*words: str | Path) -> Result:
    found = CliRunner().invoke(group, [str(word) for word in (*words, "--gpu", "-1")])
    assert "Traceback" not in found.output and isinstance(found.exception, (SystemExit, type(None))), found.exception
    return found


def refused(*words: str | Path) -> str:
    found = call(*words)
    assert found.exit_code == 1 and found.stdout == "", found.output
    return found.stderr.splitlines()[-1]


def test_a_history_gives_a_list_in_ones_own_ids(folder) -> None:
    found = call("recommend", "--history", "v5, v14", "--history", "v32", "--k", 4, "--json")
    assert found.exit_code == 0, found.output
    value = json.loads(found.stdout)
    assert [entry["user"] for entry in value["users"]] == ["new user 1", "new user 2"]
    door = newcomers.load("runs/dualgnn")
    items, scores = door.recommend([["v14", "v5"], ["v32"]], k=4)
    for entry, row, score in zip(value["users"], items.tolist(), scores.tolist(), strict=True):
        assert [line["item"] for line in entry["items"]] == door.dataset.item_ids[row].tolist()
        np.testing.assert_allclose([line["score"] for line in entry["items"]], score, rtol=1e-6)
    assert "Video" in call("recommend", "--history", "v5,v14").stdout


def test_the_order_and_repeats_do_not_matter_and_seen_is_left_out(folder) -> None:
    one, other = (call("recommend", "--history", text, "--k", 5).stdout for text in ("v5,v14,v32", "v32,v5,v14,v5"))
    assert one == other and not {"v5", "v14", "v32"} & set(one.split())
    everything = call("recommend", "--history", "v5", "--k", ITEMS, "--include-seen").stdout
    assert len(everything.splitlines()) == 2 + ITEMS


def test_a_log_of_histories(folder, tmp_path) -> None:
    assert "unknown micro-video 'zzz' in data" in refused("recommend", "--histories", "new.csv")
    found = call("recommend", "--histories", "new.csv", "--skip-unknown", "--k", 3)
    assert [line for line in found.stdout.splitlines() if line.startswith("user")] == ["user ana", "user ben"]
    file = tmp_path / "lists.parquet"
    found = call("recommend", "--histories", "new.csv", "--skip-unknown", "--all", file, "--k", 3)
    assert "6 rows for 2 users" in found.stdout
    rows = pq.read_table(file).to_pylist()
    assert [row["user"] for row in rows] == ["ana"] * 3 + ["ben"] * 3 and [row["rank"] for row in rows] == [1, 2, 3] * 2
    single = json.loads(call("recommend", "--history", "v5,v32", "--k", 3, "--json").stdout)["users"][0]["items"]
    assert [row["item"] for row in rows[:3]] == [row["item"] for row in single]


def test_users_who_watched_nothing_known_are_left_out_and_counted(folder, tmp_path) -> None:
    (tmp_path / "log.csv").write_text("user,item\nana,v5\nzoe,unheard\n")
    found = call("recommend", "--histories", tmp_path / "log.csv", "--skip-unknown", "--json")
    assert [entry["user"] for entry in json.loads(found.stdout)["users"]] == ["ana"]
    assert "1 of 2 users" in found.stderr and "left out" in found.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--history", "v5,v55"], "unknown micro-video 'v55' in data; did you mean 'v5"),
        (["--history", " , "], "history 1 says nothing about its user (it is empty)"),
        (["--history", "x", "--skip-unknown"], "none of its 1 ids is in data"),
        (["--histories", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--history", "v5", "--run", "nowhere"], "nowhere/run.json"),
    ],
)
def test_refused_in_one_line(folder, words, line) -> None:
    assert line in refused("recommend", *words)


@pytest.mark.parametrize(
    "words",
    [
        ["--history", "v5", "--user", "u900"],
        ["--history", "v5", "--histories", "new.csv"],
        ["--history", "v5", "--all", "lists.parquet"],
        ["--user", "u900", "--skip-unknown"],
    ],
)
def test_what_does_not_go_together_is_a_usage_error(folder, words) -> None:
    found = call("recommend", *words)
    assert found.exit_code == 2 and found.stdout == ""
