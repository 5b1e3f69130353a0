"""`dualgnn train`: a prepared data folder becomes a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.resume import Plan, begin, check_data, go_on, refuse_unfinished
from dualgnn_dgl.cli.show import PATH, data_option, force_option, json_option, memory_option, note, print_text, result, run_option
from dualgnn_dgl.cli.stop import Stop, current
from dualgnn_dgl.errors import clean
from dualgnn_dgl.models import MODELS

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from dualgnn_dgl.checkpoint.working import Checkpoints
    from dualgnn_dgl.data import Dataset
    from dualgnn_dgl.models.base import Recommender
    from dualgnn_dgl.options import Options
    from dualgnn_dgl.training import Fit, Progress, TrainConfig

# command-line shorthand → key of TrainConfig
IMPUTERS = ("none", "zero", "mean", "neighbour_mean", "multi_hop", "ppr", "heat")
SHORT = {"epochs": int, "lr": float, "batch_size": int, "patience": int, "seed": int, "impute": click.Choice(IMPUTERS)}


def shorthand(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of training that have a name of their own."""
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
    exact = "Same seed, same bits: exact on the CPU; on CUDA it says what is not."
    return click.option("--deterministic", is_flag=True, default=None, help=exact)(function)


@click.command(name="train", short_help="Train a model on a prepared data folder.")
@data_option
@run_option
@click.option("--model", type=click.Choice(list(MODELS)), help="Which model.  [default: dualgnn]")
@memory_option
@gpu_option
@shorthand
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Set any key of the model or of training; repeatable.")
@click.option("--config", "config_file", type=PATH, metavar="FILE", help="Read a run.toml first; options given here win.")
@click.option("--print-config", is_flag=True, help="Print the resulting configuration as TOML and stop.")
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    default=10,
    metavar="N",
    help="Epochs between checkpoints at most.  [default: 10]",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(0),
    default=5.0,
    metavar="M",
    help="Minutes between checkpoints at most, also within an epoch.  [default: 5]",
)
@click.option("--keep-last", type=click.IntRange(1), default=2, metavar="N", help="How many checkpoints stay.  [default: 2]")
@click.option("--keep-checkpoints", is_flag=True, help="Leave them when the run is finished, for --resume with more --epochs.")
@click.option("--resume", is_flag=True, help="Go on from the newest sound checkpoint, or begin if there is none.")
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
    checkpoint_every: int,
    checkpoint_minutes: float,
    keep_last: int,
    keep_checkpoints: bool,
    resume: bool,
    force: bool,
    as_json: bool,
    **short: Any,
) -> None:
    """Train a model on a prepared data folder and keep its best epoch.

    The epoch is chosen on the validation split (recall@20 unless --set metric=… says otherwise); the test split is not
    looked at. Ctrl-C (or SIGTERM, SIGHUP) ends it after the batch at hand and keeps a checkpoint and the best epoch so far;
    a second one leaves at once. Whatever ended it, --resume goes on, with the options and the data that it was begun with; on the
    CPU the result is then the same to the bit. A finished run is left as it is.

    \b
    Examples:
        dualgnn train
        dualgnn train --model lightgcn --run runs/lightgcn --set layers=2
        dualgnn train --run runs/lightgcn --resume
    """

    def options(base: Mapping[str, Any] | None) -> tuple[str, Options, TrainConfig]:
        return resolve(model, config_file, pairs, short, base)

    if print_config:
        from dualgnn_dgl.checkpoint import run_toml

        print_text(run_toml(*options(None)), end="")
        return
    if resume and force:
        raise click.UsageError("--resume goes on with a training, --force begins anew: give one of them")
    if not resume:
        options(None)  # mistakes are told before anything is done
    from dualgnn_dgl import checkpoint
    from dualgnn_dgl import data as datasets
    from dualgnn_dgl.checkpoint.working import Checkpoints
    from dualgnn_dgl.folders import check_free
    from dualgnn_dgl.manifest import read_options

    check_free(run, checkpoint.FOLDER, force=True)
    keeper = Checkpoints(
        run, every=checkpoint_every, minutes=checkpoint_minutes, last=keep_last, leave=keep_checkpoints, say=note
    )
    stop = current()
    with keeper:
        explicit = {
            name for name in context.params if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
        }
        plan = go_on(keeper, options, data if "data" in explicit else None, gpu, explicit) if resume else None
        if plan is None:
            if not force:
                refuse_unfinished(keeper)
                check_free(run, checkpoint.FOLDER)
            plan = Plan(*options(None), data, pick_device(gpu))
        note(f"data: {plan.data} · run: {run} · model: {plan.name} · device: {plan.device}")
        dataset = datasets.load(plan.data)
        source = read_options(plan.data)  # now: the folder may be gone when the training ends
        check_data(plan, dataset)
        if plan.finished is not None:
            note(f"{run} is finished: nothing is left to do")
            if not keeper.leave:
                keeper.clear()  # it was killed between saving the run and this
            info, fit, seconds = dict(plan.finished), None, None
        else:
            if force:
                keeper.clear()
            begin(keeper, plan, dataset)
            started = time.perf_counter()
            fit = _train(dataset, plan, keeper, stop)
            seconds = time.perf_counter() - started
            info = checkpoint.save_run(
                run,
                fit,
                model=plan.name,
                config=plan.config,
                train=plan.train,
                data_path=plan.data,
                dataset=dataset,
                device=str(plan.device),
                force=force or resume,
            )
            if not fit.interrupted and not keeper.leave:
                keeper.clear()
    streams.kept(run)
    if as_json:
        result({"run": run, **info})
    else:
        print_text(_summary(run, info, seconds))
        if fit is not None:
            for line in attention_lines(source, dataset, fit):
                print_text(line)
    if fit is not None and fit.interrupted:
        note(f"interrupted: {run} holds the best epoch so far; --resume goes on")
    if stop.signal:
        raise SystemExit(stop.status)


