"""One list of words that this project does not use, in code, help texts, messages and docs.

docs/contributing/writing.md has the table of replacements for people; a test compares the two.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "contributing" / "writing.md"

# Folders and files whose texts are not rewritten yet. Remove a line when its texts are.
EXEMPT: tuple[str, ...] = ()

# word as people know it → pattern, replacement
BANNED = {
    "aloud, said so": (r"aloud|said so", "log a warning"),
    "anew": (r"anew", "again"),
    "apart": (r"apart", "separately"),
    "besides": (r"besides", "also"),
    "figure": (r"figures?", "number, result"),
    "fill": (r"fill(s|ed|ing)?", "impute"),
    "go on": (r"go(es)? on|went on|going on", "continue"),
    "hang on": (r"hang(s)? on", "depend on"),
    "he, him, his": (r"(?-i:he|him|his)", "they"),
    "hole": (r"holes?|holed", "missing features"),
    "in the place of": (r"in the place of", "instead of"),
    "lend, lent": (r"lent|lends?", "share, contribute"),
    "lie": (r"lies?", "is"),
    "mend": (r"mend(s|ed|ing)?", "fix"),
    "nobody": (r"nobody|no one|somebody", "no user, users"),
    "put down": (r"put down", "pause, stop"),
    "so many": (r"so many", "that many"),
    "spoilt": (r"spoilt", "damaged"),
    "stand": (r"stands?(?!-)", "is"),
    "taken up": (r"taken up|take up|took up", "resume"),
    "to the bit": (r"to the bit|bit for bit", "bit-identical"),
    "told": (r"told", "known, distinguished"),
    "watched-by": (r"watched-by", "users of"),
    "whoever, whatever": (r"whoever|whatever", "any"),
}
# Keys of files and of results, in which such words stay.
NAMES = {"figures", "filled", "filling", "holes"}
WORDS = {
    word: (re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)", re.IGNORECASE), instead)
    for word, (pattern, instead) in BANNED.items()
}
# Code in a text: `names`, options, names with underscores, calls, paths, doctests, and the names of
# arguments in a docstring.
CODE = re.compile(
    r"`[^`]*`|--[\w-]+|\w*_\w+|\w+\(|[\w.-]*/[\w./-]*|^ *(>>>|\.\.\.) .*$|^ +\w+(, \w+)*: ",
    re.MULTILINE,
)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

PROSE = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page != GUIDE),
]
SOURCES = [
    path
    for folder in ("dualgnn_dgl", "cli", "benchmarks", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.relative_to(ROOT).as_posix().startswith(EXEMPT)
]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def faults(text: str) -> list[str]:
    """Returns the banned words of a text, each with its replacement."""
    plain = CODE.sub(" ", text)
    return [
        f"'{found[0]}' → {instead}"
        for pattern, instead in WORDS.values()
        for found in pattern.finditer(plain)
    ]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and text of every comment, docstring and other string of a source file.

    The texts of an f-string are one text, with X for its values.
    """
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    tree = ast.parse(source)
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(value) for value in node.values}
            values = [
                str(value.value) if isinstance(value, ast.Constant) else "X"
                for value in node.values
            ]
            yield node.lineno, "".join(values)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in parts
            and node.value not in NAMES
        ):
            yield node.lineno, node.value


def report(path: Path, found: list[str]) -> str:
    listed = "\n".join(found)
    return f"words that this project does not use:\n{listed}\nreplacements: {named(GUIDE)}"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_the_words_of_code_are_plain(path: Path) -> None:
    found = [
        f"{named(path)}:{line}: {fault}"
        for line, text in texts(path.read_text("utf-8"))
        for fault in faults(text)
    ]
    assert not found, report(path, found)


@pytest.mark.parametrize("path", PROSE, ids=named)
def test_the_words_of_docs_are_plain(path: Path) -> None:
    text = FENCED.sub(lambda block: "\n" * block[0].count("\n"), path.read_text("utf-8"))
    found = [
        f"{named(path)}:{number}: {fault}"
        for number, line in enumerate(text.splitlines(), 1)
        for fault in faults(line)
    ]
    assert not found, report(path, found)


def test_the_guide_lists_the_same_words() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", GUIDE.read_text("utf-8"), re.MULTILINE)
    assert {row for row in rows if row[0] in BANNED} == {
        (word, instead) for word, (_, instead) in BANNED.items()
    }


def test_every_exemption_exists() -> None:
    assert all((ROOT / name).exists() for name in EXEMPT)


@pytest.mark.parametrize(
    ("source", "faulty"),
    [
        ("# drawn anew each time", True),
        ('"""Says what is told."""', True),
        ("x = f'{a} goes on with {b}'", True),
        ("x = f'the same command {a} on'", False),
        ("option(help='Fill missing features.')", True),
        ("header = ['gain', 'told']", True),
        ("x = report['holes']", False),
        ("# the folder `holes/` and the option --holes", False),
        ("fill_holes = figures.told(lies)", False),
        ("# He et al. replaced the encoder", False),
        ("# the user and his list", True),
        ("# a stand-in for dgl", False),
    ],
)
def test_the_guard_sees_texts_and_not_names(source: str, faulty: bool) -> None:
    assert any(faults(text) for _, text in texts(source)) == faulty
