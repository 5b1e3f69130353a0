"""Kills every writing verb at every disk access, runs verbs against each other, and damages files.

test_accidents.py runs it as `accidents.py HOME SEED WHAT=CASES…`. It prints one line of JSON per
scenario. torch and dgl are imported once, and each command is a process forked from here. A broken
promise is an AssertionError that names the case.

calls     A process ends at its n-th call of open, mkdir, rename, unlink, rmdir, fsync, …: no file
          of the user is lost, each folder is old or new as a whole, and the same command, repeated,
          ends as usual and leaves nothing behind.
strace    The same with the system's own calls, where strace is installed.
pairs     Two verbs work on the same folders at the same time: each succeeds or is refused in one
          line, and every folder is whole.
flips     One bit of one file is changed: the commands that read it refuse it in one line, or give
          the same answer.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import small
import trial
from faults import CALLS, KILLED, die_at

from dualgnn_dgl import data as datasets
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.core.exchange import recover
from dualgnn_dgl.core.files import is_temporary
from dualgnn_dgl.errors import DualGNNError
from dualgnn_dgl.runs.checkpoint import load_run

warnings.filterwarnings("ignore", message=".*has been completed")
SECONDS = 60  # after which a command counts as hanging
MODEL = (
    "--model",
    "bprmf",
    "--set",
    "width=3",
    "--epochs",
    "3",
    "--batch-size",
    "17",
    "--gpu",
    "-1",
)
FOREIGN = {  # what users keep in our folders
    "notes.txt": b"precious",
    "users.parquet": b"PAR1 of eval --per-user",
    ".hidden": b"precious",
    "sub/runs/a/run.json": b"{}",
    ".mine.0123456789abcdef.tmp": b"only looks like ours",
    "model.safetensors": b"somebody's",
}


@dataclass(frozen=True)
class Verb:
    """A writing command: its words, its outputs, and the commands that must precede it."""

    words: tuple[str, ...]
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    code: int = 0
    hidden: tuple[str, ...] = field(default=(), compare=False)


def train(*more: str, run: str = "runs/a") -> tuple[str, ...]:
    return ("train", "--data", "data", "--run", run, *MODEL, *more)


UPDATE = (
    "update",
    "--run",
    "runs/a",
    "--data",
    "data",
    "--input",
    "tuesday.csv",
    "--features",
    "visual.csv",
)
TUNE = ("tune", "--data", "data", "--study", "study", *MODEL, "--trials", "1")
PREPARE = ("preprocess", "--input", "log.csv", "--data", "data", "--k-core", "1")
HOLES = (
    "robustness",
    "--data",
    "data",
    "--out",
    "holes",
    "--models",
    "bprmf",
    "--rates",
    "0",
    "--strategies",
    "mask",
)
HOLES = (*HOLES, "--seeds", "1", "--epochs", "1", "--set", "bprmf.width=3", "--gpu", "-1")
VERBS = {
    "preprocess": Verb((*PREPARE[:4], "new-data", *PREPARE[5:]), ("new-data",)),
    "preprocess --force": Verb((*PREPARE, "--seed", "5", "--force"), ("data",)),
    "train": Verb(train(run="runs/b"), ("runs/b",)),
    "train --force": Verb(train("--seed", "5", "--force"), ("runs/a",), before=(train(),)),
    "train --resume": Verb(
        ("train", "--run", "runs/a", "--resume", "--epochs", "5"),
        ("runs/a",),
        before=(train("--keep-checkpoints"),),
    ),
    "update": Verb(UPDATE, ("data-updated", "runs/a-updated"), before=(train(),)),
    "update --force": Verb(
        (*UPDATE, "--force"), ("data-updated", "runs/a-updated"), before=(train(), (*UPDATE[:-2],))
    ),
    "tune": Verb((*TUNE, "--trials", "3"), ("study",), before=((*TUNE, "--trials", "1"),)),
    "tune --force": Verb(
        (*TUNE, "--trials", "1", "--seed", "5", "--force"),
        ("study",),
        before=((*TUNE, "--trials", "2"),),
    ),
    "robustness": Verb(HOLES, ("holes",)),
    "eval --per-user": Verb(
        (
            "eval",
            "--topk",
            "3",
            "--run",
            "runs/a",
            "--data",
            "data",
            "--per-user",
            "out/users.parquet",
            "--force",
            "--gpu",
            "-1",
        ),
        files=("out/users.parquet",),
        before=(train(),),
    ),
    "recommend --all": Verb(
        (
            "recommend",
            "--run",
            "runs/a",
            "--data",
            "data",
            "--all",
            "out/lists.parquet",
            "--k",
            "3",
            "--force",
            "--gpu",
            "-1",
        ),
        files=("out/lists.parquet",),
        before=(train(),),
    ),
}


# ---------------------------------------------------------------- processes


def start(
    words: tuple[str, ...], prepare: Callable[[], None] = lambda: None, said: str = "said"
) -> int:
    """Forks a process that runs the command with its output in a file, and returns its id."""
    if pid := os.fork():
        return pid
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(handle, 1), os.dup2(handle, 2)
        signal.alarm(SECONDS)
        prepare()
        group(list(words), prog_name="dualgnn", standalone_mode=True)
    except SystemExit as end:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)
    os._exit(0)


def ended(pid: int, said: str = "said") -> int:
    """Returns the exit status; the output has no traceback, and an error is one last line."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = Path(said).read_text("utf-8", "replace") if Path(said).exists() else ""
    assert code != -signal.SIGALRM, f"no end within {SECONDS} s: {text[-2000:]}"
    assert code != 99 and "Traceback" not in text, text[-3000:]
    if code in (1, 2):
        assert text.rstrip("\n").splitlines()[-1].startswith("Error: "), text[-2000:]
    return code