def resolve(
    model: str | None,
    config_file: str | None,
    pairs: tuple[str, ...],
    short: dict[str, Any],
    base: Mapping[str, Any] | None = None,
) -> tuple[str, Options, TrainConfig]:
    """Name, model configuration and training configuration: the model's defaults, then the file, `--set`, the named options.

    With `base`, what a training was begun with (its `model`, `config` and `train`), only what differs needs to be given,
    and is refused but for what `cli/resume.py` allows.
    """
    from dualgnn_dgl.cli.resume import refuse_differences, refuse_other_model
    from dualgnn_dgl.errors import ConfigError, unknown
    from dualgnn_dgl.models import model_class
    from dualgnn_dgl.options import build, check_saved, keys, parse_pair, read_toml
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
    name = model or read.get("name", base["model"] if base else "dualgnn")
    if not isinstance(name, str):
        raise ConfigError(f'{config_file}: name must be a text, such as name = "dualgnn"')
    if model and "name" in read and model != read["name"]:
        sections["model"] = {}  # another model than the file's: its keys do not apply
    kind = model_class(name)
    if config_file:
        for section, owner in (("model", kind.Config), ("train", TrainConfig)):
            check_saved(owner, sections[section], config_file, ConfigError, "fix it", f"[{section}]")
    if base:
        refuse_other_model(base, name)
        sections = {"model": {**base["config"], **sections["model"]}, "train": {**base["train"], **sections["train"]}}
    else:
        sections["train"] = {**kind.TRAIN, **sections["train"]}
    for key, value in map(parse_pair, pairs):
        if key in keys(kind.Config):
            sections["model"][key] = value
        elif key in keys(TrainConfig):
            sections["train"][key] = value
        else:
            raise ConfigError(unknown("key", key, [*keys(kind.Config), *keys(TrainConfig)]))
    sections["train"].update({key: value for key, value in short.items() if value is not None})
    config, train = build(kind.Config, sections["model"], "[model]"), build(TrainConfig, sections["train"], "[train]")
    if base:
        refuse_differences(base, config, train)
    return name, config, train


