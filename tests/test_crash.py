"""Nothing is lost and nothing is corrupt: processes killed, starved of room, locked out, crowded.

See crashes.py.

`make test-long` does each more often and keeps the figures.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small
from click.testing import CliRunner
from figures import LONG, record

from dualgnn_dgl.cli.main import group
from dualgnn_dgl.core.files import json_digest
from dualgnn_dgl.data import save
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.runs.checkpoint import load_run
from dualgnn_dgl.runs.working import Checkpoints

HERE = Path(__file__).resolve().parent
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
ROUNDS = {
    "kills": (4, 100),
    "limits": (1, 40),
    "forbidden": (2, 20),
    "crowds": (1, 20),
    "disk": (1, 20),
}


def may_mount(folder: Path) -> bool:
    """Whether this user may mount a tmpfs here."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=10k", "none", str(folder)], capture_output=True
    )
    return done.returncode == 0 and subprocess.run(["umount", str(folder)]).returncode == 0


# in the short form one process does all of it: it takes longer to start than to crash
@pytest.mark.slow
@pytest.mark.parametrize(
    "whats", [[what] for what in ROUNDS] if LONG else [list(ROUNDS)], ids="+".join
)
def test_accidents_change_nothing_in_the_end(whats, tmp_path):
    if os.geteuid() == 0:  # the one that steps down from root must find its way
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
    possible = [
        what for what in whats if what != "disk" or (os.geteuid() == 0 and may_mount(tmp_path))
    ]
    if not possible:
        pytest.skip("a small disk is a tmpfs, which only root may mount")
    rounds = [f"{what}={ROUNDS[what][LONG]}" for what in possible]
    command = [sys.executable, str(HERE / "crashes.py"), str(tmp_path), "11", *rounds]
    done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-3000:]
    for what, line in zip(possible, done.stdout.splitlines(), strict=True):
        figures = json.loads(line)
        assert what != "kills" or figures["killed"] == ROUNDS[what][LONG]
        record(
            f"training_{what}",
            {**figures, "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared"},
        )


# ---------------------------------------------------------------- the command line

OPTIONS = (
    "--epochs",
    "6",
    "--batch-size",
    "17",
    "--lr",
    "0.02",
    "--set",
    "width=6",
    "--set",
    "metric=ndcg@19",
    "--gpu",
    "-1",
)


