"""The robustness experiment: its cells, the same holes for all models, groups, intervals, resuming,
and the command.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import small
import torch
from click.testing import CliRunner, Result

from dualgnn_dgl import training
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.data import Interactions, save
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.evaluation import Evaluator, paired, top_k
from dualgnn_dgl.experiments import robustness
from dualgnn_dgl.experiments.ledger import write_sealed
from dualgnn_dgl.experiments.robustness import Cell, Plan
from dualgnn_dgl.experiments.robustness.catalogue import complete, demote, reduced
from dualgnn_dgl.experiments.robustness.cells import Bench
from dualgnn_dgl.experiments.robustness.results import key_of, ledger_of, name_of, result_of
from dualgnn_dgl.experiments.robustness.settings import settings
from dualgnn_dgl.experiments.robustness.summary import _area
from dualgnn_dgl.modality import drop, read_holes
from dualgnn_dgl.models import model_class
from dualgnn_dgl.training import chain
from dualgnn_dgl.training.cold_items import all_cold


def plan(*models: str, **more) -> Plan:
    models = models or ("dualgnn", "lightgcn")
    settings = {
        name: (model_class(name).Config(width=4), training.TrainConfig(epochs=2, batch_size=40))
        for name in models
    }
    return Plan(models, settings, **{"rates": (0.0, 0.5), "seeds": 2, "ks": (3, 5), **more})


@pytest.fixture
def whole():
    return small.dataset(holes=False)


# ---------------------------------------------------------------- the plan


def test_equal_cells_are_one(whole):
    """Without holes all strategies and stages are one.

    A model without features has one cell a seed.
    """
    p = plan(
        rates=(0.0, 0.5, 0.9),
        stages=("train+test", "test-only"),
        strategies=("mask", "zero", "drop-items"),
    )
    cells = p.cells(whole)
    assert len(cells) == len(set(cells)) == 2 * (1 + 2 * 2 * 3 + 1)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells), (
        "one seed after the other"
    )
    assert sum(cell.model == "lightgcn" for cell in cells) == 2
    assert {cell.strategy for cell in cells if cell.rate == 0} == {"mask", "no features"}


def test_natural_holes_tell_strategies_apart_at_rate_zero():
    cells = plan("dualgnn", strategies=("mask", "zero"), seeds=1).cells(small.dataset())
    assert {(cell.strategy, cell.rate) for cell in cells} == {
        ("mask", 0.0),
        ("zero", 0.0),
        ("mask", 0.5),
        ("zero", 0.5),
    }


def test_a_strategy_can_set_an_option_of_the_model(whole, tmp_path):
    """In models that have it; it is another training, at rate zero too, and another model for the
    stage test-only.
    """
    strategies = ("mask", "mask:missing=mask", "mask:user_graph=false")
    p = plan("dualgnn", "dualgnn_plus", strategies=strategies, seeds=1, stages=robustness.STAGES)
    assert p.rows() == [*(("dualgnn", name) for name in strategies), ("dualgnn_plus", "mask")]
    assert len(p.cells(whole)) == 3 * 3 + 3
    masked = Cell("dualgnn", "mask:missing=mask", "random", 0.5, "test-only", 0)
    assert p.settings_of(masked)[0].missing == "mask" and p.settings_of(masked)[0].width == 4
    assert robustness.run(p, whole, tmp_path) == 0
    results = [
        result_of(p, dataclasses.replace(masked, strategy=name), whole, tmp_path)
        for name in strategies
    ]
    assert [result["config"]["missing"] for result in results] == [
        "neighbours",
        "mask",
        "neighbours",
    ]
    assert results[2]["config"]["user_graph"] is False
    assert len(list((tmp_path / "weights").glob("*.safetensors"))) == 4
    assert not [path.name for path in tmp_path.rglob("*") if set(path.name) & set(" :=+")]


def test_panels_of_the_patterns(whole):
    p = plan(patterns=("random", "one-modality", "whole-modality"), rates=(0.3,))
    panels = p.holes(whole)
    assert [(pattern, name) for pattern, name, _ in panels] == [
        ("random", None),
        *(("one-modality", name) for name in whole.modalities),
        *(("whole-modality", name) for name in whole.modalities),
    ]
    assert panels[0][2] == (0.0, 0.3), "what is kept needs the start"
    assert panels[-1][2] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"patterns": ("randon",)}, "unknown pattern 'randon'; did you mean 'random'"),
        ({"stages": ("train",)}, "unknown stage 'train'"),
        ({"strategies": ("maks",)}, "did you mean 'mask'"),
        ({"rates": (1.5,)}, "shares from 0 to 1"),
        ({"seeds": 0}, "at least one"),
        ({"strategies": ()}, "at least one"),
        (
            {"strategies": ("mask:missing=maks",)},
            "unknown value of missing 'maks'; did you mean 'mask'",
        ),
        (
            {"strategies": ("mask:missing=learned",)},
            "missing=learned was removed: choose one of neighbours, mask",
        ),
        (
            {"strategies": ("mask:mising=mask",)},
            "option 'mising' that no model of dualgnn, lightgcn has",
        ),
        ({"strategies": ("zero:missing=mask",)}, "unknown strategy 'zero:missing=mask'"),
    ],
)
def test_plans_that_make_no_sense(words, message):
    with pytest.raises(ConfigError, match=message):
        plan(**words)


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("dualgnn", "051c8a0fd067c997"),
        ("dualgnn_plus", "f4420cbc6e93a8d2"),
        ("grcn", "e9850284acff781e"),
        ("mmgcn", "88204a8f474da90b"),
        ("bm3", "13bd17bbe7b67b73"),
        ("lightgcn", "2ef89f928b9fa576"),
    ],
)
def test_results_of_earlier_versions_are_found(model, key):
    """The keys were made before options were removed from these models."""
    p = Plan((model,), settings((model,), {}), rates=(0.0, 0.5), seeds=1)
    assert key_of(p, Cell(model, "mask", "random", 0.5, "train+test", 0), small.dataset()) == key


# ---------------------------------------------------------------- the cells


def test_every_strategy_pattern_and_stage_runs_and_nothing_is_done_twice(
    whole, tmp_path, monkeypatch
):
    p = plan(
        patterns=("random", "rare", "one-modality", "whole-modality"),
        stages=robustness.STAGES,
        strategies=robustness.STRATEGIES,
        seeds=1,
    )
    said = []
    assert robustness.run(p, whole, tmp_path, seconds=0) == len(p.cells(whole)) and not list(
        tmp_path.rglob("*.json")
    )
    assert robustness.run(p, whole, tmp_path, report=lambda *words: said.append(words)) == 0
    assert [(done, total) for done, total, _, _ in said] == [
        (n + 1, len(p.cells(whole))) for n in range(len(said))
    ]
    refused = [result for _, _, _, result in said if "refused" in result]
    assert refused and all(result["cell"]["pattern"] == "whole-modality" for result in refused)
    assert any("has nothing to impute from" in result["refused"] for result in refused)
    for _, _, cell, result in said:
        assert result_of(p, cell, whole, tmp_path) == json.loads(json.dumps(result))
        assert "refused" in result or 0 <= result["metrics"]["recall@5"] <= 1

    def never(*_, **__):
        raise AssertionError("it has been run")

    monkeypatch.setattr(Bench, "run", never)
    assert robustness.run(p, whole, tmp_path) == 0
    wider = {"lightgcn": (model_class("lightgcn").Config(width=5), p.settings["lightgcn"][1])}
    again = dataclasses.replace(p, settings={**p.settings, **wider})
    with pytest.raises(AssertionError):
        robustness.run(again, whole, tmp_path)


def test_an_altered_result_is_noticed_and_made_again(whole, tmp_path, caplog):
    """Figures of a cell, its users' metrics, the weights that the stage test-only starts from.

    Nothing is believed unchecked.
    """
    p = plan("dualgnn", stages=("test-only",), strategies=("mask",), seeds=1)
    assert robustness.run(p, whole, tmp_path) == 0
    summary = robustness.summarise(p, whole, tmp_path, "recall@5")
    (weights,) = (tmp_path / "weights").glob("*.safetensors")
    (about,) = (tmp_path / "weights").glob("*.json")
    cells, users = sorted((tmp_path / "cells").iterdir()), sorted((tmp_path / "per_user").iterdir())
    assert len(cells) == len(users) == 2
    for file in (*cells, *users, weights, about):
        content = file.read_bytes()
        number = content.rindex(b"0.") + 2 if file in cells else len(content) // 2
        for spoilt in (
            content[:number] + bytes([content[number] ^ 1]) + content[number + 1 :],
            content[:-9],
            b"",
            None,
        ):
            caplog.clear()
            file.unlink() if spoilt is None else file.write_bytes(spoilt)
            if file in (weights, about):  # looked at where a cell of that stage is to be run
                (later,) = [cell for cell in cells if cell.name.startswith("test-only")]
                later.unlink()
            assert robustness.run(p, whole, tmp_path) == 0
            assert robustness.summarise(p, whole, tmp_path, "recall@5") == summary, (
                file.name,
                spoilt,
            )
            said = [record.getMessage() for record in caplog.records]
            gone = spoilt is None and (file in cells or file == weights)
            assert len(said) == (0 if gone else 1) and all(
                file.name in line and "again" in line for line in said
            ), said


def test_a_file_of_another_kind_in_a_cells_place_is_no_result(whole, tmp_path):
    """Sound by its own checksum, but nothing of what a cell says (found by the artefact fuzzer)."""
    p = plan("lightgcn", strategies=("mask",), seeds=1)
    assert robustness.run(p, whole, tmp_path) == 0
    summary = robustness.summarise(p, whole, tmp_path, "recall@5")
    for file in sorted((tmp_path / "cells").iterdir()):
        write_sealed(file, {"what": "something else"})
        assert robustness.run(p, whole, tmp_path) == 0
        assert robustness.summarise(p, whole, tmp_path, "recall@5") == summary


def test_all_models_meet_the_same_holes_and_they_are_on_disk(whole, tmp_path):
    p = plan("dualgnn", "dualgnn_plus", strategies=("mask", "mean"), stages=robustness.STAGES)
    assert robustness.run(p, whole, tmp_path) == 0
    files = sorted((tmp_path / "holes").iterdir())
    assert len(files) == 2, "one draw a seed, for every model, strategy and stage"
    for seed, file in enumerate(files):
        assert read_holes(file, whole).hash == drop(whole, 0.5, seed=seed).hash
    bench, cell = (
        Bench(p, whole, tmp_path, torch.device("cpu")),
        Cell("dualgnn", "mask", "random", 0.5, "train+test", 0),
    )
    files[0].write_bytes(files[1].read_bytes())
    assert bench.holed(cell).hash == drop(whole, 0.5, seed=1).hash, (
        "what is on disk is what is used"
    )


def test_test_only_is_the_model_trained_on_everything(whole, tmp_path):
    """Its tables are those of the whole training where nothing is missing, and others where
    something is.
    """
    p = plan("dualgnn", stages=("test-only",))
    bench = Bench(p, whole, tmp_path, torch.device("cpu"))
    fitted = bench.tables(Cell("dualgnn", "mask", "none", 0.0, "train+test", 1), whole)
    cell = Cell("dualgnn", "mask", "random", 0.5, "test-only", 1)
    same, holed = bench.tables(cell, whole), bench.tables(cell, drop(whole, 0.5, seed=1))
    assert torch.equal(same[0], fitted[0]) and torch.equal(same[1], fitted[1])
    assert not torch.allclose(holed[1], fitted[1])
    assert len(list((tmp_path / "weights").glob("*.safetensors"))) == 1


def test_the_stage_test_only_trains_once_a_seed(whole, tmp_path, monkeypatch):
    fitted, fit = [], training.fit
    monkeypatch.setattr(
        chain, "fit", lambda *words, **more: fitted.append(words) or fit(*words, **more)
    )
    assert (
        robustness.run(
            plan("dualgnn", stages=("test-only",), rates=(0.0, 0.3, 0.6)), whole, tmp_path
        )
        == 0
    )
    assert len(fitted) == 2


def test_a_cell_is_trained_as_the_command_line_trains(tmp_path, monkeypatch):
    """On data whose held-out items are all cold, the epoch is chosen among these items, placed by
    their modalities.
    """
    data = small.dataset()
    cold = data.train.item != data.valid.item[0]
    rows = data.valid.item == data.valid.item[0]
    parts = [
        Interactions(p.user[r], p.item[r], p.num_users, p.num_items)
        for p, r in ((data.train, cold), (data.valid, rows))
    ]
    data = dataclasses.replace(data, train=parts[0], valid=parts[1])
    assert all_cold(data.train, data.valid)
    p = plan("vbpr")
    cell = Cell("vbpr", "mask", "none", 0.0, "train+test", 1)
    user, item, about = Bench(p, data, tmp_path, torch.device("cpu")).tables(cell, data)
    alone = training.train_model("vbpr", data, *p.settings_of(cell)).fit
    assert torch.equal(user, alone.user) and torch.equal(item, alone.item)
    assert (about["best_epoch"], about["valid"]) == (alone.best_epoch, alone.best_value)
    assert f"recall@{small.ITEMS}" not in alone.history[0], "only cold items are ranked"


def test_groups_by_hand(tmp_path):
    data = small.dataset()
    bench = Bench(plan(), data, tmp_path, torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    user, item = (
        torch.randn(small.USERS, 4, generator=draw),
        torch.randn(small.ITEMS, 4, generator=draw),
    )
    found = bench.measure(user, item, data, tmp_path / "users.parquet")
    expected = Evaluator(data.test, [data.train, data.valid], ks=(3, 5))(user, item)
    for name in ("recall@3", "recall@5", "ndcg@3", "ndcg@5"):
        assert found["metrics"][name] == pytest.approx(expected.means[name], abs=1e-6)
        np.testing.assert_allclose(
            pq.read_table(tmp_path / "users.parquet")[name].to_numpy(),
            expected.per_user[name],
            rtol=1e-6,
        )
    lists = top_k(user, item, 5, data.train.csr() + data.valid.csr())[0].tolist()
    watched = {i for _, i in small.pairs_of(data.train)}
    has_all = [all(m.present[i] for m in data.modalities.values()) for i in range(small.ITEMS)]
    members = {
        "warm": [i in watched for i in range(small.ITEMS)],
        "cold": [i not in watched for i in range(small.ITEMS)],
        "complete": has_all,
        "incomplete": [not whole for whole in has_all],
    }
    for group_, inside in members.items():
        pairs = [(u, i) for u, i in small.pairs_of(data.test) if inside[i]]
        recall = [
            np.mean([i in lists[u] for v, i in pairs if v == u])
            for u in sorted({u for u, _ in pairs})
        ]
        assert (group_ in found["groups"]) == bool(pairs)
        if pairs:
            assert found["groups"][group_]["recall@5"] == pytest.approx(np.mean(recall), abs=1e-6)
            assert found["groups"][group_]["pairs"] == len(pairs)
    assert {"warm", "complete", "incomplete"} <= set(found["groups"])


def test_dropped_items_are_neither_learnt_from_nor_listed():
    data = drop(small.dataset(), 0.4, seed=2)
    kept = complete(data)
    inputs = reduced(data, kept)
    modalities, part, graph = inputs.modalities, inputs.dataset, inputs.graph
    assert part.num_items == kept.sum() == graph.num_nodes("item") and part.num_users == small.USERS
    numbers = np.flatnonzero(kept)
    assert [(u, numbers[i]) for u, i in small.pairs_of(part.train)] == [
        p for p in small.pairs_of(data.train) if kept[p[1]]
    ]
    assert all(
        m.present.all() and np.array_equal(m.values, data.modalities[n].values[kept])
        for n, m in modalities.items()
    )
    draw = torch.Generator().manual_seed(0)
    user, item = (
        torch.randn(small.USERS, 4, generator=draw),
        torch.randn(int(kept.sum()), 4, generator=draw),
    )
    wide, full = demote(user, item, kept)
    lists = top_k(wide, full, int(kept.sum()))[0]
    assert kept[lists.numpy()].all(), "as long as kept items are left, no other is listed"
    short = top_k(user, item, int(kept.sum()))[0]
    assert torch.equal(lists, torch.from_numpy(numbers)[short]), (
        "and the order is that among the kept ones"
    )
    with pytest.raises(DataError, match="use another strategy"):
        reduced(data, np.zeros(small.ITEMS, bool))


# ---------------------------------------------------------------- the summary


def test_summary_by_hand(whole, tmp_path):
    p = plan("dualgnn", "lightgcn", rates=(0.0, 0.4, 0.9), strategies=("mask", "zero"))
    robustness.run(p, whole, tmp_path)
    summary = robustness.summarise(p, whole, tmp_path, "recall@5")
    (panel,) = summary["panels"]
    rows = {(row["model"], row["strategy"]): row for row in panel["rows"]}
    assert list(rows) == [("dualgnn", "mask"), ("dualgnn", "zero"), ("lightgcn", "no features")]
    for row in rows.values():
        points = [row["points"][key] for key in ("0", "0.4", "0.9")]
        means = [point["mean"] for point in points]
        assert row["area"] == pytest.approx(
            (0.4 * (means[0] + means[1]) / 2 + 0.5 * (means[1] + means[2]) / 2) / 0.9
        )
        assert [point["kept"] for point in points] == pytest.approx(
            [mean / means[0] for mean in means]
        )
        assert all(
            point["interval"][0] <= point["mean"] <= point["interval"][1] and point["seeds"] == 2
            for point in points
        )
    cells = [
        result_of(p, Cell("dualgnn", "zero", "random", 0.4, "train+test", seed), whole, tmp_path)
        for seed in (0, 1)
    ]
    point, first = (
        rows["dualgnn", "zero"]["points"]["0.4"],
        rows["dualgnn", "mask"]["points"]["0.4"],
    )
    assert point["mean"] == pytest.approx(
        np.mean([cell["metrics"]["recall@5"] for cell in cells]), abs=1e-6
    )
    assert point["deviation"] == pytest.approx(
        np.std([cell["metrics"]["recall@5"] for cell in cells], ddof=1), abs=1e-5
    )
    assert point["versus"]["difference"] == pytest.approx(first["mean"] - point["mean"])
    assert rows["dualgnn", "zero"]["points"]["0"]["versus"] == {
        "difference": 0.0,
        "interval": [0.0, 0.0],
        "p": 1.0,
    }
    flat = {point["mean"] for point in rows["lightgcn", "no features"]["points"].values()}
    assert "versus" not in first and len(flat) == 1
    table = robustness.markdown(summary)
    assert "| dualgnn | zero |" in table and "Against dualgnn mask, at 40% missing" in table
    assert robustness.summarise(p, whole, tmp_path, "recall@5") == summary, (
        "resamples are drawn from a seed"
    )


def test_a_summary_of_half_an_experiment_says_what_there_is(whole, tmp_path):
    p = plan(strategies=("mask", "zero"))
    assert robustness.summarise(p, whole, tmp_path, "recall@5")["panels"][0]["rows"] == []
    bench = Bench(p, whole, tmp_path, torch.device("cpu"))
    cell = Cell("dualgnn", "mask", "random", 0.5, "train+test", 0)
    ledger_of(p, whole, tmp_path).run([cell], bench.run)
    (row,) = robustness.summarise(p, whole, tmp_path, "recall@5")["panels"][0]["rows"]
    assert (
        list(row["points"]) == ["0.5"] and "kept" not in row["points"]["0.5"] and "area" not in row
    )
    robustness.draw(robustness.summarise(p, whole, tmp_path, "recall@5"), tmp_path / "half.png")
    assert (tmp_path / "half.png").read_bytes()[:4] == b"\x89PNG"


def test_areas_by_hand():
    assert _area((0.0, 0.5, 1.0), (1.0, 0.5, 0.5)) == pytest.approx(0.625)


def test_differences_and_p_values_are_those_of_paired(whole, tmp_path):
    """The table of an experiment and `dualgnn compare` test the same data in the same way."""
    p = plan("dualgnn", strategies=("mask", "zero"), seeds=1)
    robustness.run(p, whole, tmp_path)
    cells = [Cell("dualgnn", name, "random", 0.5, "train+test", 0) for name in ("mask", "zero")]
    mask, zero = (
        pq.read_table(tmp_path / "per_user" / f"{name_of(p, cell, whole)}.parquet")
        for cell in cells
    )
    values = [table["recall@5"].to_numpy().astype(float) for table in (zero, mask)]
    expected = paired(values[0], {"mask": values[1]}, resamples=20_000)["mask"]
    (panel,) = robustness.summarise(p, whole, tmp_path, "recall@5")["panels"]
    found = panel["rows"][1]["points"]["0.5"]["versus"]
    assert found["difference"] == pytest.approx(expected.mean) and 0 < found["p"] <= 1
    assert found["p"] == pytest.approx(expected.p_bootstrap, abs=0.04), "but for the resamples"
    assert found["interval"] == pytest.approx([expected.low, expected.high], abs=0.02)


# ---------------------------------------------------------------- the command


def call(*words: object) -> Result:
    return CliRunner().invoke(group, ["robustness", *map(str, words)])


SHORT = (
    "--gpu",
    -1,
    "--epochs",
    1,
    "--seeds",
    1,
    "--rates",
    "0,.5",
    "--set",
    "dualgnn.width=4",
    "--set",
    "lightgcn.width=5",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(small.dataset(holes=False), "data")
    return tmp_path


def test_the_command_stops_goes_on_and_writes_everything(home):
    first = call(*SHORT, "--minutes", 0)
    assert (
        first.exit_code == 0
        and "6 of 6 cells are missing: the same command continues" in first.stderr
    )
    done = call(*SHORT)
    assert done.exit_code == 0, (done.output, done.exception)
    assert (
        "6/6 · train+test · none 0% · lightgcn no features · seed 0 · recall@19" in done.stderr
        and "still" not in done.stderr
    )
    written = {path.name for path in Path("robustness").iterdir()}
    assert written == {"cells", "holes", "per_user", "summary.json", "table.md", "curves.png"}
    assert Path("robustness/table.md").read_text() in done.stdout
    said = call(*SHORT, "--json")
    assert json.loads(said.stdout) == json.loads(Path("robustness/summary.json").read_text())
    config = json.loads(said.stdout)["settings"]
    assert config["dualgnn"]["config"]["width"] == 4 and config["lightgcn"]["train"]["epochs"] == 1


def test_ctrl_c_keeps_the_finished_cells(home, monkeypatch):
    run, begun = Bench.run, []

    def interrupted(self, cell):
        begun.append(cell)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return run(self, cell)

    monkeypatch.setattr(Bench, "run", interrupted)
    found = call(*SHORT)
    assert (
        found.exit_code == 130
        and "the finished cells are kept, the same command continues" in found.stderr
    ), found.output
    assert len(list(Path("robustness/cells").iterdir())) == 2
    assert call(*SHORT).exit_code == 0 and len(begun) == 3 + 4, "two of six are not run again"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--models", "dualgn"), "did you mean 'dualgnn'"),
        (("--patterns", "rar"), "did you mean 'rare'"),
        (("--strategies", "impute"), "unknown strategy"),
        (("--set", "lightgcm.layers=2"), "unknown model 'lightgcm'; did you mean 'lightgcn'"),
        (("--set", "layers=2"), "a model's own: MODEL.layers=…"),
        (("--set", "seed=2"), "use --seeds"),
        (("--set", "impute=mean"), "use --seeds and --strategies"),
        (("--data", "nowhere"), "nowhere/dataset.json does not exist"),
    ],
)
def test_mistakes_are_one_line(home, words, message):
    result = call(*words)
    assert (
        result.exit_code == 1 and message in result.stderr.splitlines()[-1] and result.stdout == ""
    )
    assert not Path("robustness").exists()


def test_rates_that_are_no_numbers(home):
    result = call("--rates", "0,half")
    assert result.exit_code == 2 and "such as 0,.2,.4,.6" in result.stderr
