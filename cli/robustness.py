"""`dualgnn robustness`: how well models rank when modalities go missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli import stop, streams
from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.show import PATH, data_option, json_option, memory_option, note, print_text, result
from dualgnn_dgl.errors import ConfigError, clean

if TYPE_CHECKING:
    from dualgnn_dgl.experiments.robustness import Cell, Plan

RESULTS = ("summary.json", "table.md", "curves.png")
STRATEGIES = "mask, zero, mean, neighbour_mean, multi_hop, ppr, heat, drop-items; or mask:KEY=VALUE, an option of the model"


def _names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """Comma-separated words."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _shares(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    """Comma-separated numbers."""
    try:
        return tuple(float(word) for word in _names(context, parameter, text))
    except ValueError:
        raise click.BadParameter(f"'{text}': write shares with commas between them, such as 0,.2,.4,.6") from None


@click.command(name="robustness", short_help="Measure how models rank when modalities go missing.")
@data_option
@click.option(
    "--out", default="robustness", show_default=True, type=PATH, metavar="DIR", help="Where holes, cells, table and plot go."
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
    "--rates", default="0,.2,.4,.6,.8,.95", show_default=True, callback=_shares, metavar="R,…", help="Shares that go missing."
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
    "--stages", default="train+test", show_default=True, callback=_names, metavar="S,…", help="When: train+test, test-only."
)
@click.option(
    "--strategies",
    default="mask,zero,mean,drop-items",
    show_default=True,
    callback=_names,
    metavar="S,…",
    help=f"What models are given instead: {STRATEGIES}.",
)
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="N", help="Draws of holes and trainings."
)
@click.option("--epochs", type=int, metavar="N", help="Epochs at most, for every model.")
@click.option("--patience", type=int, metavar="N", help="Validations without a better one, for every model.")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of training for every model, or MODEL.KEY=VALUE for a model's own; repeatable.",
)
@click.option("--minutes", type=float, metavar="N", help="Begin no cell after N minutes; the same command goes on later.")
@gpu_option
@memory_option
@json_option
def command(
    data: str,
    out: str,
    models: tuple[str, ...],
    rates: tuple[float, ...],
    patterns: tuple[str, ...],
    stages: tuple[str, ...],
    strategies: tuple[str, ...],
    seeds: int,
    epochs: int | None,
    patience: int | None,
    pairs: tuple[str, ...],
    minutes: float | None,
    gpu: int | None,
    as_json: bool,
) -> None:
    """Measure how models rank when modalities go missing.

    For every rate, pattern and seed the same holes are made for all models; each model meets them in every way asked for
    (told what is missing, filled, or without the items concerned), and its recall and NDCG are measured on the test
    split, for all, warm, cold, complete and incomplete items. Stop it at will: the same command goes on where it stopped.

    \b
    Example:
        dualgnn robustness --data data --models dualgnn,lightgcn --rates 0,.4,.8 --seeds 3 --out holes
    """
    from dualgnn_dgl import data as datasets
    from dualgnn_dgl import locks
    from dualgnn_dgl.experiments import robustness
    from dualgnn_dgl.files import atomic_file, write_json

    settings = {model: _settings(model, models, pairs, {"epochs": epochs, "patience": patience}) for model in models}
    plan = robustness.Plan(models, settings, rates, patterns, stages, strategies, seeds)
    device = pick_device(gpu)
    dataset = datasets.load(data)
    plan = _fit_lists(plan, dataset.num_items)
    cells = len(plan.cells(dataset))
    note(f"data: {data} · out: {out} · {cells} cells · device: {device}")
    stopped = stop.current()
    stopped.raises = KeyboardInterrupt
    with locks.writing(out, "choose another --out"):
        _check_own(Path(out))
        (Path(out) / "cells").mkdir(parents=True, exist_ok=True)
        limit = float("inf") if minutes is None else 60 * minutes
        try:
            left = robustness.run(plan, dataset, out, device, seconds=limit, report=_reporter(plan.ks[-1]))
        except KeyboardInterrupt:
            note("interrupted: the finished cells are kept, the same command goes on")
            raise SystemExit(stopped.status) from None
        summary = robustness.summarise(plan, dataset, out, f"recall@{plan.ks[-1]}") | {"missing_cells": left}
        write_json(Path(out) / "summary.json", summary)
        table = robustness.markdown(summary)
        with atomic_file(Path(out) / "table.md") as temporary:
            temporary.write_text(table, "utf-8")
        robustness.draw(summary, Path(out) / "curves.png")
    streams.kept(out)
    if left:
        note(f"{left} of {cells} cells are still to run: the same command goes on")
    if as_json:
        result(summary)
    else:
        print_text(table + f"\nwritten to {clean(out)}: table.md, summary.json, curves.png")


def _check_own(out: Path) -> None:
    """Raise `RunError` if a table, picture or summary in the folder is none of an experiment's."""
    from dualgnn_dgl.errors import RunError

    found = next((out / name for name in RESULTS if (out / name).exists()), None)
    if found is not None and not (out / "cells").is_dir():
        raise RunError(f"{found} has a name that results take, but was not written as one: move it, or choose another --out")


def _settings(model: str, models: tuple[str, ...], pairs: tuple[str, ...], short: dict[str, Any]) -> tuple[Any, Any]:
    """Configuration of one model and of its training: `--set KEY=…` of training, and `--set MODEL.KEY=…`."""
    from dualgnn_dgl.cli.train import resolve
    from dualgnn_dgl.errors import unknown
    from dualgnn_dgl.options import keys
    from dualgnn_dgl.training import TrainConfig

    own = []
    for pair in pairs:
        owner, dot, rest = pair.partition("=")[0].partition(".")
        if dot and owner not in models:
            raise ConfigError(f"--set {pair}: {unknown('model', owner, models)}")
        if not dot and owner.strip() not in keys(TrainConfig):
            known = unknown("key of training", owner, keys(TrainConfig))
            raise ConfigError(f"--set {pair}: {known}; a model's own: MODEL.{owner}=…")
        if rest.strip() in ("seed", "impute") or owner.strip() in ("seed", "impute"):
            raise ConfigError(f"--set {pair}: seeds and filling belong to the experiment, use --seeds and --strategies")
        if not dot or owner == model:
            own.append(pair[len(owner) + 1 :] if dot else pair)
    _, config, train = resolve(model, None, tuple(own), short)
    return config, train


def _fit_lists(plan: Plan, items: int) -> Plan:
    """Lists no longer than a small catalogue."""
    from dataclasses import replace

    ks = tuple(sorted({min(k, items) for k in plan.ks}))
    return replace(plan, ks=ks)


def _reporter(k: int) -> Callable[[int, int, Cell, Mapping[str, Any]], None]:
    """A line a cell, with the time that the rest will take if cells go on like this."""
    import time

    started, first = time.perf_counter(), [0]

    def report(done: int, total: int, cell: Cell, found: Mapping[str, Any]) -> None:
        first[0] = first[0] or done
        each = (time.perf_counter() - started) / (done - first[0] + 1)
        said = f"recall@{k} {found['metrics'][f'recall@{k}']:.4f}" if "metrics" in found else f"refused: {found['refused']}"
        note(f"{done}/{total} · {cell} · {said} · {found['seconds']:.0f} s · {each * (total - done) / 60:.0f} min left")

    return report
