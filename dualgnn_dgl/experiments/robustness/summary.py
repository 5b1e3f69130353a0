"""Summarises cells as curves: means, intervals, retained shares, areas and paired comparisons.

Every interval comes from one set of bootstrap resamples of the test users, shared by all models,
rates and strategies, so that differences are paired (Efron & Tibshirani 1993, chapter 13). The
value of a user is the mean over the seeds. Intervals therefore speak of other users, not of other
seeds, whose standard deviation is given beside them. The p-value of a difference is that of
`evaluation.p_value`, adjusted for the number of rows compared at the same rate (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.evaluation import holm, p_value
from dualgnn_dgl.evaluation.intervals import percentiles, resampled_means
from dualgnn_dgl.experiments.robustness.plan import Cell, Plan
from dualgnn_dgl.experiments.robustness.results import name_of, result_of

RESAMPLES = 2000
TEST = "shifted bootstrap with Holm's correction"


def summarise(
    plan: Plan, dataset: Dataset, folder: str | Path, metric: str = "recall@20", seed: int = 0
) -> dict[str, Any]:
    """Summarises the cells of an experiment as a JSON object.

    Cells that are missing, or were refused, are left out.

    Args:
        plan: the experiment.
        dataset: its data.
        folder: its folder.
        metric: metric of the curves.
        seed: seed of the resamples.

    Returns:
        `panels`, one for every stage, pattern and modality, with `rows`. A row has model and
            strategy, and for each rate: the mean of the metric with its interval, the standard
            deviation over seeds, `kept` with its interval, the other metrics, and the groups of
            items. `kept` is the retained share of the value without missing features. `area` is the
            area under the curve as the mean over the range of rates, `kept_area` that of the
            retained shares. `versus` is the first row's value minus this one's at each rate, with
            interval and adjusted p; `kept_versus` the same for the retained shares.
    """
    bench = _Table(plan, dataset, Path(folder), metric)
    curves = {}  # stage, panel and row → its cells, a list a rate
    for stage in plan.stages:
        for panel in plan.holes(dataset):
            for row in plan.rows():
                cells = plan.curve(dataset, row, panel, stage)
                curves[stage, panel, row] = [
                    cells[n : n + plan.seeds] for n in range(0, len(cells), plan.seeds)
                ]
    bench.resample([cells for by_rate in curves.values() for cells in by_rate], seed)
    panels = []
    for stage in plan.stages:
        for pattern, modality, rates in plan.holes(dataset):
            rows = [
                bench.row(row, rates, curves[stage, (pattern, modality, rates), row])
                for row in plan.rows()
            ]
            rows = [
                row for row in rows if any(rate > 0 or max(rates) == 0 for rate in row["points"])
            ]
            bench.compare(rows)
            holes = pattern if modality is None else f"{pattern}:{modality}"
            panels.append(
                {
                    "stage": stage,
                    "holes": holes,
                    "rates": list(rates),
                    "rows": [_public(row) for row in rows],
                }
            )
    refused = {name: result["refused"] for name, result in bench.refused.items()}
    settings = {
        model: {"config": _plain(config), "train": _plain(train)}
        for model, (config, train) in plan.settings.items()
    }
    about = {
        "metric": metric,
        "data": dataset.hash,
        "seeds": plan.seeds,
        "settings": settings,
        "test": TEST,
    }
    return about | {"panels": panels, "refused": refused}


class _Table:
    """Results of cells by name, and resampled means (R,) of every point of every curve."""

    def __init__(self, plan: Plan, dataset: Dataset, folder: Path, metric: str) -> None:
        self.plan, self.dataset, self.folder, self.metric = plan, dataset, folder, metric
        self.refused: dict[str, Any] = {}
        self.results: dict[str, dict[str, Any]] = {}  # cell name → its result
        # cells of a point → their mean, (R,) resampled
        self.means: dict[tuple[str, ...], tuple[float, np.ndarray]] = {}

    def resample(self, points: Sequence[Sequence[Cell]], seed: int) -> None:
        """Reads the cells of every point and resamples the test users once for all points.

        Args:
            points: for each point its cells, the seeds of one rate.
            seed: seed of the resamples.
        """
        values: dict[tuple[str, ...], np.ndarray] = {}
        for cells in points:
            names = self.names(cells)
            if names and names not in values:
                # of shape (B,)
                values[names] = np.stack([self.per_user(name) for name in names]).mean(axis=0)
        if values:
            # of shape (R, points)
            resampled = resampled_means(np.stack(list(values.values()), axis=1), seed, RESAMPLES)
            self.means = {
                names: (float(value.mean()), resampled[:, n])
                for n, (names, value) in enumerate(values.items())
            }

    def names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """Returns the names of the cells with a result, and records those that were refused."""
        names = []
        for cell in cells:
            name = name_of(self.plan, cell, self.dataset)
            if name not in self.results and name not in self.refused:
                result = result_of(self.plan, cell, self.dataset, self.folder)
                if result is None:
                    continue
                (self.refused if "refused" in result else self.results)[name] = result
            if name in self.results:
                names.append(name)
        return tuple(names)

    def per_user(self, name: str) -> np.ndarray:
        """Reads the metric of every test user in one cell, (B,) float64."""
        with open_regular(self.folder / "per_user" / f"{name}.parquet") as handle:
            return (
                pq.read_table(handle, columns=[self.metric])[self.metric]
                .to_numpy()
                .astype(np.float64)
            )

    def point(self, cells: Sequence[Cell]) -> dict[str, Any] | None:
        """Returns the mean over the available seeds, with its interval, metrics and groups."""
        names = tuple(
            name
            for cell in cells
            if (name := name_of(self.plan, cell, self.dataset)) in self.results
        )
        if names not in self.means:
            return None
        results, (mean, resampled) = [self.results[name] for name in names], self.means[names]
        values = [result["metrics"][self.metric] for result in results]
        return {
            "mean": mean,
            "interval": _interval(resampled),
            "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "seeds": len(results),
            "metrics": _average([result["metrics"] for result in results]),
            "groups": {
                group: _average(
                    [result["groups"][group] for result in results if group in result["groups"]]
                )
                for group in results[0]["groups"]
            },
            "resampled": resampled,
        }

    def row(
        self, row: tuple[str, str], rates: Sequence[float], cells: Sequence[Sequence[Cell]]
    ) -> dict[str, Any]:
        """Returns one curve."""
        points = {
            rate: point
            for rate, part in zip(rates, cells, strict=True)
            if (point := self.point(part)) is not None
        }
        start = points.get(0.0)
        for point in points.values():
            if start is not None and start["mean"] > 0:
                point["kept_resampled"] = point["resampled"] / np.maximum(start["resampled"], 1e-12)
                point |= {
                    "kept": point["mean"] / start["mean"],
                    "kept_interval": _interval(point["kept_resampled"]),
                }
        found: dict[str, Any] = {"model": row[0], "strategy": row[1], "points": points}
        if len(points) == len(rates) > 1:
            found["area"] = _area(rates, [points[rate]["mean"] for rate in rates])
            if all("kept" in point for point in points.values()):
                found["kept_area"] = _area(rates, [points[rate]["kept"] for rate in rates])
        return found

    def compare(self, rows: list[dict[str, Any]]) -> None:
        """Compares the first row with all others at every rate, by means and retained shares."""
        for rate in sorted({rate for row in rows for rate in row["points"]}):
            if not rows or rate not in rows[0]["points"]:
                continue
            first, others = (
                rows[0]["points"][rate],
                [row["points"][rate] for row in rows[1:] if rate in row["points"]],
            )
            for what, base, label in (
                ("mean", "resampled", "versus"),
                ("kept", "kept_resampled", "kept_versus"),
            ):
                pairs = [
                    (other, first[what] - other[what], first[base] - other[base])
                    for other in others
                    if base in other and base in first
                ]
                adjusted = holm(
                    [float(p_value(difference, resampled)) for _, difference, resampled in pairs]
                )
                for (other, difference, resampled), p in zip(pairs, adjusted, strict=True):
                    other[label] = {
                        "difference": difference,
                        "interval": _interval(resampled),
                        "p": p,
                    }


def _public(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row as it is written: without resamples, and with rates as text for JSON."""
    hidden = ("resampled", "kept_resampled")
    points = {
        f"{rate:g}": {k: v for k, v in point.items() if k not in hidden}
        for rate, point in row["points"].items()
    }
    return {**row, "points": points}


def _plain(options: Any) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def _interval(resampled: np.ndarray) -> list[float]:
    return [float(end) for end in percentiles(resampled)]


def _average(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return (
        {name: float(np.mean([each[name] for each in figures])) for name in figures[0]}
        if figures
        else {}
    )


def _area(rates: Sequence[float], values: Sequence[float]) -> float:
    """Returns the area under the curve over the range of rates, divided by its width.

    It is the mean value if all rates are equally likely.
    """
    x, y = np.asarray(rates), np.asarray(values)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))
