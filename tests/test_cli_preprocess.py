"""`dualgnn preprocess` as a person meets it.

What it prints, writes, refuses, and leaves behind when it is stopped.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from dualgnn_dgl import data
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.core import vocabulary
from dualgnn_dgl.data import folder as data_folder
from dualgnn_dgl.evaluation import METRICS
from dualgnn_dgl.experiments.robustness import STRATEGIES
from dualgnn_dgl.modality import IMPUTERS

REAL = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and we are in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def raw(folder: Path) -> Path:
    """A log of 21 users and 13 videos with times, ratings and titles, and features of which two are
    missing.
    """
    rng = np.random.default_rng(4)
    place = folder / "raw"
    place.mkdir()
    chosen = np.argwhere(rng.random((21, 13)) < 0.7)
    lines = ["who,clip,stars,when"]
    lines += [
        f"p{user},{item},{rng.integers(1, 6)},{rng.integers(10**6)}"
        for user, item in rng.permutation(chosen)
    ]
    (place / "ratings.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    (place / "items.csv").write_text(
        "item_id,title\n" + "".join(f"{item},Clip {item}\n" for item in range(13))
    )
    visual = rng.normal(size=(13, 8)).astype(np.float32)
    visual[[2, 5]] = np.nan
    np.save(place / "visual.npy", visual)
    return place


NAMED = ("--user-col", "who", "--item-col", "clip", "--rating-col", "stars", "--time-col", "when")


def dualgnn(*words: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(group, ["preprocess", *words])


def refused(*words: str) -> str:
    """Run a command that must fail in one line, exit 1; give that line."""
    run = dualgnn(*words)
    assert run.exit_code == 1 and not isinstance(
        run.exception, (ValueError, TypeError, KeyError)
    ), run.output
    errors = [line for line in run.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1 and run.stderr.splitlines()[-1] == errors[0], run.stderr
    return errors[0]


def test_a_log_with_own_column_names(raw: Path) -> None:
    run = dualgnn("--input", str(raw), *NAMED, "--k-core", "2", "--min-rating", "2")
    assert run.exit_code == 0, run.output
    for words in (
        "split: random, seed 0",
        "rating below 2",
        "titles: 13 of 13 items",
        "written to data; next: dualgnn train\n",
    ):
        assert words in run.stdout
    assert "data: data" in run.stderr
    dataset = data.load("data")
    assert dataset.num_items == 13 and dataset.modalities["visual"].present.sum() == 11
    assert dataset.titles[7] == "Clip 7"
    assert dataset.co_occurrence.measure == "count"
    report = json.loads(Path("data/report.json").read_text())
    assert (
        report["rows"]["read"] == sum(report["rows"]["dropped"].values()) + report["rows"]["kept"]
    )
    manifest = json.loads(Path("data/dataset.json").read_text())
    assert manifest["options"]["min_rating"] == 2 and manifest["options"]["k_core"] == 2


def test_json_is_one_object_and_equals_the_file(raw: Path) -> None:
    words = (
        "--input",
        str(raw),
        *NAMED,
        "--split",
        "time-user",
        "--cooc-weight",
        "jaccard",
        "--cooc-top",
        "3",
        "--json",
    )
    run = dualgnn(*words, "--feature-dim", "3")
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    assert said.pop("data") == "data" and said.pop("hash") == data.load("data").hash
    assert said == json.loads(Path("data/report.json").read_text())
    assert (
        said["co_occurrence"]["weight"] == "jaccard"
        and said["co_occurrence"]["mean_neighbours"] <= 3
    )
    assert (said["modalities"]["visual"]["width"], said["modalities"]["visual"]["width_read"]) == (
        3,
        8,
    )


def test_impute_fills_marks_and_says_so(raw: Path) -> None:
    words = ("--input", str(raw), *NAMED, "--k-core", "2")
    assert dualgnn(*words, "--data", "holed").exit_code == 0
    run = dualgnn(*words, "--impute", "heat")
    assert run.exit_code == 0, run.output
    assert "missing features: imputed by heat" in run.stdout and "feature homophily" in run.stdout
    (head,) = [line for line in run.stdout.splitlines() if line.startswith("modality  width")]
    assert "imputed" in head
    holed, filled = (data.load(place).modalities["visual"] for place in ("holed", "data"))
    assert (
        filled.present.all()
        and np.array_equal(filled.own, holed.present)
        and filled.imputed.sum() == 2
    )
    report, before = (
        json.loads(Path(place, "report.json").read_text()) for place in ("data", "holed")
    )
    assert report["options"]["impute"] == "heat" and report["modalities"]["visual"]["imputed"] == 2
    for key in ("present", "coverage", "by_popularity", "homophily"):
        assert report["modalities"]["visual"][key] == before["modalities"]["visual"][key], (
            "what was filled is not counted"
        )
    manifest = json.loads(Path("data/dataset.json").read_text())
    assert (
        manifest["options"]["impute"] == "heat" and manifest["modalities"]["visual"]["imputed"] == 2
    )
    trained = CliRunner().invoke(
        group, ["train", "--epochs", "1", "--set", "width=4", "--gpu", "-1"]
    )
    assert (
        trained.exit_code == 0 and "visual: 2 of 13 items imputed before training" in trained.stderr
    )


def test_homophily_stands_in_the_report_but_not_in_a_check(raw: Path) -> None:
    words = ("--input", str(raw), *NAMED, "--json")
    said, checked = (
        json.loads(dualgnn(*words, *more).stdout)["modalities"]["visual"]
        for more in ((), ("--check",))
    )
    assert (
        set(said["homophily"]) == {"neighbours", "random", "gain", "pairs", "explained"}
        and checked["homophily"] is None
    )
    assert -1 <= said["homophily"]["random"] <= 1


def test_the_same_twice_and_from_shuffled_rows(raw: Path) -> None:
    assert dualgnn("--input", str(raw), *NAMED).exit_code == 0
    lines = (raw / "ratings.csv").read_text().splitlines()
    (raw / "ratings.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert dualgnn("--input", str(raw), *NAMED, "--data", "again").exit_code == 0
    assert data.load("again").hash == data.load("data").hash


def test_check_writes_nothing(raw: Path) -> None:
    before = sorted(Path().rglob("*"))
    run = dualgnn("--input", str(raw), *NAMED, "--check")
    assert run.exit_code == 0 and run.stdout.endswith("checked, nothing written\n")
    assert sorted(Path().rglob("*")) == before
    np.save(raw / "visual.npy", np.ones((11, 4)))
    assert "11 rows" in refused("--input", str(raw), *NAMED, "--check")


def test_an_occupied_folder_is_refused_before_anything_is_read(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "thesis.txt").write_text("mine")
    for words in ((), ("--force",)):
        assert "data holds files that are not ours" in refused("--input", "nowhere.csv", *words)
    assert (folder / "data" / "thesis.txt").read_text() == "mine"


def test_force_replaces_our_own_result_only_when_asked(raw: Path) -> None:
    words = ("--input", str(raw), *NAMED)
    assert dualgnn(*words).exit_code == 0
    first = data.load("data").hash
    assert "--force" in refused(*words, "--seed", "5")
    assert data.load("data").hash == first
    assert dualgnn(*words, "--seed", "5", "--force").exit_code == 0
    assert data.load("data").hash != first


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_stopped_while_writing_leaves_nothing(
    raw: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    before = sorted(Path().rglob("*"))

    def stop(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(data_folder, "seal", stop)
    run = dualgnn("--input", str(raw), *NAMED)
    wanted, said = (130, "") if fault is KeyboardInterrupt else (1, "No space left on device")
    assert run.exit_code == wanted and said in run.stderr
    assert sorted(Path().rglob("*")) == before


def bad_inputs() -> dict[str, tuple[str, str]]:
    """File name and content → words of the message."""
    return {
        "empty.csv": ("", "empty"),
        "header.csv": ("user,item\n", ""),
        "columns.csv": ("a;b\n1;2\n", "--user-col"),
        "few.csv": (
            "user,item\n" + "".join(f"{u},{u + 1}\n" for u in range(9)),
            "no interactions left after the 5-core",
        ),
    }


@pytest.mark.parametrize("name", list(bad_inputs()))
def test_bad_logs_are_one_line(folder: Path, name: str) -> None:
    text, words = bad_inputs()[name]
    (folder / name).write_text(text)
    assert words in refused("--input", name)
    assert not (folder / "data").exists()


def test_more_bad_input(raw: Path) -> None:
    given = ("--input", str(raw), *NAMED)
    assert "nowhere.csv" in refused("--input", "nowhere.csv")
    assert "--k-core" in refused(*given, "--k-core", "40")
    assert "--min-rating" in refused(*given, "--min-rating", "50")
    assert "--split-col" in refused(*given, "--split", "given")
    assert "k_core is -1" in refused(*given, "--k-core", "-1")
    assert "name it with --input" in refused("--user-col", "who")
    np.save(raw / "visual.npy", np.array([{"a": 1}] * 13, dtype=object), allow_pickle=True)
    assert "Python objects" in refused(*given)
    assert not Path("data").exists()
    assert dualgnn(*given, "--split", "rnd").exit_code == 2


def test_features_of_other_ids(raw: Path) -> None:
    table = pa.table({"item_id": [f"clip_{n}" for n in range(13)], "feature": [[1.0, 2.0]] * 13})
    pq.write_table(table, "other.parquet")
    message = refused("--input", str(raw), *NAMED, "--features", "other.parquet")
    assert "other.parquet" in message and "clip_0" in message


def test_the_demo_needs_no_word(folder: Path) -> None:
    run = dualgnn("--json")
    assert run.exit_code == 0, run.output
    assert "input: built-in demo, data: data" in run.stderr
    report = json.loads(run.stdout)
    assert (
        len(report["modalities"]) == 3
        and report["titles"] == report["items"]
        and report["published"] is None
    )
    assert all(0.7 < modality["coverage"] < 0.9 for modality in report["modalities"].values())
    assert data.load("data").hash == report["hash"]


def test_help_opens_with_a_sentence_and_ends_with_an_example() -> None:
    command = importlib.import_module("dualgnn_dgl.cli.preprocess").command
    lines = [line.strip() for line in command.help.replace("\b", "").splitlines() if line.strip()]
    assert lines[0].endswith(".") and lines[-1].startswith("dualgnn preprocess")
    code = (
        "import sys; from dualgnn_dgl.cli.main import group; group(['preprocess', '--help'], "
        "standalone_mode=False)"
    )
    script = f"{code}; assert not {{'torch', 'pandas', 'numpy', 'pyarrow'}} & set(sys.modules)"
    assert subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=os.environ, check=True
    ).stdout


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tiktok", {"train": 59541, "valid": 3046, "test": 6125}),
        ("amazon-baby", {"train": 118551, "valid": 20559, "test": 21682}),
    ],
)
def test_published_sets_meet_their_statistics(
    folder: Path, name: str, sizes: dict[str, int]
) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is not here: real data are not part of the repository")
    report = json.loads(dualgnn("--input", str(REAL / name), "--check", "--json").stdout)
    assert report["published"]["met"]
    assert {split: part["interactions"] for split, part in report["splits"].items()} == sizes


def test_what_is_offered_is_what_the_library_knows() -> None:
    """Also a list that is written in a help text."""
    params = {
        verb: group.get_command(click.Context(group), verb).params
        for verb in ("preprocess", "train", "compare", "eval")
    }
    offered = {
        verb: {o.name: o.type.choices for o in found if isinstance(o.type, click.Choice)}
        for verb, found in params.items()
    }
    said = {
        option.name: option.help
        for option in group.get_command(click.Context(group), "robustness").params
    }
    assert tuple(offered["preprocess"]["impute"]) == tuple(IMPUTERS)
    assert tuple(offered["train"]["impute"]) == ("none", *IMPUTERS)
    assert tuple(offered["preprocess"]["split"]) == vocabulary.SPLIT_RULES
    assert tuple(offered["preprocess"]["cooc_weight"]) == vocabulary.CO_MEASURES
    assert tuple(offered["compare"]["metrics"]) == tuple(METRICS)
    assert (
        tuple(offered["eval"]["split"]) == vocabulary.HELD_OUT
        and tuple(offered["eval"]["mask"]) == vocabulary.MASKS
    )
    assert all(name in said["strategies"] for name in STRATEGIES) and all(
        name in said["stages"] for name in vocabulary.STAGES
    )
    assert all(name in said["patterns"] for name in vocabulary.PATTERNS)
