"""Kills trainings, limits their disk, and runs several on one folder, again and again.

test_crash.py runs it as `crashes.py HOME SEED WHAT=ROUNDS…`. torch and dgl are imported once; every
training is a process of its own, forked from here, that runs the command line. After each accident
all files are valid, and in the end the weights are those of an undisturbed training. It prints
results as JSON; any broken promise is an AssertionError.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import small

from dualgnn_dgl import data as datasets
from dualgnn_dgl import models
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.runs.checkpoint import load_run
from dualgnn_dgl.runs.working import Checkpoints

NOBODY = 65534
# Models and options that are trained, in turn: drawn graphs and drawn dropout are among them.
TRAINED = {
    "dualgnn": tuple(
        f"--set={pair}" for pair in ("cooc_k=8", "width=6", "hidden=9", "missing=mask")
    ),
    "lightgcn": (
        "--set",
        "width=7",
    ),
    "freedom": (
        "--set",
        "width=5",
    ),
    "bm3": (
        "--set",
        "width=8",
    ),
    "dualgnn_plus": (
        "--set",
        "width=9",
    ),
}
NAMES = list(TRAINED)


def words(name: str, run: str, *more: str) -> list[str]:
    """Returns the command line of one training: 5 epochs of a few batches."""
    options = (
        "--model",
        name,
        *TRAINED[name],
        "--epochs",
        "5",
        "--batch-size",
        "17",
        "--lr",
        "0.02",
        "--gpu",
        "-1",
    )
    return ["train", "--run", run, *options, "--set", "metric=ndcg@19", *more]


def start(command: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Forks a process that runs the command with its output in `said`, and returns its id."""
    if pid := os.fork():
        return pid
    try:
        handle = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(handle, 1), os.dup2(handle, 2)
        prepare()
        group(command, prog_name="dualgnn", standalone_mode=True)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 0)
    except BaseException:
        traceback.print_exc()
        os._exit(99)
    os._exit(0)


def ended(pid: int) -> int:
    """Returns the exit status of a process, negative for a signal; its output has no traceback."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code != 99 and "Traceback" not in said(), said()
    return code


def said() -> str:
    return Path("said").read_text() if Path("said").exists() else ""


def train(command: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    with contextlib.suppress(FileNotFoundError):
        os.unlink("said")
    return ended(start(command, prepare))


def warm_up() -> None:
    """Trains once here, so that forked processes have all modules of a training."""
    for name in NAMES:
        models.model_class(name)
    with contextlib.redirect_stdout(sys.stderr):
        group(words(NAMES[0], "warm/run"), prog_name="dualgnn", standalone_mode=False)
    shutil.rmtree("warm")


def content(run: str | Path) -> dict[str, bytes | list]:
    """Returns the content that must be equal: weights, tables, configuration, history."""
    made: dict[str, bytes | list] = {}
    for name in ("weights.safetensors", "tables.safetensors", "run.toml"):
        made[name] = Path(run, name).read_bytes()
    rows = [json.loads(line) for line in Path(run, "history.jsonl").read_text().splitlines()]
    made["history"] = [
        {key: value for key, value in row.items() if "seconds" not in key} for row in rows
    ]
    return made


def references(rounds: int) -> tuple[dict[str, dict], float]:
    """Trains undisturbed the names that the rounds need, and returns the longest time."""
    made, longest = {}, 0.0
    for name in NAMES[:rounds]:
        shutil.rmtree(f"whole/{name}", ignore_errors=True)
        began = time.monotonic()
        assert train(words(name, f"whole/{name}")) == 0, said()
        longest = max(longest, time.monotonic() - began)
        made[name] = content(f"whole/{name}")
        assert load_run(f"whole/{name}").info["best"]["epoch"] > 1, (
            "the result must hang on what came after the accidents"
        )
    return made, longest


def sound(run: str) -> None:
    """Checks after an accident: the run folder is whole or absent, and no checkpoint is damaged."""
    if Path(run).exists():
        load_run(run)
    complaints: list[str] = []
    hook = Checkpoints(run, say=complaints.append)  # looked at from outside, without the lock
    if hook.folder.exists():
        hook.newest()
    assert not complaints, complaints


def finish(name: str, run: str, whole: dict) -> None:
    """Continues to the end, and compares the result with the undisturbed one."""
    assert train(words(name, run, "--resume")) == 0, said()
    assert content(run) == whole, f"{run} ended otherwise than the undisturbed training"
    assert not load_run(run).info["interrupted"]
    assert [path.name for path in Path(run).parent.iterdir()] == [Path(run).name]
    assert train(words(name, run, "--resume")) == 0 and "is finished" in said()
    shutil.rmtree(Path(run).parent)


def kills(rounds: int, draw: random.Random) -> dict:
    """Kills trainings at random moments, up to five times, and continues with --resume."""
    whole, longest = references(rounds)
    figures = {"killed": 0, "finished": 0, "within_a_write": 0, "resumed_from_a_checkpoint": 0}
    while figures["killed"] < rounds:
        name = NAMES[figures["finished"] % len(NAMES)]
        run = f"runs/{name}"
        busy = ("--checkpoint-minutes", "0") if draw.random() < 0.6 else ("--checkpoint-every", "1")
        for _ in range(min(5, rounds - figures["killed"])):
            with contextlib.suppress(FileNotFoundError):
                os.unlink("said")
            pid = start(words(name, run, "--resume", *busy))
            time.sleep(draw.uniform(0, 0.7 * longest))
            os.kill(pid, signal.SIGKILL)
            code = ended(pid)
            figures["resumed_from_a_checkpoint"] += "resuming from checkpoint" in said()
            if code == 0:
                break
            assert code == -signal.SIGKILL, (code, said())
            figures["killed"] += 1
            if Path("runs").exists():
                figures["within_a_write"] += any(
                    path.name.endswith((".tmp", ".old")) for path in Path("runs").rglob("*")
                )
            sound(run)
        finish(name, run, whole[name])
        figures["finished"] += 1
    return figures


def starve(limit: int) -> None:
    """Limits the size of files to `limit` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def limits(rounds: int, draw: random.Random) -> dict:
    """Limits the file size, drawn again each time, and then removes the limit."""
    whole, _ = references(rounds)
    figures = {"rounds": 0, "refused": 0, "done_in_spite": 0}
    for turn in range(rounds):
        name = NAMES[turn % len(NAMES)]
        run = f"runs/{name}"
        limit = int(10 ** draw.uniform(1.5, 5))
        code = train(
            words(name, run, "--resume", "--checkpoint-every", "1"),
            lambda limit=limit: starve(limit),
        )
        assert code in (0, 1), (code, said())
        cut = os.path.getsize("said") >= limit  # what it said is a file, too
        assert code == 0 or cut or said().splitlines()[-1].startswith("Error: "), said()
        figures["refused" if code else "done_in_spite"] += 1
        sound(run)
        finish(name, run, whole[name])
        figures["rounds"] += 1
    return figures


