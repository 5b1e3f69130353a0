"""update and recommend --histories read a later log as the data's own log was read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import trial

from dualgnn_dgl import data as datasets
from dualgnn_dgl.data.manifest import read_options

HEAD = "viewer;clip;stars;when"
NAMED = ("--user-col", "viewer", "--item-col", "clip", "--rating-col", "stars", "--separator", ";")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data of rows rated 3 or more, under names that no reader knows, and a trained run."""
    monkeypatch.chdir(tmp_path)
    rows = [
        f"u{u};v{(u * 3 + step * (1 + u % 4)) % 17};{1 + (u + step) % 5};{1_600_000_000 + step}"
        for u in range(14)
        for step in range(11)
    ]
    Path("log.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    words = ("--input", "log.csv", *NAMED, "--time-col", "when", "--min-rating", 3, "--k-core", 2)
    assert trial.call("preprocess", *words).code == 0
    short = ("--model", "bprmf", "--epochs", 1, "--set", "width=3", "--gpu", -1)
    assert trial.call("train", *short, "--run", "run").code == 0
    return tmp_path


def later(name: str, *rows: str, head: str = HEAD) -> str:
    Path(name).write_text("\n".join([head, *rows]) + "\n")
    return name


def test_the_data_keep_how_their_log_was_read(home: Path) -> None:
    options = read_options("data")
    found = {name: options[name] for name in ("user_col", "item_col", "rating_col", "separator")}
    assert found == {
        "user_col": "viewer",
        "item_col": "clip",
        "rating_col": "stars",
        "separator": ";",
    }
    assert options["time_col"] == "when" and "layout" not in options


def test_update_reads_the_new_log_alike(home: Path) -> None:
    new = later("new.csv", "new;v1;5;1700000000", "new;v2;1;1700000000", "u1;v16;4;1700000000")
    done = trial.call("update", "--run", "run", "--input", new, "--json")
    assert done.code == 0, done.err
    added = json.loads(done.out)["added"]
    assert added["rows"] == 3 and added["dropped"] == {"rating below 3": 1}
    assert added["pairs"] + added["known_pairs"] == 2 and added["users"] == 1
    assert read_options("data-updated")["user_col"] == "viewer"
    words = ("--run", "run-updated", "--data", "data-updated", "--input")
    assert trial.call("update", *words, later("n.csv", "newer;v3;5;1700000000")).code == 0


def test_another_form_needs_its_options(home: Path) -> None:
    new = later("n.csv", "new,v1,5", "new,v2,4", head="user,item,rating")
    done = trial.call("update", "--run", "run", "--input", new)
    assert done.code == 1 and not trial.fault(done) and "viewer" in done.err
    words = ("--user-col", "user", "--item-col", "item", "--rating-col", "rating")
    assert (
        trial.call("update", "--run", "run", "--input", new, *words, "--separator", ",").code == 0
    )


def test_a_log_without_ratings_is_refused_where_ratings_decide(home: Path) -> None:
    new = later("n.csv", "new;v1", "new;v2", head="viewer;clip")
    done = trial.call("update", "--run", "run", "--input", new)
    assert done.code == 1 and not trial.fault(done) and "stars" in done.err
    assert trial.call("update", "--run", "run", "--input", new, "--rating-col", "").code == 0
    assert datasets.load("data-updated").num_users == datasets.load("data").num_users + 1


def test_histories_count_the_rows_that_the_data_would_count(home: Path) -> None:
    one, two, three, four = datasets.load("data").item_ids[:4].tolist()
    new = later("n.csv", f"a;{one};5;1", f"a;{two};1;1", f"b;{three};2;1", f"c;{four};4;1")
    words = ("--run", "run", "--histories", new, "--gpu", -1, "--k", 15)
    done = trial.call("recommend", *words, "--skip-unknown", "--all", "lists.parquet")
    assert done.code == 0 and "1 of 3 users" in done.err and "the data: b" in done.err, done.err
    table = pq.read_table("lists.parquet").to_pydict()
    of_a = {item for user, item in zip(table["user"], table["item"], strict=True) if user == "a"}
    assert set(table["user"]) == {"a", "c"}
    assert one not in of_a and two in of_a, "a row below the lowest rating is no watched item"
    refused = trial.call("recommend", *words)
    assert refused.code == 1 and not trial.fault(refused)
