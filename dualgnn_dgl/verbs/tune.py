"""Searches for a model's best options on the validation split."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dualgnn_dgl.core.devices import pick_device
from dualgnn_dgl.core.progress import Progress, Report, say, silent
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.experiments import tuning
from dualgnn_dgl.experiments.tuning import BEST, Plan, Study, Trial
from dualgnn_dgl.runs.settings import resolve
from dualgnn_dgl.training import Inputs
from dualgnn_dgl.verbs.common import Config, Data, Device, load_data

DEFAULT_STUDY = "studies/{model}"


@dataclass(frozen=True)
class TuneResult:
    """The current result of a search.

    Attributes:
        plan: model, options that the search starts from, and values to try.
        trials: finished trials in the order they were made.
        best: trial with the best validation value; None before one has run to its end.
        folder: study folder; None without one.
        data: prepared folder as it was named; None for a data set in memory.
        exhausted: whether every combination of values has been tried.
        interrupted: whether the user ended the search early.
    """

    plan: Plan
    trials: list[Trial]
    best: Trial | None
    folder: str | None = None
    data: str | None = None
    exhausted: bool = False
    interrupted: bool = False

    @property
    def config(self) -> dict[str, Any] | None:
        """Returns the best settings, in the form that `config` of `dualgnn_dgl.train` accepts.

        None before one trial has run to its end.
        """
        if self.best is None:
            return None
        config, train = self.plan.resolved(self.best.params)
        return {"name": self.plan.model, "model": asdict(config), "train": asdict(train)}  # type: ignore[call-overload]

    @property
    def config_file(self) -> str | None:
        """Returns the file with the best settings in the study folder; None without one."""
        return None if self.best is None or self.folder is None else f"{self.folder}/{BEST}"


def tune(
    data: Data | None = None,
    model: str | None = None,
    study: str | os.PathLike[str] | None = None,
    *,
    trials: int = 20,
    prune: bool = True,
    config: Config | None = None,
    options: Mapping[str, Any] | None = None,
    device: Device = None,
    progress: Report | None = None,
    force: bool = False,
    **overrides: Any,
) -> TuneResult:
    """Searches for a model's best options, as `dualgnn tune` does.

    Trial 0 is what `train` would do; then Optuna proposes values of the model's `SEARCH`, all with
    one seed. The test split is not used. A study folder keeps every trial, so that the same call
    continues an interrupted search.

    Args:
        data: data set, or path of a prepared folder; None takes the folder `data`.
        model: a key of `models.MODELS`; None takes that of the study or of `config`, else dualgnn.
        study: study folder, in which `{model}` is replaced by the model's name; None keeps the
            search in a temporary folder.
        trials: number of trials in all, earlier ones included.
        prune: ends trials early that are among the worst so far.
        config: path of a run.toml, or its content as a mapping; the search starts from it.
        options: options of the model or of training by key that stay fixed.
        device: see `devices.pick_device`.
        progress: called with every event; `task` names the trial.
        force: begins again where there is a study.
        **overrides: the same as `options`, as keywords.

    Returns:
        The search so far; `interrupted` is set if it was ended by Ctrl-C.

    Raises:
        ConfigError: if Optuna is not installed, the data have no validation split, or an option is
            not allowed.
        RunError: if the folder holds something else, a study of something else, or is in use.
    """
    report = silent if progress is None else progress
    fixed = {**(options or {}), **overrides}
    if trials < 1:
        raise ConfigError(f"trials is {trials}: give at least 1")
    named = None if study is None else os.fspath(study)
    known = tuning.read_plan(named) if named is not None and not force else None
    continues = known is not None and not (model or config or fixed)
    if known is not None and continues:
        name, own, training = known.model, known.config, known.train
    else:
        same = known.model if known is not None and not config else None
        name, own, training = resolve(model or same, config, fixed)
    chosen, source = pick_device(device), load_data(data)
    if known is not None and continues:
        plan = Plan(name, own, training, source.dataset.hash, known.space)
    else:
        plan = tuning.make_plan(name, own, training, source.dataset.hash, fixed)
    with ExitStack() as held:
        folder = named.replace("{model}", name) if named is not None else None
        place = folder or str(Path(held.enter_context(tempfile.TemporaryDirectory())) / "study")
        search = held.enter_context(Study(place, plan, prune=prune, force=force))
        say(
            report,
            f"data: {source} · study: {folder or 'in memory'} · model: {name} · device: {chosen}",
        )
        tried = " · ".join(
            f"{key} {', '.join(map(str, values))}" for key, values in plan.space.items()
        )
        say(report, f"values to try: {tried or 'none, this model has no options to search'}")
        if before := len(search.trials()):
            say(report, f"{before} trials are finished already")
        interrupted, whole = False, True
        try:
            inputs = Inputs.of(source.dataset, training)
            begin, end = _begin(report, trials), _end(report, search)
            whole = search.tune(inputs, trials, device=chosen, begin=begin, end=end)
        except KeyboardInterrupt:
            interrupted = True
        return TuneResult(
            plan, search.trials(), search.best(), folder, source.path, not whole, interrupted
        )


def _begin(report: Report, trials: int) -> Callable[[int, dict[str, Any]], Report]:
    """Returns a function that gives each trial its own report."""

    def begin(number: int, _: dict[str, Any]) -> Report:
        task = f"trial {number} of 0…{trials - 1}"
        return lambda progress: report(replace(progress, task=task))

    return begin


def _end(report: Report, study: Study) -> Callable[[Trial], None]:
    """Returns a function that reports a finished trial in one line."""

    def end(trial: Trial) -> None:
        states = {
            "complete": f"best epoch {trial.epoch} of {trial.epochs}",
            "pruned": f"ended early, after epoch {trial.epochs}",
        }
        how = states.get(trial.state, f"failed: {trial.error}")
        metric, best = study.plan.train.metric, study.best()
        result = "" if trial.value is None else f"{metric} {trial.value:.4f}, "
        shown = (
            f" · best {best.value:.4f} of trial {best.number}"
            if best is not None and best.value is not None
            else ""
        )
        values = " ".join(f"{key}={value}" for key, value in trial.params.items()) or "the defaults"
        line = f"trial {trial.number}: {values}: {result}{how}, {trial.seconds:.1f} s{shown}"
        report(Progress(message=line, task=f"trial {trial.number}", finished=True))

    return end