def run(*words) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of `dualgnn train …`."""
    result = CliRunner().invoke(group, ["train", *(str(word) for word in words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(*words) -> str:
    code, out, errors = run(*words)
    assert code in (1, 2) and out == "" and errors.strip().splitlines()[-1].startswith("Error: "), (
        code,
        out,
        errors,
    )
    return errors.strip().splitlines()[-1]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(small.dataset(), "data")
    return tmp_path


WEIGHTS = ("weights.safetensors", "tables.safetensors")


def weights(folder: str) -> list[bytes]:
    return [Path(folder, name).read_bytes() for name in WEIGHTS]


@pytest.fixture
def cut(home, monkeypatch):
    """A training with OPTIONS that a signal ended within its third epoch."""
    due, count = Checkpoints.due, [0]

    def counted(self, epochs=None, *, last=False):
        count[0] += epochs is None
        if count[0] == 7:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        return due(self, epochs, last=last)

    monkeypatch.setattr(Checkpoints, "due", counted)
    code, out, errors = run(*OPTIONS, "--run", "runs/a")
    assert code == 143 and "--resume" in errors and load_run("runs/a").info["interrupted"], errors
    monkeypatch.undo()
    monkeypatch.chdir(home)
    return home


def test_resume_needs_no_options_and_ends_as_if_nothing_had_been(cut):
    assert run(*OPTIONS, "--run", "runs/whole")[0] == 0
    assert weights("runs/a") != weights("runs/whole")
    code, out, errors = run("--run", "runs/a", "--resume")
    assert code == 0 and "resuming from checkpoint-000003" in errors and "Best epoch" in out, errors
    assert weights("runs/a") == weights("runs/whole") and not load_run("runs/a").info["interrupted"]
    assert sorted(path.name for path in Path("runs").iterdir()) == ["a", "whole"]


def test_resume_with_the_same_options_or_more_epochs_goes_on(cut):
    assert run(*OPTIONS, "--run", "runs/whole", "--epochs", 8, "--patience", 12)[0] == 0
    code, _, errors = run(*OPTIONS, "--run", "runs/a", "--resume", "--epochs", 8, "--patience", 12)
    assert code == 0 and weights("runs/a") == weights("runs/whole"), errors
    assert load_run("runs/a").info["train"]["epochs"] == 8


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--lr", "0.5"), "lr was 0.02, now 0.5"),
        (("--epochs", "5"), "epochs was 6, now 5"),
        (("--set", "width=7", "--seed", "3"), "width was 6, now 7; seed was 0, now 3"),
        (("--model", "lightgcn"), "the model was dualgnn, now lightgcn"),
        (("--data", "other"), "other data"),
        (("--set", "widht=7"), "did you mean 'width'"),
        (("--force",), "one of them"),
    ],
)
def test_resume_with_something_else_is_refused_with_its_name(cut, words, says):
    save(small.dataset(seed=4), "other")
    assert says in refused("--run", "runs/a", "--resume", *words)
    assert run("--run", "runs/a", "--resume")[0] == 0, "and nothing is lost by it"


def test_what_a_config_file_says_must_be_the_same_too(cut):
    Path("my.toml").write_text('name = "dualgnn"\n[train]\nlr = 0.3\n')
    assert "lr was 0.02, now 0.3" in refused("--run", "runs/a", "--resume", "--config", "my.toml")
    assert run("--run", "runs/a", "--resume", "--config", "runs/a/run.toml")[0] == 0


def test_beginning_anew_over_checkpoints_needs_force(cut):
    text = refused(*OPTIONS, "--run", "runs/a")
    assert "epoch 3" in text and "--resume" in text and "--force" in text
    assert run(*OPTIONS, "--run", "runs/a", "--force", "--model", "bprmf")[0] == 0
    assert load_run("runs/a").info["model"] == "bprmf"
    assert [path.name for path in Path("runs").iterdir()] == ["a"]


def test_a_damaged_checkpoint_is_said_and_the_one_before_used(home):
    assert run(*OPTIONS, "--run", "runs/whole")[0] == 0
    assert (
        run(
            *OPTIONS,
            "--run",
            "runs/a",
            "--checkpoint-every",
            2,
            "--keep-checkpoints",
            "--epochs",
            5,
        )[0]
        == 0
    )
    kept = sorted(Path("runs/a.training").glob("checkpoint-*.safetensors"))
    assert [path.name[11:17] for path in kept] == ["000005", "000006"], (
        "after epoch 4, and at the end"
    )
    kept[1].write_bytes(kept[1].read_bytes()[:-100])
    code, _, errors = run("--run", "runs/a", "--resume", "--epochs", 6)
    assert (
        code == 0
        and f"{kept[1].name} is not what was written there" in errors
        and "resuming from checkpoint-000005" in errors
    )
    assert weights("runs/a") == weights("runs/whole")


def test_every_checkpoint_damaged_is_one_line(cut):
    for path in Path("runs/a.training").glob("*.json"):
        path.write_text("{}")
    assert "--force" in refused("--run", "runs/a", "--resume")


def test_a_finished_run_is_left_as_it_is(home):
    assert run(*OPTIONS, "--run", "runs/a")[0] == 0
    before = {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path("runs/a").iterdir()
    }
    for words in ((), OPTIONS, ("--data", "data")):
        code, out, errors = run("--run", "runs/a", "--resume", *words)
        assert code == 0 and "is finished" in errors and "Best epoch" in out
    assert json.loads(run("--run", "runs/a", "--resume", "--json")[1])["model"] == "dualgnn"
    save(small.dataset(seed=4), "other")
    assert "other data" in refused("--run", "runs/a", "--resume", "--data", "other")
    assert "lr was" in refused("--run", "runs/a", "--resume", "--lr", "3")
    assert "--keep-checkpoints" in refused("--run", "runs/a", "--resume", "--epochs", 9)
    assert before == {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path("runs/a").iterdir()
    }
    assert [path.name for path in Path("runs").iterdir()] == ["a"]


def test_killed_between_saving_the_run_and_removing_the_checkpoints(home, monkeypatch):
    def killed(self):
        raise SystemExit(137)

    monkeypatch.setattr(Checkpoints, "clear", killed)
    assert run(*OPTIONS, "--run", "runs/a", "--checkpoint-every", 1)[0] == 137
    monkeypatch.undo()
    monkeypatch.chdir(home)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["a", "a.training"]
    assert "is finished" in run("--run", "runs/a", "--resume")[2]
    assert [path.name for path in Path("runs").iterdir()] == ["a"]


def test_kept_checkpoints_let_a_finished_run_go_on(home):
    assert run(*OPTIONS, "--run", "runs/a", "--keep-checkpoints")[0] == 0
    assert "is finished" in run("--run", "runs/a", "--resume")[2]
    assert run("--run", "runs/a", "--resume", "--epochs", 8)[0] == 0
    assert run(*OPTIONS, "--run", "runs/whole", "--epochs", 8)[0] == 0
    assert weights("runs/a") == weights("runs/whole")


def test_an_interrupted_run_without_its_checkpoints_says_so(cut):
    for path in Path("runs/a.training").iterdir():
        path.unlink()
    assert "stopped early" in refused("--run", "runs/a", "--resume")


def test_resume_without_anything_begins(home):
    code, _, errors = run(*OPTIONS, "--run", "runs/a", "--resume")
    assert code == 0 and "starts from the beginning" in errors
    assert load_run("runs/a").info["epochs"] == 6


def test_a_second_training_is_refused_before_any_work(cut):
    with Checkpoints("runs/a"):
        for words in (("--resume",), ("--force",)):
            assert f"process {os.getpid()}" in refused("--run", "runs/a", *words)
        assert run(*OPTIONS, "--run", "runs/b")[0] == 0
    assert run("--run", "runs/a", "--resume")[0] == 0


def test_other_versions_are_said(cut, monkeypatch):
    path = next(iter(sorted(Path("runs/a.training").glob("*.json"), reverse=True)))
    info = json.loads(path.read_text())
    info["about"]["versions"]["torch"] = "1.0"
    info.pop("self")
    path.write_text(json.dumps({**info, "self": json_digest(info)}))
    code, _, errors = run("--run", "runs/a", "--resume")
    assert code == 0 and "torch 1.0 → " in errors


def test_a_diverging_training_keeps_the_last_good_checkpoint(home, monkeypatch):
    from dualgnn_dgl.models.dualgnn import DualGNN

    loss, calls = DualGNN.loss, [0]

    def broken(self, *batch):
        calls[0] += 1
        value = loss(self, *batch)
        return value * float("nan") if calls[0] == 12 else value

    monkeypatch.setattr(DualGNN, "loss", broken)
    text = refused(*OPTIONS, "--run", "runs/a", "--checkpoint-every", 1)
    assert "epoch 4, batch 3: the loss is nan" in text, text
    assert "--lr" in text and "the gradient of" in text
    assert [path.name for path in Path("runs").iterdir()] == ["a.training"]
    assert run(*OPTIONS, "--run", "runs/whole")[0] == 0
    code, _, errors = run("--run", "runs/a", "--resume")
    assert (
        code == 0
        and "checkpoint-000004-000000000" in errors
        and weights("runs/a") == weights("runs/whole")
    )


# ---------------------------------------------------------------- signals, to real processes

SLOW_SAVE = """
import sys, time
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.cli.main import main
save = checkpoint.save_run
def slow(*arguments, **keywords):
    print("saving", file=sys.stderr, flush=True)
    time.sleep(100)
    save(*arguments, **keywords)
