"""The verbs as Python functions: what they return is what the command line prints, to the last
digit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from small import WIDTHS, dataset

import dualgnn_dgl
from dualgnn_dgl import data, models, training
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.errors import ConfigError, DataError, DualGNNError, RunError
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.readers.reader import read
from dualgnn_dgl.runs import checkpoint

ITEMS = 23
LOG = "user,item\n" + "".join(f"u{u},v{(u * 7 + i * i) % 11}\n" for u in range(9) for i in range(8))
NEW = "user,item\nzoe,v5\nzoe,v14\nana,new1\nana,v14\nu900,new2\nzoe,v5\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data, other data, and two runs."""
    folder = tmp_path_factory.mktemp("verbs")
    prepared = replace(dataset(items=ITEMS), titles=np.array([f"Video {i}" for i in range(ITEMS)]))
    data.save(prepared, folder / "data", options={"min_rating": None, "cooc_top": 5})
    data.save(dataset(items=ITEMS, seed=1), folder / "other")
    train = training.TrainConfig(epochs=2)
    for name, config in (("dualgnn", {"width": 6, "hidden": 9}), ("lightgcn", {"width": 5})):
        config = models.model_class(name).Config(**config)
        model = models.create(name, heterograph(prepared), prepared.modalities, config)
        fit = training.fit(model, prepared.train, prepared.valid, train)
        given = dict(
            model=name, config=config, train=train, data_path="data", dataset=prepared, device="cpu"
        )
        checkpoint.save_run(folder / "runs" / name, fit, **given)
    (folder / "log.csv").write_text(LOG)
    (folder / "new.csv").write_text(NEW)
    draw = np.random.default_rng(3)
    np.save(folder / "visual.npy", draw.normal(size=(2, WIDTHS["visual"])).astype(np.float32))
    (folder / "visual_ids.txt").write_text("new1\nnew2\n")
    return folder


@pytest.fixture
def folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def said(*words: Any) -> dict[str, Any]:
    """What the command prints with --json."""
    found = CliRunner().invoke(group, [str(word) for word in (*words, "--json")])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def as_json(value: dict[str, Any]) -> dict[str, Any]:
    """A result as it reads back from JSON, which keeps every bit of a float."""
    return json.loads(json.dumps(value, allow_nan=False))


CPU: tuple[Any, ...] = ("--gpu", -1)


# ---------------------------------------------------------------- the package


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import dualgnn_dgl, sys; assert not {'torch', 'numpy', 'pandas', 'dgl'} & "
        "set(sys.modules); dir(dualgnn_dgl)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_public_name_is_there_and_stays_a_function() -> None:
    """A module of the same name would take the place of a function when it is imported."""
    import importlib
    import pkgutil

    for module in pkgutil.walk_packages(dualgnn_dgl.__path__, "dualgnn_dgl."):
        if ".cli" not in module.name and "kernel" not in module.name:
            importlib.import_module(module.name)
    for name in dualgnn_dgl.PUBLIC:
        assert callable(getattr(dualgnn_dgl, name)) and name in dir(dualgnn_dgl), name
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = dualgnn_dgl.evalute


# ---------------------------------------------------------------- prepare


def test_prepare_is_preprocess(folder: Path, tmp_path: Path) -> None:
    found = dualgnn_dgl.prepare("log.csv", tmp_path / "a", k_core=2, seed=4, split="leave-one-out")
    words = ("--input", "log.csv", "--k-core", 2, "--seed", 4, "--split", "leave-one-out")
    value = said("preprocess", *words, "--data", tmp_path / "b")
    assert as_json(found.to_dict()) == value | {"data": str(tmp_path / "a")}
    assert data.load(tmp_path / "a").hash == data.load(tmp_path / "b").hash == found.dataset.hash
    for name in ("dataset.json", "report.json"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_prepare_without_a_folder_writes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name for path in folder.iterdir()}
    found = dualgnn_dgl.prepare("log.csv", k_core=2)
    assert (
        found.data is None
        and found.dataset.co_occurrence is not None
        and {p.name for p in folder.iterdir()} == before
    )
    assert dualgnn_dgl.prepare(read("log.csv"), k_core=2).dataset.hash == found.dataset.hash
    checked = dualgnn_dgl.prepare("log.csv", tmp_path / "never", k_core=2, check=True)
    assert checked.dataset.co_occurrence is None and not (tmp_path / "never").exists()
    value = said("preprocess", "--input", "log.csv", "--k-core", 2, "--check")
    assert as_json(checked.to_dict()) == value


def test_prepare_reports_its_steps(folder: Path) -> None:
    events = []
    dualgnn_dgl.prepare("log.csv", k_core=2, progress=events.append)
    messages = [event.message for event in events if event.message]
    assert "splitting" in messages and all(
        event.message or event.step <= event.steps for event in events
    )


