"""Turns a raw log and feature files into a prepared data folder: `dualgnn preprocess`."""

from __future__ import annotations

from typing import Any

import click

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.progress import bars
from dualgnn_dgl.cli.report import text
from dualgnn_dgl.cli.show import (
    DEFAULT_DATA,
    PATH,
    data_option,
    force_option,
    json_option,
    memory_option,
    note,
    print_text,
    result,
)
from dualgnn_dgl.core.vocabulary import CO_MEASURES, LAYOUTS, SPLIT_RULES
from dualgnn_dgl.errors import clean
from dualgnn_dgl.modality.imputers import IMPUTERS


@click.command("preprocess")
@click.option(
    "--input",
    "source",
    type=PATH,
    metavar="RAW",
    help="Log as a file, a folder or /dev/stdin.  [default: the demo]",
)
@data_option
@click.option(
    "--user-col", metavar="NAME", help="Column of user ids.  [default: found by its name]"
)
@click.option(
    "--item-col", metavar="NAME", help="Column of item ids.  [default: found by its name]"
)
@click.option(
    "--rating-col", metavar="NAME", help="Column of ratings.  [default: found by its name]"
)
@click.option("--time-col", metavar="NAME", help="Column of times.  [default: found by its name]")
@click.option(
    "--split-col",
    metavar="NAME",
    help="Column with train, valid or test.  [default: found by its name]",
)
@click.option(
    "--separator",
    metavar="CHAR",
    help="Separator of a text file's columns.  [default: detected]",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="Lines of a text log: a table with a header, rows without one, or a user and that user's "
    "items.  [default: found out]",
)
@click.option(
    "--positive",
    multiple=True,
    metavar="CONDITION",
    help="Condition of a positive row, such as 'is_click == 1'; repeatable, one of them must hold; "
    "'' takes every row.  [default: a known column, such as is_click, long_view or watch_ratio]",
)
@click.option(
    "--features",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Feature file, named after its modality; repeatable.  [default: those in the folder RAW]",
)
@click.option(
    "--items",
    type=PATH,
    metavar="FILE",
    help="Item table: ids, titles, order of feature arrays.  [default: the one in RAW]",
)
@click.option(
    "--zero-is-missing",
    is_flag=True,
    help="Take rows of features that are zero throughout as missing.",
)
@click.option(
    "--min-rating",
    type=float,
    metavar="X",
    help="Lowest rating of the rows that are kept.  [default: keep all]",
)
@click.option(
    "--k-core",
    type=int,
    metavar="N",
    help="Fewest pairs of the users and items that are kept.  [default: 5; 0 for a log with its "
    "own split]",
)
@click.option(
    "--split",
    type=click.Choice(SPLIT_RULES),
    help="Rule for holding out pairs, in shares of 8:1:1.  [default: given for a log with its own "
    "split, else random]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of the split."
)
@click.option(
    "--feature-dim",
    type=int,
    metavar="N",
    help="Columns to which wider features are reduced by PCA; the projection is kept for later "
    "videos.  [default: no reduction]",
)
@click.option(
    "--cooc-weight",
    type=click.Choice(CO_MEASURES),
    default="count",
    show_default=True,
    help="Weight of user co-occurrence edges.",
)
@click.option(
    "--cooc-top",
    type=int,
    default=200,
    show_default=True,
    metavar="N",
    help="Co-occurring users that are kept per user.",
)
@click.option(
    "--impute",
    type=click.Choice(list(IMPUTERS)),
    help="Imputer of missing features, fitted on present ones and training pairs; imputed rows "
    "are marked.  [default: leave them missing]",
)
@memory_option
@click.option(
    "--check",
    is_flag=True,
    help="Read and check everything and write nothing; co-occurrence is left out.",
)
@force_option
@json_option
def command(source: str | None, data: str, check: bool, as_json: bool, **options: Any) -> None:
    """Turn a raw log and feature files into a prepared data folder.

    Reads CSV, TSV, Parquet, JSON Lines, RecBole and MMRec .inter, MovieLens, MicroLens and
    adjacency lists.
    Removes repeated pairs, takes the k-core, splits the pairs, aligns features with items, and
    counts the training items that each two users share. An absent or NaN feature row is missing,
    never zero.

    \b
    Example:
        dualgnn preprocess --input ratings.csv --features visual.npy --data data
    """
    from dualgnn_dgl.verbs.prepare import prepare

    options["positive"] = options["positive"] or None  # nothing named: a known column decides
    note(
        f"input: {source or 'built-in demo'}, data: "
        f"{'(--check: nothing is written)' if check else data}"
    )
    with bars() as report:
        prepared = prepare(source, data, check=check, progress=report, **options)
    if prepared.data is not None:
        streams.kept(prepared.data)
    if as_json:
        result(prepared.to_dict())
        return
    print_text(text(prepared.report))
    train = "dualgnn train" if data == DEFAULT_DATA else f"dualgnn train --data {clean(data)}"
    print_text(
        "\nchecked, nothing written" if check else f"\nwritten to {clean(data)}; next: {train}"
    )
