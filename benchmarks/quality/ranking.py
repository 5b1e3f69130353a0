"""Rows of the comparison: results over seeds, and the tests between models."""

from __future__ import annotations

import numpy as np

from benchmarks.lib.packed import Training
from benchmarks.lib.paths import METRIC
from benchmarks.lib.tables import file_of, read_rows, small
from benchmarks.lib.trainings import Trainings, metrics_of

SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "coverage@20")
TIMES = ("epoch_s", "to_best_s", "peak_mb")
TESTS = ("difference", "difference interval", "p bootstrap", "p Wilcoxon")


def results_of(runs: list[Training]) -> dict:
    """Returns the part of a row that follows from its tests, one per seed."""
    row: dict = {"seeds": len(runs)} | over_seeds([run["test"] for run in runs], SHOWN)
    row["interval recall@20"] = runs[0]["intervals"]["recall@20"]
    row["users"] = runs[0]["users"]
    row["machines"] = sorted({str(run["machine"]["gpu"] or run["machine"]["cpu"]) for run in runs})
    row["trainings"] = [run["name"] for run in runs]
    on_gpu = [run["machine"]["gpu"] is not None for run in runs]
    # If the seeds ran on both, the times are those of the majority.
    row["timed on a GPU"] = sum(on_gpu) * 2 > len(runs)
    timed = [run for run, gpu in zip(runs, on_gpu, strict=True) if gpu == row["timed on a GPU"]]
    return row | {figure: float(np.median([run[figure] for run in timed])) for figure in TIMES}


def valid_of(runs: list[Training]) -> float:
    """Returns validation recall@20, the mean over the seeds."""
    return float(np.mean([run["valid"] for run in runs]))


def over_seeds(figures: list[dict], names: tuple[str, ...]) -> dict[str, float]:
    """Returns mean and standard deviation of each named result; the deviation is 0 for one seed."""
    found = {}
    for name in names:
        values = [figure[name] for figure in figures]
        found[name], found[f"{name} sd"] = (
            float(np.mean(values)),
            float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        )
    return found


def users_mean(names: list[str], trainings: Trainings) -> np.ndarray | None:
    """Returns each test user's recall@20, the mean over the named tests, (B,).

    It is None if the hits of one test were not kept.
    """
    found = [trainings.find(name) for name in names]
    if not found or any(training is None or "hits" not in training for training in found):
        return None
    return np.mean([metrics_of(training)[METRIC] for training in found], axis=0)


def merged(rows: list[dict], before: list[dict]) -> list[dict]:
    """Returns these rows, and earlier rows of models that they leave out."""
    here = {row["model"] for row in rows}
    return [*rows, *(row for row in before if row["model"] not in here)]


def ranked(rows: list[dict], trainings: Trainings) -> list[dict]:
    """Returns the rows with the best test recall first, each tested against the first.

    Rows without their users' hits are not tested.
    """
    rows = sorted(rows, key=lambda row: -row[METRIC])
    values = {row["model"]: users_mean(row["trainings"], trainings) for row in rows}
    per_user = {model: found for model, found in values.items() if found is not None}
    tests = significance(per_user, rows[0]["model"])
    return [
        {key: v for key, v in row.items() if key not in TESTS} | tests.get(row["model"], {})
        for row in rows
    ]


def significance(per_user: dict[str, np.ndarray], leader: str) -> dict[str, dict]:
    """Tests each model against the leader, over the same users.

    Args:
        per_user: Model → recall@20 of each test user, (B,).
        leader: The model that the others are compared with.

    Returns:
        Model → its difference from the leader, and the p-values of both tests with Holm's
        correction.
    """
    from dualgnn_dgl.evaluation import holm, paired

    if leader not in per_user:
        return {}
    found = paired(
        per_user[leader],
        {model: values for model, values in per_user.items() if model != leader},
        resamples=10_000,
    )
    bootstrap = holm([difference.p_bootstrap for difference in found.values()])
    wilcoxon = holm([difference.p_wilcoxon for difference in found.values()])
    return {
        model: {
            "difference": d.mean,
            "difference interval": [d.low, d.high],
            "p bootstrap": p,
            "p Wilcoxon": q,
        }
        for (model, d), p, q in zip(found.items(), bootstrap, wilcoxon, strict=True)
    }


def against(name: str, base: str, models: list[str], trainings: Trainings) -> str:
    """Formats the tests of kept rows against that of `base`.

    Holm's correction is for the number of models named.
    """
    table = f"compare-{name}"
    rows, per_user = {row["model"]: row for row in read_rows(table)}, {}
    for model in (base, *models):
        found = users_mean(rows[model]["trainings"], trainings) if model in rows else None
        if found is None:
            made = f"compare.py --data {name} --models {model}"
            raise SystemExit(
                f"{file_of(table)} has no row of {model} with its users' hits: {made} makes it"
            )
        per_user[model] = found
    lines = [
        f"| {base} {rows[base][METRIC]:.4f} against | {METRIC} | lead, 95 % interval | p "
        f"bootstrap | p Wilcoxon |"
    ]
    lines.append("| --- " * 5 + "|")
    for model, found in significance(per_user, base).items():
        low, high = found["difference interval"]
        lead = f"{-found['difference']:+.4f} ({-high:+.4f} to {-low:+.4f})".replace("-", "−")
        cells = [
            model,
            f"{rows[model][METRIC]:.4f}",
            lead,
            small(found["p bootstrap"]),
            small(found["p Wilcoxon"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