checkpoint.save_run = slow
sys.argv = ["dualgnn", "train", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_the_run_is_saved_leaves_at_once_and_loses_nothing(home, number):
    """The first ends training; the second, while the run is being saved, the process.

    What was trained is in the checkpoint.
    """
    words = (
        "--run",
        "runs/a",
        "--epochs",
        "300",
        "--patience",
        "300",
        "--set",
        "width=6",
        "--gpu",
        "-1",
        "--model",
        "bprmf",
    )
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW_SAVE, *words],
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=ONE_THREAD,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        heard = []
        for line in child.stderr:
            heard.append(line)
            if "epoch 5/" in line:
                child.send_signal(number)
            if line == "saving\n":
                break
        began = time.monotonic()
        child.send_signal(number)
        assert child.wait(timeout=20) == -number and time.monotonic() - began < 5, "".join(heard)
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
    assert any("once more leaves at once" in line for line in heard)
    assert sorted(path.name for path in Path("runs").iterdir()) == [".a.lock", "a.training"]
    assert run(*words, "--run", "runs/whole")[0] == 0
    code, _, errors = run("--run", "runs/a", "--resume")
    assert code == 0 and "resuming from" in errors and weights("runs/a") == weights("runs/whole")


@pytest.fixture
def listening():
    """SIGINT as in a terminal: tests that a script starts in the background inherit "ignore"."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_training_ends_with_its_status_and_leaves_nothing(
    home, listening, monkeypatch, number, status
):
    from dualgnn_dgl import data as datasets

    def load(folder):
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise RunError("the signal did not come")

    monkeypatch.setattr(datasets, "load", load)
    before = signal.getsignal(number)
    code, out, errors = run(*OPTIONS, "--run", "runs/a")
    assert code == status and out == "" and "Error" not in errors
    assert signal.getsignal(number) == before and [path.name for path in home.iterdir()] == ["data"]


def test_who_was_made_deaf_to_ctrl_c_stays_so(home, listening, monkeypatch):
    """`dualgnn train … &` in a script: Ctrl-C there is meant for somebody else."""
    due = Checkpoints.due

    def counted(self, epochs=None, *, last=False):
        os.kill(os.getpid(), signal.SIGINT)
        return due(self, epochs, last=last)

    monkeypatch.setattr(Checkpoints, "due", counted)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code, out, errors = run(*OPTIONS, "--run", "runs/a", "--epochs", 2)
    assert (
        code == 0 and "Best epoch" in out and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    ), errors
    assert not load_run("runs/a").info["interrupted"]
