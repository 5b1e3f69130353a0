"""Adds a new log to a trained run without training it again: `dualgnn update`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.progress import lines
from dualgnn_dgl.cli.show import (
    PATH,
    force_option,
    json_option,
    log_options,
    memory_option,
    note,
    print_text,
    result,
    run_data_option,
    run_option,
)
from dualgnn_dgl.errors import clean

if TYPE_CHECKING:
    from dualgnn_dgl.verbs.update import UpdateResult


@click.command(
    short_help="Add new interactions, users and videos to a trained run without training it again."
)
@run_option
@run_data_option
@click.option(
    "--input",
    "source",
    required=True,
    type=PATH,
    metavar="LOG",
    help="New log, in any form that preprocess reads, or /dev/stdin.",
)
@click.option(
    "--features",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Features of new videos, a file per modality named after it.",
)
@click.option(
    "--items",
    type=PATH,
    metavar="FILE",
    help="Item table: ids, titles, order of feature arrays.  [default: the one in LOG]",
)
@click.option(
    "--new-data",
    type=PATH,
    metavar="DIR",
    help="Data folder to write.  [default: the old name with -updated]",
)
@click.option(
    "--new-run",
    type=PATH,
    metavar="DIR",
    help="Run folder to write.  [default: the old name with -updated]",
)
@click.option(
    "--epochs",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Epochs of further training.",
)
@click.option("--lr", type=float, help="Learning rate of these epochs.  [default: that of the run]")
@log_options
@memory_option
@force_option
@json_option
def command(run: str, source: str, data: str | None, as_json: bool, **options: Any) -> None:
    """Add new interactions, users and videos to a trained run without training it again.

    New pairs go to training, and held-out pairs stay held out. Co-occurrence and popularity are
    counted again. New users start from their history, new videos from their features, raw or
    reduced by preprocess --feature-dim. All tables are computed again. With --epochs the model also
    trains, starting from the run, and the better of before and after is kept. The old folders are
    left as they are.

    \b
    Examples:
        dualgnn update --input tuesday.csv
        dualgnn update --input tuesday.csv --features visual.parquet --epochs 3
    """
    from dualgnn_dgl.verbs.update import update

    found = update(run, source, data, progress=lines(), **options)
    if found.repeated:
        note("this update was interrupted after its last step: nothing is left to do")
    streams.kept(found.run, found.data)
    if as_json:
        result(found.to_dict())
    else:
        print_text(_text(found))


def _text(found: UpdateResult) -> str:
    """Renders the result as text."""
    added = found.added
    features = "".join(
        f", {clean(name)} for {count:,} that lacked it"
        for name, count in added.filled.items()
        if count
    )
    pairs = f"{added.pairs:,} pairs ({added.known_pairs:,} were known)"
    text = [f"Added {pairs}, {added.users:,} users, {added.items:,} micro-videos{features}."]
    if added.dropped:
        reasons = ", ".join(
            f"{clean(reason)}: {count:,}" for reason, count in added.dropped.items()
        )
        text.append(f"Dropped of {added.rows:,} rows: {reasons}.")
    if found.before is not None:
        trained = f", {found.kept:.4f} after training (epoch {found.epoch})" if found.epoch else ""
        text.append(f"Validation {found.metric}: {found.before:.4f}{trained}.")
    text.append(f"Run: {clean(found.run)}, data: {clean(found.data)}")
    return "\n".join(text)