# ---------------------------------------------------------------- evaluate, compare


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ()),
        (
            {"topk": (3, 7), "split": "valid", "bootstrap": 0},
            ("--topk", 7, "--topk", 3, "--split", "valid", "--bootstrap", 0),
        ),
        (
            {"mask": "train", "beyond": True, "seed": 3},
            ("--mask", "train", "--beyond", "--seed", 3),
        ),
    ],
)
def test_evaluate_is_eval(folder: Path, options: dict, words: tuple) -> None:
    found = dualgnn_dgl.evaluate("runs/dualgnn", **options, device="cpu")
    assert as_json(found.to_dict()) == said("eval", *words, *CPU)
    assert len(found.per_user["user"]) == found.users
    assert {len(column) for column in found.per_user.values()} == {found.users}
    for name in (f"recall@{k}" for k in found.ks):
        assert found.per_user[name].mean() == found.metrics[name]


def test_evaluate_takes_what_is_loaded(folder: Path, tmp_path: Path) -> None:
    run, prepared = checkpoint.load_run("runs/dualgnn"), data.load("data")
    file = tmp_path / "users.parquet"
    found = dualgnn_dgl.evaluate(run, prepared, topk=5, per_user=file)
    assert found.data is None and found.ks == (5,)
    assert found.metrics == dualgnn_dgl.evaluate("runs/dualgnn", "data", topk=[5, 5]).metrics
    written = pq.read_table(file).to_pydict()
    assert (
        written["user"] == found.per_user["user"].tolist()
        and written["ndcg@5"] == found.per_user["ndcg@5"].tolist()
    )
    with pytest.raises(ConfigError, match="already there"):
        dualgnn_dgl.evaluate(run, prepared, per_user=file)
    dualgnn_dgl.evaluate(run, prepared, per_user=file, force=True)


def test_compare_is_compare(folder: Path) -> None:
    options = {"k": 6, "metrics": ("ndcg", "mrr"), "bootstrap": 200, "seed": 2, "best": True}
    words = (
        "--topk",
        6,
        "--metric",
        "ndcg",
        "--metric",
        "mrr",
        "--bootstrap",
        200,
        "--seed",
        2,
        "--best",
    )
    found = dualgnn_dgl.compare(["runs/lightgcn", "runs/dualgnn"], **options, device="cpu")
    assert as_json(found.to_dict()) == said(
        "compare", "runs/lightgcn", "runs/dualgnn", *words, *CPU
    )
    loaded = [checkpoint.load_run(f"runs/{name}") for name in ("lightgcn", "dualgnn")]
    assert dualgnn_dgl.compare(loaded, data.load("data"), **options).metrics == found.metrics
    (other,) = [
        standing.versus
        for standing in found.metrics["ndcg@6"].values()
        if standing.versus is not None
    ]
    assert other.difference <= 0 and other.better + other.worse <= found.users


# ---------------------------------------------------------------- recommend


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"users": ["u900", "u893"]}, ("--user", "u900", "--user", "u893")),
        (
            {"users": "u900", "include_seen": True, "k": 4},
            ("--user", "u900", "--include-seen", "--k", 4),
        ),
        ({"histories": [["v5", "v14"], ["v32"]]}, ("--history", "v5,v14", "--history", "v32")),
        (
            {"histories": "new.csv", "skip_unknown": True},
            ("--histories", "new.csv", "--skip-unknown"),
        ),
        (
            {"users": "u900", "new_items": ["visual.npy"], "only_new": True},
            ("--user", "u900", "--new-items", "visual.npy", "--only-new"),
        ),
        (
            {"histories": [["v5"]], "new_items": ["visual.npy"]},
            ("--history", "v5", "--new-items", "visual.npy"),
        ),
    ],
)
def test_recommend_is_recommend(folder: Path, options: dict, words: tuple) -> None:
    found = dualgnn_dgl.recommend("runs/dualgnn", **options, device="cpu")
    assert as_json(found.to_dict()) == said("recommend", *words, *CPU)
    columns = (found.user, found.item, found.rank, found.score, found.title)
    assert {len(column) for column in columns if column is not None} == {len(found.user)}


def test_recommend_takes_new_users_by_name(folder: Path) -> None:
    run, prepared = checkpoint.load_run("runs/dualgnn"), data.load("data")
    named = dualgnn_dgl.recommend(
        run, prepared, histories={"ben": ["v5", "v14"], "eva": ["v32"]}, k=3
    )
    listed = dualgnn_dgl.recommend("runs/dualgnn", histories=[["v14", "v5"], ["v32"]], k=3)
    assert (
        named.users == ("ben", "eva")
        and named.item.tolist() == listed.item.tolist()
        and named.data is None
    )
    left = dualgnn_dgl.recommend(
        run, prepared, histories={"ben": ["v5"], "eva": ["x"]}, skip_unknown=True
    )
    assert left.users == ("ben",) and len(left.skipped) == 1
    everybody = dualgnn_dgl.recommend(run, prepared, k=3)
    assert everybody.users == tuple(prepared.user_ids.tolist())


