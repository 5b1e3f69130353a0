"""Searches for a model's best options on the validation split: `dualgnn tune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli import stop, streams
from dualgnn_dgl.cli.device import gpu_option
from dualgnn_dgl.cli.display import Display
from dualgnn_dgl.cli.options import given, model_option, shorthand
from dualgnn_dgl.cli.show import (
    PATH,
    data_option,
    force_option,
    json_option,
    memory_option,
    note,
    print_text,
    result,
    text_table,
)
from dualgnn_dgl.errors import clean

if TYPE_CHECKING:
    from dualgnn_dgl.verbs.tune import TuneResult


@click.command(name="tune", short_help="Search for a model's best options on the validation split.")
@data_option
@model_option
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Total number of trials, earlier ones included.",
)
@click.option("--study", type=PATH, metavar="DIR", help="Study folder.  [default: studies/MODEL]")
@click.option(
    "--no-prune",
    is_flag=True,
    help="Train every trial to its end, even the worst ones.",
)
@gpu_option
@memory_option
@shorthand
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any option of the model or of training, which stays fixed; repeatable.",
)
@click.option(
    "--config",
    "config_file",
    type=PATH,
    metavar="FILE",
    help="Configuration to start from, in the form of run.toml, instead of the model's defaults.",
)
@force_option
@json_option
def command(
    data: str,
    model: str | None,
    trials: int,
    study: str | None,
    no_prune: bool,
    gpu: int | None,
    pairs: tuple[str, ...],
    config_file: str | None,
    force: bool,
    as_json: bool,
    **short: Any,
) -> None:
    """Search for a model's best options on the validation split.

    Trial 0 is what `dualgnn train` would do. Optuna then proposes values of SEARCH in the model's
    file, all with one seed. Keys given by --set or by name stay fixed. A trial among the worst
    tenth at the same epoch is ended early. The test split is not used.

    The study keeps every trial. Ctrl-C loses only the current one, and the same command continues.
    The best options so far are in the study's run.toml.

    \b
    Examples:
        dualgnn tune --model lightgcn --trials 20
        dualgnn train --config studies/lightgcn/run.toml --run runs/lightgcn
    """
    from dualgnn_dgl.verbs import tune

    stopped = stop.current()
    stopped.raises = KeyboardInterrupt  # The verb keeps the finished trials.
    with Display(lines=False) as display:
        done = tune.tune(
            data,
            model,
            study or tune.DEFAULT_STUDY,
            trials=trials,
            prune=not no_prune,
            config=config_file,
            options=given(pairs, short),
            device=gpu,
            progress=display,
            force=force,
        )
    assert done.folder is not None
    streams.kept(done.folder)
    value = _value(done)
    if as_json:
        result(value)
    else:
        print_text(_text(value, done))
    if done.exhausted:
        note(f"all combinations of these values were tried ({len(done.trials)})")
    if done.interrupted:
        note("interrupted: the finished trials are kept, the same command continues")
        raise SystemExit(stopped.status)


def _value(done: TuneResult) -> dict[str, Any]:
    """Returns the study as `--json` prints it."""
    from dataclasses import asdict

    return {
        "study": done.folder,
        "data": done.data,
        "model": done.plan.model,
        "metric": done.plan.train.metric,
        "seed": done.plan.train.seed,
        "trials": [asdict(trial) for trial in done.trials],
        "best": None if done.best is None else asdict(done.best),
        "config": done.config_file,
    }


def _text(value: Mapping[str, Any], done: TuneResult) -> str:
    """Renders the trials as text, best first, and the next command."""
    order, space = {"complete": 0, "pruned": 1, "failed": 2}, done.plan.space
    rows = sorted(
        value["trials"],
        key=lambda trial: (order[trial["state"]], -(trial["value"] or 0.0), trial["number"]),
    )
    cells = [
        [
            trial["number"],
            trial["value"],
            trial["epoch"],
            trial["epochs"],
            f"{trial['seconds']:.1f}",
            trial["state"],
            *(str(trial["params"][key]) for key in space),
        ]
        for trial in rows
    ]
    headers = [
        "trial",
        f"validation {value['metric']}",
        "best epoch",
        "epochs",
        "s",
        "state",
        *space,
    ]
    lines = [text_table(headers, cells)] if cells else ["no trial has finished yet"]
    if value["best"] is not None:
        then = f"dualgnn train --data {clean(value['data'])} --config {clean(value['config'])}"
        lines += ["", f"best: trial {value['best']['number']}; next: {then}"]
    return "\n".join(lines)
