"""stdin, stdout and stderr that are closed, full or no longer read.

What is written to them cannot disturb a terminal.
"""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path

import click
import pytest
import small
import trial
from figures import LONG, record

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.main import VERBS, group
from dualgnn_dgl.cli.show import PATH
from dualgnn_dgl.data import load
from dualgnn_dgl.errors import LONGEST, DataError, clean, clean_lines, json_text, shorten, toml_text
from dualgnn_dgl.runs.checkpoint import load_run

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-m", "dualgnn_dgl.cli.main"]
PRINTING = ("eval", "compare", "recommend")  # all that these make goes to stdout
SHELL = shutil.which("bash")

# redirection → whether stdout can be written to its end, whether stderr is seen by the test
FAULTS = {
    "0<&-": (True, True),
    "2>&-": (True, False),
    "2>/dev/full": (True, False),
    "2> >(head -c 9 >/dev/null)": (True, False),
    "2>&1 >kept | head -c 9 >/dev/null": (True, False),
    ">&-": (False, True),
    ">/dev/full": (False, True),
    "</dev/null 1<&0": (False, True),  # open for reading only
    "| head -c 1 >/dev/null": (True, True),
    "2>&1 | head -c 9 >/dev/null": (True, False),
    "0<&- >&- 2>&-": (False, False),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> trial.World:
    made = trial.world(tmp_path_factory.mktemp("world"))
    shutil.copytree(made.run, made.folder / "run2")
    (made.folder / "new.csv").write_text("user,item\nnew1,v1\nnew1,v2\nnew1,v3\n")
    return made


def words(verb: str, world: trial.World, out: Path) -> list[str]:
    """A quick command of every verb; what it writes goes below `out`."""
    training = ("--model", "bprmf", "--epochs", 2, "--set", "width=3", "--gpu", -1)
    found = {
        "preprocess": ("--input", world.folder / "log.csv", "--data", out / "data"),
        "train": ("--data", world.data, "--run", out / "run", *training),
        "tune": ("--data", world.data, "--study", out / "study", "--trials", 1, *training),
        "eval": ("--run", world.run, "--gpu", -1, "--topk", 3, "--bootstrap", 0),
        "compare": (world.run, world.folder / "run2", "--gpu", -1, "--topk", 3, "--bootstrap", 10),
        "recommend": ("--run", world.run, "--user", "user1", "--k", 3, "--gpu", -1),
        "update": (
            "--run",
            world.run,
            "--input",
            world.folder / "new.csv",
            "--new-data",
            out / "d",
            "--new-run",
            out / "r",
        ),
        "robustness": (
            *(
                "--data",
                world.data,
                "--out",
                out / "o",
                "--models",
                "bprmf",
                "--rates",
                "0",
                "--strategies",
                "mask",
            ),
            *("--seeds", 1, "--epochs", 1, "--set", "bprmf.width=3", "--gpu", -1),
        ),
    }
    return [verb, *map(str, found[verb])]


def whole(verb: str, out: Path) -> None:
    """What the verb should have written is there, and can be read."""
    if verb == "preprocess":
        load(out / "data")
    elif verb == "train":
        assert load_run(out / "run").info["epochs"] == 2
    elif verb == "tune":
        assert (out / "study" / "run.toml").is_file()
    elif verb == "update":
        assert load_run(out / "r").info["data"]["hash"] == load(out / "d").hash
    elif verb == "robustness":
        assert (out / "o" / "table.md").is_file()
    assert not list(out.rglob("*.tmp"))


def run_with(fault: str, command: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    """The command as a real process of a shell with that redirection; its own exit status."""
    line = f'"$@" {fault}\nexit ${{PIPESTATUS[0]}}'
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [SHELL, "-c", line, "sh", *command],
        cwd=folder,
        capture_output=True,
        timeout=120,
        env=environment,
    )


def cases() -> list[tuple[str, str]]:
    """All pairs of verb and fault in the long form, else some of each kind."""
    every = [(verb, fault) for verb in VERBS for fault in FAULTS]
    if LONG:
        return every
    quick = [
        ("preprocess", fault)
        for fault in ("0<&- >&- 2>&-", "2>&1 | head -c 9 >/dev/null", "</dev/null 1<&0")
    ]
    quick += [("train", fault) for fault in ("2>&-", "2>&1 | head -c 9 >/dev/null", ">/dev/full")]
    return [
        *quick,
        ("eval", ">/dev/full"),
        ("recommend", "| head -c 1 >/dev/null"),
        ("tune", "0<&- >&- 2>&-"),
    ]


@pytest.mark.slow
@pytest.mark.skipif(
    SHELL is None or not Path("/dev/full").exists(), reason="needs bash and /dev/full"
)
def test_no_stream_that_fails_costs_the_work(world: trial.World, tmp_path: Path) -> None:
    """Results are written, the status is that of the work, and a lost result is one line and status
    1.
    """
    for number, (verb, fault) in enumerate(cases()):
        out = tmp_path / str(number)
        out.mkdir()
        done = run_with(fault, [*PROGRAM, *words(verb, world, out)], out)
        written, seen = FAULTS[fault]
        wanted = 0 if written or verb not in PRINTING else 1
        assert done.returncode == wanted, (verb, fault, done)
        shown = done.stderr.decode()
        for word in ("Traceback", "Exception ignored", "BrokenPipe"):
            assert word not in shown, (verb, fault, shown)
        if seen and not written:
            last = shown.splitlines()[-1]
            assert "stdout cannot be written" in last and last.startswith("Error: ") == (
                verb in PRINTING
            ), (verb, fault, shown)
        whole(verb, out)
    record("streams", {"commands": len(cases()), "lost": 0, "tracebacks": 0})


@pytest.mark.skipif(
    SHELL is None or not Path("/dev/full").exists(), reason="needs bash and /dev/full"
)
@pytest.mark.parametrize(
    "option",
    [["--help"], ["--version"], ["train", "--print-config"], ["no-such-verb"], ["train", "--help"]],
)
def test_pages_of_text_end_the_same_way(option: list[str], tmp_path: Path) -> None:
    mistake = 2 if option == ["no-such-verb"] else None
    for fault, (written, _) in list(FAULTS.items())[:: 1 if LONG else 4]:
        done = run_with(fault, [*PROGRAM, *option], tmp_path)
        assert done.returncode == (mistake or int(not written)), (fault, done)
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


def test_a_mistake_keeps_its_status_whatever_stderr_is(tmp_path: Path) -> None:
    for fault in ("2>&-", "2>/dev/full", "2>&1 | true"):
        assert run_with(fault, [*PROGRAM, "eval", "--run", "nowhere"], tmp_path).returncode == 1


def test_a_closed_stream_gives_its_number_to_no_data_file(tmp_path: Path) -> None:
    """Else what a library writes to stderr by its number would land in the file that was opened
    next.
    """
    script = (
        "import os; from dualgnn_dgl.cli import stop; stop.open_standard_files(); "
        "stop.open_standard_files()\n"
        "file = open('data', 'wb'); os.write(1, b'stray'); os.write(2, b'stray'); os.read(0, 1); "
        "os._exit(file.fileno() < 3)"
    )
    for fault in ("0<&-", "1>&-", "2>&-", "0<&- 1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"):
        done = run_with(fault, [sys.executable, "-c", script], tmp_path)
        assert done.returncode == 0 and (tmp_path / "data").read_bytes() == b"", (fault, done)


# ---------------------------------------------------------------- the stream itself


def test_a_stream_without_a_reader_drops_what_it_is_given() -> None:
    reader, writer = os.pipe()
    stream = streams.Stream(writer)
    assert stream.write(b"abc") == 3 and os.read(reader, 9) == b"abc" and stream.lost is None
    os.close(reader)
    assert (
        stream.write(b"abc") == 3 and stream.lost is not None and stream.lost.errno == errno.EPIPE
    )
    assert os.write(writer, b"a library's own") == 15, "the number is on /dev/null now"
    assert stream.write(b"abc") == 3 and not stream.isatty()
    os.close(writer)


def test_a_stream_waits_for_a_slow_reader_and_writes_all() -> None:
    content = random.Random(1).randbytes(300_001)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # another process may have made it so
    child = os.fork()
    if child == 0:
        os.close(reader)
        streams.Stream(writer).write(content)
        os._exit(0)
    os.close(writer)
    found = b""
    while part := os.read(reader, 7_001):
        found += part
    os.waitpid(child, 0)
    os.close(reader)
    assert found == content


def test_a_command_that_is_ending_does_not_wait_for_a_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_leaving", True)
    monkeypatch.setattr(streams, "BLOCKED", 0.01)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    stream = streams.Stream(writer)
    assert stream.write(b"abc") == 3 and stream.lost is not None
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_without_a_stderr_nothing_is_a_terminal(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not streams.terminal()
    streams.note("said")
    if stream is not None:
        stream.close()
        assert not streams.terminal()
        streams.note("said")


def test_json_is_json_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"title": "é漢👩‍🚀\x9b\u202e\U000e0001", "path": "\udcff"}
    for encoding in ("utf-8", "ascii", "latin-1"):
        content = io.BytesIO()
        monkeypatch.setattr(
            sys, "stdout", io.TextIOWrapper(content, encoding, errors="backslashreplace")
        )
        streams.result(value)
        assert json.loads(content.getvalue().decode(encoding)) == value


# ---------------------------------------------------------------- what is written

HARMFUL = [
    chr(code)
    for code in range(0x110000)
    if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp")
]
KEPT = "\n\u200c\u200d"  # the joiners hold emoji and some scripts together


def test_no_character_reaches_a_terminal_that_could_disturb_it() -> None:
    text = "".join(f"a{letter}b " for letter in HARMFUL)
    for shown in (clean(text), clean_lines(text)):
        assert not set(shown) & set(HARMFUL) - set(KEPT)
    assert "\n" not in clean(text) and clean_lines("a  b\n  c") == "a  b\n  c"
    every = "".join(map(chr, range(0x110000)))
    assert clean(every).encode() and clean_lines(every).encode(), "no lone surrogate is left either"


def test_json_and_toml_read_back_as_what_was_written() -> None:
    value = {letter: [letter + "é漢"] for letter in (*HARMFUL, "\ud800", "\udcff", "\\", '"')}
    for indent in (None, 2):
        text = json_text(value, indent)
        assert (
            json.loads(text) == value and not set(text) & set(HARMFUL) - set(KEPT) and text.encode()
        )
    for letter in HARMFUL:
        line = f"key = {toml_text('é' + letter)}"
        assert tomllib.loads(line) == {"key": "é" + letter} and not set(line) & set(HARMFUL) - set(
            KEPT
        )


HOSTILE = "x\x1b[31my\x9b2Jz\x07[red]w\u202ev\x7f"


def test_names_of_files_do_not_disturb_the_terminal(world: trial.World, tmp_path: Path) -> None:
    """Every verb, as text and as JSON: paths, ids, titles and what was not read."""
    folder = tmp_path / HOSTILE
    shutil.copytree(world.folder, folder)
    log = folder / "log"
    log.mkdir()
    shutil.copy(folder / "log.csv", log)
    (log / f"ignored{HOSTILE}.pdf").write_bytes(b"x")
    moved = trial.World(folder, folder / "data", folder / "run", folder / "run.toml", {})
    for verb in VERBS:
        if verb == "tune":
            pytest.importorskip("optuna")
        for more in ([], ["--json"]):
            out = tmp_path / f"{HOSTILE}{verb}{len(more)}"
            command = words(verb, moved, out)
            if verb in ("eval", "compare", "recommend", "update"):
                command += ["--data", str(moved.data)]
            if verb == "preprocess":
                command[2] = str(log)
            done = trial.call(*command, *more)
            assert done.code == 0 and not done.trace, (verb, done)
            assert verb != "preprocess" or "not read: " in done.err and "[red]" in done.err
            assert not set(done.out + done.err) & set(HARMFUL) - set(KEPT), (verb, done)
            if more and done.code == 0:
                assert (
                    json.dumps(HOSTILE)[1:-1] in json.dumps(json.loads(done.out))
                    or verb == "robustness"
                )


def test_warnings_and_logs_are_cleaned_as_well() -> None:
    script = (
        "import logging, sys, warnings; from dualgnn_dgl.cli import main as m\n"
        "def work(*_): logging.getLogger('dualgnn_dgl').warning('%s: lost', text); "
        "warnings.warn(text)\n"
        "text = sys.argv[1]; m.Verbs._invoke = work; sys.argv[1] = 'train'; m.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, HOSTILE], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr.count("warning: ") == 2, done
    assert not set(done.stderr) & set(HARMFUL) - set(KEPT)


# ---------------------------------------------------------------- one place that writes


def writers(path: Path) -> list[str]:
    """Where a file writes to stdout or stderr by itself."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if re.fullmatch(r"sys\.(__)?std(out|err)(__)?", name):
                found.append(f"{path.name}:{node.lineno}: {name}")
            continue
        name = ast.unparse(node.func)
        number = (
            node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        )
        if name in ("print", "click.echo", "click.secho", "Console", "rich.print") or (
            name == "os.write" and number in (1, 2)
        ):
            found.append(f"{path.name}:{node.lineno}: {name}")
    return found


def test_one_module_writes_to_the_streams() -> None:
    allowed = {"streams.py": 99, "stop.py": 2}  # `stop.leave` flushes both
    for path in [*(ROOT / "cli").rglob("*.py"), *(ROOT / "dualgnn_dgl").rglob("*.py")]:
        found = writers(path)
        assert len(found) <= allowed.get(path.name, 0), found


def test_the_guard_sees_writers(tmp_path: Path) -> None:
    lines = [
        "print(1)",
        "click.echo(x)",
        "sys.stdout.write(x)",
        "x = sys.__stderr__",
        "os.write(2, b'')",
        "Console()",
    ]
    (tmp_path / "x.py").write_text("\n".join(lines))
    assert len(writers(tmp_path / "x.py")) == len(lines)


# ---------------------------------------------------------------- bounded lines


def test_messages_are_bounded_and_keep_their_remedy() -> None:
    error = DataError(f"the id '{'x' * 100_000}' is unknown: name it with --user-col")
    assert (
        len(str(error)) <= LONGEST
        and str(error).endswith("name it with --user-col")
        and "…" in str(error)
    )
    for size in range(10, 60):
        assert len(shorten("y" * size, 30)) <= 30
    assert shorten("y" * 30, 30) == "y" * 30


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--set", f"{'k' * 90_000}=1"),
        ("train", "--set", f"metric={'k' * 90_000}"),
        ("train", "--model", "m" * 90_000),
        ("train", f"--{'o' * 90_000}"),
        ("v" * 90_000,),
        ("preprocess", "--input", "p" * 90_000),
        ("preprocess", "--input", "LOG", "--user-col", "c" * 90_000, "--check"),
        ("eval", "--run", "p/" * 45_000),
        ("recommend", "--run", "RUN", "--user", "u" * 90_000, "--gpu", -1),
        ("recommend", "--run", "RUN", "--history", "u" * 90_000, "--gpu", -1),
        ("robustness", "--models", "m" * 90_000, "--data", "DATA"),
    ],
    ids=lambda command: " ".join(str(word)[:12] for word in command),
)
def test_long_values_make_no_long_lines(command: tuple[str, ...], world: trial.World) -> None:
    places = {"LOG": world.folder / "log.csv", "RUN": world.run, "DATA": world.data}
    done = trial.call(*(places.get(word, word) for word in command))
    assert done.code in (1, 2) and not trial.fault(done), done.err[-300:]
    assert max(map(len, done.err.splitlines())) <= LONGEST + len("Error: ")


@pytest.mark.parametrize("header", [True, False])
def test_long_content_makes_no_long_lines(header: bool, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    field = "x" * 60_000
    log.write_text(f"user,item,{field}\na,b,c\n" if header else f"user,item,rating\na,b,{field}\n")
    done = trial.call(
        "preprocess", "--input", log, "--check", "--rating-col", "rating", "--min-rating", 3
    )
    assert (
        done.code == 1
        and not trial.fault(done)
        and max(map(len, done.err.splitlines())) <= LONGEST + 7
    )


# ---------------------------------------------------------------- paths

# options that take free text, and are no path
FREE_TEXT = {
    *(
        "user_col",
        "item_col",
        "rating_col",
        "time_col",
        "split_col",
        "separator",
        "pairs",
        "wanted",
        "watched",
        "memory",
        "positive",
    ),
    *("models", "rates", "patterns", "stages", "strategies"),
}


def parameters() -> list[tuple[str, click.Parameter]]:
    context = click.Context(group)
    return [
        (verb, parameter) for verb in VERBS for parameter in group.get_command(context, verb).params
    ]


def test_every_option_of_text_is_a_path_or_known_to_be_none() -> None:
    for verb, parameter in parameters():
        if parameter.type is click.STRING:
            assert parameter.name in FREE_TEXT, (
                f"{verb} {parameter.opts}: give it the type PATH, or add it to FREE_TEXT"
            )
        else:
            assert parameter.name not in FREE_TEXT
    assert sum(parameter.type is PATH for _, parameter in parameters()) > 20


def test_a_leading_tilde_is_the_home_folder_in_every_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for verb, parameter in parameters():
        if parameter.type is PATH:
            context = click.Context(click.Command(verb))
            for given, wanted in (
                ("~/x", f"{tmp_path}/x"),
                ("~", str(tmp_path)),
                ("./~", "./~"),
                ("a~", "a~"),
                ("", ""),
            ):
                value = parameter.type_cast_value(
                    context, [given] if parameter.multiple or parameter.nargs == -1 else given
                )
                assert value == ((wanted,) if isinstance(value, tuple) else wanted), (
                    verb,
                    parameter.name,
                )


def test_a_run_below_the_home_folder(
    world: trial.World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    done = trial.call("preprocess", "--input", world.folder / "log.csv", "--data=~/d", "--json")
    assert done.code == 0 and json.loads(done.out)["data"] == str(home / "d"), done
    done = trial.call(
        "train", "--data=~/d", "--run=~/r", "--model", "bprmf", "--epochs", 1, "--gpu", -1
    )
    assert done.code == 0 and load_run(home / "r").info["data"]["path"] == str(home / "d"), done
    assert [path.name for path in tmp_path.iterdir()] == ["home"], "no folder named ~"


RAW = os.fsdecode(b"caf\xe9\xff")  # no UTF-8


def can_hold(folder: Path) -> bool:
    """Whether the file system takes such names."""
    try:
        (folder / RAW).touch()
    except OSError:
        return False
    return True


def test_names_that_are_not_utf_8_can_be_written_and_read_back(
    world: trial.World, tmp_path: Path
) -> None:
    """Outputs of such a name, and JSON that names them."""
    if not can_hold(tmp_path):
        pytest.skip("this file system takes UTF-8 names only")
    run, file = tmp_path / f"run{RAW}", tmp_path / f"file{RAW}.parquet"
    done = trial.call(
        "train",
        "--data",
        world.data,
        "--run",
        run,
        "--model",
        "bprmf",
        "--epochs",
        1,
        "--gpu",
        -1,
        "--json",
    )
    assert done.code == 0 and json.loads(done.out)["run"] == str(run), done
    assert "\\udce9" in done.out and "caf\\xe9\\xff" in done.err, done
    for more in (
        ["eval", "--per-user", file, "--topk", 3],
        ["recommend", "--all", file, "--k", 3, "--force"],
    ):
        done = trial.call(*more, "--run", world.run, "--gpu", -1)
        assert done.code == 0 and file.is_file() and (done.out + done.err).encode(), done
    done = trial.call(
        "preprocess",
        "--input",
        world.folder / "log.csv",
        "--data",
        tmp_path / f"data{RAW}",
        "--json",
    )
    assert done.code == 0 and json.loads(done.out)["data"] == str(tmp_path / f"data{RAW}"), done
    done = trial.call("recommend", "--run", world.run, "--user", RAW, "--gpu", -1)
    assert done.code == 1 and not trial.fault(done) and "caf\\xe9\\xff" in done.err


def test_names_that_are_not_utf_8_can_be_inputs(world: trial.World, tmp_path: Path) -> None:
    pytest.importorskip("dualgnn_dgl.core.inputs")
    if not can_hold(tmp_path):
        pytest.skip("this file system takes UTF-8 names only")
    folder = tmp_path / f"in{RAW}"
    shutil.copytree(world.folder, folder)
    moved = trial.World(folder, folder / "data", folder / "run", folder / "run.toml", {})
    for name in ("log.csv", "visual.npy", "items.csv", "log.parquet"):
        shutil.copy(folder / name, folder / f"{RAW}{name}")
    done = trial.call(
        *(
            "preprocess",
            "--input",
            folder / f"{RAW}log.csv",
            "--items",
            folder / f"{RAW}items.csv",
            "--json",
        ),
        *("--features", folder / f"{RAW}visual.npy", "--data", tmp_path / f"out{RAW}"),
    )
    assert done.code == 0 and load(tmp_path / f"out{RAW}").num_items == trial.ITEMS, done
    path = json.loads((tmp_path / f"out{RAW}" / "dataset.json").read_text("utf-8"))["options"][
        "input"
    ]
    assert path == str(folder / f"{RAW}log.csv")
    for verb in VERBS:
        if verb == "tune":
            pytest.importorskip("optuna")
        command = words(verb, moved, tmp_path / f"{verb}{RAW}")
        done = trial.call(
            *command,
            *(["--data", moved.data] if verb in ("eval", "compare", "recommend", "update") else []),
        )
        assert done.code == 0 and (done.out + done.err).encode(), (verb, done)


# ---------------------------------------------------------------- the end of a training


def test_only_users_that_the_demo_planted_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users that an update has added have no favourite to be judged by."""
    from dualgnn_dgl.cli.train import attention_lines
    from dualgnn_dgl.verbs.train import summarise_attention

    dataset = small.dataset()

    def lines_of(options: dict) -> list[str]:
        return attention_lines(summarise_attention(options, dataset, small_attention(dataset)))

    monkeypatch.setattr(
        "dualgnn_dgl.data.synthetic.planted",
        lambda: type("P", (), {"favourite_of": lambda self: {}})(),
    )
    assert len(lines_of({"input": None})) == 1, "no user of the demo is left"
    some = dataset.user_ids[:3].tolist()
    names = list(dataset.modalities)
    monkeypatch.setattr(
        "dualgnn_dgl.data.synthetic.planted",
        lambda: type("P", (), {"favourite_of": lambda self: dict.fromkeys(some, names[0])})(),
    )
    lines = lines_of({"input": None, "updated_from": "a"})
    assert (
        f"updated: {len(dataset.user_ids) - 3} of {len(dataset.user_ids)} users are new" in lines[1]
        and "100% of them" in lines[2]
    )
    assert len(lines_of({})) == 1 and attention_lines(summarise_attention({}, dataset, None)) == []


def small_attention(dataset):
    import torch

    weights = torch.zeros(len(dataset.user_ids), len(dataset.modalities))
    weights[:, 0] = 1
    return weights


def test_a_data_folder_that_goes_away_does_not_cost_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dualgnn_dgl import training
    from dualgnn_dgl.data import save
    from dualgnn_dgl.training import chain

    fit = training.fit
    save(small.dataset(), tmp_path / "data", options={"input": None})

    def removed(*given, **named):
        shutil.rmtree(tmp_path / "data")
        return fit(*given, **named)

    monkeypatch.setattr(chain, "fit", removed)
    done = trial.call(
        "train", "--data", tmp_path / "data", "--run", tmp_path / "run", "--epochs", 1, "--gpu", -1
    )
    assert (
        done.code == 0
        and "Attention" in done.out
        and load_run(tmp_path / "run").info["epochs"] == 1
    ), done


# ---------------------------------------------------------------- files that may not grow


@pytest.mark.slow
@pytest.mark.parametrize("bytes_left", [0, 10, 5_000])
@pytest.mark.parametrize("verb", ["eval", "train", "preprocess", "--help", "--nosuch"])
def test_a_log_file_that_may_not_grow_ends_in_a_known_status(
    verb: str, bytes_left: int, world: trial.World, tmp_path: Path
) -> None:
    """Both streams are files with a size limit; the interpreter alone would end with status 120."""
    command = [*PROGRAM, *([verb] if verb.startswith("--") else words(verb, world, tmp_path))]
    script = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_left}, {bytes_left})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    out, err = tmp_path / "out.log", tmp_path / "err.log"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", script, *command],
            stdout=stdout,
            stderr=stderr,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert done.returncode in (0, 1, 2), err.read_text()
    assert b"Traceback" not in err.read_bytes() and err.stat().st_size <= bytes_left
    assert done.returncode or out.stat().st_size or verb in ("train", "preprocess")
