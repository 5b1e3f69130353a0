"""Prints a user's list in their own ids, or writes those of all users: `dualgnn recommend`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.device import gpu_option, pick_device
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
    from dualgnn_dgl.verbs.recommend import RecommendationResult, WrittenLists

_TITLE_CELLS = 100


@click.command(short_help="Print a user's top-K list in your own ids.")
@click.option(
    "--user", "wanted", multiple=True, metavar="ID", help="User, by your own id; repeatable."
)
@click.option(
    "--history",
    "watched",
    multiple=True,
    metavar="ID,ID,…",
    help="Videos watched by a user unseen in training; repeatable, one user each.",
)
@click.option(
    "--histories",
    "log",
    default=None,
    type=PATH,
    metavar="LOG",
    help="Log of users unseen in training, in any form that preprocess reads, or /dev/stdin.",
)
@click.option(
    "--skip-unknown",
    is_flag=True,
    help="Leave out ids in histories that the data does not contain, instead of stopping.",
)
@click.option(
    "--new-items",
    "new_files",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Features of videos unseen in training, a file per modality named after it; they join "
    "the ranking.",
)
@log_options
@click.option("--only-new", is_flag=True, help="Rank the videos of --new-items alone.")
@click.option("--k", type=int, default=10, show_default=True, help="List length.")
@click.option(
    "--all",
    "file",
    type=PATH,
    metavar="FILE",
    help="Write the lists of all users, the run's or LOG's, to this Parquet file.",
)
@click.option(
    "--include-seen", is_flag=True, help="Also rank videos that the user watched (train and valid)."
)
@run_option
@run_data_option
@memory_option
@gpu_option
@force_option
@json_option
def command(
    wanted: tuple[str, ...],
    watched: tuple[str, ...],
    log: str | None,
    skip_unknown: bool,
    new_files: tuple[str, ...],
    only_new: bool,
    k: int,
    file: str | None,
    include_seen: bool,
    run: str,
    data: str | None,
    gpu: int | None,
    force: bool,
    as_json: bool,
    **columns: str | None,
) -> None:
    """Print a user's top-K list in your own ids, with titles where the data has them.

    Videos that the user watched in the training and validation splits are left out. --all FILE
    writes one row per user and rank: user, rank, item, score.

    Users unseen in training need no training. --history names the videos they watched, in any
    order; their preferences, attention and nearest users follow from it. New videos need no
    training either. --new-items gives their features, raw or reduced by preprocess --feature-dim.

    \b
    Examples:
        dualgnn recommend --user u17 --k 10
        dualgnn recommend --history v0655,v1898,v2942
        dualgnn recommend --histories new_users.csv --all lists.parquet
        dualgnn recommend --user u17 --new-items visual.parquet --only-new
        dualgnn recommend --all lists.parquet --k 50
    """
    _check_ways(wanted, watched, log, skip_unknown, new_files, only_new, file)
    from dualgnn_dgl.verbs.recommend import recommend, write_recommendations

    histories = (
        [[name.strip() for name in text.split(",") if name.strip()] for text in watched]
        if watched
        else log
    )
    options: dict[str, Any] = {"histories": histories, "skip_unknown": skip_unknown}
    options["log_options"] = columns
    options |= {
        "new_items": new_files,
        "only_new": only_new,
        "k": k,
        "include_seen": include_seen,
        "device": pick_device(gpu),
    }
    if file is not None:
        written = write_recommendations(file, run, data, force=force, **options)
        streams.kept(file)
        _note_changes(written, written.users, k, log)
        if as_json:
            result(written.to_dict())
        else:
            print_text(
                f"{written.rows:,} rows for {written.users:,} users written to {clean(file)}"
            )
        return
    found = recommend(run, data, users=wanted or None, **options)
    _note_changes(found, len(found.users), k, log)
    if as_json:
        result(found.to_dict())
        return
    lists = found.lists()
    print_text("\n\n".join(_text(user, rows, include_seen) for user, rows in lists.items()))
    for user, rows in lists.items():
        if len(rows) < found.k:
            note(
                f"user {clean(user)} has watched all but {len(rows)} of {found.catalogue} "
                f"micro-videos"
            )


def _note_changes(
    found: RecommendationResult | WrittenLists, users: int, k: int, log: str | None
) -> None:
    """Reports users that were left out, and lists shorter than requested."""
    if found.skipped:
        names = ", ".join(clean(name) for name in found.skipped[:5])
        more = "" if len(found.skipped) <= 5 else f" and {len(found.skipped) - 5:,} more"
        note(
            f"{len(found.skipped):,} of {len(found.skipped) + users:,} users of {log} are left "
            f"out, because they watched no video of the data: {names}{more}"
        )
    if found.k < k:
        note(f"there are only {found.k} micro-videos to rank: no list is longer")


def _check_ways(
    wanted: tuple[str, ...],
    watched: tuple[str, ...],
    log: str | None,
    skip_unknown: bool,
    new_files: tuple[str, ...],
    only_new: bool,
    file: str | None,
) -> None:
    """Raises a usage error for options that exclude or need each other."""
    ways = [
        name
        for name, given in (("--user", wanted), ("--history", watched), ("--histories", log))
        if given
    ]
    if (
        len(ways) > 1
        or (not ways and file is None)
        or (file is not None and ways and ways != ["--histories"])
    ):
        raise click.UsageError(
            "name users with --user ID, new ones with --history ID,ID,… or --histories LOG, or a "
            "file for all with --all FILE"
        )
    if skip_unknown and not (watched or log):
        raise click.UsageError("--skip-unknown belongs to --history and --histories")
    if only_new and not new_files:
        raise click.UsageError("--only-new belongs to --new-items")


def _text(user: str, entries: list[dict[str, Any]], include_seen: bool) -> str:
    """Renders one list as text, in columns as wide as a terminal shows them.

    Wide letters and emoji take two cells.
    """
    from rich.cells import cell_len, set_cell_size

    names = [clean(entry["item"]) for entry in entries]
    titles = [clean(entry.get("title", "")).strip() for entry in entries]
    titles = [
        title if cell_len(title) <= _TITLE_CELLS else set_cell_size(title, _TITLE_CELLS - 1) + "…"
        for title in titles
    ]
    width = max([4, *map(cell_len, names)])
    lines = [f"user {clean(user)}" + (" (with watched videos)" if include_seen else "")]
    lines.append(f"rank  {'item':<{width}}  {'score':>9}" + ("  title" if any(titles) else ""))
    for entry, name, title in zip(entries, names, titles, strict=True):
        padding = " " * (width - cell_len(name))
        lines.append(
            f"{entry['rank']:>4}  {name}{padding}  {entry['score']:>9.4f}  {title}".rstrip()
        )
    return "\n".join(lines)