def run(words: tuple[str, ...]) -> int:
    return ended(start(words))


# ---------------------------------------------------------------- the state of the disk


def build(home: Path) -> None:
    """Makes inputs, a prepared folder and a template of every state that a verb starts from."""
    for name, content in {
        "log.csv": trial.logs()["log.csv"],
        "visual.csv": trial.feature_files()["acoustic.csv"],
    }.items():
        (home / name).write_bytes(content)
    (home / "tuesday.csv").write_bytes(b"user,item\nnewbie,v5\nnewbie,v999\nu900,v8\nu900,v11\n")
    (home / "visual.csv").write_text("item_id,a,b,c,d,e\nv999," + ",".join("12345") + "\n")
    datasets.save(small.dataset(), home / "data")
    warm = [
        train(),
        TUNE,
        UPDATE,
        HOLES,
        *(VERBS[name].words for name in ("eval --per-user", "recommend --all", "preprocess")),
    ]
    for words in warm:  # imports everything that the forked processes need
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            group(list(words), prog_name="dualgnn", standalone_mode=False)
    for left in ("runs", "study", "data-updated", "holes", "out", "new-data"):
        shutil.rmtree(left)


def foreign(folder: Path) -> dict[str, bytes]:
    """Puts users' files into this folder; a data folder has a users.parquet of its own."""
    return {
        name: content
        for name, content in FOREIGN.items()
        if name != "users.parquet" or "run" in str(folder)
    }


def litter(folder: Path) -> None:
    for name, content in foreign(folder).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def lost(folder: Path) -> list[str]:
    kept = foreign(folder)
    return [
        name
        for name, content in kept.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]


def content(place: str) -> object:
    """Returns a result's content without times and versions, or None without a result."""
    path = Path(place)
    if not path.exists():
        return None
    if path.is_file():
        return path.read_bytes()
    recover(path)
    if (path / "dataset.json").is_file():
        return datasets.load(path).hash
    if (path / "run.json").is_file():
        info = load_run(path).info
        return {name: info[name] for name in ("model", "config", "train", "best", "epochs")} | {
            name: digest for name, digest in info["files"].items() if name.endswith("safetensors")
        }
    if (path / "study.json").is_file():
        return "study"
    if path.name == "holes":
        return "cells" if any(path.glob("cells/*.json")) else None
    ours = [
        entry
        for entry in path.iterdir()
        if entry.name not in (*FOREIGN, "sub") and not is_temporary(entry)
    ]
    assert not ours, f"{place} is neither whole nor absent: {ours}"
    return None


def leftovers(home: Path) -> list[str]:
    """Returns temporary names, locks and plans that a finished command must not leave."""
    return [
        str(path.relative_to(home))
        for path in home.rglob("*")
        if is_temporary(path)
        or path.name.startswith(".dualgnn-")
        or (path.name.endswith(".lock") and path.name != ".mine.lock")
    ]


