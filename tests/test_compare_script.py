"""The comparison: its trials, its rows, its tests and its tables."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import dataset

from dualgnn_dgl.evaluation import Evaluator, holm, paired
from dualgnn_dgl.models import MODELS

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SHARED = BENCHMARKS.parent.parent / "shared" / "data"


def module(name: str):
    """Imports a module of the benchmarks from the checkout; the package does not install them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS.parent))
        return importlib.import_module(f"benchmarks.{name}")


compare, ranking, search = (module(f"quality.{name}") for name in ("compare", "ranking", "search"))
documents, results = module("quality.tables"), module("quality.results")
tables, trainings, train_one = (
    module("lib.tables"),
    module("lib.trainings"),
    module("lib.train_one"),
)
Packed, Folders = module("lib.packed").Packed, module("lib.paths").Folders


def a_test(evaluator: Evaluator, items: np.ndarray) -> dict:
    """Returns a training of which only the hits and what they give are known."""
    return {"test": evaluator.measure(items).means, **train_one.hits_of(evaluator, items)}


def test_trials_are_distinct_and_the_defaults_are_first() -> None:
    for model in MODELS:
        drawn = search.draw_configs(model, 5)
        assert (
            drawn[0] == {}
            and len({json.dumps(config, sort_keys=True) for config in drawn}) == len(drawn) <= 5
        )
        assert drawn[:3] == search.draw_configs(model, 3), "more trials keep the first ones"


def test_large_trials_repeat_none_of_the_others() -> None:
    assert search.draw_configs("lightgcn", 2, search.LARGE)[2:] == list(search.LARGE)
    in_large_batches = search.draw_configs(
        "lightgcn", 2, search.LARGE + search.SMALL, {"epochs": 9, "batch_size": "16384"}
    )
    assert in_large_batches[2:] == [*search.LARGE[1:], *search.SMALL], (
        "the first trial has the first of the large"
    )
    assert search.draw_configs("lightgcn", 2, search.SMALL) == search.draw_configs("lightgcn", 2), (
        "2,048 is what training takes"
    )
    assert search.draw_configs("mostpop", 2, search.LARGE) == [{}]


def test_hits_give_every_metric_back() -> None:
    data = dataset(items=41)
    draw = np.random.default_rng(2)
    user, item = (
        torch.tensor(draw.normal(size=(count, 3)), dtype=torch.float32)
        for count in (data.num_users, 41)
    )
    evaluator = Evaluator(data.test, [data.train, data.valid], ks=trainings.KS)
    items = evaluator.rank(user, item)
    found, expected = (
        trainings.metrics_of(train_one.hits_of(evaluator, items)),
        evaluator.measure(items).per_user,
    )
    assert list(found) == list(expected) and expected["hit@20"].any()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_the_leader_is_compared_with_all_others() -> None:
    draw = np.random.default_rng(0)
    values = {name: draw.random(73) + gain for name, gain in (("a", 0.3), ("b", 0.25), ("c", 0.0))}
    found = ranking.significance(values, "a")
    expected = paired(values["a"], {"b": values["b"], "c": values["c"]}, resamples=10_000)
    assert list(found) == ["b", "c"]
    assert [row["p Wilcoxon"] for row in found.values()] == holm(
        [d.p_wilcoxon for d in expected.values()]
    )
    assert (
        found["c"]["difference"] == expected["c"].mean < found["b"]["difference"]
        and found["c"]["p bootstrap"] < 0.001
    )
    assert ranking.significance({"b": values["b"]}, "a") == {}, (
        "nothing is claimed where the leader's users are not known"
    )


def test_the_table_says_what_is_missing() -> None:
    row = {
        "model": "lightgcn",
        "trials": 8,
        "seeds": 1,
        "published": (0.1, 0.05),
        "interval recall@20": [0.01, 0.03],
    }
    row |= {
        "epoch_s": 1.0,
        "to_best_s": 3.0,
        "peak_mb": 70.0,
        "coverage@20": 0.5,
        "timed on a GPU": False,
    }
    row |= {name: 0.02 for name in ("recall@10", "recall@20", "ndcg@20")} | {
        "recall@20 sd": 0.003,
        "ndcg@20 sd": 0.0,
    }
    other = row | {"model": "bprmf", "seeds": 3, "published": None, "timed on a GPU": True}
    tested = other | {
        "model": "vbpr",
        "difference": -0.01,
        "p bootstrap": 0.00001,
        "p Wilcoxon": 0.25,
    }
    head, rule, *lines = tables.markdown([row, other, tested]).splitlines()
    assert len({line.count("|") for line in (head, rule, *lines)}) == 1
    cells = [dict(zip(head.split(" | "), line.split(" | "), strict=True)) for line in lines]
    assert (
        "**lightgcn**" in lines[0] and cells[0]["recall@20"] == "**0.0200**" and "8 × 1" in lines[0]
    )
    assert [cell["to the leader, p bootstrap, p Wilcoxon"] for cell in cells] == [
        "",
        "–",
        "−0.0100, < .0001, .2500",
    ]
    assert cells[1]["recall@20"] == "0.0200 ± 0.0030" and cells[1]["NDCG@20"] == "0.0200", (
        "no deviation where there is none"
    )
    assert [cell["published recall / NDCG@20"] for cell in cells] == ["0.1000 / 0.0500", "", ""]
    assert [cell["s/epoch"] for cell in cells] == ["1.00", "1.00 (GPU)", "1.00 (GPU)"]
    assert "published" not in tables.markdown([other, tested])


