"""`dualgnn train`: a prepared data folder becomes a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.show import data_option, force_option, json_option, memory_option, note, result, run_option
from dualgnn_dgl.models import MODELS

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from dualgnn_dgl.data import Dataset
    from dualgnn_dgl.options import Options
    from dualgnn_dgl.training import Fit, Progress, TrainConfig

# command-line shorthand → key of TrainConfig
IMPUTERS = ("none", "zero", "mean", "neighbour_mean", "multi_hop", "ppr", "heat")
SHORT = {"epochs": int, "lr": float, "batch_size": int, "patience": int, "seed": int, "impute": click.Choice(IMPUTERS)}


def _shorthand(function: Callable[..., Any]) -> Callable[..., Any]:
    helps = {
        "epochs": "Epochs at most.",
        "lr": "Adam's learning rate.",
        "batch_size": "Training pairs a batch.",
        "patience": "Stop after this many validations without a better one.",
        "seed": "Seed of everything random.",
        "impute": "Fill missing features for the model; the data folder stays as it is.",
    }
    for name in reversed(SHORT):
        function = click.option(f"--{name.replace('_', '-')}", name, type=SHORT[name], help=helps[name])(function)
    return function


@click.command(name="train", short_help="Train a model on a prepared data folder.")
@data_option
@run_option
@click.option("--model", type=click.Choice(list(MODELS)), help="Which model.  [default: dualgnn]")
@memory_option
@gpu_option
@_shorthand
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Set any key of the model or of training; repeatable.")
@click.option("--config", "config_file", metavar="FILE", help="Read a run.toml first; options given here win.")
@click.option("--print-config", is_flag=True, help="Print the resulting configuration as TOML and stop.")
@force_option
@json_option
def command(
    data: str,
    run: str,
    model: str | None,
    gpu: int | None,
    pairs: tuple[str, ...],
    config_file: str | None,
    print_config: bool,
    force: bool,
    as_json: bool,
    **short: Any,
) -> None:
    """Train a model on a prepared data folder and keep its best epoch.

    The epoch is chosen on the validation split (recall@20 unless --set metric=… says otherwise); the test split is not
    looked at. Ctrl-C stops early and keeps the best epoch so far.

    \b
    Examples:
        dualgnn train
        dualgnn train --model lightgcn --run runs/lightgcn --set layers=2
    """
    name, config, train = resolve(model, config_file, pairs, short)
    if print_config:
        from dualgnn_dgl.checkpoint import run_toml

        click.echo(run_toml(name, config, train), nl=False)
        return
    from dualgnn_dgl import checkpoint
    from dualgnn_dgl import data as datasets
    from dualgnn_dgl.files import check_free

    device = pick_device(gpu)
    check_free(run, checkpoint.MARKER, force=force)
    note(f"data: {data} · run: {run} · model: {name} · device: {device}")
    dataset = datasets.load(data)
    fit, seconds = _train(dataset, name, config, train, device)
    info = checkpoint.save_run(
        run, fit, model=name, config=config, train=train, data_path=data, dataset=dataset, device=str(device), force=force
    )
    if as_json:
        result({"run": run, **info})
    else:
        click.echo(_summary(run, info, fit, seconds))
        for line in attention_lines(Path(data), dataset, fit):
            click.echo(line)
    if fit.interrupted:
        note(f"interrupted: {run} holds the best epoch so far")
        raise SystemExit(130)


def resolve(
    model: str | None, config_file: str | None, pairs: tuple[str, ...], short: dict[str, Any]
) -> tuple[str, Options, TrainConfig]:
    """Name, model configuration and training configuration from the file, then `--set`, then the named options."""
    from dualgnn_dgl.errors import ConfigError, unknown
    from dualgnn_dgl.models import model_class
    from dualgnn_dgl.options import build, keys, parse_pair, read_toml
    from dualgnn_dgl.training import TrainConfig

    read = read_toml(config_file) if config_file else {}
    for section in read:
        if section not in ("name", "model", "train"):
            raise ConfigError(f"{config_file}: {unknown('section', section, ('name', 'model', 'train'))}")
    sections: dict[str, dict[str, Any]] = {}
    for section in ("model", "train"):
        value = read.get(section, {})
        if not isinstance(value, dict):
            raise ConfigError(f"{config_file}: {section} must be a table, written as [{section}]")
        sections[section] = dict(value)
    name = model or read.get("name", "dualgnn")
    if not isinstance(name, str):
        raise ConfigError(f"{config_file}: name must be a text, such as name = \"dualgnn\"")
    if model and "name" in read and model != read["name"]:
        sections["model"] = {}  # another model than the file's: its keys do not apply
    kind = model_class(name)
    for key, value in map(parse_pair, pairs):
        if key in keys(kind.Config):
            sections["model"][key] = value
        elif key in keys(TrainConfig):
            sections["train"][key] = value
        else:
            raise ConfigError(unknown("key", key, [*keys(kind.Config), *keys(TrainConfig)]))
    sections["train"].update({key: value for key, value in short.items() if value is not None})
    return name, build(kind.Config, sections["model"], "[model]"), build(TrainConfig, sections["train"], "[train]")


def _train(dataset: Dataset, name: str, config: Options, train: TrainConfig, device: torch.device) -> tuple[Fit, float]:
    """Graph, model, fit, under a progress bar."""
    import time

    from dualgnn_dgl import graph, models, training

    started = time.perf_counter()
    modalities = training.features(dataset, train)
    for label, modality in modalities.items():
        if modality.imputed.any():
            how = "before training" if train.impute == "none" else f"by {train.impute}"
            note(f"{label}: {modality.imputed.sum():,} of {dataset.num_items:,} items filled {how}")
    model = models.create(name, graph.heterograph(dataset), modalities, config, train.seed).to(device)
    count = sum(parameter.numel() for parameter in model.parameters())
    note(f"graph and model ready in {time.perf_counter() - started:.1f} s · {count:,} parameters")
    with _progress(train) as report:
        fit = training.fit(model, dataset.train, dataset.valid, train, report=report)
    return fit, time.perf_counter() - started


class _progress:
    """A live bar on a terminal (loss, validation metric, time left to the last epoch); a line an epoch elsewhere."""

    def __init__(self, train: TrainConfig) -> None:
        self.train = train
        self.bar: Bar | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Callable[[Progress], None]:
        import sys

        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            columns = (TextColumn("{task.description}"), BarColumn(None), *times)
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task("epoch 1", total=None)
        return self.report

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def report(self, state: Progress) -> None:
        """One step done; the loss and metric are those of the last finished epoch."""
        figures = [f"epoch {state.epoch}/{self.train.epochs}"]
        if state.loss is not None:
            figures.append(f"loss {state.loss:.4f}")
        if state.value is not None:
            figures.append(f"{self.train.metric} {state.value:.4f} (best {state.best:.4f})")
        if self.bar is not None and self.task is not None:
            total = state.steps * self.train.epochs
            done = state.steps * (state.epoch - 1) + state.step
            self.bar.update(self.task, description=" · ".join(figures), completed=done, total=total)
        elif state.finished:
            note(" · ".join(figures))


def _summary(run: str, info: dict[str, Any], fit: Fit, seconds: float) -> str:
    best = info["best"]
    if not info["train"]["epochs"] or best["value"] is None:
        return f"Trained {info['model']} for {info['epochs']} epochs in {seconds:.1f} s (no validation split). Run: {run}"
    return (
        f"Best epoch {best['epoch']} of {info['epochs']}: validation {best['metric']} {best['value']:.4f}, "
        f"{info['model']}, {seconds:.1f} s. Run: {run}"
    )


def attention_lines(folder: Path, dataset: Dataset, fit: Fit) -> list[str]:
    """Which modality users weigh most; for the built-in demo also whether that is the one planted in its users."""
    if fit.attention is None or fit.attention.shape[1] < 2:
        return []
    import numpy as np

    from dualgnn_dgl.data import MANIFEST
    from dualgnn_dgl.files import read_json

    names = list(dataset.modalities)
    strongest = fit.attention.argmax(1).cpu().numpy()  # (U,)
    shares = np.bincount(strongest, minlength=len(names)) / len(strongest)
    listed = " · ".join(f"{name} for {share:.0%}" for name, share in zip(names, shares, strict=True))
    lines = [f"Attention: the modality that weighs most is {listed} of the users."]
    if read_json(folder / MANIFEST)["options"].get("input", "") is None:
        from dualgnn_dgl.synthetic import planted

        favourite = planted().favourite_of()
        found = np.mean([names[m] == favourite[user] for m, user in zip(strongest, dataset.user_ids.tolist(), strict=True)])
        lines.append(f"Every user of the demo was given one favourite modality: attention points to it for {found:.0%} of them.")
    return lines
