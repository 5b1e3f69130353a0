"""Promises of the whole: the command line answers at once and explains itself, models name their
source, doctests run.
"""

from __future__ import annotations

import configparser
import importlib
import inspect
import re
import subprocess
import sys
import time
from dataclasses import is_dataclass
from pathlib import Path

import click
import pytest

from dualgnn_dgl.cli.main import VERBS, group
from dualgnn_dgl.models import MODELS, model_class

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch",
    "dgl",
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "pyarrow",
    "matplotlib",
    "rich",
    "numba",
)
TEXT = {".py", ".md", ".cfg", ".toml", ".txt", ".svg", ".json", ""}


def help_in_a_fresh_process(*words: str) -> tuple[str, set[str], float]:
    """(help text, heavy packages that were imported, seconds) of `dualgnn WORDS --help`."""
    script = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('IMPORTED', *[name for name in {HEAVY!r} if name in "
        f"sys.modules]))\n"
        f"sys.argv = ['dualgnn', *{list(words)!r}, '--help']\n"
        "from dualgnn_dgl.cli.main import main\n"
        "main()\n"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    text, _, imported = done.stdout.rpartition("IMPORTED")
    return text, set(imported.split()), seconds


def test_help_imports_nothing_heavy() -> None:
    text, imported, _ = help_in_a_fresh_process()
    assert not imported
    assert all(
        verb in text and sentence in " ".join(text.split()) for verb, sentence in VERBS.items()
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    _, imported, _ = help_in_a_fresh_process(verb)
    assert not imported


def test_help_answers_at_once() -> None:
    best = float("inf")
    for _ in range(20):  # a busy machine may be slow now and then, never twenty times
        best = min(best, help_in_a_fresh_process()[2])
        if best < 0.3:
            break
        time.sleep(0.2)
    assert best < 0.3, f"dualgnn --help took {best:.2f} s"


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    return [(name, group.get_command(context, name)) for name in group.list_commands(context)]


@pytest.mark.parametrize(("name", "command"), commands(), ids=list(VERBS))
def test_every_command_and_option_is_explained(name: str, command: click.Command) -> None:
    assert command.help and command.help.strip().split("\n")[0].endswith("."), (
        f"{name} opens with a sentence"
    )
    assert "Example" in command.help, f"the help of {name} ends with an example"
    assert f"dualgnn {name}" in command.help
    for option in command.params:
        # only folders of one kind, as many as one likes: the help speaks of them
        if isinstance(option, click.Argument):
            assert (
                option.nargs == -1
                and option.metavar
                and f" {option.metavar.split()[0]} " in command.help
            )
            continue
        assert isinstance(option, click.Option), (
            f"{name} {option.name}: everything has a name on the command line"
        )
        assert option.help and len(option.help) > 8, f"{name} {option.opts[0]} has no help"
        assert option.help.strip()[-1] in ".]", f"{name} {option.opts[0]}: help is a sentence"


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_commands_says_what_the_command_says(verb: str) -> None:
    command = group.get_command(click.Context(group), verb)
    assert command.get_short_help_str(limit=200).rstrip(".") == VERBS[verb].rstrip(".")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_names_its_source_and_its_differences(name: str) -> None:
    kind = model_class(name)
    module = inspect.getdoc(importlib.import_module(kind.__module__)) or ""
    text = f"{module}\n{inspect.getdoc(kind) or ''}"
    assert kind.__doc__ and len(text) > 120
    if name != "mostpop":
        assert re.search(r"Source: .*\b(19|20)\d\d\b", text, re.DOTALL), "the paper and its year"
    if name not in ("mostpop", "bprmf"):  # these two have no authors' code to differ from
        assert re.search(r"differ|depart", text, re.IGNORECASE), (
            "what differs from the authors' code"
        )
    assert is_dataclass(kind.Config) and kind.Config.__dataclass_params__.frozen


def test_every_doctest_runs() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    searched = parser["tool:pytest"]["testpaths"].split()
    assert "--doctest-modules" in parser["tool:pytest"]["addopts"]
    for path in [*(ROOT / "dualgnn_dgl").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert ">>>" not in text or path.relative_to(ROOT).parts[0] in searched
        assert "+SKIP" not in text, f"{path}: a doctest is left out"


def tracked() -> list[Path]:
    """The files of the repository; in a source archive without git, what lies in its folders."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0 and done.stdout:
        return [ROOT / name for name in done.stdout.split("\0") if name]
    folders = ("dualgnn_dgl", "cli", "tests", "benchmarks", "datasets")
    return [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    home = re.compile(r"(?<![\w./:-])/(?:home|root|work|Users|opt|mnt|data\d*)/[\w.-]+")
    found = []
    for path in tracked():
        if path.suffix in TEXT and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [
                f"{path.relative_to(ROOT)}:{n}: {m[0]}"
                for n, line in enumerate(lines, 1)
                if (m := home.search(line))
            ]
    assert not found


def test_nothing_large_is_committed() -> None:
    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes"
        for path in tracked()
        if path.is_file() and path.stat().st_size > 600_000
    ]
    assert not large


def test_every_benchmark_is_listed() -> None:
    listed = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    folder = ROOT / "benchmarks"
    scripts = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert {name for name in scripts if f"`{name}`" not in listed} == set(), (
        "give each a row in benchmarks/README.md"
    )
    assert {name for name in re.findall(r"^\| `([\w/]+\.py)`", listed, re.MULTILINE)} <= scripts, (
        "a listed script is gone"
    )


def test_every_benchmark_that_a_text_names_exists() -> None:
    texts = [path for path in tracked() if path.suffix in (".md", ".py") or path.name == "Makefile"]
    missing = []
    # past versions had other names
    for path in [path for path in texts if path.is_file() and path.name != "CHANGELOG.md"]:
        text = path.read_text(encoding="utf-8")
        modules = re.findall(r"-m (benchmarks(?:\.\w+){2})(?![\w.])", text)
        named = [name.replace(".", "/") + ".py" for name in modules if not name.endswith(".NAME")]
        named += re.findall(r"(?<![\w/.])benchmarks/(?:\w+/)*\w+\.py", text)
        missing += [
            f"{path.relative_to(ROOT)}: {name}" for name in named if not (ROOT / name).is_file()
        ]
    assert not missing


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    folders = ("", "benchmarks", "datasets")
    for page in [
        *(page for folder in folders for page in (ROOT / folder).glob("*.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]:
        targets = re.findall(r"(?:\]\(|src=\")([^)#\"\s]+)", page.read_text(encoding="utf-8"))
        broken += [
            f"{page.name}: {t}"
            for t in targets
            if "://" not in t and not (page.parent / t).exists()
        ]
    assert not broken


# A model → the slow version of another one that it is compared with instead.
SAME_EQUATIONS = {"bprmf": "lightgcn"}  # LightGCN without a layer


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_slow_twin(name: str) -> None:
    """tests/reference/NAME.py computes the equations slowly, and a test compares the two."""
    twin = SAME_EQUATIONS.get(name, name)
    assert (ROOT / "tests" / "reference" / f"{twin}.py").is_file(), (
        f"write the equations of {name} plainly and slowly in tests/reference/{name}.py, and "
        f"compare it in tests/test_references.py"
    )
    compared = [path.read_text("utf-8") for path in (ROOT / "tests").glob("test_references*.py")]
    assert any(f"import {twin} as" in text and f'"{name}"' in text for text in compared)
