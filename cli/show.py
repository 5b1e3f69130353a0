"""Options that several commands share, and text tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from dualgnn_dgl.cli.streams import note as note
from dualgnn_dgl.cli.streams import print_text as print_text
from dualgnn_dgl.cli.streams import result as result
from dualgnn_dgl.core.vocabulary import HELD_OUT, LAYOUTS, MASKS
from dualgnn_dgl.errors import clean

DEFAULT_DATA = "data"
DEFAULT_RUN = "runs/dualgnn"


class PathName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """The name of a file or folder.

    A leading ~ is the home folder, as in the shell, also in `--data=~/x`.
    """

    name = "path"

    def convert(
        self, value: str, parameter: click.Parameter | None, context: click.Context | None
    ) -> str:
        if "\0" in value:
            self.fail("a path has no NUL character: check it", parameter, context)
        return os.path.expanduser(value)


PATH = PathName()

data_option = click.option(
    "--data",
    type=PATH,
    default=DEFAULT_DATA,
    show_default=True,
    metavar="DIR",
    help="Prepared data folder.",
)
run_data_option = click.option(
    "--data",
    default=None,
    type=PATH,
    metavar="DIR",
    help="Prepared data folder.  [default: the one the run was trained on]",
)
run_option = click.option(
    "--run", type=PATH, default=DEFAULT_RUN, show_default=True, metavar="DIR", help="Run folder."
)
split_option = click.option(
    "--split",
    type=click.Choice(HELD_OUT),
    default="test",
    show_default=True,
    help="Held-out pairs to measure.",
)
mask_option = click.option(
    "--mask",
    type=click.Choice(MASKS),
    default="all",
    show_default=True,
    help="Pairs that the lists leave out: all known before the split (at test: train and valid), "
    "or training pairs alone, as in some published results.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of text."
)
force_option = click.option("--force", is_flag=True, help="Replace an existing result.")


def _budget(ctx: click.Context, _: click.Parameter, size: str | None) -> None:
    """Limits the memory of blocked operations while the command runs."""
    from dualgnn_dgl.core import memory

    if size is not None:
        ctx.with_resource(memory.use(memory.parse(size)))


memory_option = click.option(
    "--memory",
    metavar="SIZE",
    expose_value=False,
    callback=_budget,
    help="Memory limit for blocked operations, e.g. 512MB.  [default: a quarter of the free "
    "memory]",
)


def text_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Renders a table as lines of text, with numbers aligned to the right.

    >>> print(text_table(["split", "pairs"], [["train", 12000], ["test", 7]]))
    split   pairs
    train  12,000
    test        7
    """

    def text(cell: Any) -> str:
        if isinstance(cell, bool) or cell is None:
            return {True: "yes", False: "no", None: "–"}[cell]
        if isinstance(cell, int):
            return f"{cell:,}"
        return f"{cell:.4f}" if isinstance(cell, float) else clean(cell)

    cells = [[clean(header) for header in headers]] + [[text(cell) for cell in row] for row in rows]
    right = [
        bool(rows) and all(isinstance(row[c], (int, float)) or row[c] is None for row in rows)
        for c in range(len(headers))
    ]
    widths = [max(len(row[c]) for row in cells) for c in range(len(headers))]
    lines = (
        "  ".join(
            cell.rjust(w) if r else cell.ljust(w)
            for cell, w, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def measured_on(value: Mapping[str, Any], left_out: Sequence[str]) -> list[str]:
    """Renders the data, split and mask of a measurement, a line each.

    Args:
        value: the result as a dictionary.
        left_out: splits whose pairs the lists leave out.
    """
    return [
        f"data   {clean(value['data'])}",
        f"split  {value['split']}",
        f"mask   {value['mask']} (left out of the lists: {' and '.join(left_out)})",
        f"users  {value['users']:,}",
        *(
            [f"items  {value['cold_items']:,} without a training pair, folded in by modalities"]
            if "cold_items" in value
            else []
        ),
    ]


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how a later log is read; by default as the data's own log was."""
    default = "[default: as the data were prepared]"
    for option in (
        click.option("--layout", type=click.Choice(LAYOUTS), help=f"Lines of the log.  {default}"),
        click.option("--separator", metavar="CHAR", help=f"Separator of the log.  {default}"),
        click.option("--time-col", metavar="NAME", help=f"Column of times.  {default}"),
        click.option("--rating-col", metavar="NAME", help=f"Column of ratings.  {default}"),
        click.option("--item-col", metavar="NAME", help=f"Column of item ids.  {default}"),
        click.option("--user-col", metavar="NAME", help=f"Column of user ids.  {default}"),
    ):
        command = option(command)
    return command


def note_cut_lists(asked: Sequence[int], metrics: Iterable[str]) -> None:
    """Reports list lengths that were cut to the number of videos: they measure nothing.

    Args:
        asked: lengths that the user gave.
        metrics: names of the metrics that were measured, such as recall@20.
    """
    used = {int(name.rpartition("@")[2]) for name in metrics if "@" in name}
    longer = [k for k in asked if k not in used]
    if longer:
        least = max(used)
        note(
            f"there are only {least} videos to rank: lists of {max(longer)} are cut to {least} and "
            f"hold every video, so that they measure nothing"
        )
