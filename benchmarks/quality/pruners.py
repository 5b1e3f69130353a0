"""Compares rules for ending hopeless trials by replaying cached validation curves.

    python -m benchmarks.quality.pruners

For each rule it measures the share of epochs saved and how often the best trial was ended. It takes
the validation curves of the comparison's trials (results/compare-*.parquet) and replays each
model's search in 30 orders, the defaults always first, with the best value so far reported at every
epoch, as `dualgnn tune` does.
"""

from __future__ import annotations

import random

import numpy as np
import optuna

from benchmarks.lib.datasets import DATA
from benchmarks.lib.packed import Packed
from benchmarks.lib.paths import METRIC, RESULTS
from benchmarks.lib.tables import command_of, write_table

RULES = {
    "median, from epoch 10": optuna.pruners.MedianPruner(2, 10),
    "median after four trials, from epoch 30": optuna.pruners.MedianPruner(4, 30),
    "worst quarter after four trials, from epoch 10": optuna.pruners.PercentilePruner(75, 4, 10),
    "worst tenth after four trials, from epoch 10": optuna.pruners.PercentilePruner(90, 4, 10),
    "successive halving from epoch 10, factor 2": optuna.pruners.SuccessiveHalvingPruner(10, 2),
    "Hyperband from epoch 10, factor 3": optuna.pruners.HyperbandPruner(10, 300, 3),
}
ORDERS = 30


def curves() -> dict[str, list[list[float]]]:
    """Returns the validation curves of the trials of each data set and model, the defaults first.

    Only data sets and models with six trials or more are included.
    """
    found: dict[str, list[list[float]]] = {}
    for data in sorted(DATA):
        packed = Packed.read(RESULTS / f"compare-{data}.parquet")
        for name in packed:
            run, group = packed[name], name.rpartition("-")[0]
            if not run["test"] and run["seed"] == 0 and len(run["curve"]) > 1:
                place = 0 if not run["config"] else len(found.get(group, []))
                found.setdefault(group, []).insert(place, run["curve"])
    return {name: group for name, group in sorted(found.items()) if len(group) >= 6}


def replay(
    pruner: optuna.pruners.BasePruner, group: list[list[float]], order: list[int]
) -> tuple[float, float]:
    """Returns the share of epochs trained, and the best value found over the best of all trials."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    trained, finished = 0, []
    for n in order:
        trial, best = study.ask(), 0.0
        for epoch, value in enumerate(group[n], start=1):
            best, trained = max(best, value), trained + 1
            trial.report(best, epoch)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, best)
            finished.append(best)
    return trained / sum(map(len, group)), max(finished) / max(map(max, group))


def main() -> None:
    """Runs the command line."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    print(
        f"| rule | trials of | epochs trained | winner kept | worst {METRIC} found / best |\n| "
        f"--- | --- | --- | --- | --- |"
    )
    for rule, pruner in RULES.items():
        for name, group in curves().items():
            orders = [
                [0, *random.Random(n).sample(range(1, len(group)), len(group) - 1)]
                for n in range(ORDERS)
            ]
            shares, found = np.array([replay(pruner, group, order) for order in orders]).T
            row = {
                "rule": rule,
                "trials of": name,
                "count": len(group),
                "epochs": float(shares.mean()),
            }
            row |= {"kept": float((found > 1 - 1e-9).mean()), "worst": float(found.min())}
            rows.append(row)
            print(
                f"| {rule} | {name} ({len(group)}) | {row['epochs']:.0%} | {row['kept']:.0%} | "
                f"{row['worst']:.3f} |"
            )
    write_table("pruners", {"commands": [command_of("benchmarks.quality.pruners", [])]}, rows)


if __name__ == "__main__":
    main()
