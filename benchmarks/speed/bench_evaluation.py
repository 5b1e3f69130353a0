"""Measures how long full ranking and its metrics take, and the share of each step.

Shape of Amazon-Baby in the MMRec split: 19,445 users × 7,050 items, 118,551 training, 20,559
validation and 21,682 test pairs, D = 64, K = 10 and 20. The tables are random; the pairs are drawn
at random unless --inter names the real log. The twin is the same job as many evaluators do it: one
user at a time, with Python's sets and lists. It was written for this comparison, and its metrics
must be equal.

    python -m benchmarks.speed.bench_evaluation                      all users, 7 runs; twin once
    python -m benchmarks.speed.bench_evaluation --inter baby.inter   the real pairs
    python -m benchmarks.speed.bench_evaluation --quick              3 runs; twin on 500 users
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from pyarrow import csv

from benchmarks.lib.paths import RESULTS
from dualgnn_dgl.core.files import write_json
from dualgnn_dgl.data import Interactions
from dualgnn_dgl.evaluation import Evaluator, bootstrap, metrics_per_user
from dualgnn_dgl.evaluation.metrics import hit_matrix
from dualgnn_dgl.evaluation.ranking import _BUDGET
from dualgnn_dgl.evaluation.selection import mask_seen, select

RESULT = RESULTS / "evaluation.json"
USERS, ITEMS, WIDTH, KS = 19_445, 7_050, 64, (10, 20)
PAIRS = (118_551, 20_559, 21_682)


def splits(inter: str | None) -> list[Interactions]:
    """Returns train, valid and test pairs, from an MMRec .inter file or drawn."""
    if inter is not None:
        table = csv.read_csv(inter, parse_options=csv.ParseOptions(delimiter="\t"))
        user, item, label = (table[name].to_numpy() for name in ("userID", "itemID", "x_label"))
        return [Interactions(user[label == s], item[label == s], USERS, ITEMS) for s in range(3)]
    keys = np.random.default_rng(0).choice(USERS * ITEMS, size=sum(PAIRS), replace=False)
    return [
        Interactions(part // ITEMS, part % ITEMS, USERS, ITEMS)
        for part in np.split(keys, np.cumsum(PAIRS)[:2])
    ]


def timed(work: Callable[[], object], runs: int) -> dict[str, float]:
    """Returns the median, least and most seconds of `runs` calls, and the median of CPU seconds.

    A first call does not count.
    """
    work()
    seconds, busy = [], []
    for _ in range(runs):
        began, used = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - used)
    return {
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "cpu": statistics.median(busy),
        "runs": runs,
    }


def phases(
    user: torch.Tensor, item: torch.Tensor, truth: Interactions, seen: list[Interactions], runs: int
) -> dict[str, float]:
    """Returns the median seconds of the product, the masks, the selection and the metrics.

    The steps are those of `Evaluator`, with a clock between them.
    """
    held, masked = truth.csr(), sum(part.csr() for part in seen)
    users = np.flatnonzero(np.diff(held.indptr))
    held, masked, user = held[users], masked[users], user[torch.from_numpy(users)]
    block = _BUDGET["cpu"] // (4 * len(item))
    buffer, seconds = torch.empty(block, len(item)), []
    for _ in range(runs + 1):
        spent, lists, clock = (
            dict.fromkeys(("matmul", "mask", "topk", "metrics"), 0.0),
            [],
            time.perf_counter,
        )

        def lap(
            name: str,
            began: float,
            spent: dict[str, float] = spent,
            clock: Callable[[], float] = clock,
        ) -> float:
            now = clock()
            spent[name] += now - began
            return now

        began = clock()
        for start in range(0, len(users), block):
            stop = min(start + block, len(users))
            scores = torch.mm(user[start:stop], item.T, out=buffer[: stop - start])
            began = lap("matmul", began)
            mask_seen(scores, masked, start, stop)
            began = lap("mask", began)
            lists.append(select(scores, max(KS))[0])
            began = lap("topk", began)
        metrics_per_user(hit_matrix(torch.cat(lists).numpy(), held), np.diff(held.indptr), KS)
        lap("metrics", began)
        seconds.append(spent)
    return {name: statistics.median(run[name] for run in seconds[1:]) for name in seconds[0]}


def one_by_one(
    user: np.ndarray, item: np.ndarray, truth: Interactions, seen: list[Interactions], limit: int
) -> tuple[float, int, float]:
    """Computes all metrics with sets, one user at a time; returns seconds, users and recall@20."""
    held: dict[int, set[int]] = {}
    hidden: dict[int, set[int]] = {}
    for part, sets in ((truth, held), *((part, hidden) for part in seen)):
        for u, i in zip(part.user.tolist(), part.item.tolist(), strict=True):
            sets.setdefault(u, set()).add(i)
    began, sums = time.perf_counter(), {}
    chosen = sorted(held)[:limit]
    for u in chosen:
        scores = item @ user[u]
        scores[list(hidden.get(u, ()))] = -np.inf
        ranked = np.argsort(-scores, kind="stable")[: max(KS)].tolist()
        for k in KS:
            hits = [i in held[u] for i in ranked[:k]]
            found = {
                "recall": sum(hits) / len(held[u]),
                "precision": sum(hits) / k,
                "ndcg": sum(h / math.log2(j + 2) for j, h in enumerate(hits))
                / sum(1 / math.log2(j + 2) for j in range(min(len(held[u]), k))),
                "hit": float(any(hits)),
                "map": sum(sum(hits[: j + 1]) / (j + 1) for j, h in enumerate(hits) if h)
                / min(len(held[u]), k),
                "mrr": next((1 / (j + 1) for j, h in enumerate(hits) if h), 0.0),
            }
            for name, value in found.items():
                sums[f"{name}@{k}"] = sums.get(f"{name}@{k}", 0.0) + value
    return time.perf_counter() - began, len(chosen), sums["recall@20"] / len(chosen)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs, twin on 500 users")
    parser.add_argument("--inter", metavar="FILE", help="the real log, baby.inter of MMRec")
    parser.add_argument("--out", default=str(RESULT), metavar="FILE", help="where the JSON goes")
    arguments = parser.parse_args()
    runs = 3 if arguments.quick else 7
    train, valid, test = splits(arguments.inter)
    draw = torch.Generator().manual_seed(0)
    user, item = (torch.randn(count, WIDTH, generator=draw) * 0.1 for count in (USERS, ITEMS))
    everyone = Interactions(np.arange(USERS), np.arange(USERS) % ITEMS, USERS, ITEMS)
    popularity = torch.from_numpy(np.bincount(train.item, minlength=ITEMS).astype(np.float32))[
        :, None
    ]

    evaluator, load = Evaluator(test, [train, valid], KS), os.getloadavg()[0]
    found = evaluator(user, item)
    rows = {
        "prepare": timed(lambda: Evaluator(test, [train, valid], KS), runs),
        "evaluate, users with a test pair": timed(lambda: evaluator(user, item), runs),
    }
    ranked_all = Evaluator(everyone, [], KS)
    rows["evaluate, all users"] = timed(lambda: ranked_all(user, item), runs)
    rows["evaluate, popularity (a tie in every list)"] = timed(
        lambda: evaluator(torch.ones(USERS, 1), popularity), runs
    )
    rows["bootstrap, 1,000 resamples of 12 means"] = timed(
        lambda: bootstrap(found.per_user, 0), runs
    )
    parts = phases(user, item, test, [train, valid], runs)
    seconds, count, recall = one_by_one(
        user.numpy(), item.numpy(), test, [train, valid], 500 if arguments.quick else USERS
    )
    expected = float(found.per_user["recall@20"][:count].mean())
    # NumPy and torch round differently, so near ties may be ordered differently.
    if abs(recall - expected) > 1e-4:
        raise SystemExit(f"the twin finds recall@20 {recall}, the evaluator {expected}")
    per_user = rows["evaluate, users with a test pair"]["median"] / len(found.users)

    threads = torch.get_num_threads()
    print(f"{USERS:,} users × {ITEMS:,} items, D = {WIDTH}, {len(found.users):,} with a test pair")
    print(f"{threads} threads; load of the machine before: {load:.1f}")
    for name, row in rows.items():
        print(
            f"{name:<45} {row['median']:7.3f} s  ({row['min']:.3f}–{row['max']:.3f}; "
            f"{row['cpu']:.3f} s of CPU; {runs} runs)"
        )
    print(
        "shares: "
        + ", ".join(f"{name} {value / sum(parts.values()):.0%}" for name, value in parts.items())
    )
    twin = seconds / count * len(found.users)
    print(
        f"one user at a time with sets: {twin:.1f} s (measured on {count:,} users), "
        f"{seconds / count / per_user:.0f} × as long"
    )
    write_json(
        arguments.out,
        {
            "users": USERS,
            "items": ITEMS,
            "width": WIDTH,
            "evaluated": len(found.users),
            "pairs": "real" if arguments.inter else "random",
            "seconds": rows,
            "phases": parts,
            "twin": {"seconds": seconds, "users": count},
            "machine": {
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "threads": threads,
                "load_before": load,
            },
            "versions": {
                name: version(name) for name in ("dualgnn-dgl", "torch", "numpy", "scipy")
            },
        },
    )


if __name__ == "__main__":
    main()