class States:
    """The states that verbs start from, each made once and copied."""

    def __init__(self, home: Path) -> None:
        self.home, self.kept = home, home / "kept"
        self.results: dict[str, dict[str, object]] = {}

    def fresh(self, name: str, verb: Verb, dirty: bool = True) -> Path:
        """Makes a new current folder in the state that `verb` starts from, with users' files."""
        kept, work = self.kept / name.replace(" ", "_"), self.home / "work"
        os.chdir(self.home)
        shutil.rmtree(work, ignore_errors=True)
        if not kept.exists():
            kept.mkdir(parents=True)
            for entry in ("data", "log.csv", "tuesday.csv", "visual.csv"):
                source = self.home / entry
                shutil.copytree(source, kept / entry) if source.is_dir() else shutil.copy(
                    source, kept / entry
                )
            os.chdir(kept)
            for words in verb.before:
                assert run(words) == 0, Path("said").read_text()
            for folder in verb.folders:
                if Path(folder).is_dir():
                    litter(Path(folder))
            with contextlib.suppress(FileNotFoundError):
                os.unlink("said")
            os.chdir(self.home)
        shutil.copytree(kept, work, symlinks=True)
        os.chdir(work)
        return work

    def reference(self, name: str, verb: Verb) -> dict[str, object]:
        """Returns the state in which the verb ends without an accident."""
        if name not in self.results:
            self.fresh(name, verb)
            before = {place: content(place) for place in (*verb.folders, *verb.files)}
            assert run(verb.words) == verb.code, Path("said").read_text()
            after = {place: content(place) for place in (*verb.folders, *verb.files)}
            self.results[name] = {"before": before, "after": after}
            for folder in verb.folders:
                if before[folder] is not None:
                    assert not lost(Path(folder)), (
                        f"{name}: an undisturbed command lost {lost(Path(folder))}"
                    )
            assert not leftovers(Path.cwd()), f"{name}: left over {leftovers(Path.cwd())}"
        return self.results[name]


def judge(states: States, name: str, verb: Verb, what: str) -> None:
    """Checks a folder after an accident, and completes the command.

    The folder is all old or all new, no user's file is lost, and the repeated command leaves
    nothing behind.
    """
    expected = states.reference(name, verb) if name not in states.results else states.results[name]
    places = (*verb.folders, *verb.files)
    for folder in verb.folders:
        if expected["before"][folder] is not None:
            assert not lost(Path(folder)), f"{what}: lost {lost(Path(folder))} of {folder}"
    for folder in verb.folders:
        recover(folder)
    found = {place: content(place) for place in places}
    if not {"study", "holes"} & set(places):  # these grow trial by trial and cell by cell
        assert found in (expected["before"], expected["after"]), f"{what}: {found}"
    code = run(verb.words)
    said = Path("said").read_text()
    done = code == 0 or (
        found == expected["after"]
        and "--force" not in verb.words
        and "already holds a result" in said
    )
    assert done, f"{what}: the same command says {said}"
    assert {place: content(place) for place in places} == expected["after"], (
        f"{what}: another result in the end"
    )
    for folder in verb.folders:
        if expected["before"][folder] is not None:
            assert not lost(Path(folder)), (
                f"{what}: lost {lost(Path(folder))} of {folder} in the end"
            )
    assert not leftovers(Path.cwd()), f"{what}: left over {leftovers(Path.cwd())}"


# ---------------------------------------------------------------- scenarios


def calls(cases: int, draw: random.Random, states: States) -> dict:
    """Kills verbs at a call: at all in turn if there are cases enough, else at random ones."""
    figures = {"cases": 0, "killed": 0, "by_verb": {}}
    plan: list[tuple[str, int, bool]] = []
    for name, verb in VERBS.items():
        states.reference(name, verb)
        count = number_of_calls(states, name, verb)
        plan += [(name, number, after) for number in range(1, count + 1) for after in (False, True)]
    draw.shuffle(plan)
    for name, number, after in plan[:cases]:
        verb = VERBS[name]
        states.fresh(name, verb)
        code = ended(start(verb.words, partial(die_at, number, after)))
        assert code in (KILLED, verb.code), (name, number, code, Path("said").read_text())
        judge(states, name, verb, f"{name} killed {'after' if after else 'at'} call {number}")
        figures["cases"] += 1
        figures["killed"] += code == KILLED
        figures["by_verb"][name] = figures["by_verb"].get(name, 0) + 1
    return figures | {"possible": len(plan)}


