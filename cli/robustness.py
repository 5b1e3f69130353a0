"""Measures how models rank when modalities are missing: `dualgnn robustness`."""

from __future__ import annotations

from typing import Any

import click

from dualgnn_dgl.cli import stop, streams
from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.progress import lines
from dualgnn_dgl.cli.show import (
    PATH,
    data_option,
    json_option,
    memory_option,
    note,
    print_text,
    result,
)
from dualgnn_dgl.core.vocabulary import STAGES, strategies
from dualgnn_dgl.errors import clean
from dualgnn_dgl.modality.imputers import IMPUTERS


def _names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """Parses comma-separated words."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _shares(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    """Parses comma-separated numbers."""
    try:
        return tuple(float(word) for word in _names(context, parameter, text))
    except ValueError:
        raise click.BadParameter(
            f"'{text}' is no list of shares: write numbers with commas, such as 0,.2,.4,.6"
        ) from None


@click.command(name="robustness", short_help="Measure how models rank when modalities go missing.")
@data_option
@click.option(
    "--out",
    default="robustness",
    show_default=True,
    type=PATH,
    metavar="DIR",
    help="Folder of the experiment: cells, table and plot.",
)
@click.option(
    "--models",
    default="dualgnn,lightgcn",
    show_default=True,
    callback=_names,
    metavar="A,B,…",
    help="Models; the others are compared with the first.",
)
@click.option(
    "--rates",
    default="0,.2,.4,.6,.8,.95",
    show_default=True,
    callback=_shares,
    metavar="R,…",
    help="Shares of features that go missing.",
)
@click.option(
    "--patterns",
    default="random",
    show_default=True,
    callback=_names,
    metavar="P,…",
    help="Patterns of missing features: random, rare (rarer items miss more), one-modality, "
    "whole-modality.",
)
@click.option(
    "--stages",
    default="train+test",
    show_default=True,
    callback=_names,
    metavar="S,…",
    help=f"Stages at which features are missing: {', '.join(STAGES)}.",
)
@click.option(
    "--strategies",
    default="mask,zero,mean,drop-items",
    show_default=True,
    callback=_names,
    metavar="S,…",
    help=f"Strategies for missing features: {', '.join(strategies(IMPUTERS))}; or mask:KEY=VALUE, "
    f"an option of the model.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="Number of draws of missing features and of trainings.",
)
@click.option("--epochs", type=int, metavar="N", help="Maximum number of epochs of every model.")
@click.option(
    "--patience",
    type=int,
    metavar="N",
    help="Validations without improvement before training stops, for every model.",
)
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of training for every model, or MODEL.KEY=VALUE for one model; repeatable.",
)
@click.option(
    "--minutes",
    type=float,
    metavar="N",
    help="Minutes after which no cell is begun; the same command continues later.",
)
@gpu_option
@memory_option
@json_option
def command(
    data: str, out: str, pairs: tuple[str, ...], gpu: int | None, as_json: bool, **options: Any
) -> None:
    """Measure how models rank when modalities go missing.

    For each rate, pattern and seed, the same features are removed for all models. Each model is
    then trained with each strategy: with the missing features masked, imputed, or without the
    incomplete items. Recall and NDCG are measured on the test split, for all, warm, cold, complete
    and incomplete items. You can stop it at any time: the same command continues with the cells
    that are missing.

    \b
    Example:
        dualgnn robustness --data data --models dualgnn,lightgcn --rates 0,.4 --out missing
    """
    from dualgnn_dgl.core.options import parse_pair
    from dualgnn_dgl.verbs.robustness import robustness

    changes = dict(map(parse_pair, pairs))
    stopped = stop.current()
    stopped.raises = KeyboardInterrupt
    try:
        found = robustness(
            data, out, changes=changes, device=pick_device(gpu), progress=lines(), **options
        )
    except KeyboardInterrupt:
        note("interrupted: the finished cells are kept, the same command continues")
        raise SystemExit(stopped.status) from None
    streams.kept(out)
    if found.missing:
        note(f"{found.missing} of {found.cells} cells are missing: the same command continues")
    if as_json:
        result(found.to_dict())
    else:
        print_text(found.table + f"\nwritten to {clean(out)}: table.md, summary.json, curves.png")
