"""Kept trainings: packed without loss, found by their content, and every result on file follows
from them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small
from test_compare_script import BENCHMARKS, Packed, compare, documents, results, tables, trainings

from dualgnn_dgl import data
from dualgnn_dgl.core.files import read_json, write_json

ROOT = BENCHMARKS.parent
FILES = sorted((BENCHMARKS / "results").glob("*.parquet"))


def validated(**fields) -> dict:
    """Returns a training that looked at validation only."""
    made = {
        "data": "d" * 8,
        "model": "vbpr",
        "config": {"lr": 0.003, "bias": True},
        "seed": 2,
        "test": False,
        "valid": 0.1 + 0.2,
    }
    made |= {
        "train": {"epochs": 9, "batch_size": "16384"},
        "best_epoch": 3,
        "epochs": 5,
        "setup_s": 0.1,
        "epoch_s": 1.5,
    }
    made |= {
        "to_best_s": 4.5,
        "curve": [0.1, 1 / 3],
        "resolved": {"l2": 1e-5},
        "device": "cpu",
        "peak_mb": 70,
    }
    return made | {"machine": {"cpu": "a CPU", "gpu": None, "threads": 1}} | fields


def with_test(**fields) -> dict:
    """Returns a training with a test."""
    ends = {"recall@20": [0.1, 0.3], "ndcg@20": [0.2, 0.4]}
    made = validated(test={"recall@20": 0.2, "ndcg@20": 1 / 3}, intervals=ends, users=3)
    return made | {"hits": [0, 5, 2**20 - 1], "held_out": [1, 2, 30]} | fields


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_kept_training_has_the_name_of_its_content(file: Path) -> None:
    """A name that changed would throw away days of computing."""
    packed = Packed.read(file)
    assert len(packed) > 20
    for name in packed:
        training = packed[name]
        assert (
            trainings.name_of(
                name.rpartition("-")[0].removesuffix(f"-{training['model']}"), training
            )
            == name
        )


def test_packing_loses_nothing(tmp_path) -> None:
    kept = {"b": with_test(), "a": validated(), "c": with_test(seed=3)}
    del kept["c"]["hits"], kept["c"]["held_out"]
    Packed().with_trainings(kept).write(tmp_path / "x.parquet")
    packed = Packed.read(tmp_path / "x.parquet")
    assert list(packed) == ["a", "b", "c"]
    for name, training in kept.items():
        found = trainings.as_json(packed[name])
        assert found == training and json.dumps(found["config"]) == json.dumps(training["config"])
    assert packed["b"]["hits"].dtype == np.int32


def test_a_field_without_a_column_is_an_error() -> None:
    with pytest.raises(SystemExit, match="fields without a column: add loss"):
        Packed().with_trainings({"a": validated(loss=[1.0])})


def test_a_training_is_taken_from_the_file_then_the_cache_then_made(tmp_path, monkeypatch) -> None:
    folder, calls = tmp_path / "data", []
    data.save(small.dataset(), folder)
    monkeypatch.setattr(
        trainings.Trainings,
        "make",
        lambda self, name, content, *_: calls.append(name) or validated(**content),
    )

    def run(cache: str, seed: int) -> dict:
        kept = trainings.Trainings("compare-small", tmp_path / cache, results=tmp_path)
        found = kept.run("small", folder, "vbpr", {"lr": 0.1}, seed, {"epochs": 2}, mask=None)
        if cache == "packed":
            with kept.packed_under_lock():
                pass
        return found

    made = run("packed", 0)
    assert (
        made["name"] == calls[0]
        and Packed.read(tmp_path / "compare-small.parquet")[made["name"]] | made == made
    )
    assert run("other", 0) == made and len(calls) == 1, "the Parquet file has it"
    assert (
        read_json(tmp_path / "other" / "trainings" / "compare-small" / f"{made['name']}.json")
        | made
        == made
    ), "refilled"
    assert run("other", 1)["seed"] == 1 and run("other", 1)["seed"] == 1 and len(calls) == 2, (
        "the cache has it"
    )
    assert len(Packed.read(tmp_path / "compare-small.parquet")) == 1, (
        "what was not packed is in the cache only"
    )


def test_a_quick_run_reads_and_changes_nothing_on_file(tmp_path) -> None:
    Packed().with_trainings({"a": validated()}).write(tmp_path / "compare-small.parquet")
    quick = trainings.Trainings("compare-small", tmp_path, quick=True, results=tmp_path)
    assert quick.find("a") is None
    quick.keep("b", validated(), None)
    assert list(Packed.read(tmp_path / "compare-small.parquet")) == ["a"]
    assert quick.find("b") == validated()


def test_two_runs_at_once_lose_no_training(tmp_path) -> None:
    script = (
        "import json\nimport sys\nfrom pathlib import Path\nfrom benchmarks.lib.trainings import "
        "Trainings\n"
        "for seed in range(8):\n"
        "    kept = Trainings('compare-small', Path(sys.argv[1]), results=Path(sys.argv[1]))\n"
        "    kept.keep(f'{sys.argv[2]}-{seed}', json.loads(sys.argv[3]), None)\n"
        "    with kept.packed_under_lock():\n        pass\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    runs = [subprocess.Popen([*words, name, json.dumps(validated())], cwd=ROOT) for name in "ab"]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert len(Packed.read(tmp_path / "compare-small.parquet")) == 16


def test_repeated_tests_add_hits_and_keep_the_first_times(tmp_path) -> None:
    before = {key: value for key, value in with_test().items() if key not in ("hits", "held_out")}
    kept = trainings.Trainings("compare-small", tmp_path, results=tmp_path)
    again = kept.keep("a", with_test(epoch_s=9.0), before)
    assert again == with_test(), "the results repeat: the times stay those that were measured first"
    other = with_test(test={"recall@20": 0.3, "ndcg@20": 1 / 3}, epoch_s=9.0)
    assert kept.keep("a", other, before) == other


def test_the_cache_is_in_the_users_folder(monkeypatch, tmp_path) -> None:
    paths = sys.modules["benchmarks.lib.paths"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.user_cache() == tmp_path / "dualgnn-dgl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert paths.user_cache() == Path.home() / ".cache" / "dualgnn-dgl", (
        "the specification ignores relative paths"
    )


def test_commands_on_file_name_no_folder_of_a_machine() -> None:
    words = ["--root", "raw", "--data", "baby", "--cache=here", "--set", "lr=1"]
    assert tables.command_of("m", words) == "python -m m --data baby --set lr=1"
    for file in (BENCHMARKS / "results").glob("compare-*.json"):
        table = json.loads(file.read_text("utf-8"))
        assert table["table"] == file.stem and table["data"]["name"] in compare.DATA
        assert [row["command"] in table["commands"] for row in table["rows"]].count(False) == 0


def test_results_on_file_follow_from_their_trainings(monkeypatch) -> None:
    """The whole check is `make results-check`.

    Here one comparison, the ablation and the fidelity table.
    """
    names = ("compare-baby", "ablation-tiktok", "fidelity")
    found = [pair for pair in results.summaries(names)]
    assert [kept["table"] for kept, _ in found] == sorted(names)
    for kept, made in found:
        assert results.equal(kept, made), (
            f"{kept['table']}: run python -m benchmarks.quality.results --write"
        )


def test_a_changed_result_is_found(tmp_path, monkeypatch) -> None:
    file = tmp_path / "fidelity.json"
    table = json.loads((BENCHMARKS / "results" / "fidelity.json").read_text("utf-8"))
    table["rows"][0]["fixed"]["recall@20"] += 1e-6
    write_json(file, table)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    [(kept, made)] = results.summaries()
    assert not results.equal(kept, made)
    assert documents.PAGES[0] == ROOT / "README.md"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": [1.0, None]}, {"a": [1.0 + 1e-12, None]}, True),
        ({"a": [1.0, None]}, {"a": [1.0 + 1e-6, None]}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1, 2], [1], False),
        ("x", "x", True),
        (0.0, 1e-19, True),
    ],
)
def test_values_are_equal_but_for_their_last_bits(one, other, same: bool) -> None:
    assert results.equal(one, other) is same
