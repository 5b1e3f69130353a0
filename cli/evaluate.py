"""Ranks all micro-videos for held-out users and prints the metrics: `dualgnn eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.show import (
    PATH,
    force_option,
    json_option,
    mask_option,
    measured_on,
    memory_option,
    note,
    note_cut_lists,
    print_text,
    result,
    run_data_option,
    run_option,
    split_option,
    text_table,
)
from dualgnn_dgl.errors import clean

if TYPE_CHECKING:
    from dualgnn_dgl.verbs.evaluate import EvaluationResult


@click.command(short_help="Rank all micro-videos for held-out users and print the metrics.")
@run_option
@run_data_option
@click.option(
    "--topk",
    type=int,
    multiple=True,
    default=(10, 20),
    show_default="10 20",
    metavar="K",
    help="List length; repeatable.",
)
@split_option
@mask_option
@click.option(
    "--beyond", is_flag=True, help="Also measure Gini, novelty, and diversity in each modality."
)
@click.option(
    "--cold-items",
    is_flag=True,
    help="Rank only the videos without a training pair, folded in by their modalities like new "
    "videos.",
)
@click.option(
    "--per-user",
    default=None,
    type=PATH,
    metavar="FILE",
    help="Write every metric of every user to this Parquet file.",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Resamples of the users; 0 for no intervals.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the bootstrap."
)
@memory_option
@gpu_option
@force_option
@json_option
def command(run: str, data: str | None, gpu: int | None, as_json: bool, **options: Any) -> None:
    """Rank all micro-videos for every user with a held-out one and print the metrics.

    Means are over users with at least one held-out video. The 95 % bootstrap interval follows each
    mean in brackets.

    \b
    Examples:
        dualgnn eval --topk 10
        dualgnn eval --topk 20 --mask train --beyond --json
        dualgnn eval --cold-items
    """
    if options["beyond"] and options["cold_items"]:
        raise click.UsageError(
            "--beyond looks at lists of the whole catalogue: leave out --cold-items"
        )
    from dualgnn_dgl.verbs.evaluate import evaluate

    found = evaluate(run, data, device=pick_device(gpu), **options)
    note_cut_lists(options["topk"], found.to_dict()["metrics"])
    if options["per_user"] is not None:
        note(f"{found.users:,} users written to {options['per_user']}")
    if as_json:
        result(found.to_dict())
    else:
        print_text(_text(found))


def _text(found: EvaluationResult) -> str:
    """Renders the result as text: one row per metric, one column per list length."""
    value = found.to_dict()
    names = list(dict.fromkeys(name.partition("@")[0] for name in value["metrics"]))

    def cell(name: str) -> str:
        low, high = value["intervals"].get(name, (None, None))
        if value["metrics"][name] is None:
            return "–"
        return f"{value['metrics'][name]:.4f}" + (
            f" [{low:.4f}, {high:.4f}]" if low is not None else ""
        )

    lines = [
        f"run    {clean(value['run'])}" + (f" ({found.model})" if found.model else ""),
        *measured_on(value, found.left_out),
        "",
        text_table(
            ["metric", *(f"@{k}" for k in found.ks)],
            [[name, *(cell(f"{name}@{k}") for k in found.ks)] for name in names],
        ),
    ]
    return "\n".join(lines)
