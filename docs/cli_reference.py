"""Writes docs/reference/cli.md from the command line's own help: `python docs/cli_reference.py`.

tests/test_docs.py fails when the page is stale.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click

from dualgnn_dgl.cli.main import VERBS, group

PAGE = Path(__file__).resolve().parent / "reference" / "cli.md"
HEAD = """\
<!-- Written by docs/cli_reference.py from the help texts of the commands; change those. -->

# Command line

Every command has `--help`, or `-h`. `dualgnn --version` prints the version.
"""


def body(text: str) -> str:
    r"""Turns a help text into Markdown: paragraphs stay, blocks that begin with \b become code."""
    parts = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if block.startswith("\b"):
            title, *lines = block.removeprefix("\b").strip("\n").split("\n")
            parts += [title, "```text\n" + inspect.cleandoc("\n" + "\n".join(lines)) + "\n```"]
        else:
            parts.append(escape(" ".join(block.split())))
    return "\n\n".join(parts)


def escape(text: str) -> str:
    """Escapes the characters that are markup in Markdown."""
    return re.sub(r"([*_<>|])", r"\\\1", text)


def section(name: str, context: click.Context) -> str:
    """Returns the Markdown of one command: usage, description, options."""
    command = group.get_command(context, name)
    assert command is not None
    own = click.Context(command, info_name=name, parent=context)
    usage = command.get_usage(own).removeprefix("Usage: ")
    lines = [
        f"## dualgnn {name}",
        f"```text\n{usage}\n```",
        body(command.help or ""),
        "**Options**",
    ]
    options = []
    for parameter in command.params:
        record = parameter.get_help_record(own)
        if record:
            options.append(f"`{record[0]}`\n:   {escape(' '.join(record[1].split()))}\n")
    return "\n\n".join([*lines, *options])


def page() -> str:
    """Returns the whole page."""
    context = click.Context(group, info_name="dualgnn", terminal_width=100)
    table = ["| command | what it does |", "| --- | --- |"]
    table += [f"| [`{name}`](#dualgnn-{name}) | {text} |" for name, text in VERBS.items()]
    text = "\n\n".join(
        [HEAD.rstrip(), "\n".join(table), *(section(name, context) for name in VERBS)]
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
