"""`dualgnn robustness`: how well models rank when modalities go missing."""

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
    """Comma-separated words."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _shares(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    """Comma-separated numbers."""
    try:
        return tuple(float(word) for word in _names(context, parameter, text))
    except ValueError:
        raise click.BadParameter(
            f"'{text}': write shares with commas between them, such as 0,.2,.4,.6"
        ) from None


@click.command(name="robustness", short_help="Measure how models rank when modalities go missing.")
@data_option
@click.option(
    "--out",
    default="robustness",
    show_default=True,
    type=PATH,
    metavar="DIR",
    help="Where holes, cells, table and plot go.",
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
    help="Shares that go missing.",
)
@click.option(
    "--patterns",
    default="random",
    show_default=True,
    callback=_names,
    metavar="P,…",
    help="Which go: random, rare (rarer items miss more), one-modality, whole-modality.",
)
@click.option(
    "--stages",
    default="train+test",
    show_default=True,
    callback=_names,
    metavar="S,…",
    help=f"When: {', '.join(STAGES)}.",
)
@click.option(
    "--strategies",
    default="mask,zero,mean,drop-items",
    show_default=True,
    callback=_names,
    metavar="S,…",
    help=f"What models are given instead: {', '.join(strategies(IMPUTERS))}; or mask:KEY=VALUE, "
    f"an option of the model.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="Draws of holes and trainings.",
)
@click.option("--epochs", type=int, metavar="N", help="Epochs at most, for every model.")
@click.option(
    "--patience", type=int, metavar="N", help="Validations without a better one, for every model."
)
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of training for every model, or MODEL.KEY=VALUE for a model's own; repeatable.",
)
@click.option(
    "--minutes",
    type=float,
    metavar="N",
    help="Begin no cell after N minutes; the same command goes on later.",
)
@gpu_option
@memory_option
@json_option
def command(
    data: str, out: str, pairs: tuple[str, ...], gpu: int | None, as_json: bool, **options: Any
) -> None:
    """Measure how models rank when modalities go missing.

    For every rate, pattern and seed the same holes are made for all models; each model meets them
    in every way asked for (told what is missing, filled, or without the items concerned), and its
    recall and NDCG are measured on the test split, for all, warm, cold, complete and incomplete
    items. Stop it at will: the same command goes on where it stopped.

    \b
    Example:
        dualgnn robustness --data data --models dualgnn,lightgcn --rates 0,.4 --out holes
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
        note("interrupted: the finished cells are kept, the same command goes on")
        raise SystemExit(stopped.status) from None
    streams.kept(out)
    if found.missing:
        note(f"{found.missing} of {found.cells} cells are still to run: the same command goes on")
    if as_json:
        result(found.to_dict())
    else:
        print_text(found.table + f"\nwritten to {clean(out)}: table.md, summary.json, curves.png")
