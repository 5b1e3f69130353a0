"""`dualgnn compare` and `dualgnn eval --beyond` as a person meets them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import call
from small import USERS, dataset, interactions

from dualgnn_dgl import data
from dualgnn_dgl.evaluation import Evaluator, beyond_accuracy, bootstrap, holm, paired
from dualgnn_dgl.evaluation.slices import popularity, sliced
from dualgnn_dgl.models import model_class
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.training import Fit, TrainConfig

ITEMS, K = 37, 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, data.Dataset, dict[str, Fit]]:
    """The data folder `data`, three runs on it (one of them close to the first), one on other data,
    one damaged.
    """
    folder = tmp_path_factory.mktemp("compare")
    prepared, other = dataset(items=ITEMS), dataset(items=ITEMS, seed=1)
    data.save(prepared, folder / "data")
    data.save(other, folder / "other")
    draw = np.random.default_rng(7)
    user, item = (
        torch.tensor(draw.normal(size=(count, 4)), dtype=torch.float32) for count in (USERS, ITEMS)
    )
    better = user.clone()
    for u, i in zip(prepared.test.user[:9], prepared.test.item[:9], strict=True):
        better[u] = item[i] * 3  # some held-out items now rank high
    fits = {"a": Fit(user, item, {}), "b": Fit(better, item, {}), "c": Fit(user + 0.01, item, {})}
    for name, fit in (
        fits | {"broken": Fit(user * math.nan, item, {}), "stranger": fits["a"]}
    ).items():
        checkpoint.save_run(
            folder / "runs" / name,
            fit,
            model="bprmf",
            config=model_class("bprmf").Config(),
            train=TrainConfig(),
            data_path="other" if name == "stranger" else "data",
            dataset=other if name == "stranger" else prepared,
            device="cpu",
        )
    return folder, prepared, fits


@pytest.fixture
def folder(made, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made[0])
    return made[0]


def said(*words: str | Path) -> dict:
    found = call("compare", *words, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_json_holds_what_the_library_says(folder, made) -> None:
    _, prepared, fits = made
    value = said("runs/a", "runs/b", "runs/c", "--topk", K, "--bootstrap", 300, "--seed", 4)
    assert list(value) == [
        "base",
        "runs",
        "data",
        "split",
        "mask",
        "users",
        "metrics",
        "slices",
        "beyond",
    ]
    assert (value["base"], value["data"], value["split"], value["mask"]) == (
        "runs/a",
        "data",
        "test",
        "all",
    )
    assert (
        value["runs"] == {f"runs/{name}": "bprmf" for name in "abc"} and value["users"] == USERS - 2
    )
    evaluator = Evaluator(prepared.test, [prepared.train, prepared.valid], ks=(K,))
    found = {name: evaluator(fit.user, fit.item) for name, fit in fits.items()}
    for metric in (f"recall@{K}", f"ndcg@{K}"):
        values = {name: result.per_user[metric] for name, result in found.items()}
        differences = paired(
            values["a"], {"b": values["b"], "c": values["c"]}, seed=4, resamples=300
        )
        rows = value["metrics"][metric]
        assert list(rows) == ["runs/a", "runs/b", "runs/c"] and set(rows["runs/a"]) == {
            "mean",
            "interval",
        }
        for name in "bc":
            row, d = rows[f"runs/{name}"], differences[name]
            assert row["mean"] == found[name].means[metric]
            assert (row["difference"], row["difference_interval"]) == (d.mean, [d.low, d.high])
            assert (row["p_bootstrap"], row["p_wilcoxon"], row["better"]) == (
                d.p_bootstrap,
                d.p_wilcoxon,
                d.better,
            )
        assert [rows[f"runs/{n}"]["p_wilcoxon_holm"] for n in "bc"] == holm(
            [d.p_wilcoxon for d in differences.values()]
        )
        assert [rows[f"runs/{n}"]["p_bootstrap_holm"] for n in "bc"] == holm(
            [d.p_bootstrap for d in differences.values()]
        )
        assert rows["runs/a"]["interval"] == list(bootstrap(values, 4, 300)["a"])
    lists = evaluator.rank(fits["b"].user, fits["b"].item)
    rest = beyond_accuracy(lists, (K,), prepared.train, prepared.modalities)
    assert {
        name: figures["runs/b"] for name, figures in value["beyond"].items()
    } == rest.whole | rest.means
    parts = list(sliced(evaluator, lists, popularity(prepared.train, prepared.test)))
    shown = value["slices"]["item_training_users"]
    assert [(row["from"], row["to"], row["users"]) for row in shown] == [
        (*bounds, len(part.users)) for bounds, part in parts
    ]
    assert [row["metrics"][f"recall@{K}"]["runs/b"]["mean"] for row in shown] == [
        p.means[f"recall@{K}"] for _, p in parts
    ]
    users = value["slices"]["user_training_pairs"]
    assert sum(row["users"] for row in users) == value["users"]


def test_best_is_the_base_where_asked_for(folder) -> None:
    value = said(
        "runs/a", "runs/b", "runs/c", "--best", "--topk", K, "--metric", "ndcg", "--metric", "ndcg"
    )
    assert value["base"] == "runs/b" and list(value["runs"]) == ["runs/b", "runs/a", "runs/c"]
    assert list(value["metrics"]) == [f"ndcg@{K}"]
    assert value["metrics"][f"ndcg@{K}"]["runs/a"]["difference"] < 0


def test_split_mask_and_seed(folder, made) -> None:
    _, prepared, fits = made
    value = said("runs/a", "runs/b", "--topk", K, "--split", "valid")
    expected = Evaluator(prepared.valid, [prepared.train], ks=(K,))(fits["a"].user, fits["a"].item)
    assert (
        value["metrics"][f"recall@{K}"]["runs/a"]["mean"] == expected.means[f"recall@{K}"]
        and value["split"] == "valid"
    )
    value = said("runs/a", "runs/b", "--topk", K, "--mask", "train")
    expected = Evaluator(prepared.test, [prepared.train], ks=(K,))(fits["a"].user, fits["a"].item)
    assert value["metrics"][f"recall@{K}"]["runs/a"]["mean"] == expected.means[f"recall@{K}"]
    assert (
        said("runs/a", "runs/b", "--seed", 1)
        == said("runs/a", "runs/b", "--seed", 1)
        != said("runs/a", "runs/b")
    )


def test_text_has_a_table_for_every_question(folder) -> None:
    found = call("compare", "runs/a", "runs/b", "runs/c", "--topk", K)
    value = said("runs/a", "runs/b", "runs/c", "--topk", K)
    assert found.exit_code == 0 and found.stderr == ""
    head, *tables = found.stdout.rstrip("\n").split("\n\n")
    assert re.search(r"^base +runs/a \(bprmf\)$", head, re.M) and re.search(
        rf"^users +{USERS - 2}$", head, re.M
    )
    assert [text.split("\n")[0].split(",")[0] for text in tables] == [
        f"recall@{K}", f"ndcg@{K}", f"recall@{K}", f"ndcg@{K}", f"recall@{K}", f"ndcg@{K}", "lists",
    ]  # fmt: skip
    row = value["metrics"][f"recall@{K}"]["runs/b"]
    line = tables[0].splitlines()[3]
    assert (
        line.startswith("runs/b")
        and f"{row['mean']:.4f}" in line
        and f"{row['difference']:+.4f}" in line
    )
    tests = ("p_bootstrap", "p_bootstrap_holm", "p_wilcoxon", "p_wilcoxon_holm")
    assert line.split()[-4:] == [f"{row[key]:.4f}" for key in tests]
    assert [line.split()[0] for line in tables[-1].splitlines()[2:]] == [
        f"coverage@{K}",
        f"gini@{K}",
        f"novelty@{K}",
    ] + ["diversity"] * 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["runs/a", "runs/stranger"], "runs/a and runs/stranger were trained on different data"),
        (["runs/a", "runs/b", "runs/a"], "runs/a is named 2 times"),
        (["runs/a", "nowhere"], "nowhere/run.json does not exist"),
        (["runs/a", "data"], "data/run.json does not exist"),
        (["runs/a", "runs/broken"], "user table holds NaN or infinity"),
        (["runs/a", "runs/b", "--topk", "0"], "lists of length 0"),
        (["runs/a", "runs/b", "--data", "other"], "trained on other data"),
    ],
)
def test_compare_refuses_in_one_line(folder, words, line) -> None:
    found = call("compare", *words)
    assert found.exit_code == 1 and found.stdout == "" and line in found.stderr
    assert len(found.stderr.splitlines()) == 1 and found.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    "words",
    [["runs/a"], [], ["runs/a", "runs/b", "--metric", "recal"], ["runs/a", "--bootstrap", "0"]],
)
def test_usage_mistakes_exit_with_two(folder, words) -> None:
    found = call("compare", *words)
    assert found.exit_code == 2 and found.stdout == ""


def test_data_without_features_has_no_diversity(made, tmp_path) -> None:
    bare = replace(made[1], modalities={}, valid=interactions([], USERS, ITEMS))
    data.save(bare, tmp_path / "data")
    options = {
        "model": "bprmf",
        "config": model_class("bprmf").Config(),
        "train": TrainConfig(),
        "device": "cpu",
    }
    for name in "ab":
        checkpoint.save_run(
            tmp_path / name, made[2][name], data_path=tmp_path / "data", dataset=bare, **options
        )
    value = said(tmp_path / "a", tmp_path / "b", "--topk", 3)
    assert list(value["beyond"]) == ["coverage@3", "gini@3", "novelty@3"]


# -------------------- eval --beyond


def test_eval_beyond(folder, made, tmp_path) -> None:
    _, prepared, fits = made
    file = tmp_path / "users.parquet"
    found = call(
        "eval",
        "--run",
        "runs/b",
        "--topk",
        K,
        "--topk",
        1,
        "--beyond",
        "--json",
        "--per-user",
        file,
    )
    value = json.loads(found.stdout)
    lists = Evaluator(prepared.test, [prepared.train, prepared.valid], ks=(1, K)).rank(
        fits["b"].user, fits["b"].item
    )
    rest = beyond_accuracy(lists, (1, K), prepared.train, prepared.modalities)
    assert value["metrics"][f"gini@{K}"] == rest.whole[f"gini@{K}"]
    for name, mean in rest.means.items():
        if name.endswith("@1") and name.startswith("diversity"):  # one item has no pairs
            assert value["metrics"][name] is None and name not in value["intervals"]
            continue
        assert value["metrics"][name] == mean
        low, high = value["intervals"][name]
        assert low <= mean <= high
    table = pq.read_table(file)
    assert (
        table["diversity visual@1"].null_count == len(table)
        and table[f"novelty@{K}"].null_count == 0
    )
    plain = json.loads(call("eval", "--run", "runs/b", "--topk", K, "--json").stdout)
    assert all(value["metrics"][name] == figure for name, figure in plain["metrics"].items())
    text = call("eval", "--run", "runs/b", "--topk", K, "--topk", 1, "--beyond").stdout
    assert re.search(r"^diversity visual +– +[01]\.\d+ \[", text, re.M) and re.search(
        r"^gini +0\.\d+ +0\.\d+$", text, re.M
    )


def test_beyond_and_cold_items_do_not_go_together(folder) -> None:
    found = call("eval", "--run", "runs/b", "--beyond", "--cold-items")
    assert found.exit_code == 2 and "leave out --cold-items" in found.stderr
