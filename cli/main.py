"""The command `dualgnn`, which turns the library's errors into one line and an exit status.

Each verb has a file with a function `command`, which is imported only when the verb is called. That
function imports torch, dgl and pandas, so that `dualgnn --help` answers quickly.
"""

from __future__ import annotations

# This import is first, so that a signal during the imports below ends the command cleanly.
from dualgnn_dgl.cli import stop

# isort: split
import errno
import importlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from dualgnn_dgl import __version__
from dualgnn_dgl.cli import streams
from dualgnn_dgl.core.engine import described
from dualgnn_dgl.errors import DualGNNError, clean, shorten, unknown

# Verb → the sentence in `dualgnn --help`, which does not import the verb's own file.
VERBS = {
    "preprocess": "Turn a raw log and feature files into a prepared data folder.",
    "train": "Train a model on a prepared data folder.",
    "tune": "Search for a model's best options on the validation split.",
    "eval": "Rank all micro-videos for held-out users and print the metrics.",
    "compare": "Test whether runs on the same data differ, user by user.",
    "recommend": "Print a user's top-K list in your own ids.",
    "update": "Add new interactions, users and videos to a trained run without training it again.",
    "robustness": "Measure how models rank when modalities go missing.",
}
_MODULES = {"eval": "evaluate"}


@contextmanager
def _one_line() -> Iterator[None]:
    """Shortens a click error to one line without control characters."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:  # The help has many lines.
        raise
    except click.UsageError as error:
        raise click.UsageError(shorten(clean(error.format_message())), error.ctx) from error
    except click.ClickException as error:
        raise click.ClickException(shorten(clean(error.format_message()))) from error


class Verbs(click.Group):
    """Imports a verb when it is called and reports the library's errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        return importlib.import_module(f"dualgnn_dgl.cli.{_MODULES.get(name, name)}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(unknown("command", args[0], VERBS), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def make_context(self, *words: Any, **more: Any) -> click.Context:
        with _one_line():
            return super().make_context(*words, **more)

    def invoke(self, ctx: click.Context) -> Any:
        logging.lastResort = streams.LastResort()
        with _one_line(), stop.Stop(streams.urgent):
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DualGNNError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            raise SystemExit(stop.current().status) from None
        except (MemoryError, RuntimeError) as error:
            from dualgnn_dgl.core import memory

            if not memory.ran_out(error):
                raise
            detail = (str(error).splitlines() or ["none is left"])[0][:160]
            remedy = (
                "use less data, a smaller model (--set width=…), a smaller --batch-size or --memory"
            )
            raise click.ClickException(f"not enough memory ({detail}): {remedy}") from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            name = _asked_for(str(error.filename)) if error.filename else ""
            where = f"{name}: " if name else ""
            remedy = {
                errno.ENOSPC: "free some space, or choose a folder on another disk",
                errno.EDQUOT: "free some of your quota, or choose a folder on another disk",
                errno.EFBIG: "the file would grow past the size limit; raise it, or choose "
                "another disk",
                errno.EACCES: "choose a folder you may use",
                errno.EROFS: "choose a folder you may write to",
                errno.ENOENT: "check the path",
                errno.ENAMETOOLONG: "choose a shorter name",
            }.get(error.errno or 0, "check the path and the disk")
            raise click.ClickException(f"{where}{error.strerror or error}: {remedy}") from error


def _asked_for(path: str) -> str:
    """Returns the path that the user named, given the temporary path that is written.

    >>> _asked_for("runs/.a.0123456789abcdef.tmp/run.json")
    'runs/a/run.json'
    >>> _asked_for("d/.d.0123456789abcdef.tmp/x"), _asked_for("d/x")
    ('d/x', 'd/x')
    """
    # The temporary folder may be inside the folder it replaces.
    path = re.sub(r"(^|/)([^/]+)/\.\2\.[0-9a-f]{16}\.tmp(?=/)", r"\1\2", path)
    return re.sub(r"(^|/)\.([^/]+)\.[0-9a-f]{16}\.tmp(?=/|$)", r"\1\2", path)


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(
    __version__, prog_name="dualgnn", message=f"%(prog)s %(version)s, {described()}"
)
def group() -> None:
    """Recommend micro-videos with DualGNN: preprocess a log, train, evaluate, recommend.

    \b
    Example (the built-in demo, in an empty folder):
        dualgnn preprocess
        dualgnn train
        dualgnn eval --topk 10
    """


def main() -> None:
    """Runs the command line; ends the process with its exit status."""
    stop.open_standard_files()
    stop.at_once()
    streams.take()
    warnings.showwarning = streams.warn
    sys.unraisablehook = stop.dropped
    status = 0
    try:
        group(prog_name="dualgnn")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        status = 1
        sys.excepthook(*sys.exc_info())
    stop.leave(streams.finish(status))


if __name__ == "__main__":
    main()