def test_lists_of_all_users_are_written(folder: Path, tmp_path: Path) -> None:
    found = dualgnn_dgl.write_recommendations(
        tmp_path / "a.parquet", "runs/dualgnn", k=4, device="cpu"
    )
    value = said("recommend", "--all", tmp_path / "b.parquet", "--k", 4, *CPU)
    assert found.to_dict() | {"file": ""} == value | {"file": ""}
    rows = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert rows == pq.read_table(tmp_path / "b.parquet").to_pydict()
    lists = dualgnn_dgl.recommend("runs/dualgnn", k=4, device="cpu")
    assert rows["item"] == lists.item.tolist() and rows["score"] == lists.score.tolist()


# ---------------------------------------------------------------- update, robustness


def test_update_is_update(folder: Path, tmp_path: Path) -> None:
    places = [
        {"new_data": str(tmp_path / f"data{n}"), "new_run": str(tmp_path / f"run{n}")}
        for n in range(2)
    ]
    events = []
    options = {"features": ["visual.npy"], "epochs": 1, "lr": 0.01}
    found = dualgnn_dgl.update(
        "runs/dualgnn", "new.csv", **options, **places[0], progress=events.append
    ).to_dict()
    words = ("--features", "visual.npy", "--epochs", 1, "--lr", 0.01)
    value = said(
        "update",
        "--input",
        "new.csv",
        *words,
        "--new-data",
        places[1]["new_data"],
        "--new-run",
        places[1]["new_run"],
    )
    same = ("added", "metric", "before", "kept", "epoch")
    assert [as_json(found)[key] for key in same] == [value[key] for key in same] and list(
        found
    ) == list(value)
    assert (found["data"], found["run"]) == tuple(places[0].values())
    assert data.load(tmp_path / "data0").hash == data.load(tmp_path / "data1").hash
    one, two = (checkpoint.load_run(tmp_path / f"run{n}") for n in range(2))
    assert (one.user == two.user).all() and (one.item == two.item).all()
    assert events[0].message == "reading new.csv" and len(events) == 3


