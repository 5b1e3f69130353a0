"""Trains a model on a data set, in memory or into a run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dualgnn_dgl.core.devices import pick_device
from dualgnn_dgl.core.exchange import check_free
from dualgnn_dgl.core.progress import Report, Stoppable, say, silent
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.manifest import RunRecord
from dualgnn_dgl.runs.resume import KEPT, Plan, Resolve, begin, check_data, go_on, refuse_unfinished
from dualgnn_dgl.runs.settings import Settings, resolve
from dualgnn_dgl.runs.working import Checkpoints
from dualgnn_dgl.training import Inputs, TrainConfig, Trained, cold_items, train_model
from dualgnn_dgl.training.deterministic import promise
from dualgnn_dgl.training.state import CheckpointHook
from dualgnn_dgl.verbs.attention import AttentionSummary as AttentionSummary
from dualgnn_dgl.verbs.attention import summarise_attention as summarise_attention
from dualgnn_dgl.verbs.common import DEFAULT_DATA, Config, Data, Device, load_data
from dualgnn_dgl.verbs.train_result import TrainResult, finished, result_of


def train(
    data: Data | None = None,
    model: str | None = None,
    run: str | os.PathLike[str] | None = None,
    *,
    config: Config | None = None,
    options: Mapping[str, Any] | None = None,
    device: Device = None,
    progress: Report | None = None,
    resume: bool = False,
    force: bool = False,
    checkpoint_every: int | None = None,
    checkpoint_minutes: float | None = None,
    keep_last: int | None = None,
    keep_checkpoints: bool | None = None,
    stop: Stoppable | None = None,
    **overrides: Any,
) -> TrainResult:
    """Trains a model on a data set and keeps its best epoch, as `dualgnn train` does.

    The epoch is chosen on the validation split; the test split is not used. Without `run` nothing
    is written. With `run` the training writes checkpoints, and `resume` continues from the newest
    one, on the CPU bit-identically.

    Args:
        data: data set, or path of a prepared folder; None takes the data of a resumed training,
            else the folder `data`.
        model: a key of `models.MODELS`; None takes the one in `config`, else dualgnn.
        run: run folder to write; it records the place of its data, so `data` must then be a path.
        config: path of a run.toml, or its content as a mapping with `name`, `model` and `train`.
        options: options of the model or of training by key; they replace those in `config`.
        device: see `devices.pick_device`.
        progress: called with every event.
        resume: continues from the newest checkpoint of `run`, or begins if there is none.
        force: replaces an existing run.
        checkpoint_every: maximum number of epochs between two checkpoints, 10 by default.
        checkpoint_minutes: maximum minutes between two checkpoints, 5 by default, also within an
            epoch.
        keep_last: number of checkpoints that are kept, 2 by default.
        keep_checkpoints: leaves the checkpoints when the run is finished.
        stop: its `ask` is set while a training into `run` can be asked to end after the current
            batch.
        **overrides: the same as `options`, as keywords: `layers=2, epochs=50`.

    Raises:
        ConfigError: for an unknown model, option or device, a value that is not allowed, or options
            that exclude each other.
        DataError: if the data cannot be read or do not fit the model.
        RunError: if the run folder is occupied or in use, or numbers stop being finite.
        KeyboardInterrupt: if it comes before the first epoch has ended.
    """
    report = silent if progress is None else progress
    changes = {**(options or {}), **overrides}
    kept = {
        "checkpoint_every": checkpoint_every,
        "checkpoint_minutes": checkpoint_minutes,
        "keep_last": keep_last,
        "keep_checkpoints": keep_checkpoints,
    }
    given = {name: value for name, value in kept.items() if value is not None}

    def settings(base: Mapping[str, Any] | None) -> Settings:
        return resolve(model, config, changes, base)

    if resume and force:
        raise ConfigError("resume continues a training and force replaces it: give one of them")
    if run is None:
        if resume or given:
            raise ConfigError("a training in memory has no checkpoints: give a run folder")
        return _in_memory(settings(None), data, device, report)
    if isinstance(data, Dataset):
        raise ConfigError(
            "a run folder records where its data are: save the data set first and give the path "
            "of its folder"
        )
    _check_kept(given)
    if not resume:
        settings(None)  # Mistakes are reported before any work.
    return _into_folder(os.fspath(run), settings, data, device, report, resume, force, given, stop)


def configuration(
    model: str | None = None, config: Config | None = None, options: Mapping[str, Any] | None = None
) -> str:
    """Returns the settings that `train` would use as TOML, which its `config` accepts."""
    return checkpoint.run_toml(*resolve(model, config, options))


def _check_kept(given: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a checkpoint option that is out of bounds."""
    for name, value in given.items():
        low = 0 if name == "checkpoint_minutes" else 1
        if name != "keep_checkpoints" and not value >= low:
            raise ConfigError(f"{name} is {value}: give at least {low}")


