"""`dualgnn recommend` with --history, --histories and --new-items, and cold items, as a person
meets them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from commands import call
from small import WIDTHS, dataset

from dualgnn_dgl import data, models, training
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.runs import checkpoint, newcomers
from dualgnn_dgl.training.cold_items import ColdItems

ITEMS = 23
LOG = "user,item\nana,v5\nben,v14\nana,v32\nana,v5\nben,zzz\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data and a trained DualGNN."""
    folder = tmp_path_factory.mktemp("newcomers")
    prepared = replace(dataset(items=ITEMS), titles=np.array([f"Video {i}" for i in range(ITEMS)]))
    data.save(prepared, folder / "data")
    config, train = (
        models.model_class("dualgnn").Config(width=6, hidden=9),
        training.TrainConfig(epochs=2),
    )
    model = models.create("dualgnn", heterograph(prepared), prepared.modalities, config)
    fit = training.fit(model, prepared.train, prepared.valid, train)
    given = dict(
        model="dualgnn",
        config=config,
        train=train,
        data_path="data",
        dataset=prepared,
        device="cpu",
    )
    checkpoint.save_run(folder / "runs" / "dualgnn", fit, **given)
    (folder / "new.csv").write_text(LOG)
    return folder


@pytest.fixture
def folder(made, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


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
    one, other = (
        call("recommend", "--history", text, "--k", 5).stdout
        for text in ("v5,v14,v32", "v32,v5,v14,v5")
    )
    assert one == other and not {"v5", "v14", "v32"} & set(one.split())
    everything = call("recommend", "--history", "v5", "--k", ITEMS, "--include-seen").stdout
    assert len(everything.splitlines()) == 2 + ITEMS


def test_a_log_of_histories(folder, tmp_path) -> None:
    assert "unknown micro-video 'zzz' in data" in refused("recommend", "--histories", "new.csv")
    found = call("recommend", "--histories", "new.csv", "--skip-unknown", "--k", 3)
    assert [line for line in found.stdout.splitlines() if line.startswith("user")] == [
        "user ana",
        "user ben",
    ]
    file = tmp_path / "lists.parquet"
    found = call("recommend", "--histories", "new.csv", "--skip-unknown", "--all", file, "--k", 3)
    assert "6 rows for 2 users" in found.stdout
    rows = pq.read_table(file).to_pylist()
    assert [row["user"] for row in rows] == ["ana"] * 3 + ["ben"] * 3 and [
        row["rank"] for row in rows
    ] == [1, 2, 3] * 2
    single = json.loads(call("recommend", "--history", "v5,v32", "--k", 3, "--json").stdout)[
        "users"
    ][0]["items"]
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
        (["--history", " , "], "history 1 has no known video (it is empty)"),
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


# ---------------------------------------------------------------- new videos


@pytest.fixture
def features(folder, tmp_path) -> list[Path]:
    """Features of three new videos: an array with its list of ids, and a table that lacks one of
    them.
    """
    draw = np.random.default_rng(3)
    np.save(tmp_path / "visual.npy", draw.normal(size=(3, WIDTHS["visual"])).astype(np.float32))
    (tmp_path / "visual_ids.txt").write_text("new1\nnew2\nnew3\n")
    rows = [
        f"{name},{','.join(f'{x:.4f}' for x in draw.normal(size=WIDTHS['textual']))}"
        for name in ("new3", "new1")
    ]
    header = "item_id," + ",".join(f"f{n}" for n in range(WIDTHS["textual"]))
    (tmp_path / "textual.csv").write_text("\n".join([header, *rows]) + "\n")
    return [tmp_path / "visual.npy", tmp_path / "textual.csv"]


def given(features: list[Path]) -> list[str]:
    return [word for file in features for word in ("--new-items", str(file))]


def test_new_videos_join_the_ranking(folder, features) -> None:
    found = call(
        "recommend",
        "--user",
        "u900",
        "--k",
        ITEMS + 3,
        "--include-seen",
        *given(features),
        "--json",
    )
    assert found.exit_code == 0, found.output
    shown = json.loads(found.stdout)["users"][0]["items"]
    assert len(shown) == ITEMS + 3 and {"new1", "new2", "new3"} <= {row["item"] for row in shown}
    assert {row["title"] for row in shown if row["item"].startswith("new")} == {"(new)"}
    scores = {row["item"]: row["score"] for row in shown}
    only = call("recommend", "--user", "u900", "--k", 3, *given(features), "--only-new", "--json")
    listed = json.loads(only.stdout)["users"][0]["items"]
    assert {row["item"] for row in listed} == {"new1", "new2", "new3"}
    np.testing.assert_allclose(
        [row["score"] for row in listed], [scores[row["item"]] for row in listed], rtol=1e-5
    )
    shorter = call("recommend", "--user", "u900", *given(features), "--only-new", "--json")
    assert (
        json.loads(shorter.stdout)["users"][0]["items"] == listed
        and "only 3 micro-videos" in shorter.stderr
    )


def test_a_new_user_is_shown_new_videos(folder, features, tmp_path) -> None:
    found = call("recommend", "--history", "v5,v14", "--k", 2, *given(features), "--only-new")
    assert len(found.stdout.splitlines()) == 4 and "new" in found.stdout
    file = tmp_path / "lists.parquet"
    words = [
        "--histories",
        "new.csv",
        "--skip-unknown",
        *given(features),
        "--k",
        ITEMS,
        "--all",
        file,
    ]
    assert "for 2 users" in call("recommend", *words).stdout
    assert {"new1", "new2", "new3"} <= {row["item"] for row in pq.read_table(file).to_pylist()}


def test_new_videos_that_do_not_fit_are_refused(folder, features, tmp_path) -> None:
    wide = tmp_path / "acoustic.npy"
    np.save(wide, np.ones((2, 99), np.float32))
    assert "99 columns, acoustic of the catalogue has 7" in refused(
        "recommend", "--user", "u900", "--new-items", wide
    )
    other = tmp_path / "smell.npy"
    np.save(other, np.ones((2, 3), np.float32))
    assert "unknown modality 'smell'" in refused(
        "recommend", "--user", "u900", "--new-items", other
    )
    assert "give one file for each" in refused(
        "recommend", "--user", "u900", *given(features[:1] * 2)
    )
    (tmp_path / "visual_ids.txt").write_text("v5\nnew2\nnew3\n")
    assert "'v5' is in the catalogue already" in refused(
        "recommend", "--user", "u900", *given(features)
    )
    assert call("recommend", "--user", "u900", "--only-new").exit_code == 2


# -------------------- cold items, from the raw log to the figures


def test_cold_items_from_log_to_figures(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    rows = {(f"u{u}", f"v{i}") for u in range(14) for i in draw.choice(30, size=9, replace=False)}
    (tmp_path / "log.csv").write_text(
        "user,item\n" + "\n".join(f"{u},{i}" for u, i in sorted(rows)) + "\n"
    )
    np.save(tmp_path / "visual.npy", draw.normal(size=(30, 6)).astype(np.float32))
    (tmp_path / "visual_ids.txt").write_text("\n".join(f"v{i}" for i in range(30)) + "\n")
    words = [
        "--input",
        "log.csv",
        "--features",
        "visual.npy",
        "--split",
        "cold-items",
        "--k-core",
        "0",
    ]
    made = CliRunner().invoke(group, ["preprocess", *words])
    assert made.exit_code == 0, made.output
    prepared = data.load("data")
    assert not set(prepared.train.item.tolist()) & {
        *prepared.valid.item.tolist(),
        *prepared.test.item.tolist(),
    }
    done = call("train", "--epochs", 2, "--set", "width=5", "--set", "hidden=4")
    assert done.exit_code == 0 and "folded in by their modalities" in done.stderr, done.output
    found = call("eval", "--cold-items", "--topk", 2, "--json")
    value = json.loads(found.stdout)
    assert value["cold_items"] == 6 and value["users"] == len(set(prepared.test.user.tolist()))
    door = newcomers.load("runs/dualgnn")
    measured = ColdItems(
        prepared.train, prepared.modalities, prepared.test, [prepared.train, prepared.valid], [2]
    )(door.model)
    assert value["metrics"] == measured.means | measured.coverage
    assert "6 without a training pair" in call("eval", "--cold-items", "--topk", 2).stdout
