"""Turns a raw log and feature files into a prepared data folder: `dualgnn preprocess`."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import click

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.progress import bars
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
    table,
)
from dualgnn_dgl.core.vocabulary import CO_MEASURES, LAYOUTS, SPLIT_RULES
from dualgnn_dgl.errors import clean, shorten
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


def text(report: dict[str, Any]) -> str:
    """Renders the report as text: sizes, splits, modalities, and dropped rows by reason."""
    options, rows = report["options"], report["rows"]
    parts = [
        f"{clean(report['input']['name']) or 'log'} ({report['input']['kind'] or 'in memory'}): "
        f"{rows['read']:,} rows read{_because(report['input']['evidence'])}",
        _options(options),
        table(
            ["split", "pairs", "users", "items", "density"],
            [
                [name, part["interactions"], part["users"], part["items"], f"{part['density']:.4%}"]
                for name, part in (report["splits"] | {"all": report}).items()
            ],
        ),
    ]
    dropped = [[f"  {reason}", -count] for reason, count in rows["dropped"].items()]
    parts.append(
        table(["rows", "count"], [["read", rows["read"]], *dropped, ["kept", rows["kept"]]])
    )
    if report["modalities"]:
        parts.append(_modalities(report["modalities"]))
        parts += _resemblance(report["modalities"])
    else:
        parts.append("no modality: models that need features cannot use this data set")
    if report["titles"]:
        parts.append(f"titles: {report['titles']:,} of {report['items']:,} items")
    if report["co_occurrence"]:
        lists = report["co_occurrence"]
        parts.append(
            f"co-occurrence ({lists['weight']}, top {lists['top']}): "
            f"{lists['users_with_neighbours']:,} of "
            f"{report['users']:,} users have neighbours, {lists['mean_neighbours']:.1f} each on "
            f"average"
        )
    if report["published"]:
        parts.append(_published(report["published"]))
    if report["warnings"]:
        parts.append(
            "\n".join(f"warning: {shorten(clean(warning))}" for warning in report["warnings"])
        )
    return "\n\n".join(parts)


def _because(evidence: str) -> str:
    """Returns the evidence for the format, as a second line."""
    return f"\n  format: {clean(evidence)}" if evidence else ""


def _options(options: dict[str, Any]) -> str:
    """Renders the options used, defaults included."""
    rule = wrap(options["split_rule"], 100, initial_indent="  ", subsequent_indent="  ")
    lines = [
        f"split: {options['split']}, seed {options['seed']}",
        *rule,
        f"k-core: {options['k_core']}",
    ]
    if options["min_rating"] is not None:
        lines.append(f"ratings: {options['min_rating']:g} and more")
    if options["feature_dim"] is not None:
        lines.append(
            f"features: at most {options['feature_dim']} columns; the projection is kept, features "
            f"of later videos may be raw"
        )
    if options["impute"] is not None:
        lines.append(
            f"missing features: imputed by {options['impute']}; models treat them as present, "
            f"'coverage' below does not"
        )
    return "\n".join(lines)


def _modalities(modalities: dict[str, Any]) -> str:
    """Renders the coverage of each modality, over all items and by popularity group."""
    groups = list(
        dict.fromkeys(
            group for modality in modalities.values() for group in modality["by_popularity"]
        )
    )
    imputed = any(modality["imputed"] for modality in modalities.values())
    rows = [
        [
            name,
            modality["width"],
            modality["present"],
            *([modality["imputed"]] if imputed else []),
            f"{modality['coverage']:.1%}",
            *(f"{modality['by_popularity'][group]['coverage']:.1%}" for group in groups),
        ]
        for name, modality in modalities.items()
    ]
    return table(
        ["modality", "width", "items", *(["imputed"] if imputed else []), "coverage", *groups], rows
    )


def _resemblance(modalities: dict[str, Any]) -> list[str]:
    """Renders the feature homophily; nothing if it was not measured.

    It bounds the gain from imputing a video's features from those of its neighbours.
    """
    rows = []
    for name, modality in modalities.items():
        if modality["homophily"] is not None:
            near, random, homophily, r2 = (
                modality["homophily"][key] for key in ("neighbours", "random", "gain", "explained")
            )
            potential = "low" if r2 < 0.01 else "moderate" if r2 < 0.3 else "high"
            rows.append([name, near, random, f"{homophily:.1%}", f"{r2:.1%}", potential])
    if not rows:
        return []
    head = (
        "feature homophily: cosine of videos watched by the same users and of random pairs; "
        "variance explained by neighbours (R²)"
    )
    headers = ["modality", "neighbours", "random pairs", "homophily", "R²", "imputation potential"]
    return [head + "\n" + table(headers, rows)]


def _published(published: dict[str, Any]) -> str:
    """Renders the published statistics beside those found."""
    rows = [
        [name, f["published"], f["found"], f["prepared"], f["met"]]
        for name, f in published["figures"].items()
    ]
    verdict = "met" if published["met"] else "NOT met"
    head = f"published statistics of {published['set']} ({published['source']}): {verdict}"
    return head + "\n" + table(["statistic", "published", "in the log", "prepared", "met"], rows)