def test_the_tables_of_readme_and_docs_are_those_of_the_results() -> None:
    pages = {f"{page.parent.name}/{page.name}": page.read_text("utf-8") for page in documents.PAGES}
    assert sum(len(documents.MARK.findall(text)) for text in pages.values()) >= 10
    for name, text in pages.items():
        assert documents.refreshed(text) == (text, []), (
            f"{name} is stale: run python -m benchmarks.quality.tables"
        )
    text = pages["results/tiktok.md"]
    spoilt = text.replace("| **dualgnn_plus** | 8 × 3 |", "| **dualgnn_plus** | 9 × 3 |", 1)
    assert documents.refreshed(spoilt) == (text, ["tiktok"])
    text = pages["results/microlens-sample.md"]
    spoilt = text.replace("| random | 0.", "| random | 1.", 1)
    assert documents.refreshed(spoilt) == (
        text,
        ["microlens-15k-loo and microlens-15k-time and microlens-15k-random"],
    )
    text = documents.PAGES[0].read_text("utf-8")
    assert (
        documents.refreshed(text.replace("| TikTok | dualgnn_plus", "| TikTok | mgcn", 1))[0]
        == text
    )


def test_the_best_table_names_the_models_that_are_not_behind() -> None:
    rows = [
        {"model": name, "recall@20": value, "seeds": 1}
        for name, value in (("a", 0.4), ("b", 0.35), ("lightgcn", 0.3))
    ]
    rows[0]["interval recall@20"] = [0.38, 0.42]
    rows[1] |= {"p bootstrap": 0.001, "p Wilcoxon": 0.2}
    rows[2] |= {"p bootstrap": 0.001, "p Wilcoxon": 0.04}
    line = tables.best({"tiktok": rows}).splitlines()[-1]
    assert (
        line
        == "| TikTok | a | **0.4000** | 0.3800–0.4200 | b 0.3500 | lightgcn 0.3000 | – | 0.3000 |"
    )


def test_splits_stand_side_by_side() -> None:
    first, second = (
        [{"model": "b", "recall@20": 0.2}, {"model": "a", "recall@20": 0.1}],
        [{"model": "a", "recall@20": 0.3}],
    )
    head, _, *lines = tables.side_by_side({"small-loo": first, "small-random": second}).splitlines()
    assert (
        head == "| split | b | a |"
        and lines[0].endswith("| 0.2000 | 0.1000 |")
        and lines[1] == "| random | – | 0.3000 |"
    )


def test_a_run_of_few_models_keeps_the_other_rows_and_tests_all_again(tmp_path) -> None:
    data, draw = dataset(items=41), np.random.default_rng(3)
    evaluator = Evaluator(data.test, [data.train, data.valid], ks=trainings.KS)
    rows, kept = [], trainings.Trainings("compare-small", tmp_path)
    for model in ("a", "b", "c"):
        user, item = (
            torch.tensor(draw.normal(size=(count, 3)), dtype=torch.float32)
            for count in (data.num_users, 41)
        )
        made = kept.keep(f"small-{model}", a_test(evaluator, evaluator.rank(user, item)), None)
        rows.append(
            {
                "model": model,
                "seeds": 1,
                "recall@20": made["test"]["recall@20"],
                "trainings": [f"small-{model}"],
            }
        )
    whole = ranking.ranked(rows, kept)
    assert [row["recall@20"] for row in whole] == sorted(
        (row["recall@20"] for row in rows), reverse=True
    )
    assert "difference" not in whole[0] and all("p Wilcoxon" in row for row in whole[1:])
    assert ranking.ranked(ranking.merged(rows[1:2], whole), kept) == whole, (
        "a part run again changes nothing"
    )
    assert [row["model"] for row in ranking.merged(rows[1:2], whole)].count("b") == 1
    alone = ranking.ranked(ranking.merged([rows[0] | {"recall@20": 2.0}], whole), kept)
    assert alone[0]["model"] == "a" and "difference" not in alone[0]
    bare = ranking.ranked([*whole[:-1], whole[-1] | {"trainings": ["small-unknown"]}], kept)
    assert ["difference" in row for row in bare] == [False, True, False], "no hits kept, no test"


