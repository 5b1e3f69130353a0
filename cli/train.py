"""Trains a model and writes a run folder: `dualgnn train`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli import streams
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
    run_option,
)
from dualgnn_dgl.cli.stop import current
from dualgnn_dgl.errors import clean

if TYPE_CHECKING:
    from dualgnn_dgl.verbs.train import AttentionSummary


@click.command(name="train", short_help="Train a model on a prepared data folder.")
@data_option
@run_option
@model_option
@memory_option
@gpu_option
@shorthand
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any option of the model or of training; repeatable.",
)
@click.option(
    "--config",
    "config_file",
    type=PATH,
    metavar="FILE",
    help="Configuration in the form of run.toml; options given here override it.",
)
@click.option(
    "--print-config", is_flag=True, help="Print the resolved configuration as TOML and exit."
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    metavar="N",
    help="Maximum number of epochs between checkpoints.  [default: 10]",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(0),
    metavar="M",
    help="Maximum minutes between checkpoints, also within an epoch.  [default: 5]",
)
@click.option(
    "--keep-last",
    type=click.IntRange(1),
    metavar="N",
    help="Number of checkpoints to keep.  [default: 2]",
)
@click.option(
    "--keep-checkpoints",
    is_flag=True,
    default=None,
    help="Keep the checkpoints of a finished run, for --resume with more --epochs.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume from the newest valid checkpoint, or start if there is none.",
)
@force_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    data: str,
    run: str,
    model: str | None,
    gpu: int | None,
    pairs: tuple[str, ...],
    config_file: str | None,
    print_config: bool,
    checkpoint_every: int | None,
    checkpoint_minutes: float | None,
    keep_last: int | None,
    keep_checkpoints: bool | None,
    resume: bool,
    force: bool,
    as_json: bool,
    **short: Any,
) -> None:
    """Train a model on a prepared data folder and keep its best epoch.

    The epoch is chosen on the validation split, by recall@20 unless --set metric=… says otherwise.
    The test split is not used. Ctrl-C, SIGTERM or SIGHUP ends training after the current batch and
    keeps a checkpoint and the best epoch so far; a second signal exits at once. After any
    interruption --resume continues with the same options and data, on the CPU bit-identically. A
    finished run is left as it is.

    \b
    Examples:
        dualgnn train
        dualgnn train --model lightgcn --run runs/lightgcn --set layers=2
        dualgnn train --run runs/lightgcn --resume
    """
    if resume and force:
        raise click.UsageError(
            "--resume continues a training and --force starts it again: give one of them"
        )
    from dualgnn_dgl.verbs import train

    options = given(pairs, short)
    if print_config:
        print_text(train.configuration(model, config_file, options), end="")
        return
    named = context.get_parameter_source("data") == click.core.ParameterSource.COMMANDLINE
    stop = current()
    with Display() as display:
        done = train.train(
            data if named else None,
            model,
            run,
            config=config_file,
            options=options,
            device=gpu,
            progress=display,
            resume=resume,
            force=force,
            checkpoint_every=checkpoint_every,
            checkpoint_minutes=checkpoint_minutes,
            keep_last=keep_last,
            keep_checkpoints=keep_checkpoints,
            stop=stop,
        )
    streams.kept(run)
    if as_json:
        result({"run": run, **done.info})
    else:
        print_text(_summary(run, done.info, done.seconds))
        for line in attention_lines(done.attention_summary):
            print_text(line)
    if done.rising:
        epochs = done.info["epochs"]
        note(
            f"validation may still improve: its best epoch is {done.best['epoch']}, and training "
            f"ended after {epochs}, the largest number allowed: raise --epochs"
        )
    if done.interrupted:
        note(f"interrupted: {run} has the best epoch so far; --resume continues")
    if stop.signal:
        raise SystemExit(stop.status)


def _summary(run: str, info: Mapping[str, Any], seconds: float | None) -> str:
    """Renders the result of the training in one line."""
    best, took = info["best"], "" if seconds is None else f", {seconds:.1f} s"
    if not info["train"]["epochs"] or best["value"] is None:
        return (
            f"Trained {info['model']} for {info['epochs']} epochs{took} (no validation split). "
            f"Run: {clean(run)}"
        )
    return (
        f"Best epoch {best['epoch']} of {info['epochs']}: validation {best['metric']} "
        f"{best['value']:.4f}, "
        f"{info['model']}{took}. Run: {clean(run)}"
    )


def attention_lines(summary: AttentionSummary | None) -> list[str]:
    """Renders the modality that weighs most; on the demo also how often it is the planted one."""
    if summary is None:
        return []
    listed = " · ".join(f"{clean(name)} for {share:.0%}" for name, share in summary.shares.items())
    lines = [f"Attention: the modality that weighs most is {listed} of the users."]
    if summary.updated:
        added = f"{summary.new_users:,} of {summary.users:,} users are new and have no favourite"
        lines.append(f"The data are the demo, updated: {added}.")
    if summary.planted is not None:
        share = f"{summary.planted:.0%}"
        lines.append(
            f"Every user of the demo was given one favourite modality: attention points to it for "
            f"{share} of them."
        )
    return lines