def _in_memory(
    settings: Settings, data: Data | None, choice: Device, report: Report
) -> TrainResult:
    """Trains without a run folder."""
    name, config, train = settings
    device, source = pick_device(choice), load_data(data)
    say(report, f"data: {source} · model: {name} · device: {device}")
    started = time.perf_counter()
    trained = _fit(source.dataset, settings, device, report)
    place = {} if source.path is None else {"path": source.path}
    record = RunRecord(trained.fit, name, config, train, source.dataset, str(device))
    info = checkpoint.describe(record, place)
    return result_of(info, trained, source, seconds=time.perf_counter() - started)


def _into_folder(
    run: str,
    settings: Resolve,
    data: str | os.PathLike[str] | None,
    device: Device,
    report: Report,
    resume: bool,
    force: bool,
    given: Mapping[str, Any],
    stop: Stoppable | None,
) -> TrainResult:
    """Trains into a run folder, whose lock is held meanwhile."""

    def note(line: str) -> None:
        say(report, line)

    check_free(run, checkpoint.FOLDER, force=True)
    hook = Checkpoints(run, say=note, **{KEPT[name]: value for name, value in given.items()})
    with hook:
        named = None if data is None else os.fspath(data)
        plan = go_on(hook, settings, named, device, given) if resume else None
        if plan is None:
            plan = _new_plan(hook, settings, named, device, force)
        note(f"data: {plan.data} · run: {run} · model: {plan.name} · device: {plan.device}")
        source = load_data(plan.data)
        check_data(plan, source.dataset, note)
        if plan.finished is not None:
            note(f"{run} is finished: nothing is left to do")
            if not hook.leave:
                hook.clear()  # A process was killed between saving the run and this line.
            return finished(plan.finished, source.dataset, Path(run))
        if force:
            hook.clear()
        begin(hook, plan, source.dataset)
        started = time.perf_counter()

        def stoppable() -> None:
            if stop is not None:
                stop.ask = hook.ask

        trained = _fit(
            source.dataset,
            (plan.name, plan.config, plan.train),
            plan.device,
            report,
            hook,
            stoppable,
        )
        seconds = time.perf_counter() - started
        info = checkpoint.save_run(
            run,
            trained.fit,
            model=plan.name,
            config=plan.config,
            train=plan.train,
            data_path=plan.data,
            dataset=source.dataset,
            device=str(plan.device),
            force=force or resume,
        )
        if not trained.fit.interrupted and not hook.leave:
            hook.clear()
    return result_of(info, trained, source, folder=Path(run), seconds=seconds)


def _new_plan(
    hook: Checkpoints, settings: Resolve, data: str | None, device: Device, force: bool
) -> Plan:
    """Returns the plan of a training from the start, if the run folder is free for it."""
    if not force:
        refuse_unfinished(hook)
        check_free(hook.run, checkpoint.FOLDER)
    return Plan(*settings(None), data or DEFAULT_DATA, pick_device(device))


def _fit(
    dataset: Dataset,
    settings: Settings,
    device: torch.device,
    report: Report,
    hook: CheckpointHook | None = None,
    begins: Callable[[], None] = lambda: None,
) -> Trained:
    """Trains a model and reports remarks about the training.

    `begins` is called before the first batch.
    """
    name, config, train = settings

    def ready(model: Recommender, inputs: Inputs, seconds: float) -> None:
        for line in _remarks(dataset, inputs, train, device, model, seconds):
            say(report, line)
        begins()

    return train_model(
        name, dataset, config, train, device=device, report=report, hook=hook, ready=ready
    )


def _remarks(
    dataset: Dataset,
    inputs: Inputs,
    train: TrainConfig,
    device: torch.device,
    model: Recommender,
    seconds: float,
) -> list[str]:
    """Returns lines about a training that is about to begin."""
    lines = []
    for label, modality in inputs.modalities.items():
        if modality.imputed.any():
            how = "before training" if train.impute == "none" else f"by {train.impute}"
            lines.append(
                f"{label}: {modality.imputed.sum():,} of {dataset.num_items:,} items imputed {how}"
            )
    count = sum(parameter.numel() for parameter in model.parameters())
    lines.append(f"graph and model ready in {seconds:.1f} s · {count:,} parameters")
    if train.deterministic:
        lines.append(promise(device))
    if inputs.modalities and cold_items.all_cold(dataset.train, dataset.valid):
        chosen = "the epoch is chosen on such videos, folded in by their modalities"
        lines.append(f"no held-out video was watched in training: {chosen}")
    return lines