@contextlib.contextmanager
def small_disk(folder: str, kilobytes: int):
    """Mounts a tmpfs of this size on the folder; an OSError where it may not be mounted."""
    Path(folder).mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", folder], capture_output=True
    )
    if done.returncode:
        raise OSError(errno.EPERM, "no tmpfs may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
        Path(folder).rmdir()


def disk(rounds: int, draw: random.Random) -> dict:
    """Trains on a disk that is too small, and then grows."""
    whole, _ = references(rounds)
    figures = {"rounds": 0, "refused": 0, "done_in_spite": 0}
    for turn in range(rounds):
        name = NAMES[turn % len(NAMES)]
        with small_disk("disk", kilobytes := int(10 ** draw.uniform(1, 2.6))):
            run = f"disk/runs/{name}"
            code = train(words(name, run, "--resume", "--checkpoint-minutes", "0"))
            assert code in (0, 1), (code, said())
            assert code == 0 or said().splitlines()[-1].startswith("Error: "), said()
            figures["refused" if code else "done_in_spite"] += 1
            sound(run)
            subprocess.run(["mount", "-o", f"remount,size={kilobytes + 4096}k", "disk"], check=True)
            finish(name, run, whole[name])
        figures["rounds"] += 1
    return figures


def forbidden(rounds: int, draw: random.Random) -> dict:
    """Forbids writing to the folder, from the start or from some moment on.

    Permissions do not bind root, so root becomes an ordinary user.
    """
    whole, longest = references(rounds)
    figures = {"rounds": 0, "refused": 0, "done_in_spite": 0}
    root = os.geteuid() == 0

    def step_down() -> None:
        if root:
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    for turn in range(rounds):
        name = NAMES[turn % len(NAMES)]
        run = f"runs/{name}"
        Path("runs").mkdir()
        if root:
            os.chown("runs", NOBODY, NOBODY)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("said")
        Path("said").touch()
        os.chmod("said", 0o666)
        pid = start(words(name, run, "--resume", "--checkpoint-minutes", "0"), step_down)
        time.sleep(draw.uniform(0, longest) if turn else 0)
        closed = [path for path in (Path("runs"), *Path("runs").rglob("*")) if path.is_dir()]
        for path in closed:
            with contextlib.suppress(FileNotFoundError):
                path.chmod(0o555)
        code = ended(pid)
        assert code in (0, 1), (code, said())
        assert code == 0 or said().splitlines()[-1].startswith("Error: "), said()
        figures["refused" if code else "done_in_spite"] += 1
        sound(run)
        for path in closed:
            with contextlib.suppress(FileNotFoundError):
                path.chmod(0o755)
        finish(name, run, whole[name])
        figures["rounds"] += 1
    return figures


def crowds(rounds: int, draw: random.Random) -> dict:
    """Runs three trainings on one folder at once and kills one: there is one result."""
    whole, longest = references(rounds)
    figures = {"rounds": 0, "started": 0, "refused": 0}
    for turn in range(rounds):
        name = NAMES[turn % len(NAMES)]
        run = f"runs/{name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink("said")
        pids = []
        for _ in range(3):
            pids.append(start(words(name, run, "--resume", "--checkpoint-minutes", "0")))
            time.sleep(draw.uniform(0, 0.1 * longest))
        time.sleep(draw.uniform(0, 0.5 * longest))
        os.kill(pids[draw.randrange(3)], signal.SIGKILL)
        codes = [ended(pid) for pid in pids]
        assert set(codes) <= {0, 1, -signal.SIGKILL}, (codes, said())
        assert said().count("another command (process ") == codes.count(1), (codes, said())
        figures["started"] += 3
        figures["refused"] += codes.count(1)
        sound(run)
        finish(name, run, whole[name])
        figures["rounds"] += 1
    return figures


SCENARIOS = {
    "kills": kills,
    "limits": limits,
    "disk": disk,
    "forbidden": forbidden,
    "crowds": crowds,
}

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    datasets.save(small.dataset(), "data")
    warm_up()
    for number, (what, _, rounds) in enumerate(
        argument.partition("=") for argument in sys.argv[3:]
    ):
        began = time.monotonic()
        result = SCENARIOS[what](int(rounds), random.Random(int(sys.argv[2]) + number))
        result |= {"models": NAMES[: int(rounds)], "seconds": round(time.monotonic() - began, 1)}
        sys.stdout.write(json.dumps(result) + "\n")
