"""Commands called in this process, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from dualgnn_dgl.cli.main import group


def call(*words: str | Path) -> Result:
    """Runs one command on the CPU, and checks that it shows no traceback."""
    found = CliRunner().invoke(group, [str(word) for word in (*words, "--gpu", "-1")])
    assert "Traceback" not in found.output and isinstance(
        found.exception, (SystemExit, type(None))
    ), found.exception
    return found