def test_robustness_is_robustness(folder: Path, tmp_path: Path) -> None:
    options = {
        "models": ["vbpr"],
        "rates": [0, 0.5],
        "strategies": ["mask", "zero"],
        "seeds": 1,
        "epochs": 1,
    }
    events = []
    narrow = {"vbpr.width": 4}
    found = dualgnn_dgl.robustness(
        "data", tmp_path / "a", **options, changes=narrow, device="cpu", progress=events.append
    )
    words = (
        "--models",
        "vbpr",
        "--rates",
        "0,.5",
        "--strategies",
        "mask,zero",
        "--seeds",
        1,
        "--epochs",
        1,
    )
    value = said("robustness", *words, "--set", "vbpr.width=4", "--out", tmp_path / "b", *CPU)
    assert as_json(found.to_dict()) == value and found.missing == 0
    assert (
        (tmp_path / "a" / "table.md").read_text()
        == (tmp_path / "b" / "table.md").read_text()
        == found.table
    )
    assert [event.step for event in events if event.finished] == list(range(1, found.cells + 1))
    again = dualgnn_dgl.robustness(
        data.load("data"), tmp_path / "a", **options, changes={"vbpr.width": "4"}
    )
    assert again.summary == found.summary


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("verb", "words", "options", "kind", "message"),
    [
        ("prepare", ["nowhere.csv"], {}, DataError, "nowhere.csv does not exist"),
        (
            "prepare",
            [None],
            {"features": ["visual.npy"]},
            ConfigError,
            "the built-in demo takes none",
        ),
        ("prepare", ["log.csv"], {"k_core": -1}, ConfigError, "k_core is -1"),
        ("prepare", ["log.csv", "data"], {}, RunError, "already holds a result"),
        ("evaluate", ["nowhere"], {}, RunError, "nowhere/run.json does not exist"),
        ("evaluate", ["runs/dualgnn", "other"], {}, RunError, "trained on other data"),
        ("evaluate", ["runs/dualgnn"], {"split": "tset"}, ConfigError, "did you mean 'test'"),
        ("evaluate", ["runs/dualgnn"], {"mask": "none"}, ConfigError, "unknown mask"),
        ("evaluate", ["runs/dualgnn"], {"topk": "10"}, ConfigError, "a list length is '1'"),
        ("evaluate", ["runs/dualgnn"], {"topk": ()}, ConfigError, "ask for 1 or more"),
        ("evaluate", ["runs/dualgnn"], {"bootstrap": -1}, ConfigError, "bootstrap is -1"),
        ("evaluate", ["runs/dualgnn"], {"seed": -1}, ConfigError, "seed is -1"),
        (
            "evaluate",
            ["runs/dualgnn"],
            {"beyond": True, "cold_items": True},
            ConfigError,
            "leave out cold_items",
        ),
        ("evaluate", ["runs/dualgnn"], {"per_user": "users.csv"}, ConfigError, "ends in .parquet"),
        ("evaluate", ["runs/dualgnn"], {"device": "tpu"}, ConfigError, "tpu"),
        ("compare", ["runs/dualgnn"], {}, ConfigError, "at least two"),
        ("compare", [["runs/dualgnn"]], {}, ConfigError, "at least two"),
        ("compare", [["runs/dualgnn", "runs/dualgnn"]], {}, RunError, "is named 2 times"),
        (
            "compare",
            [["runs/dualgnn", "runs/lightgcn"]],
            {"metrics": ["recal"]},
            ConfigError,
            "did you mean 'recall'",
        ),
        (
            "compare",
            [["runs/dualgnn", "runs/lightgcn"]],
            {"metrics": "recall"},
            ConfigError,
            "give a list",
        ),
        ("recommend", ["runs/dualgnn"], {"users": ["u90"]}, DataError, "did you mean 'u900'"),
        ("recommend", ["runs/dualgnn"], {"users": []}, ConfigError, "at least one user"),
        (
            "recommend",
            ["runs/dualgnn"],
            {"users": "u900", "histories": [["v5"]]},
            ConfigError,
            "instead",
        ),
        (
            "recommend",
            ["runs/dualgnn"],
            {"histories": ["v5"]},
            ConfigError,
            "a list of item ids for each user",
        ),
        (
            "recommend",
            ["runs/dualgnn"],
            {"skip_unknown": True},
            ConfigError,
            "belongs to histories",
        ),
        ("recommend", ["runs/dualgnn"], {"only_new": True}, ConfigError, "belongs to new_items"),
        (
            "recommend",
            ["runs/dualgnn"],
            {"new_items": "visual.npy"},
            ConfigError,
            "a list of files",
        ),
        ("recommend", ["runs/dualgnn"], {"k": 0}, ConfigError, "lists of length 0"),
        ("update", ["runs/dualgnn", "nowhere.csv"], {}, DataError, "nowhere.csv does not exist"),
        ("update", ["runs/dualgnn", "new.csv"], {"epochs": -1}, ConfigError, "epochs is -1"),
        (
            "update",
            ["runs/dualgnn", "new.csv"],
            {"new_data": "same", "new_run": "same"},
            RunError,
            "name two folders",
        ),
        ("robustness", ["data", "holes"], {"models": "vbpr"}, ConfigError, "are lists"),
        (
            "robustness",
            ["data", "holes"],
            {"changes": {"witdh": 3}},
            ConfigError,
            "unknown key of training",
        ),
        (
            "robustness",
            ["data", "holes"],
            {"changes": {"bprmf.lr": 3}},
            ConfigError,
            "unknown model 'bprmf'",
        ),
        (
            "robustness",
            ["data", "holes"],
            {"changes": {"seed": 3}},
            ConfigError,
            "the experiment itself varies seeds",
        ),
        ("robustness", ["data", "holes"], {"seeds": 0}, ConfigError, "seeds is 0"),
    ],
)
def test_mistakes_are_errors_of_the_library(
    folder: Path, verb, words, options, kind, message
) -> None:
    before = sorted(str(path) for path in folder.rglob("*"))
    with pytest.raises(kind) as found:
        getattr(dualgnn_dgl, verb)(*words, **options)
    assert (
        message in str(found.value)
        and isinstance(found.value, DualGNNError)
        and "\n" not in str(found.value)
    )
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_a_verb_waits_for_nobody_who_writes_the_folder(folder: Path, tmp_path: Path) -> None:
    """Locks belong to the verbs: Python and the command line shut each other out."""
    from dualgnn_dgl.core import locks

    place = tmp_path / "taken"
    with locks.writing(place):
        with pytest.raises(RunError, match="choose another --data"):
            dualgnn_dgl.prepare("log.csv", place, k_core=2)
        with pytest.raises(RunError, match="choose another --out"):
            dualgnn_dgl.robustness("data", place, models=["bprmf"], rates=[0], seeds=1)
        with pytest.raises(RunError, match="choose another --new-run"):
            dualgnn_dgl.update("runs/dualgnn", "new.csv", new_run=place, new_data=tmp_path / "d")
    assert not place.exists()