def test_any_model_can_be_tested_against_others_without_training(
    monkeypatch, capsys, tmp_path
) -> None:
    name = "microlens-15k-loo"
    asked = [
        "--data",
        name,
        "--against",
        "dualgnn",
        "--models",
        "lightgcn,dualgnn,freedom",
        "--cache",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["compare.py", *asked])
    monkeypatch.setattr(trainings.Trainings, "make", None)
    compare.main()
    kept = trainings.Trainings(f"compare-{name}", tmp_path)
    rows = {row["model"]: row for row in tables.read_rows(f"compare-{name}")}
    values = {model: ranking.users_mean(row["trainings"], kept) for model, row in rows.items()}
    expected = paired(
        values["dualgnn"],
        {model: values[model] for model in ("lightgcn", "freedom")},
        resamples=10_000,
    )
    table = [
        line.split("|")[1:-1]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| ")
    ]
    assert [cells[0].strip() for cells in table[2:]] == ["lightgcn", "freedom"], (
        "not against itself"
    )
    for cells, found, p in zip(
        table[2:], expected.values(), holm([d.p_bootstrap for d in expected.values()]), strict=True
    ):
        lead = float(cells[2].split()[0].replace("−", "-"))
        assert (
            lead
            == round(-found.mean, 4)
            == round(rows["dualgnn"]["recall@20"] - rows[cells[0].strip()]["recall@20"], 4)
        )
        assert cells[3].strip() == tables.small(p)
    with pytest.raises(SystemExit, match="no row of nothing"):
        ranking.against(name, "dualgnn", ["nothing"], kept)


def test_the_title_names_the_data_and_what_every_trial_was_given() -> None:
    row = {
        "users": 5_651,
        "machines": ["a CPU"],
        "train": {"epochs": 9, "patience": 3, "batch_size": "16384"},
    }
    text = compare.title("microlens-15k-loo", [row, {"users": 5_651, "machines": ["a GPU"]}])
    assert text.startswith(
        "microlens-15k-loo: split leave-one-out, 5,651 test users, "
    ) and text.endswith("; a CPU, a GPU")
    assert "recall@20, batch_size=16384;" in text and "epochs" not in text


def test_settings_of_another_table_are_its_rows(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.write_table(
        "compare-small", {}, [{"model": "vbpr", "config": {"lr": 0.003}, "trials": 8}]
    )
    assert search.settled("small", "vbpr") == ({"lr": 0.003}, 8)
    with pytest.raises(
        SystemExit, match="no row of mgcn: make it first, compare.py --data small --models mgcn"
    ):
        search.settled("small", "mgcn")
    row = {"users": 3, "machines": ["a CPU"], "settings of": "small"}
    assert "settings those of small" in compare.title("microlens-loo", [row])


def test_of_several_settings_validation_chooses_over_all_seeds(tmp_path, monkeypatch) -> None:
    valid = {0.003: (0.9, 0.1, 0.2), 0.01: (0.6, 0.5, 0.4)}  # the first would win with seed 0 alone

    class Fake:
        def run(self, name, folder, model, config, seed, train, *, mask) -> dict:
            assert mask == "all"
            test = dict.fromkeys(
                ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "coverage@20"), 0.2 - config["lr"]
            )
            times = {"epoch_s": (0.1, 1.0, 3.0)[seed], "to_best_s": 2.0, "peak_mb": 3}
            machine = {"gpu": None if seed else "a GPU", "cpu": "a CPU"}
            found = {
                "valid": valid[config["lr"]][seed],
                "test": test,
                "users": 3,
                "machine": machine,
                **times,
            }
            return found | {"intervals": {"recall@20": [0.1, 0.2]}, "name": f"training {seed}"}

    rows = {"small": ({"lr": 0.003}, 8), "defaults": ({"lr": 0.01}, 1)}
    monkeypatch.setattr(compare, "prepare", lambda *_: tmp_path)
    monkeypatch.setattr(compare, "settled", lambda place, model: rows[place])
    ways = {
        "trials": 8,
        "seeds": 3,
        "train": {"epochs": 9, "patience": 3},
        "settings_of": "small,defaults",
    }
    row = compare.compare("tiktok", Folders(tmp_path, tmp_path), "vbpr", Fake(), **ways)
    assert (row["config"], row["settings of"], row["trials"], row["seeds"]) == (
        {"lr": 0.01},
        "defaults",
        9,
        3,
    )
    assert row["valid"] == pytest.approx(0.5) and row["recall@20"] == pytest.approx(0.19)
    assert row["machines"] == ["a CPU", "a GPU"] and not row["timed on a GPU"], (
        "two of three seeds were on a CPU"
    )
    assert row["epoch_s"] == 2.0, "and theirs alone are the times"
    assert row["trainings"] == ["training 0", "training 1", "training 2"]


@pytest.mark.skipif(
    not (SHARED / "tiktok").is_dir(), reason="the real data sets are not beside this checkout"
)
def test_the_data_that_training_is_timed_on_can_be_prepared(monkeypatch, tmp_path) -> None:
    shapes = module("speed.shapes")
    monkeypatch.setattr(shapes, "BABY", {"visual": 8})
    monkeypatch.setattr(shapes, "REDUCED", 5)
    for name in ("tiktok", "baby", "baby-5", "scale-4"):
        assert shapes.prepared(name, Folders(SHARED, tmp_path)).is_relative_to(tmp_path)
