"""`dualgnn tune`: search for a model's best options on the validation split; the study can be stopped and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli import stop, streams
from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.show import (
    PATH,
    data_option,
    force_option,
    json_option,
    memory_option,
    note,
    print_text,
    result,
    table,
)
from dualgnn_dgl.cli.train import Display, resolve, shorthand
from dualgnn_dgl.errors import clean
from dualgnn_dgl.models import MODELS

if TYPE_CHECKING:
    from dualgnn_dgl.training import Progress
    from dualgnn_dgl.tuning import Plan, Study, Trial


@click.command(name="tune", short_help="Search for a model's best options on the validation split.")
@data_option
@click.option("--model", type=click.Choice(list(MODELS)), help="Which model.  [default: dualgnn]")
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="Trials in all, earlier ones included.")
@click.option("--study", type=PATH, metavar="DIR", help="Study folder.  [default: studies/MODEL]")
@click.option("--no-prune", is_flag=True, help="Train every trial to its end, also those among the worst so far.")
@gpu_option
@memory_option
@shorthand
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Fix any key of the model or of training; repeatable.")
@click.option(
    "--config", "config_file", type=PATH, metavar="FILE", help="Start from this run.toml instead of the model's defaults."
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

    Trial 0 is what `dualgnn train` would do; then Optuna proposes values from the list beside each model's options
    (SEARCH in its file), all with one seed. Keys given by --set or by name stay as they are. A trial among the worst
    tenth at the same epoch is ended early. The test split is not looked at.

    The study remembers every trial: Ctrl-C loses only the one at hand, and the same command goes on. The best options so far
    are in the study's run.toml.

    \b
    Examples:
        dualgnn tune --model lightgcn --trials 20
        dualgnn train --config studies/lightgcn/run.toml --run runs/lightgcn
    """
    from dualgnn_dgl import data as datasets
    from dualgnn_dgl import training, tuning

    given = {key: value for key, value in short.items() if value is not None}
    known = tuning.read_plan(study) if study and not force else None
    if known is not None and not (model or config_file or pairs or given):
        name, config, train, fixed = known.model, known.config, known.train, None
    else:
        same = known.model if known is not None and not config_file else None
        name, config, train = resolve(model or same, config_file, pairs, short)
        fixed = {pair.partition("=")[0].strip() for pair in pairs} | given.keys()
    folder = study or f"studies/{name}"
    device = pick_device(gpu)
    dataset = datasets.load(data)
    if fixed is None and known is not None:
        plan = tuning.Plan(name, config, train, dataset.hash, known.space)
    else:
        plan = tuning.make_plan(name, config, train, dataset.hash, fixed or ())
    search = tuning.Study(folder, plan, prune=not no_prune, force=force)
    with search:
        note(f"data: {data} · study: {folder} · model: {name} · device: {device}")
        tried = " · ".join(f"{key} {', '.join(map(str, values))}" for key, values in plan.space.items())
        note(f"values to try: {tried or 'none, this model has nothing to choose'}")
        if before := len(search.trials()):
            note(f"{before} trials are there already")
        interrupted, whole, stopped = False, True, stop.current()
        stopped.raises = KeyboardInterrupt
        try:
            with _Screen(search, trials) as screen:
                inputs = training.Inputs.of(dataset, train)
                whole = search.tune(inputs, trials, device=device, begin=screen.begin, end=screen.end)
        except KeyboardInterrupt:
            interrupted = True
        value = _value(folder, data, search)
        streams.kept(folder)
    if as_json:
        result(value)
    else:
        print_text(_text(value, plan))
    if not whole:
        note(f"every combination of these values was tried ({len(value['trials'])})")
    if interrupted:
        note("interrupted: the finished trials are kept, the same command goes on")
        raise SystemExit(stopped.status)


class _Screen:
    """One training display a trial, and a line for each finished one."""

    def __init__(self, study: Study, trials: int) -> None:
        self.study, self.trials = study, trials
        self.display: Display | None = None

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self.display is not None:
            self.display.__exit__()
            self.display = None

    def begin(self, number: int, params: dict[str, Any]) -> Callable[[Progress], None]:
        """A trial begins."""
        self.display = Display(self.study.plan.train, f"trial {number} of 0…{self.trials - 1} · ", lines=False)
        return self.display.__enter__()

    def end(self, trial: Trial) -> None:
        """A trial has ended."""
        self._close()
        words = {"complete": f"best epoch {trial.epoch} of {trial.epochs}", "pruned": f"ended early, after epoch {trial.epochs}"}
        how = words.get(trial.state, f"failed: {trial.error}")
        metric, best = self.study.plan.train.metric, self.study.best()
        figures = "" if trial.value is None else f"{metric} {trial.value:.4f}, "
        shown = f" · best {best.value:.4f} of trial {best.number}" if best is not None and best.value is not None else ""
        values = " ".join(f"{key}={value}" for key, value in trial.params.items()) or "the defaults"
        note(f"trial {trial.number}: {values}: {figures}{how}, {trial.seconds:.1f} s{shown}")


def _value(folder: str, data: str, study: Study) -> dict[str, Any]:
    """The study as `--json` prints it."""
    from dataclasses import asdict

    from dualgnn_dgl.tuning import BEST

    best = study.best()
    return {
        "study": folder,
        "data": data,
        "model": study.plan.model,
        "metric": study.plan.train.metric,
        "seed": study.plan.train.seed,
        "trials": [asdict(trial) for trial in study.trials()],
        "best": None if best is None else asdict(best),
        "config": None if best is None else f"{folder}/{BEST}",
    }


def _text(value: Mapping[str, Any], plan: Plan) -> str:
    """The trials for people, best first, and what to do next."""
    order = {"complete": 0, "pruned": 1, "failed": 2}
    rows = sorted(value["trials"], key=lambda trial: (order[trial["state"]], -(trial["value"] or 0.0), trial["number"]))
    cells = [
        [
            trial["number"],
            trial["value"],
            trial["epoch"],
            trial["epochs"],
            f"{trial['seconds']:.1f}",
            trial["state"],
            *(str(trial["params"][key]) for key in plan.space),
        ]
        for trial in rows
    ]
    headers = ["trial", f"validation {value['metric']}", "best epoch", "epochs", "s", "state", *plan.space]
    lines = [table(headers, cells)] if cells else ["no trial has finished yet"]
    if value["best"] is not None:
        then = f"dualgnn train --data {clean(value['data'])} --config {clean(value['config'])}"
        lines += ["", f"best: trial {value['best']['number']}; next: {then}"]
    return "\n".join(lines)