def _train(dataset: Dataset, plan: Plan, keeper: Checkpoints, stop: Stop) -> Fit:
    """Graph, model, fit, under a progress bar. From the first batch on, a signal ends the training after a batch."""
    from dualgnn_dgl import cold_items, training
    from dualgnn_dgl.deterministic import promise

    def ready(model: Recommender, inputs: training.Inputs, seconds: float) -> None:
        for label, modality in inputs.modalities.items():
            if modality.imputed.any():
                how = "before training" if plan.train.impute == "none" else f"by {plan.train.impute}"
                note(f"{label}: {modality.imputed.sum():,} of {dataset.num_items:,} items filled {how}")
        count = sum(parameter.numel() for parameter in model.parameters())
        note(f"graph and model ready in {seconds:.1f} s · {count:,} parameters")
        if plan.train.deterministic:
            note(promise(plan.device))
        if inputs.modalities and cold_items.all_cold(dataset.train, dataset.valid):
            note("no held-out video was watched in training: the epoch is chosen among such videos, placed by their modalities")
        stop.ask = keeper.ask

    with Display(plan.train) as report:
        return training.train_model(
            plan.name, dataset, plan.config, plan.train, device=plan.device, report=report, keeper=keeper, ready=ready
        ).fit


class Display:
    """A live bar on a terminal (loss, validation metric, time left to the last epoch); a line an epoch elsewhere.

    `title` stands before the figures; without `lines` nothing is said elsewhere.
    """

    def __init__(self, train: TrainConfig, title: str = "", *, lines: bool = True) -> None:
        self.train, self.title, self.lines = train, title, lines
        self.bar: Bar | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Callable[[Progress], None]:
        if streams.terminal():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            times = (TimeElapsedColumn(), TextColumn("left", markup=False), TimeRemainingColumn())
            columns = (TextColumn("{task.description}", markup=False), BarColumn(None), *times)
            self.bar = Progress(*columns, console=streams.console(), transient=True)
            self.bar.start()
            self.task = self.bar.add_task("epoch 1", total=None)
        return self.report

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def report(self, state: Progress) -> None:
        """One step done; the loss and metric are those of the last finished epoch."""
        figures = [f"{self.title}epoch {state.epoch}/{self.train.epochs}"]
        if state.loss is not None:
            figures.append(f"loss {state.loss:.4f}")
        if state.value is not None:
            figures.append(f"{self.train.metric} {state.value:.4f} (best {state.best:.4f})")
        if self.bar is not None and self.task is not None:
            total = state.steps * self.train.epochs
            done = state.steps * (state.epoch - 1) + state.step
            self.bar.update(self.task, description=clean(" · ".join(figures)), completed=done, total=total)
        elif state.finished and self.lines:
            note(" · ".join(figures))


def _summary(run: str, info: Mapping[str, Any], seconds: float | None) -> str:
    best, took = info["best"], "" if seconds is None else f", {seconds:.1f} s"
    if not info["train"]["epochs"] or best["value"] is None:
        return f"Trained {info['model']} for {info['epochs']} epochs{took} (no validation split). Run: {clean(run)}"
    return (
        f"Best epoch {best['epoch']} of {info['epochs']}: validation {best['metric']} {best['value']:.4f}, "
        f"{info['model']}{took}. Run: {clean(run)}"
    )


def attention_lines(source: Mapping[str, Any], dataset: Dataset, fit: Fit) -> list[str]:
    """Which modality users weigh most; for the built-in demo also whether that is the one planted in its users.

    `source` holds the options of the data folder. Users that an update has added to the demo are not judged.
    """
    if fit.attention is None or fit.attention.shape[1] < 2:
        return []
    import numpy as np

    names = list(dataset.modalities)
    strongest = fit.attention.argmax(1).cpu().numpy()  # (U,)
    shares = np.bincount(strongest, minlength=len(names)) / len(strongest)
    listed = " · ".join(f"{clean(name)} for {share:.0%}" for name, share in zip(names, shares, strict=True))
    lines = [f"Attention: the modality that weighs most is {listed} of the users."]
    if source.get("input", "") is None:
        from dualgnn_dgl.synthetic import planted

        favourite = planted().favourite_of()
        users = zip(strongest.tolist(), dataset.user_ids.tolist(), strict=True)
        found = [names[m] == favourite[user] for m, user in users if user in favourite]
        if source.get("updated_from"):
            added = len(dataset.user_ids) - len(found)
            lines.append(f"The data are the demo, updated: {added:,} of {len(dataset.user_ids):,} users are new, and not judged.")
        if found:
            share = f"{np.mean(found):.0%}"
            lines.append(f"Every user of the demo was given one favourite modality: attention points to it for {share} of them.")
    return lines
