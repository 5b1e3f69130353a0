"""A run finds its data from every working directory, after moves, and as earlier versions wrote it
down.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import trial

from dualgnn_dgl.core.files import json_digest
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.runs.data_path import locate, reference


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `runs/a`, trained from within it by relative paths."""
    folder = tmp_path_factory.mktemp("made")
    world = trial.world(tmp_path_factory.mktemp("world"))
    shutil.copytree(world.data, folder / "data")
    here = os.getcwd()
    os.chdir(folder)
    try:
        train = (
            "train",
            "--data",
            "data",
            "--run",
            "runs/a",
            "--model",
            "bprmf",
            "--epochs",
            2,
            "--gpu",
            -1,
            "--set",
            "width=3",
        )
        done = trial.call(*train, "--checkpoint-every", 1, "--keep-checkpoints")
        assert done.code == 0, done
    finally:
        os.chdir(here)
    return folder


def commands(run: str | Path, out: Path) -> dict[str, tuple[Any, ...]]:
    """Every verb that takes the data of a run from the run."""
    log = out / "new.csv"
    log.write_text("user,item\nnewbie,v1\n")
    return {
        "eval": ("eval", "--run", run, "--topk", 3, "--bootstrap", 0, "--gpu", -1, "--json"),
        "recommend": ("recommend", "--run", run, "--user", "user1", "--gpu", -1, "--json"),
        "history": ("recommend", "--run", run, "--history", "v1,v2", "--gpu", -1, "--json"),
        "compare": (
            "compare",
            run,
            f"{run}/../b",
            "--topk",
            3,
            "--bootstrap",
            10,
            "--gpu",
            -1,
            "--json",
        ),
        "update": (
            "update",
            "--run",
            run,
            "--input",
            log,
            "--new-run",
            out / "r",
            "--new-data",
            out / "d",
            "--json",
        ),
        "resume": (
            "train",
            "--run",
            run,
            "--resume",
            "--epochs",
            3,
            "--keep-checkpoints",
            "--gpu",
            -1,
            "--json",
        ),
    }


@pytest.mark.parametrize("verb", ["eval", "recommend", "history", "compare", "update", "resume"])
@pytest.mark.parametrize("way", ["same", "elsewhere", "moved", "linked"])
def test_every_verb_finds_the_data_of_a_run(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, way: str
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)  # both have moved together
    shutil.copytree(folder / "runs" / "a", folder / "runs" / "b")
    run: str | Path = folder / "runs" / "a"
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    if way == "same":
        monkeypatch.chdir(folder)
        run = "runs/a"
    elif way == "elsewhere":
        (other / "data").mkdir()  # a folder of the same name, as it happens
    elif way == "linked":
        (tmp_path / "shortcut").symlink_to(folder / "runs")
        run = tmp_path / "shortcut" / "a"
    done = trial.call(*commands(run, tmp_path)[verb])
    assert done.code == 0, done
    shown = json.loads(done.out).get("data")
    if verb not in ("update", "resume"):
        assert shown == ("data" if way == "same" else str(folder / "data"))


def test_another_data_folder_of_the_same_name_is_passed_over(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    (tmp_path / "log.csv").write_text(
        "user,item\n" + "".join(f"u{n},v{m}\n" for n in range(5) for m in range(5))
    )
    monkeypatch.chdir(tmp_path)
    assert trial.call("preprocess", "--input", "log.csv", "--data", "data").code == 0
    done = trial.call(
        "eval", "--run", folder / "runs" / "a", "--topk", 3, "--bootstrap", 0, "--gpu", -1, "--json"
    )
    assert done.code == 0 and json.loads(done.out)["data"] == str(folder / "data"), done
    shutil.rmtree(folder / "data")
    done = trial.call("eval", "--run", folder / "runs" / "a", "--topk", 3, "--gpu", -1)
    # what is there is not passed off as the run's
    assert done.code == 1 and "was trained on other data" in done.err


def test_only_the_run_or_only_the_data_has_moved(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    (folder / "runs" / "a").rename(tmp_path / "a")
    monkeypatch.chdir(folder)
    evaluate = ("eval", "--topk", 3, "--bootstrap", 0, "--gpu", -1)
    # as before: relative to the working directory
    assert trial.call(*evaluate, "--run", tmp_path / "a").code == 0
    (folder / "data").rename(tmp_path / "elsewhere")
    done = trial.call(*evaluate, "--run", tmp_path / "a")
    assert trial.fault(done) == "" and done.code == 1
    assert f"tried {folder / 'data'} and " in done.err and "point --data to it" in done.err
    assert (
        trial.call(*evaluate, "--run", tmp_path / "a", "--data", tmp_path / "elsewhere").code == 0
    )


def test_runs_of_earlier_versions_are_relative_to_the_working_directory(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    file = folder / "runs" / "a" / "run.json"
    info = json.loads(file.read_text("utf-8"))
    del info["data"]["from_run"], info["self"]
    files = info.pop("files")
    info |= {
        "format": 1,
        "sha256": {name: files[name] for name in ("tables.safetensors", "weights.safetensors")},
    }
    info["sha256"]["run.json"] = json_digest(info)
    file.write_text(json.dumps(info), "utf-8")
    evaluate = ("eval", "--run", folder / "runs" / "a", "--topk", 3, "--bootstrap", 0, "--gpu", -1)
    monkeypatch.chdir(folder)
    assert trial.call(*evaluate).code == 0
    monkeypatch.chdir(tmp_path)
    done = trial.call(*evaluate)
    assert (
        done.code == 1
        and f"is not where it was (tried {tmp_path / 'data'}): point --data to it" in done.err
    )


@pytest.mark.parametrize("data", ["data", "./data", "../x/data", "/nowhere/data", ".", "/"])
def test_a_reference_leads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "x" / "y")
    kept = reference(data, "runs/a")
    assert kept["path"] == data and not os.path.isabs(kept["from_run"])
    back = os.path.normpath(os.path.join(tmp_path, "x", "y", "runs", "a", kept["from_run"]))
    assert back == os.path.abspath(data)
    with pytest.raises(RunError, match="tried"):
        locate(kept | {"hash": "0"}, tmp_path / "x" / "y" / "runs" / "a")
