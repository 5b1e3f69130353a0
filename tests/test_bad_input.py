"""Spoilt input: every case ends in success or in one clear line; never a traceback, a hang, a partial or a wrong result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trial
from figures import LONG, record

HERE = Path(__file__).resolve().parent
CASES, BATCH = (12_000, 400) if LONG else (80, 80)
REAL_CASES = 60 if LONG else 2


def batch(first: int, count: int, folder: Path) -> dict[str, object]:
    """Run cases in a process of their own: one that dies or hangs takes no other with it."""
    seen = folder / "seen"
    words = [sys.executable, HERE / "bad_input.py", "--first", first, "--count", count, "--seen", seen]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120 + 3 * count)
    assert done.returncode == 0, f"the process died in case {seen.read_text() if seen.exists() else '?'}: {done.stderr[-2000:]}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("first", range(0, CASES, BATCH))
def test_spoilt_files_end_in_success_or_one_line(first: int, tmp_path: Path) -> None:
    found = batch(first, BATCH, tmp_path)
    assert not found["failures"], json.dumps(found["failures"], indent=1)[:6000]
    FOUND.append(found)
    kinds: dict[str, int] = {}
    for part in FOUND:
        for kind, count in part["kinds"].items():
            kinds[kind] = kinds.get(kind, 0) + count
    record("bad_input", {"cases": sum(kinds.values()), "failures": 0, "by_kind": dict(sorted(kinds.items()))})


FOUND: list[dict] = []


def test_the_judge_sees_faults(tmp_path: Path) -> None:
    """The harness itself: what it would let pass would prove nothing."""
    good = trial.Outcome(1, "", "reading x\nError: x.csv is empty: give a file with rows\n", 0.0)
    assert trial.fault(good, tmp_path / "out") == ""
    for bad in (
        trial.Outcome(1, "", "Traceback (most recent call last):\nError: x.csv is empty: give one\n", 0.0),
        trial.Outcome(1, "", "", 0.0),
        trial.Outcome(1, "", "Error: one is wrong, mend it\nError: two is wrong, mend it\n", 0.0),
        trial.Outcome(2, "", "Error: a usage mistake without usage\n", 0.0),
        trial.Outcome(3, "", "Error: some other exit status here\n", 0.0),
        trial.Outcome(0, "", "", 0.0, "Traceback"),
    ):
        assert trial.fault(bad, tmp_path / "out")
    (tmp_path / ".out.abc.tmp").mkdir()
    assert "partial" in trial.fault(good, tmp_path / "out")
    assert trial.call("no-such-verb").code == 2
    hung = trial.call("preprocess", "--input", tmp_path / "x.csv", limit=1e-4)
    assert hung.code == -1 or hung.code == 1  # the limit strikes, unless the answer was faster


def test_the_time_limit_strikes() -> None:
    with pytest.raises(trial.Hang), trial.time_limit(0.05):
        while True:
            pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> trial.World:
    return trial.world(tmp_path_factory.mktemp("world"))


def test_the_real_command_ends_the_same_way(world: trial.World, tmp_path: Path) -> None:
    """The same cases through the installed entry point: exit status and last line are those of the call in this process."""
    import random

    from mutations import spoil

    draw, environment = random.Random(1), os.environ | {"OMP_NUM_THREADS": "1"}
    files = trial.logs()
    for n in range(REAL_CASES):
        name = draw.choice([name for name in files if name not in trial.OPTIONS])
        file = tmp_path / f"{n}_{name}"
        file.write_bytes(spoil(name, files[name], draw) if n else b"user,item\n")
        words = ["preprocess", "--input", file, "--check"]
        here = trial.call(*words)
        done = subprocess.run(
            [sys.executable, "-m", "dualgnn_dgl.cli.main", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        assert done.returncode == here.code and done.stderr.splitlines()[-1:] == here.err.splitlines()[-1:]
    record("bad_input_real_command", {"cases": REAL_CASES, "failures": 0})
