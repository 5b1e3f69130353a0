"""Accidents that strike every verb: kills at any call, two at once, single bits, users' own files.

See accidents.py.

`make test-long` does each more often and keeps the figures.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import accidents
import pytest
import small
import trial
from figures import LONG, record

from dualgnn_dgl import data as datasets
from dualgnn_dgl.runs.checkpoint import load_run

HERE = Path(__file__).resolve().parent
CASES = {"calls": (24, 2000), "strace": (2, 60), "pairs": (8, 165), "flips": (60, 3000)}


@pytest.mark.slow
@pytest.mark.parametrize("what", CASES)
def test_no_accident_costs_anything(what: str, tmp_path: Path) -> None:
    if what == "strace" and not traceable(tmp_path):
        pytest.skip("strace is not installed, or may not trace here")
    command = [
        sys.executable,
        str(HERE / "accidents.py"),
        str(tmp_path),
        "7",
        f"{what}={CASES[what][LONG]}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["cases"] > 0
    record(
        f"accidents_{what}",
        {
            **figures,
            "losses": 0,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared",
        },
    )


def traceable(folder: Path) -> bool:
    """Whether strace can kill a process here at a system call of its own choosing."""
    if shutil.which("strace") is None:
        return False
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=rename",
        "-e",
        "inject=rename:signal=SIGKILL:when=1",
    ]
    script = (
        f"import os; open({str(folder / 'x')!r}, 'w').close(); os.rename({str(folder / 'x')!r}, "
        f"{str(folder / 'y')!r})"
    )
    done = subprocess.run([*command, sys.executable, "-c", script], capture_output=True)
    return done.returncode != 0 and b"ptrace" not in done.stderr


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    datasets.save(small.dataset(), "data")
    return tmp_path


def ok(*words: object) -> trial.Outcome:
    done = trial.call(*words)
    assert done.code == 0, done
    return done


def test_resume_leaves_what_lies_beside_its_files(home: Path) -> None:
    """A list of `eval --per-user`, notes and a folder in the run folder."""
    ok(*accidents.train("--keep-checkpoints"))
    ok(
        "eval",
        "--run",
        "runs/a",
        "--topk",
        3,
        "--gpu",
        -1,
        "--per-user",
        "runs/a/users.parquet",
        "--bootstrap",
        0,
    )
    accidents.litter(Path("runs/a"))
    kept = Path("runs/a/users.parquet").read_bytes()
    ok("train", "--run", "runs/a", "--resume", "--epochs", 5)
    assert load_run("runs/a").info["epochs"] == 5 and not accidents.lost(Path("runs/a"))
    assert Path("runs/a/users.parquet").read_bytes() == kept


def test_force_leaves_runs_inside_the_data_folder(home: Path) -> None:
    (home / "log.csv").write_bytes(trial.logs()["log.csv"])
    prepare = ("preprocess", "--input", "log.csv", "--data", "d", "--k-core", 1)
    ok(*prepare)
    ok(*accidents.train(run="d/runs/a")[:2], "d", *accidents.train(run="d/runs/a")[3:])
    before = {path.name: path.read_bytes() for path in Path("d/runs/a").iterdir()}
    ok(*prepare, "--seed", 5, "--force")
    assert {path.name: path.read_bytes() for path in Path("d/runs/a").iterdir()} == before
    assert trial.call(*prepare).code == 1, "without --force it is occupied"


def test_resume_remembers_how_checkpoints_are_kept(home: Path) -> None:
    """Also from a training that was killed before its first checkpoint."""
    ok(*accidents.train("--keep-checkpoints", "--checkpoint-every", 1, "--keep-last", 5))
    names = sorted(path.name for path in Path("runs/a.training").glob("*.json"))
    ok("train", "--run", "runs/a", "--resume", "--epochs", 6)
    later = sorted(path.name for path in Path("runs/a.training").glob("*.json"))
    assert len(later) == len(names) + 2 > 3, (
        "each epoch has one, five are kept, and they are left at the end"
    )
    ok("train", "--run", "runs/a", "--resume", "--epochs", 7, "--keep-last", 1)
    assert len(list(Path("runs/a.training").glob("checkpoint-*.json"))) == 1, (
        "what the command line says comes first"
    )

    about = json.loads(Path("runs/a.training/begun.json").read_text())["about"]
    assert about["keep"] == {"every": 1, "minutes": 5.0, "last": 1, "leave": True}
    shutil.rmtree("runs/a")
    for path in Path("runs/a.training").glob("checkpoint-*"):
        path.unlink()
    done = ok("train", "--run", "runs/a", "--resume")
    assert "with the same options" in done.err and load_run("runs/a").info["train"]["epochs"] == 7
    assert list(Path("runs/a.training").glob("checkpoint-*.json")), (
        "and leaves checkpoints, as it was begun with"
    )


@pytest.mark.parametrize("name", ["curve.png", "run.toml", "history.jsonl"])
def test_a_users_file_under_a_name_of_ours_is_refused_before_training(
    home: Path, name: str
) -> None:
    ok(*accidents.train())
    if name == "curve.png":
        info = json.loads(Path("runs/a/run.json").read_text())
        assert name in info["files"]
    shutil.copytree("runs/a", "runs/b")
    ok(*accidents.train("--force", "--epochs", "1", run="runs/b"))
    (home / "runs/b" / name).write_bytes(b"precious") if name == "curve.png" else None
    done = trial.call(*accidents.train("--force", run="runs/b"))
    if name == "curve.png":
        assert done.code == 1 and "curve.png has a name that results take" in done.err
        assert (home / "runs/b" / name).read_bytes() == b"precious"
    else:
        assert done.code == 0


def test_robustness_does_not_take_a_users_table(home: Path) -> None:
    (home / "holes").mkdir()
    (home / "holes" / "table.md").write_text("precious")
    done = trial.call(*accidents.HOLES)
    assert done.code == 1 and "table.md is not of an experiment" in done.err
    assert (home / "holes" / "table.md").read_text() == "precious"


@pytest.mark.slow
def test_an_update_that_was_cut_off_is_completed_by_the_same_command(home: Path) -> None:
    """Killed right behind its commit: data and run are old, then both new, and the command says
    what it added.
    """
    from faults import killed_at

    ok(*accidents.train())
    (home / "tuesday.csv").write_bytes(b"user,item\nnewbie,v5\nnewbie,v999\n")
    (home / "visual.csv").write_text("item_id,a,b,c,d,e\nv999,1,2,3,4,5\n")
    whole = json.loads(ok(*accidents.UPDATE, "--json").out)
    for name in ("data-updated", "runs/a-updated"):
        shutil.rmtree(name)
    number, seen = 1, set()
    while True:
        code = killed_at(number, lambda: trial.call(*accidents.UPDATE), after=True)
        committed = Path("runs/a-updated").exists() and not Path("data-updated").exists()
        seen.add(committed)
        if committed:
            break
        assert code, "it came to its end without a moment between the two"
        number += 1
    done = ok(*accidents.UPDATE, "--json")
    assert "nothing is left to do" in done.err and json.loads(done.out)["added"] == whole["added"]
    assert load_run("runs/a-updated").info["data"]["hash"] == datasets.load("data-updated").hash
    assert seen == {False, True}


@pytest.mark.parametrize("verb", ["eval --per-user", "recommend --all"])
def test_a_list_does_not_replace_a_file_of_the_data(home: Path, verb: str) -> None:
    ok(*accidents.train())
    words = [
        word if not word.startswith("out/") else "data/users.parquet"
        for word in accidents.VERBS[verb].words
    ]
    before = Path("data/users.parquet").read_bytes()
    done = trial.call(*words)
    assert done.code == 1 and "users.parquet belongs to the result in" in done.err
    assert Path("data/users.parquet").read_bytes() == before
