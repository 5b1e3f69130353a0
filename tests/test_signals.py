"""Ctrl-C, SIGTERM and SIGHUP end every verb in order, at any moment, with exit status 128 + number
and no traceback.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pty
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import small
import trial
from figures import LONG, record
from test_streams import words

from dualgnn_dgl.cli import stop
from dualgnn_dgl.cli.main import VERBS
from dualgnn_dgl.data import load, save
from dualgnn_dgl.errors import DualGNNError
from dualgnn_dgl.experiments.robustness.cells import Bench
from dualgnn_dgl.runs.checkpoint import load_run

PROGRAM = [sys.executable, "-m", "dualgnn_dgl.cli.main"]
SCRIPT = Path(sys.executable).with_name("dualgnn")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
ROUNDS = 300 if LONG else 12


def as_in_a_terminal() -> None:
    """No signal is ignored: those that a script starts in the background inherit that Ctrl-C is."""
    for number in stop.SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def listens(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process handles SIGTERM by now, which Python by itself does not."""
    with contextlib.suppress(OSError, StopIteration):
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> trial.World:
    made = trial.world(tmp_path_factory.mktemp("world"))
    shutil.copytree(made.run, made.folder / "run2")
    (made.folder / "new.csv").write_text("user,item\nnew1,v1\nnew1,v2\nnew1,v3\n")
    return made


def whole_or_nothing(out: Path) -> None:
    """Every folder that the commands of `words` write is valid or is not there."""
    for name, read in (("data", load), ("run", load_run), ("d", load), ("r", load_run)):
        if (out / name).exists():
            read(out / name)


@pytest.fixture
def heard() -> Iterator[None]:
    """Children ignore no signal: for tests that start them in threads, where `preexec_fn` is not
    safe.
    """
    ignored = [number for number in stop.SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="needs /proc to see whether handlers are installed",
)
def test_a_signal_at_any_moment_ends_every_verb_in_order(
    world: trial.World, tmp_path: Path, heard: None
) -> None:
    """Moments from 0 to 3 s after the start, which is mostly imports.

    Before our first line Python itself answers.
    """
    verbs, draw = list(VERBS), random.Random(7)
    moments = [draw.uniform(0, 3) for _ in range(ROUNDS)]

    def strike(turn: int) -> tuple[str, float]:
        verb, number = (
            verbs[turn % len(verbs)],
            stop.SIGNALS[turn // len(verbs) % 3 if LONG else turn % 3],
        )
        out = tmp_path / str(turn)
        out.mkdir()
        program = [str(SCRIPT)] if SCRIPT.exists() and turn % 2 else PROGRAM
        command = [*program, *words(verb, world, out)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ONE_THREAD
        )
        time.sleep(moments[turn])
        ours, sent = listens(process), time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        seconds, said, code = time.monotonic() - sent, errors.decode(), process.returncode
        case = (verb, number.name, turn, moments[turn], code, said)
        whole_or_nothing(out)
        if code == 0:
            return "ended before", 0.0
        assert not ours or code == 128 + number, case
        # to Ctrl-C Python's own start answers with a traceback, and at times with status 1
        if ours or number != signal.SIGINT:
            assert code in (128 + number, -number), case
            for word in ("Traceback", "Exception ignored", "Error"):
                assert word not in said, case
        return "in order" if ours else "before our first line", seconds

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(strike, range(ROUNDS)))
    kinds, slowest = Counter(kind for kind, _ in found), max(seconds for _, seconds in found)
    assert kinds["in order"] >= ROUNDS // 4 and slowest < 10, (kinds, slowest)
    record(
        "signals",
        {
            "signals": ROUNDS,
            **dict(kinds),
            "tracebacks": 0,
            "slowest_exit_seconds": round(slowest, 1),
        },
    )


