"""Measures how models rank when modalities go missing, cell by cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dualgnn_dgl import data as datasets
from dualgnn_dgl.core import locks
from dualgnn_dgl.core.devices import pick_device
from dualgnn_dgl.core.files import atomic_file, write_json
from dualgnn_dgl.core.progress import Progress, Report, say, silent
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.errors import ConfigError, RunError
from dualgnn_dgl.experiments import robustness as experiment
from dualgnn_dgl.experiments.robustness import Cell, Plan
from dualgnn_dgl.experiments.robustness.settings import settings
from dualgnn_dgl.verbs.opening import Device, check_whole

RESULTS = ("summary.json", "table.md", "curves.png")


@dataclass(frozen=True, eq=False)
class RobustnessResult:
    """The cells of an experiment, summarised.

    Attributes:
        out: folder of the experiment, with summary.json, table.md and curves.png.
        summary: content of summary.json: curves, intervals and paired comparisons.
        table: content of table.md.
        cells: number of cells of the experiment.
        missing: number of cells still to run; the same call continues with them.
    """

    out: str
    summary: dict[str, Any]
    table: str
    cells: int
    missing: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in the form of `--json`."""
        return self.summary


def robustness(
    data: str | Path | Dataset,
    out: str | Path,
    *,
    models: Sequence[str] = ("dualgnn", "lightgcn"),
    rates: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95),
    patterns: Sequence[str] = ("random",),
    stages: Sequence[str] = ("train+test",),
    strategies: Sequence[str] = ("mask", "zero", "mean", "drop-items"),
    seeds: int = 5,
    epochs: int | None = None,
    patience: int | None = None,
    changes: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    device: Device | None = None,
    progress: Report | None = None,
) -> RobustnessResult:
    """Measures how models rank when modalities go missing.

    For each rate, pattern and seed the same features go missing for all models. The same call
    continues where it was stopped.

    Args:
        data: prepared folder, or data already loaded.
        out: folder of the experiment.
        models: names of models; the others are compared with the first.
        rates: shares that go missing.
        patterns: 'random', 'rare', 'one-modality', 'whole-modality'.
        stages: 'train+test', 'test-only'.
        strategies: 'mask', an imputer, 'drop-items', or 'mask:KEY=VALUE' for the mask with an
            option of the model.
        seeds: number of draws and trainings.
        epochs: maximum number of epochs, for every model; None for the models' own.
        patience: validations without improvement before training stops, for every model; None for
            the models' own.
        changes: keys of training for every model, or 'MODEL.KEY' for a model's own.
        minutes: begins no cell after that many minutes.
        device: 'cpu', 'cuda', 'cuda:1', a number as in `devices.pick_device`, or None for CUDA if
            available.
        progress: called with a line about every finished cell, with the time left.

    Raises:
        DualGNNError: if data, folder or options are not usable.
    """
    report = progress or silent
    if any(isinstance(given, str) for given in (models, rates, patterns, stages, strategies)):
        raise ConfigError(
            "models, rates, patterns, stages and strategies are lists: write ['dualgnn'], not "
            "'dualgnn'"
        )
    check_whole("seeds", seeds, 1)
    chosen = settings(models, changes or {}, epochs=epochs, patience=patience)
    plan = Plan(
        tuple(models),
        chosen,
        tuple(rates),
        tuple(patterns),
        tuple(stages),
        tuple(strategies),
        seeds,
    )
    place = pick_device(device)
    dataset = data if isinstance(data, Dataset) else datasets.load(data)
    plan = replace(plan, ks=tuple(sorted({min(k, dataset.num_items) for k in plan.ks})))
    cells = len(plan.cells(dataset))
    where = "in memory" if isinstance(data, Dataset) else str(data)
    say(report, f"data: {where} · out: {out} · {cells} cells · device: {place}")
    out = Path(out)
    with locks.writing(out, "choose another --out"):
        _check_own(out)
        (out / "cells").mkdir(parents=True, exist_ok=True)
        limit = float("inf") if minutes is None else 60 * minutes
        left = experiment.run(plan, dataset, out, place, seconds=limit, report=_reporter(report))
        summary = experiment.summarise(plan, dataset, out, f"recall@{plan.ks[-1]}") | {
            "missing_cells": left
        }
        write_json(out / "summary.json", summary)
        table = experiment.markdown(summary)
        with atomic_file(out / "table.md") as temporary:
            temporary.write_text(table, "utf-8")
        experiment.draw(summary, out / "curves.png")
    return RobustnessResult(str(out), summary, table, cells, left)


def _reporter(report: Report) -> Callable[[int, int, Cell, Mapping[str, Any]], None]:
    """Returns a function that reports a finished cell and estimates the time left."""
    started, first = time.perf_counter(), 0

    def cell_done(done: int, total: int, cell: Cell, found: Mapping[str, Any]) -> None:
        nonlocal first
        first = first or done
        each = (time.perf_counter() - started) / (done - first + 1)
        # The longest lists come last.
        recall = [name for name in found.get("metrics", ()) if name.startswith("recall@")]
        result = (
            f"{recall[-1]} {found['metrics'][recall[-1]]:.4f}"
            if recall
            else f"refused: {found['refused']}"
        )
        line = (
            f"{done}/{total} · {cell} · {result} · {found['seconds']:.0f} s · "
            f"{each * (total - done) / 60:.0f} min left"
        )
        report(Progress(step=done, steps=total, finished=True, message=line))

    return cell_done


def _check_own(out: Path) -> None:
    """Raises `RunError` if a file under the name of a result was not written by an experiment."""
    found = next((out / name for name in RESULTS if (out / name).exists()), None)
    if found is not None and not (out / "cells").is_dir():
        raise RunError(
            f"{found} is not of an experiment, but has the name of a result: move it, or choose "
            f"another --out"
        )
