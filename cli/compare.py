"""`dualgnn compare`: are the differences between runs more than chance, for whom do they hold, and what are the lists like?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.evaluate import data_option, known_before, measured_on, open_run
from dualgnn_dgl.cli.show import PATH, json_option, mask_option, memory_option, print_text, result, split_option, table
from dualgnn_dgl.errors import RunError, clean

if TYPE_CHECKING:
    import numpy as np

    from dualgnn_dgl.checkpoint import Run
    from dualgnn_dgl.data import Dataset
    from dualgnn_dgl.evaluation import Evaluation

METRICS = ("recall", "precision", "ndcg", "hit", "map", "mrr")


@click.command(short_help="Test whether runs on the same data differ, user by user.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN RUN…")
@data_option
@click.option("--topk", "k", type=int, default=20, show_default=True, metavar="K", help="List length.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=("recall", "ndcg"),
    show_default="recall ndcg",
    type=click.Choice(METRICS),
    help="What to compare by; repeatable.",
)
@click.option("--best", is_flag=True, help="Compare with the run that is best by the first metric, not with the first one named.")
@split_option
@mask_option
@click.option(
    "--bootstrap",
    "resamples",
    type=click.IntRange(1, 100_000),
    default=2000,
    show_default=True,
    help="Resamples of the users.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the bootstrap.")
@gpu_option
@memory_option
@json_option
def command(
    runs: tuple[str, ...],
    data: str | None,
    k: int,
    metrics: tuple[str, ...],
    best: bool,
    split: str,
    mask: str,
    resamples: int,
    seed: int,
    gpu: int | None,
    as_json: bool,
) -> None:
    """Compare two or more RUN folders on the same data, user by user.

    The others are compared with the first (or, with --best, the best) run: the mean difference over users with its 95 %
    bootstrap interval, and two paired tests, bootstrap and Wilcoxon. With several others, read the p-values under "Holm":
    they are corrected for that many tests of one metric. Then come the same means for users by the number of their
    training videos, and for held-out videos by the number of their training users (0: cold), for reading, not for claims;
    and what the lists are like: coverage, Gini, novelty in bits, and diversity (1 − cosine) in each modality.

    \b
    Examples:
        dualgnn compare runs/dualgnn runs/lightgcn
        dualgnn compare runs/* --best --topk 10 --metric recall --json
    """
    if len(runs) < 2:
        raise click.UsageError("one run was given: name the run folders to compare, at least two")
    device = pick_device(gpu)

    from dualgnn_dgl.evaluation import Evaluator, beyond_accuracy, slices

    opened, dataset, data = _open(runs, data)
    truth, seen = getattr(dataset, split), known_before(dataset, split, mask)
    evaluator = Evaluator(truth, seen, (k,))
    lists = {name: evaluator.rank(run.user.to(device), run.item.to(device)) for name, run in opened.items()}  # (B, K) each
    found = {name: evaluator.measure(items) for name, items in lists.items()}
    names = tuple(f"{metric}@{k}" for metric in dict.fromkeys(metrics))
    base = max(runs, key=lambda run: found[run].means[names[0]]) if best else runs[0]
    order = [base, *(run for run in runs if run != base)]

    activity = {run: list(slices.by_activity(found[run], dataset.train)) for run in order}
    popularity = {run: list(slices.by_popularity(evaluator, lists[run], truth, dataset.train)) for run in order}
    rest = {run: beyond_accuracy(lists[run], (k,), dataset.train, dataset.modalities) for run in order}
    value = {
        "base": base,
        "runs": {run: str(opened[run].info["model"]) for run in order},
        "data": data,
        "split": split,
        "mask": mask,
        "users": len(evaluator.users),
        "metrics": {name: _against(found, order, name, seed, resamples) for name in names},
        "slices": {
            "user_training_pairs": _sliced(activity, order, names, seed, resamples),
            "item_training_users": _sliced(popularity, order, names, seed, resamples),
        },
        "beyond": {
            name: {run: _number((rest[run].whole | rest[run].means)[name]) for run in order}
            for name in (*rest[base].whole, *rest[base].means)
        },
    }
    if as_json:
        result(value)
    else:
        print_text(_text(value, len(seen)))


def _open(runs: Sequence[str], data: str | None) -> tuple[dict[str, Run], Dataset, str]:
    """All runs by name and the one data set they were trained on."""
    from dualgnn_dgl.checkpoint import load_run

    twice = next((run for run in runs if runs.count(run) > 1), None)
    if twice is not None:
        raise RunError(f"{twice} is named {runs.count(twice)} times: name each run once")
    opened = {run: load_run(run) for run in runs}
    hashes = {run: loaded.info["data"]["hash"] for run, loaded in opened.items()}
    stranger = next((run for run in runs if hashes[run] != hashes[runs[0]]), None)
    if stranger is not None:
        raise RunError(
            f"{runs[0]} and {stranger} were trained on different data (hash {hashes[runs[0]][:12]}… and "
            f"{hashes[stranger][:12]}…): compare runs on the same prepared folder"
        )
    _, dataset, data = open_run(runs[0], data)
    return opened, dataset, data


def _against(
    found: Mapping[str, Evaluation], order: Sequence[str], metric: str, seed: int, resamples: int
) -> dict[str, dict[str, Any]]:
    """run → its mean and interval, and for all but the base (the first) its difference to the base with both tests."""
    from dualgnn_dgl.evaluation import bootstrap, holm, paired

    values = {run: found[run].per_user[metric] for run in order}
    intervals = bootstrap(values, seed, resamples)
    differences = paired(values[order[0]], {run: values[run] for run in order[1:]}, seed, resamples)
    bootstrapped = holm([float(d.p_bootstrap or 0) for d in differences.values()])
    ranked = holm([d.p_wilcoxon for d in differences.values()])
    rows: dict[str, dict[str, Any]] = {
        run: {"mean": float(values[run].mean()), "interval": list(intervals[run])} for run in order
    }
    for (run, d), p_bootstrap, p_wilcoxon in zip(differences.items(), bootstrapped, ranked, strict=True):
        rows[run] |= {
            "difference": d.mean,
            "difference_interval": [d.low, d.high],
            "p_bootstrap": d.p_bootstrap,
            "p_bootstrap_holm": p_bootstrap,
            "p_wilcoxon": d.p_wilcoxon,
            "p_wilcoxon_holm": p_wilcoxon,
            "better": d.better,
            "worse": d.worse,
        }
    return rows


def _sliced(
    parts: Mapping[str, Sequence[tuple[tuple[int, int], Evaluation]]],
    order: Sequence[str],
    metrics: Sequence[str],
    seed: int,
    resamples: int,
) -> list[dict[str, Any]]:
    """Slice by slice: its range, its users, and for each metric every run's mean and difference to the base."""
    from dualgnn_dgl.evaluation import paired

    rows = []
    for n, (bounds, base) in enumerate(parts[order[0]]):
        shown: dict[str, dict[str, dict[str, Any]]] = {}
        for metric in metrics:
            values: dict[str, np.ndarray] = {run: parts[run][n][1].per_user[metric] for run in order}
            differences = paired(values[order[0]], {run: values[run] for run in order[1:]}, seed, resamples)
            shown[metric] = {run: {"mean": float(values[run].mean())} for run in order}
            for run, d in differences.items():
                shown[metric][run] |= {"difference": d.mean, "difference_interval": [d.low, d.high]}
        rows.append({"from": bounds[0], "to": bounds[1], "users": len(base.users), "metrics": shown})
    return rows


def _number(figure: float) -> float | None:
    """A figure for JSON, which knows no NaN."""
    return None if figure != figure else figure


def _text(value: Mapping[str, Any], masked: int) -> str:
    """The comparison for people: a table per question."""
    from dualgnn_dgl.evaluation.slices import label

    order = list(value["runs"])
    lines = [*measured_on(value, masked), f"base   {clean(value['base'])} ({value['runs'][value['base']]})"]
    headers = ["run", "model", "mean", "95 %", "difference", "95 %", "better", "worse"]
    headers += ["p bootstrap", "Holm", "p Wilcoxon", "Holm"]
    for metric, rows in value["metrics"].items():
        cells = []
        for run, row in rows.items():
            line: list[Any] = [run, value["runs"][run], row["mean"], "[{:.4f}, {:.4f}]".format(*row["interval"])]
            if "difference" in row:
                line += [f"{row['difference']:+.4f}", "[{:+.4f}, {:+.4f}]".format(*row["difference_interval"])]
                line += [row["better"], row["worse"]]
                line += [_p(row[key]) for key in ("p_bootstrap", "p_bootstrap_holm", "p_wilcoxon", "p_wilcoxon_holm")]
            else:
                line += ["base", "", None, None, "", "", "", ""]
            cells.append(line)
        lines += ["", metric, table(headers, cells)]
    titles = {"user_training_pairs": "users by training videos", "item_training_users": "held-out videos by training users"}
    for kind, title in titles.items():
        for metric in value["metrics"]:
            cells = [
                [label((row["from"], row["to"])), row["users"], *(_slice_cell(row["metrics"][metric][run]) for run in order)]
                for row in value["slices"][kind]
            ]
            lines += ["", f"{metric}, {title}; in brackets the difference to the base", table(["", "users", *order], cells)]
    cells = [[name, *(figures[run] for run in order)] for name, figures in value["beyond"].items()]
    return "\n".join([*lines, "", "what the lists are like", table(["", *order], cells)])


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def _slice_cell(figures: Mapping[str, Any]) -> str:
    if "difference" not in figures:
        return f"{figures['mean']:.4f}"
    return "{:.4f} [{:+.4f}, {:+.4f}]".format(figures["mean"], *figures["difference_interval"])