@pytest.fixture
def program(tmp_path: Path):
    """Runs a small program that is called `dualgnn`, with a `click` that says it is being imported
    and takes its time.
    """
    started = []
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "click.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(30)\n"
    )

    def start(script: str, *more: str, slow: bool = False, **given) -> subprocess.Popen[str]:
        file = tmp_path / "dualgnn"
        file.write_text(script)
        environment = ONE_THREAD | ({"PYTHONPATH": str(tmp_path / "slow")} if slow else {})
        process = subprocess.Popen(
            [sys.executable, str(file), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=given.get("prepare", as_in_a_terminal),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


CONSOLE = "from dualgnn_dgl.cli.main import main\n"


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_during_the_first_imports(program, number: signal.Signals) -> None:
    process = program(CONSOLE, slow=True)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 128 + number


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_during_the_shutdown(program, number: signal.Signals) -> None:
    script = (
        "import atexit, time\natexit.register(lambda: (print('down', flush=True), "
        "time.sleep(30)))\n" + CONSOLE + "main()\n"
    )
    process = program(script, "--version")
    assert process.stdout.readline().startswith("dualgnn") and process.stdout.readline() == "down\n"
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 128 + number


VERB = """
import sys, time
from dualgnn_dgl.cli import main, stop

class Resource:
    def __enter__(self): pass
    def __exit__(self, *error): print("removed", flush=True)

def work(*_):
    {work}

main.Verbs._invoke = work
sys.argv[1:] = ["train"]
main.main()
"""

AT_WORK = {
    "in order": "with Resource(): print('working', flush=True); time.sleep(30)",
    "dropped in __del__": """
    class Late:
        def __del__(self): print("working", flush=True); time.sleep(0.5)
    late = Late()
    try:
        del late
        time.sleep(30)
    finally: print("removed", flush=True)
""",
    "within an import": """
    import os; sys.path.insert(0, os.environ["HERE"])
    try: import late
    finally: print("removed", flush=True)
    time.sleep(30)
""",
    "turned into another error": """
    try:
        with Resource(): print("working", flush=True); time.sleep(30)
    except BaseException: raise ValueError("a library's own") from None
""",
    "taken for an end": """
    try:
        with Resource(): print("working", flush=True); time.sleep(30)
    except BaseException: pass
""",
}


@pytest.mark.parametrize("number", stop.SIGNALS)
@pytest.mark.parametrize("kind", AT_WORK)
def test_while_a_verb_works(
    kind: str, number: signal.Signals, program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through all `finally` blocks, whatever became of the interruption on the way."""
    (tmp_path / "late.py").write_text(
        "import time\nprint('working', flush=True)\ntime.sleep(0.5)\n"
    )
    monkeypatch.setitem(ONE_THREAD, "HERE", str(tmp_path))
    process = program(VERB.format(work=AT_WORK[kind]))
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    assert (
        process.communicate(timeout=20) == ("removed\n", "") and process.returncode == 128 + number
    )


def test_an_import_without_end_is_left(
    program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late.py").write_text("import time\nprint('working', flush=True)\ntime.sleep(50)\n")
    monkeypatch.setitem(ONE_THREAD, "HERE", str(tmp_path))
    process = program(VERB.format(work=AT_WORK["within an import"]))
    assert process.stdout.readline() == "working\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 143
    assert time.monotonic() - began < stop.IMPORT + 3


def test_a_verb_that_does_not_let_go_is_left(program) -> None:
    work = """
    stop.LONGEST = 0.5
    while True:
        try: print("working", flush=True); time.sleep(30)
        except BaseException: pass
"""
    process = program(VERB.format(work=work))
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("working\n", "") and process.returncode == 143


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_a_second_signal_leaves_at_once(program, number: signal.Signals) -> None:
    """A second SIGHUP within a second is the same hang-up.

    The shell sends one after the terminal's.
    """
    work = """
    try: print("working", flush=True); time.sleep(30)
    finally:
        print("removing", flush=True)
        time.sleep(30)
"""
    process = program(VERB.format(work=work))
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    assert process.stdout.readline() == "removing\n"
    if number == signal.SIGHUP:
        process.send_signal(number)
        time.sleep(stop.ECHO + 0.2)
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=4)
    assert process.returncode in (128 + number, -number)


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_a_signal_that_was_ignored_stays_so(program, number: signal.Signals) -> None:
    """`nohup dualgnn train`, and `dualgnn train &` in a script."""
    process = program(
        VERB.format(
            work="print('working', flush=True); time.sleep(0.3); print('done', flush=True)"
        ),
        prepare=lambda: signal.signal(number, signal.SIG_IGN),
    )
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("done\n", "") and process.returncode == 0


def test_handlers_are_as_before_after_a_command() -> None:
    before = [signal.getsignal(number) for number in (*stop.SIGNALS, signal.SIGALRM)]
    assert trial.call("train", "--print-config").code == 0
    assert [signal.getsignal(number) for number in (*stop.SIGNALS, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0) and stop.Stop.current is None


def test_another_program_keeps_its_handlers() -> None:
    script = (
        "import signal; b = [signal.getsignal(n) for n in (1, 2, 15)]; from dualgnn_dgl.cli "
        "import main; "
    )
    script += "assert b == [signal.getsignal(n) for n in (1, 2, 15)]"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


# ---------------------------------------------------------------- what has been done is kept

LONG_TRAINING = ("--model", "dualgnn", "--epochs", "100000", "--patience", "100000", "--gpu", "-1")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the demo."""
    folder = tmp_path_factory.mktemp("large") / "data"
    assert trial.call("preprocess", "--data", folder, limit=600).code == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", stop.SIGNALS if LONG else [signal.SIGHUP])
def test_a_long_training_ends_within_ten_seconds_and_goes_on(
    large: Path, tmp_path: Path, number: signal.Signals
) -> None:
    slowest = 0.0
    for turn in range(10 if LONG else 1):
        run = tmp_path / str(turn)
        command = [*PROGRAM, "train", "--data", str(large), "--run", str(run), *LONG_TRAINING]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=ONE_THREAD, preexec_fn=as_in_a_terminal
        )
        for line in process.stderr:
            if line.startswith("epoch 1/"):
                break
        time.sleep(turn * 0.37)
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        slowest = max(slowest, time.monotonic() - began)
        assert (
            process.returncode == 128 + number
            and "--resume continues" in said
            and "Traceback" not in said
        ), said
        assert load_run(run).info["interrupted"] and list(
            Path(f"{run}.training").glob("checkpoint-*.json")
        )
        assert slowest < 10
    machine = f"{platform.machine()}, {os.cpu_count()} cores, shared"
    record(
        f"training_{number.name.lower()}",
        {"trainings": 10, "slowest_exit_seconds": round(slowest, 1), "machine": machine},
    )


def test_a_reader_of_stderr_that_does_not_read_delays_no_end(large: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    os.set_blocking(writer, True)
    command = [
        *PROGRAM,
        "train",
        "--data",
        str(large),
        "--run",
        str(tmp_path / "run"),
        *LONG_TRAINING,
    ]
    process = subprocess.Popen(
        command, stderr=writer, stdout=subprocess.PIPE, env=ONE_THREAD, preexec_fn=as_in_a_terminal
    )
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    os.close(reader)
    os.close(writer)


def test_a_reader_of_stdout_that_does_not_read_delays_no_end(program) -> None:
    process = program(
        VERB.format(work="print('working', flush=True); print('x' * 999_999, flush=True)")
    )
    assert process.stdout.readline() == "working\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143 and time.monotonic() - began < 6


def test_a_terminal_that_closes_costs_no_training(large: Path, tmp_path: Path) -> None:
    """The kernel sends SIGHUP, and every write to the terminal fails from then on."""
    command = [
        *PROGRAM,
        "train",
        "--data",
        str(large),
        "--run",
        str(tmp_path / "run"),
        *LONG_TRAINING,
    ]
    child, terminal = pty.fork()
    if child == 0:
        as_in_a_terminal()
        os.execve(command[0], command, ONE_THREAD)
    shown = b""
    while b"epoch 2/" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    began = time.monotonic()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 129 and time.monotonic() - began < 10
    assert load_run(tmp_path / "run").info["interrupted"]
    assert list((tmp_path / "run.training").glob("checkpoint-*.json"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(small.dataset(), "data")
    for number in stop.SIGNALS:
        if signal.getsignal(number) == signal.SIG_IGN:
            pytest.skip(f"{number.name} is ignored here")
    return tmp_path


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_robustness_keeps_its_cells(
    home: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begun = Bench.run, []

    def struck(self, cell):
        begun.append(cell)
        if len(begun) == 2:
            os.kill(os.getpid(), number)
            time.sleep(1)
        return run(self, cell)

    command = (
        "robustness",
        "--models",
        "bprmf",
        "--rates",
        "0",
        "--strategies",
        "mask",
        "--seeds",
        3,
        "--epochs",
        1,
    )
    monkeypatch.setattr(Bench, "run", struck)
    done = trial.call(*command, "--set", "bprmf.width=3", "--gpu", -1)
    assert done.code == 128 + number and "the finished cells are kept" in done.err, done
    done = trial.call(*command, "--set", "bprmf.width=3", "--gpu", -1)
    assert done.code == 0 and "2/3" in done.err and "1/3" not in done.err, done


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_tune_keeps_its_trials(
    home: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    from dualgnn_dgl import training
    from dualgnn_dgl.training import chain

    fit, begun = training.fit, []

    def struck(*given, **named):
        begun.append(given)
        if len(begun) == 2:
            os.kill(os.getpid(), number)
            time.sleep(1)
        return fit(*given, **named)

    command = (
        "tune",
        "--model",
        "bprmf",
        "--trials",
        3,
        "--study",
        "s",
        "--epochs",
        1,
        "--gpu",
        -1,
    )
    monkeypatch.setattr(chain, "fit", struck)
    done = trial.call(*command)
    assert (
        done.code == 128 + number
        and "the finished trials are kept" in done.err
        and "validation" in done.out
    ), done
    done = trial.call(*command)
    assert done.code == 0 and "1 trials are finished already" in done.err, done


@pytest.mark.parametrize("number", stop.SIGNALS)
@pytest.mark.parametrize("verb", ["preprocess", "eval", "compare", "recommend", "update"])
def test_the_other_verbs_write_nothing(
    verb: str,
    number: signal.Signals,
    world: trial.World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted while their result is being written, or for those that write none, ranked."""
    from dualgnn_dgl import evaluation
    from dualgnn_dgl.core import exchange, files
    from dualgnn_dgl.verbs import recommend

    def struck(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(1)
        raise DualGNNError("the signal did not come")

    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here")
    for module in (files, exchange):
        monkeypatch.setattr(module, "sync", struck)
    monkeypatch.setattr(evaluation.Evaluator, "rank", struck)
    monkeypatch.setattr(recommend, "top_k", struck)
    done = trial.call(*words(verb, world, tmp_path))
    assert (
        done.code == 128 + number and not done.trace and done.out == "" and "Error" not in done.err
    ), done
    assert list(tmp_path.rglob("*")) == []
