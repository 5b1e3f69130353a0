"""README and docs: their commands run, their output matches, and generated pages are fresh.

A page's `bash`, `console` and `python` blocks run in order, in an empty folder of its own. Comments
before a block:

    <!-- not run: reason -->          parse its commands against the options, run nothing
    <!-- output varies: reason -->    run it, do not compare the output
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GENERATED = DOCS / "reference" / "cli.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PROSE = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]
MARK = r"(?:<!-- (not run|output varies): (.+?) -->\n)?"
BLOCK = re.compile(rf"^{MARK}```(bash|console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LIMIT = 300  # seconds for one block on a busy machine


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    text: str
    mark: str | None
    reason: str | None

    def steps(self) -> list[tuple[tuple[str, ...], list[str]]]:
        """Commands to run, each with the lines of output shown below it."""
        if self.mark == "not run":
            return []
        if self.kind == "python":
            return [((sys.executable, "-c", self.text), [])]
        found: list[tuple[tuple[str, ...], list[str]]] = []
        whole = self.kind == "bash" and ("<<" in self.text or "\\\n" in self.text)
        for line in [self.text] if whole else self.text.splitlines():
            if self.kind == "console" and not line.startswith("$ "):
                found[-1][1].append(line)
            elif line:
                found.append((("bash", "-euo", "pipefail", "-c", line.removeprefix("$ ")), []))
        return found


def blocks(page: Path) -> list[Block]:
    return [Block(m[3], m[4], m[1], m[2]) for m in BLOCK.finditer(page.read_text("utf-8"))]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


STEPS = {
    page: [(block, *step) for block in blocks(page) for step in block.steps()]
    for page in PAGES
    if page != GENERATED
}
RUN = [page for page in PAGES if STEPS.get(page)]


def begins(page: Path) -> list[tuple[tuple[str, ...], ...]]:
    """The first command of a page, its first two, and so on."""
    commands = tuple(command for _, command, _ in STEPS[page])
    return [commands[: count + 1] for count in range(len(commands))]


# What several pages begin with gives the same in an empty folder, so it runs once.
SHARED = {
    begin
    for begin, pages in Counter(begin for page in RUN for begin in begins(page)).items()
    if pages > 1
}
# begin of a page -> a copy of the folder then, last output
DONE: dict[tuple[tuple[str, ...], ...], tuple[Path, str]] = {}


def shape(line: str) -> str:
    """A line of output without its numbers and its spacing."""
    return " ".join(re.sub(r"\d[\d,.]*", "0", line).split())


def run(command: list[str], folder: Path) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DUALGNN", "PYTEST"))
    }
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
    }
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, (
        f"{command[-1]}\nexit {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=named)
def test_the_commands_of_a_page_run(page: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("page") / "empty"
    folder.mkdir()
    outputs = []
    for (block, command, shown), begin in zip(STEPS[page], begins(page), strict=True):
        if begin in DONE:
            kept, printed = DONE[begin]
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
        else:
            printed = run(list(command), folder)
            if begin in SHARED:
                DONE[begin] = (
                    shutil.copytree(folder, tmp_path_factory.mktemp("kept") / "folder"),
                    printed,
                )
        outputs.append((command[-1], printed))
        if block.mark is None:
            real = {shape(line) for line in printed.splitlines()}
            missing = [line for line in shown if line != "…" and shape(line) not in real]
            assert not missing, f"{named(page)}: `{command[-1]}` no longer prints {missing}"
    if page.name == "README.md":
        (by_command,) = [
            re.search(r"^recall +(\S+)", text, re.MULTILINE)[1]
            for words, text in outputs
            if " eval " in words
        ]
        (in_python,) = [text.split()[0] for words, text in outputs if "dg.evaluate" in words]
        assert f"{float(in_python):.4f}" == by_command


def invocations(text: str) -> list[list[str]]:
    """The words of every `dualgnn` command in a shell text, without comments, pipes and
    redirections.
    """
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if "dualgnn " not in line:
            continue
        line = re.sub(r"<\([^)]*\)", "PIPE", re.sub(r" 2>", " >", line.removeprefix("$ ")))
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#"
        part: list[str] = []
        for word in [*lexer, ";"]:
            if re.fullmatch(r"[|;&<>()]+", word):
                if part and part[0] == "dualgnn" and len(part) > 1:
                    found.append(part[1:])
                part = ["(redirected)"] if set(word) & set("<>") else []
            else:
                part.append(word)
    return found


def test_commands_are_found_in_shell_text() -> None:
    text = (
        "zcat a | dualgnn train --run 'a b' > out.txt  # dualgnn x\nls; dualgnn eval --topk 10 "
        "\\\n  --json && true\ndualgnn"
    )
    assert invocations(text) == [["train", "--run", "a b"], ["eval", "--topk", "10", "--json"]]


@pytest.mark.parametrize("page", [*PAGES, *PROSE[-3:]], ids=named)
def test_every_command_has_the_options_it_is_shown_with(page: Path) -> None:
    from dualgnn_dgl.cli.main import VERBS, group

    text = page.read_text("utf-8")
    fenced = re.findall(r"^```(?:bash|console|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`(dualgnn \w+ [^`\n]+)`", FENCED.sub("", text))
    for verb, *words in [found for part in (*fenced, *inline) for found in invocations(part)]:
        if words[:1] == ["[OPTIONS]"]:
            continue
        assert verb in VERBS, f"{named(page)}: there is no `dualgnn {verb}`"
        context = click.Context(group, info_name="dualgnn")
        group.get_command(context, verb).make_context(verb, list(words), parent=context)
    for script in re.findall(
        r"(?:python |`)((?:benchmarks|docs|tests)/[\w/.-]+\.(?:py|md|json))", text
    ):
        assert (ROOT / script).is_file(), f"{named(page)}: {script} is gone"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_block_that_does_not_run_says_why(page: Path) -> None:
    text = page.read_text("utf-8")
    fences = re.findall(r"^```(\w*)$", text, re.MULTILINE)
    assert set(fences) <= {"bash", "console", "python", "text", ""}, (
        "no other kind of block is run or checked"
    )
    assert len(fences) % 2 == 0
    assert all(len(block.reason.split()) >= 2 for block in blocks(page) if block.mark)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_the_page_of_the_command_line_is_fresh() -> None:
    import lock

    if version("click") != lock.locked("run")["click"]:
        pytest.skip("another version of click than the locked one lays out its help in another way")
    spec = importlib.util.spec_from_file_location("cli_reference", DOCS / "cli_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert GENERATED.read_text("utf-8") == module.page(), "stale: run python docs/cli_reference.py"


def test_every_name_of_the_api_page_exists() -> None:
    """`make docs` fails on these, too; here without the generator."""
    names = re.findall(
        r"^::: (\S+)$", (DOCS / "reference" / "api.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(names) > 10
    for name in names:
        parts = name.split(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(".".join(parts[:-1])), parts[-1]), (
                f"{name} is gone"
            )


def test_every_path_that_the_architecture_names_exists() -> None:
    text = (DOCS / "contributing" / "architecture.md").read_text("utf-8")
    paths = re.findall(r"`((?:dualgnn_dgl|cli|benchmarks|tests)/[\w/.]*)`", text)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for count, walk in re.findall(
        r"^\*\*From .+?: (\d+) files\.\*\* (.+?)\n\n", text + "\n\n", re.MULTILINE | re.DOTALL
    ):
        assert int(count) == len(set(re.findall(r"`((?:dualgnn_dgl|cli)/[\w/.]+\.py)`", walk))), (
            walk
        )
    folders = re.findall(
        r"^(\S+/?) {2,}",
        (ROOT / "README.md").read_text("utf-8").partition("## Where")[2],
        re.MULTILINE,
    )
    assert len(folders) > 10 and [path for path in folders if not (ROOT / path).exists()] == []


def test_every_page_is_in_the_navigation_and_no_other() -> None:
    listed = set(
        re.findall(
            r"([\w/-]+\.md)", (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
        )
    )
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_every_model_and_command_is_described() -> None:
    from dualgnn_dgl.cli.main import VERBS
    from dualgnn_dgl.models import MODELS

    for page in (ROOT / "README.md", DOCS / "reference" / "models.md"):
        text = page.read_text("utf-8")
        assert re.findall(
            r"^\| `(\w+)` \|", text.partition("## Training options")[0], re.MULTILINE
        ) == list(MODELS)
    howto = "".join(page.read_text("utf-8") for page in (DOCS / "how-to").glob("*.md"))
    assert [verb for verb in VERBS if f"dualgnn {verb}" not in howto] == []


def test_the_numbers_on_reliability_are_those_on_file() -> None:
    kept = json.loads((ROOT / "benchmarks" / "results" / "reliability.json").read_text("utf-8"))
    text = (DOCS / "explanation" / "reliability.md").read_text("utf-8")
    kills, signals = kept["training_kills"], kept["signals"]
    slowest = max(
        kept[f"training_{name}"]["slowest_exit_seconds"] for name in ("sigint", "sigterm", "sighup")
    )
    for words in (
        f"{kills['killed']} kills, {kills['within_a_write']} of them during a write, over "
        f"{kills['finished']} trainings",
        f"{kept['training_limits']['refused']} stopped, "
        f"{kept['training_limits']['done_in_spite']} finished anyway",
        f"{kept['training_disk']['refused']} stopped, {kept['training_disk']['done_in_spite']} "
        f"finished anyway",
        f"{kept['training_crowds']['refused']} refused",
        f"Of {signals['signals']} signals",
        f"{signals['in order']} came after",
        f"within {slowest} s",
        f"{kept['streams']['commands']} commands",
        f"{kept['bad_input']['cases']:,} ({kept['bad_input']['date']})",
        f"{kept['bad_input_artefacts']['cases']:,} ({kept['bad_input_artefacts']['date']})",
        f"{kept['fuzz']['inputs']:,} inputs",
        f"{kept['forged']['cases']:,} of {kept['forged']['of']:,}",
        f"{kept['nothing_executes']['planted']:,} ({kept['nothing_executes']['date']})",
    ):
        assert words in text, words


def test_the_version_is_the_same_everywhere() -> None:
    from dualgnn_dgl import __version__

    for name in ("README.md", "CITATION.cff", "CHANGELOG.md"):
        assert __version__ in (ROOT / name).read_text("utf-8"), name