def number_of_calls(states: States, name: str, verb: Verb) -> int:
    """Returns the number of disk accesses of the verb."""
    states.fresh(name, verb)

    def counting() -> None:
        count = [0]

        def counted(call):
            def wrapped(*words, **more):
                count[0] += 1
                Path_write(count[0])
                return call(*words, **more)

            return wrapped

        handle = os.open("count", os.O_WRONLY | os.O_CREAT, 0o666)

        def Path_write(number: int) -> None:
            os.pwrite(handle, f"{number:9d}".encode(), 0)

        for call in CALLS:
            setattr(os, call, counted(getattr(os, call)))

    assert ended(start(verb.words, counting)) == verb.code
    return int(Path("count").read_text())


def strace(cases: int, draw: random.Random, states: States) -> dict:
    """Kills the real command at its n-th rename, unlink, fsync, mkdir or openat."""
    figures = {"cases": 0, "killed": 0}
    if shutil.which("strace") is None:
        return figures | {"skipped": "strace is not installed"}
    kinds = (
        "rename,renameat,renameat2",
        "unlink,unlinkat,rmdir",
        "fsync,fdatasync",
        "mkdir,mkdirat",
        "write,pwrite64,writev",
    )
    names = [
        name
        for name, verb in VERBS.items()
        if verb.folders and not name.startswith(("tune", "robustness"))
    ]
    while figures["cases"] < cases:
        name, kind = draw.choice(names), draw.choice(kinds)
        verb = VERBS[name]
        states.reference(name, verb)
        states.fresh(name, verb)
        count = draw.randint(1, 60 if kind.startswith("write") else 25)
        inject = ["-e", f"trace={kind}", "-e", f"inject={kind}:signal=SIGKILL:when={count}"]
        command = ["strace", "-f", "-qq", "-o", os.devnull, *inject]
        done = subprocess.run(
            [*command, sys.executable, "-m", "dualgnn_dgl.cli.main", *verb.words],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert "Traceback" not in done.stderr, done.stderr[-2000:]
        judge(states, name, verb, f"{name} killed at {kind} number {count}")
        figures["cases"] += 1
        figures["killed"] += done.returncode in (KILLED, -signal.SIGKILL)
    return figures


def pairs(cases: int, draw: random.Random, states: States) -> dict:
    """Runs two verbs on the same folders at once."""
    begin = {
        "preprocess": (*PREPARE, "--seed", "5", "--force"),
        "train": train("--seed", "3", "--force"),
        "resume": ("train", "--run", "runs/a", "--resume", "--epochs", "5"),
        "tune": (*TUNE, "--trials", "2"),
        "tune --force": (*TUNE, "--trials", "1", "--force"),
        "eval": (
            "eval",
            "--topk",
            "3",
            "--run",
            "runs/a",
            "--data",
            "data",
            "--per-user",
            "out/users.parquet",
            "--force",
            "--gpu",
            "-1",
        ),
        "compare": ("compare", "runs/a", "runs/b", "--data", "data", "--gpu", "-1", "--topk", "5"),
        "recommend": (
            "recommend",
            "--run",
            "runs/a",
            "--data",
            "data",
            "--all",
            "out/l.parquet",
            "--force",
            "--gpu",
            "-1",
        ),
        "update": (*UPDATE, "--force"),
        "robustness": HOLES,
    }
    verb = Verb(
        (),
        ("runs/a", "data"),
        before=(train("--keep-checkpoints"), train(run="runs/b"), (*TUNE, "--trials", "1"), UPDATE),
    )
    figures = {"cases": 0, "refused": 0, "by_pair": 0}
    combinations = list(itertools.combinations_with_replacement(begin, 2))
    draw.shuffle(combinations)
    for one, two in itertools.islice(itertools.cycle(combinations), cases):
        states.fresh("pairs", verb)
        first = start(begin[one], said="said1")
        time.sleep(draw.choice((0, 0, 0.02, 0.1, 0.3)))
        second = start(begin[two], said="said2")
        codes = ended(first, "said1"), ended(second, "said2")
        assert set(codes) <= {0, 1}, (
            one,
            two,
            codes,
            Path("said1").read_text(),
            Path("said2").read_text(),
        )
        for code, said in zip(codes, ("said1", "said2"), strict=True):
            text = Path(said).read_text()
            fine = (
                "is writing",
                "other data",
                "already holds",
                "different data",
                "was begun on",
                "is a study of other data",
                "has no checkpoints",
                "while it was read: run the command again",
            )
            assert code == 0 or any(words in text for words in fine), f"{one} beside {two}: {text}"
        for place in ("data", "runs/a", "data-updated", "runs/a-updated", "runs/b"):
            assert content(place) is not None, f"{one} beside {two}: {place} is gone"
        assert load_run("runs/a-updated").info["data"]["hash"] == datasets.load("data-updated").hash
        assert not lost(Path("runs/a")) and not lost(Path("data")), (one, two)
        assert not leftovers(Path.cwd()), f"{one} beside {two}: left over {leftovers(Path.cwd())}"
        figures["cases"] += 1
        figures["refused"] += sum(codes)
    figures["by_pair"] = min(cases, len(combinations))
    return figures


def flips(cases: int, draw: random.Random, states: States) -> dict:
    """Changes one bit of one file: it is refused in one line, or the answer is the same."""
    verb = Verb((), before=(train("--keep-checkpoints"), (*TUNE, "--trials", "2"), UPDATE))
    work = states.fresh("flips", verb)
    read = {
        "data": (
            "eval",
            "--run",
            "runs/a",
            "--data",
            "data",
            "--bootstrap",
            "0",
            "--topk",
            "3",
            "--gpu",
            "-1",
            "--json",
        ),
        "runs/a": (
            "eval",
            "--run",
            "runs/a",
            "--data",
            "data",
            "--bootstrap",
            "0",
            "--topk",
            "3",
            "--gpu",
            "-1",
            "--json",
        ),
        "runs/a.training": ("train", "--run", "runs/a", "--resume", "--json", "--epochs", "4"),
        "study": (*TUNE, "--trials", "2", "--json"),
    }
    figures = {"cases": 0, "refused": 0, "same": 0, "by_file": {}}
    good = {}
    for place, words in read.items():
        shutil.rmtree(work)
        states.fresh("flips", verb)
        good[place] = answer(words)
        assert good[place][0] == 0, good[place]
    states.fresh("flips", verb)
    files = [
        (place, file.name)
        for place in read
        for file in sorted(Path(place).iterdir())
        if file.is_file()
    ]
    for number in range(cases):
        place, name = files[number % len(files)]
        states.fresh("flips", verb)  # all of it: a bit of an earlier case would answer for this one
        file = Path(place, name)
        content = bytearray(file.read_bytes())
        if not content:
            continue
        where = draw.randrange(len(content))
        content[where] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
        code, out = answer(read[place])
        what = f"{file} with a bit of byte {where} flipped"
        assert code in (0, 1), f"{what}: {out}"
        assert code == 1 or out == good[place][1], f"{what} went unnoticed: {out}\n{good[place][1]}"
        figures["cases"] += 1
        figures["refused" if code else "same"] += 1
        kept = figures["by_file"].setdefault(name, {"refused": 0, "same": 0})
        kept["refused" if code else "same"] += 1
    return figures


def answer(words: tuple[str, ...]) -> tuple[int, object]:
    """Returns the exit status and the output of `--json`, without times."""
    done = trial.call(*words)
    assert not trial.fault(done), (words, trial.fault(done))
    if done.code:
        return done.code, done.err
    value = json.loads(done.out)

    def timeless(part: object) -> object:
        if isinstance(part, dict):
            return {
                key: timeless(inner)
                for key, inner in part.items()
                if key not in ("seconds", "files", "self", "total_seconds")
            }
        return [timeless(inner) for inner in part] if isinstance(part, list) else part

    return done.code, timeless(value)


SCENARIOS = {"calls": calls, "strace": strace, "pairs": pairs, "flips": flips}

if __name__ == "__main__":
    home = Path(sys.argv[1]).resolve()
    os.chdir(home)
    try:
        build(home)
        for number, (what, _, count) in enumerate(
            argument.partition("=") for argument in sys.argv[3:]
        ):
            began = time.monotonic()
            result = SCENARIOS[what](
                int(count), random.Random(int(sys.argv[2]) + number), States(home)
            )
            shutil.rmtree(home / "kept", ignore_errors=True)
            sys.stdout.write(
                json.dumps(result | {"seconds": round(time.monotonic() - began, 1)}) + "\n"
            )
            sys.stdout.flush()
    except DualGNNError:
        traceback.print_exc()
        sys.exit(3)
