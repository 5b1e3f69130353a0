"""Tests whether runs on the same data differ: `dualgnn compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.show import (
    PATH,
    json_option,
    mask_option,
    measured_on,
    memory_option,
    note_cut_lists,
    print_text,
    result,
    run_data_option,
    split_option,
    text_table,
)
from dualgnn_dgl.errors import clean
from dualgnn_dgl.evaluation.accuracy import METRICS

if TYPE_CHECKING:
    from dualgnn_dgl.verbs.compare import ComparisonResult


@click.command(short_help="Test whether runs on the same data differ, user by user.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN RUN…")
@run_data_option
@click.option(
    "--topk", "k", type=int, default=20, show_default=True, metavar="K", help="List length."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=("recall", "ndcg"),
    show_default="recall ndcg",
    type=click.Choice(list(METRICS)),
    help="Metric to compare by; repeatable.",
)
@click.option(
    "--best",
    is_flag=True,
    help="Compare with the best run by the first metric instead of the first run named.",
)
@split_option
@mask_option
@click.option(
    "--bootstrap",
    type=click.IntRange(1, 100_000),
    default=2000,
    show_default=True,
    help="Resamples of the users.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the bootstrap."
)
@gpu_option
@memory_option
@json_option
def command(
    runs: tuple[str, ...], data: str | None, gpu: int | None, as_json: bool, **options: Any
) -> None:
    """Compare two or more RUN folders on the same data, user by user.

    The other runs are compared with the first or, with --best, the best one: the mean difference
    over users, its 95 % bootstrap interval, and two paired tests, bootstrap and Wilcoxon. With
    several other runs, use the p-values under "Holm", which are corrected for the number of tests
    of one metric. The same means follow for users by the number of their training videos, and for
    held-out videos by the number of their training users (0: cold). Use these to understand a
    difference, not for claims. The last table describes the lists: coverage, Gini, novelty in bits,
    and diversity (1 − cosine) in each modality.

    \b
    Examples:
        dualgnn compare runs/dualgnn runs/lightgcn
        dualgnn compare runs/* --best --topk 10 --metric recall --json
    """
    if len(runs) < 2:
        raise click.UsageError("one run was given: name the run folders to compare, at least two")
    from dualgnn_dgl.verbs.compare import compare

    found = compare(runs, data, device=pick_device(gpu), **options)
    note_cut_lists((options["k"],), found.metrics)
    if as_json:
        result(found.to_dict())
    else:
        print_text(_text(found))


def _text(found: ComparisonResult) -> str:
    """Renders the comparison as text, with one table for each question."""
    from dualgnn_dgl.evaluation.slices import label

    value = found.to_dict()
    order = list(value["runs"])
    lines = [
        *measured_on(value, found.left_out),
        f"base   {clean(value['base'])} ({value['runs'][value['base']]})",
    ]
    headers = ["run", "model", "mean", "95 %", "difference", "95 %", "better", "worse"]
    headers += ["p bootstrap", "Holm", "p Wilcoxon", "Holm"]
    for metric, rows in value["metrics"].items():
        cells = []
        for run, row in rows.items():
            line: list[Any] = [
                run,
                value["runs"][run],
                row["mean"],
                "[{:.4f}, {:.4f}]".format(*row["interval"]),
            ]
            if "difference" in row:
                line += [
                    f"{row['difference']:+.4f}",
                    "[{:+.4f}, {:+.4f}]".format(*row["difference_interval"]),
                ]
                line += [row["better"], row["worse"]]
                line += [
                    _p(row[key])
                    for key in ("p_bootstrap", "p_bootstrap_holm", "p_wilcoxon", "p_wilcoxon_holm")
                ]
            else:
                line += ["base", "", None, None, "", "", "", ""]
            cells.append(line)
        lines += ["", metric, text_table(headers, cells)]
    titles = {
        "user_training_pairs": "users by training videos",
        "item_training_users": "held-out videos by training users",
    }
    for kind, title in titles.items():
        for metric in value["metrics"]:
            cells = [
                [
                    label((row["from"], row["to"])),
                    row["users"],
                    *(_slice_cell(row["metrics"][metric][run]) for run in order),
                ]
                for row in value["slices"][kind]
            ]
            lines += [
                "",
                f"{metric}, {title}; in brackets the difference to the base",
                text_table(["", "users", *order], cells),
            ]
    cells = [[name, *(found[run] for run in order)] for name, found in value["beyond"].items()]
    return "\n".join([*lines, "", "lists", text_table(["", *order], cells)])


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def _slice_cell(values: Mapping[str, Any]) -> str:
    if "difference" not in values:
        return f"{values['mean']:.4f}"
    return "{:.4f} [{:+.4f}, {:+.4f}]".format(values["mean"], *values["difference_interval"])
