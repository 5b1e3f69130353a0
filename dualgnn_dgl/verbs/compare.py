"""Compares runs on the same data user by user: significance tests, slices, and the lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dualgnn_dgl.core.devices import pick_device
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.errors import ConfigError, RunError
from dualgnn_dgl.evaluation import (
    METRICS,
    Evaluation,
    Evaluator,
    beyond_accuracy,
    holm,
    paired,
    slices,
)
from dualgnn_dgl.evaluation import bootstrap as intervals_of
from dualgnn_dgl.runs.checkpoint import Run, load_run
from dualgnn_dgl.verbs.comparison import ComparisonResult as ComparisonResult
from dualgnn_dgl.verbs.comparison import Part, Slice, Standing, Versus
from dualgnn_dgl.verbs.opening import (
    Device,
    Opened,
    check_choice,
    check_whole,
    known_before,
    open_run,
    run_name,
)


def compare(
    runs: Sequence[str | Path | Run],
    data: str | Path | Dataset | None = None,
    *,
    k: int = 20,
    metrics: Sequence[str] = ("recall", "ndcg"),
    best: bool = False,
    split: str = "test",
    mask: str = "all",
    bootstrap: int = 2000,
    seed: int = 0,
    device: Device | None = None,
) -> ComparisonResult:
    """Compares two or more runs on the same data, user by user.

    Args:
        runs: run folders, or runs already loaded; the others are compared with the first.
        data: the data they were trained on, as a folder or loaded; None for the folder that the
            first run names.
        k: list length.
        metrics: names out of `evaluation.METRICS`.
        best: compares with the best run by the first metric instead of the first run.
        split: 'test' or 'valid'.
        mask: pairs left out of the lists: 'all' that are known before the split, or 'train' alone.
        bootstrap: resamples of the users.
        seed: seed of the resamples.
        device: 'cpu', 'cuda', 'cuda:1', a number as in `devices.pick_device`, or None for CUDA if
            available.

    Raises:
        DualGNNError: if runs, data or options are not usable, or do not belong together.
    """
    if isinstance(runs, str | Path | Run) or len(runs) < 2:
        raise ConfigError("one run was given: name the runs to compare, at least two")
    if isinstance(metrics, str) or not metrics:
        raise ConfigError(
            f"the metrics are {metrics!r:.40}: give a list, such as ('recall', 'ndcg')"
        )
    for metric in metrics:
        check_choice("metric", metric, list(METRICS))
    check_whole("bootstrap", bootstrap, 1)
    check_whole("seed", seed)
    place = pick_device(device)
    opened, first = _open(runs, data)
    dataset, given = first.dataset, list(opened)
    k = min(k, dataset.num_items)
    seen = known_before(dataset, split, mask)
    truth = getattr(dataset, split)
    evaluator = Evaluator(truth, list(seen.values()), (k,))
    # (B, K) each
    lists = {
        name: evaluator.rank(run.user.to(place), run.item.to(place)) for name, run in opened.items()
    }
    found = {name: evaluator.measure(items) for name, items in lists.items()}
    names = tuple(f"{metric}@{k}" for metric in dict.fromkeys(metrics))
    base = max(given, key=lambda run: found[run].means[names[0]]) if best else given[0]
    order = [base, *(run for run in given if run != base)]

    by_activity, by_popularity = (
        slices.activity(dataset.train, evaluator.users),
        slices.popularity(dataset.train, truth),
    )
    activity = {run: list(slices.sliced(evaluator, lists[run], by_activity)) for run in order}
    popularity = {run: list(slices.sliced(evaluator, lists[run], by_popularity)) for run in order}
    rest = {
        run: beyond_accuracy(lists[run], (k,), dataset.train, dataset.modalities) for run in order
    }
    return ComparisonResult(
        base=base,
        runs={run: str(opened[run].info["model"]) for run in order},
        data=first.folder,
        split=split,
        mask=mask,
        left_out=tuple(seen),
        users=len(evaluator.users),
        metrics={name: _against(found, order, name, seed, bootstrap) for name in names},
        by_user_activity=_sliced(activity, order, names, seed, bootstrap),
        by_item_popularity=_sliced(popularity, order, names, seed, bootstrap),
        beyond={
            name: {run: (rest[run].whole | rest[run].means)[name] for run in order}
            for name in (*rest[base].whole, *rest[base].means)
        },
    )


def _open(
    runs: Sequence[str | Path | Run], data: str | Path | Dataset | None
) -> tuple[dict[str, Run], Opened]:
    """Opens all runs by name, and the first one with the data they were trained on."""
    names = [run_name(run) for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RunError(f"{twice} is named {names.count(twice)} times: name each run once")
    opened = {
        name: run if isinstance(run, Run) else load_run(run)
        for name, run in zip(names, runs, strict=True)
    }
    hashes = {name: loaded.info["data"]["hash"] for name, loaded in opened.items()}
    stranger = next((name for name in names if hashes[name] != hashes[names[0]]), None)
    if stranger is not None:
        raise RunError(
            f"{names[0]} and {stranger} were trained on different data (hash "
            f"{hashes[names[0]][:12]}… and "
            f"{hashes[stranger][:12]}…): compare runs on the same prepared folder"
        )
    return opened, open_run(opened[names[0]], data)


def _against(
    found: Mapping[str, Evaluation], order: Sequence[str], metric: str, seed: int, resamples: int
) -> dict[str, Standing]:
    """Computes each run's mean by one metric and its difference to the base, with both tests."""
    values = {run: found[run].per_user[metric] for run in order}
    intervals = intervals_of(values, seed, resamples)
    differences = paired(values[order[0]], {run: values[run] for run in order[1:]}, seed, resamples)
    bootstrapped = holm([float(d.p_bootstrap or 0) for d in differences.values()])
    ranked = holm([d.p_wilcoxon for d in differences.values()])
    versus = {
        run: Versus(
            difference=d.mean,
            interval=(float(d.low or 0), float(d.high or 0)),
            p_bootstrap=float(d.p_bootstrap or 0),
            p_bootstrap_holm=p_bootstrap,
            p_wilcoxon=d.p_wilcoxon,
            p_wilcoxon_holm=p_wilcoxon,
            better=d.better,
            worse=d.worse,
        )
        for (run, d), p_bootstrap, p_wilcoxon in zip(
            differences.items(), bootstrapped, ranked, strict=True
        )
    }
    return {
        run: Standing(float(values[run].mean()), intervals[run], versus.get(run)) for run in order
    }


def _sliced(
    parts: Mapping[str, Sequence[tuple[tuple[int, int], Evaluation]]],
    order: Sequence[str],
    metrics: Sequence[str],
    seed: int,
    resamples: int,
) -> tuple[Slice, ...]:
    """Computes every run's mean and difference to the base in each group, by each metric."""
    found = []
    for n, (bounds, base) in enumerate(parts[order[0]]):
        shown: dict[str, dict[str, Part]] = {}
        for metric in metrics:
            values: dict[str, np.ndarray] = {
                run: parts[run][n][1].per_user[metric] for run in order
            }
            differences = paired(
                values[order[0]], {run: values[run] for run in order[1:]}, seed, resamples
            )
            shown[metric] = {order[0]: Part(float(values[order[0]].mean()))}
            for run, d in differences.items():
                shown[metric][run] = Part(
                    float(values[run].mean()), d.mean, (float(d.low or 0), float(d.high or 0))
                )
        found.append(Slice(bounds[0], bounds[1], len(base.users), shown))
    return tuple(found)
