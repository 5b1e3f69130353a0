"""Measures seconds per step and per epoch of training, ours and torch_geometric's.

    python -m benchmarks.speed.bench_train --root SHARED/data     all cases, growth, curves
    python -m benchmarks.speed.bench_train --quick                does it run? under a minute
    python -m benchmarks.speed.bench_train --cases baby --set batch_size=8192
                                                                  one case, a row with an option
    python -m benchmarks.speed.bench_train --device cuda --set cuda_graph=false
                                                                  on a GPU: results/train_cuda.json
    python -m benchmarks.speed.bench_train --cases '' --scale '' --curves options
                                                                  the cost of speed in quality
    python -m benchmarks.speed.bench_train --profile baby         time within a step of ours

Every side of a case is a process of its own, and they take turns: a round of steps each, in
alternating order, so that a busy moment of the machine affects all of them. Ours is `training.fit`
itself, timed through `report`; the peers are peers.py, with our sampler. Steps are timed after a
warm-up. An epoch is extrapolated: (time to draw its triples) + steps × (mean step of a round). The
ratio is computed within each round; the table has its median, least and most over the rounds.

The curves: with the options of `--base` (batch 2048; the equations are the peer's,
tests/test_peers.py) our code is trained with several seeds, each until it stops by itself. The
target is `SHARE` of the best validation recall@20 of the worst of these runs. Our time to the
target is measured. The peer's time is derived: the median of these runs' epochs until the target ×
the peer's own seconds per epoch. Validation counts on neither side. The recall of a run has the
95 % interval over its validation users. `options` is such a curve on TikTok, whose features are
real, with a row for every option that trades quality for speed (`OPTIONS`). bench_cooccurrence.py
compares co-occurrence with a pairwise loop.

Measure on a quiet machine: OpenMP's threads wait for each other by spinning, so that with two
threads a foreign process on one core costs far more than its share, CPU seconds included. With
--threads 1 the ratio by CPU seconds is robust to load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.lib.machine import machine
from benchmarks.lib.paths import REPOSITORY, RESULTS, Folders, add_folders
from benchmarks.speed import shapes
from dualgnn_dgl.core.files import read_json, write_json
from dualgnn_dgl.core.options import parse_pair

SIDE = "benchmarks.speed.train_side"
RESULT = RESULTS / "train.json"
SHARE, K = 0.99, 20
WARM_UP = 3


@dataclass(frozen=True)
class Side:
    """One row of a case.

    Attributes:
        label: Name of the row.
        data: Data set.
        code: 'ours', 'pyg' or 'pyg-csr'.
        options: Options, as `--set` takes them.
    """

    label: str
    data: str
    code: str
    options: dict[str, str]


OURS, REDUCED = "ours", f"ours, features {shapes.REDUCED}"
CASES = {
    # case: (model, label → (data, code))
    "baby": (
        "dualgnn",
        {OURS: ("baby", "ours"), REDUCED: ("baby-256", "ours"), "pyg": ("baby", "pyg")},
    ),
    "tiktok": ("dualgnn", {OURS: ("tiktok", "ours"), "pyg": ("tiktok", "pyg")}),
    "movielens": (
        "dualgnn",
        {
            OURS: ("movielens", "ours"),
            REDUCED: ("movielens-256", "ours"),
            "pyg": ("movielens", "pyg"),
        },
    ),
    "tiktok lightgcn": (
        "lightgcn",
        {OURS: ("tiktok", "ours"), "pyg": ("tiktok", "pyg"), "pyg csr": ("tiktok", "pyg-csr")},
    ),
    "gowalla": (
        "lightgcn",
        {OURS: ("gowalla", "ours"), "pyg": ("gowalla", "pyg"), "pyg csr": ("gowalla", "pyg-csr")},
    ),
}

# Options that trade quality for speed, one row each: key=value,key=value on top of the base.
OPTIONS = {
    "dualgnn": (
        "batch_size=8192",
        "batch_size=16384",
        "share_propagation=8",
        "batch_size=16384,precision=bfloat16",
        "fanout=10",
    ),
    "lightgcn": (
        "batch_size=16384,lr=0.01",
        "share_propagation=8,lr=0.01",
        "batch_size=16384,lr=0.01,fanout=10,hops=3",
    ),
}
CURVES = {"options": "tiktok", "options lightgcn": "tiktok lightgcn"}  # curve: case


class Worker:
    """Starts a side's process and exchanges commands and answers with it."""

    def __init__(
        self, side: Side, model: str, arguments: argparse.Namespace, *, curve: bool = False
    ) -> None:
        folder = shapes.prepared(side.data, Folders.of(arguments))
        spec = {
            "model": model,
            "code": side.code,
            "options": side.options,
            "folder": str(folder),
        } | {
            "threads": arguments.threads,
            "device": arguments.device,
        }
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        command = [sys.executable, "-m", SIDE, json.dumps(spec | {"curve": curve})]
        self.label = side.label
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=REPOSITORY,
        )
        self.first = self.answer()

    def ask(self, command: object) -> dict:
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.label} ended with code {self.process.wait()}: see its message above"
            )
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def middle(values: list[float]) -> dict[str, float]:
    """Returns the median and the range of the middle 80 %."""
    ordered = sorted(values)
    edge = len(ordered) // 10
    return {"median": statistics.median(ordered), "low": ordered[edge], "high": ordered[-1 - edge]}


def take_turns(
    sides: list[Side], model: str, arguments: argparse.Namespace, *, evaluate: bool = False
) -> dict:
    """Times the sides of a case in turns.

    Returns:
        One row per side, with ratios to the first peer if there is one.
    """
    load = os.getloadavg()[0]
    if load > 1:
        print(
            f"load of the machine is {load:.1f}: times with several threads are unreliable",
            file=sys.stderr,
        )
    workers, rounds = [], []
    try:
        # One starts after the other, so that they do not disturb each other's setup.
        for side in sides:
            workers.append(Worker(side, model, arguments))
        warm = [worker.ask(WARM_UP) for worker in workers]
        counts = [
            max(
                1,
                min(
                    w["steps"],
                    round(arguments.seconds / arguments.rounds / statistics.median(w["wall"])),
                ),
            )
            for w in warm
        ]
        for number in range(arguments.rounds):
            order = range(len(workers))[:: 1 if number % 2 == 0 else -1]
            rounds.append(
                dict(sorted((place, workers[place].ask(counts[place])) for place in order))
            )
        ranking = workers[0].ask("evaluate")["seconds"] if evaluate else None
    finally:
        for worker in workers:
            worker.close()
    rows = []
    for place, (side, worker) in enumerate(zip(sides, workers, strict=True)):
        first, mine = worker.first, [turn[place] for turn in rounds]
        epochs = [first["draw_s"] + turn["steps"] * statistics.fmean(turn["wall"]) for turn in mine]
        row = {
            "side": side.label,
            "options": side.options,
            "data": side.data,
            "steps": mine[0]["steps"],
            "epochs": epochs,
        }
        row |= {
            "step": middle([s for t in mine for s in t["wall"]]),
            "step_cpu": middle([s for t in mine for s in t["cpu"]]),
        }
        row |= {
            "timed_steps": sum(len(t["wall"]) for t in mine),
            "epoch": statistics.median(epochs),
            **first,
        }
        rows.append(row | {"peak_mb": max(t["peak_mb"] for t in [warm[place], *mine])})
    peer = next((row for row, side in zip(rows, sides, strict=True) if side.code != "ours"), None)
    for row in rows if peer else []:
        ratios = [theirs / mine for theirs, mine in zip(peer["epochs"], row["epochs"], strict=True)]
        cpu = (
            peer["steps"] * peer["step_cpu"]["median"] / (row["steps"] * row["step_cpu"]["median"])
        )
        row["ratio"] = {
            "median": statistics.median(ratios),
            "low": min(ratios),
            "high": max(ratios),
            "cpu": cpu,
        }
    made = {
        "model": model,
        "rows": rows,
        "load_before": load,
        "machine": machine(arguments.threads),
    }
    if ranking:
        made["evaluation"] = {
            "seconds": ranking,
            "share": statistics.median(ranking) / rows[0]["epoch"],
        }
    return made


def show(name: str, made: dict) -> None:
    """Prints the table of a case."""
    print(
        f"\n{name}: {made['model']}, {made['rows'][0]['pairs']:,} pairs, load before "
        f"{made['load_before']:.1f}\n"
    )
    print(
        "| side | batch | steps | ms a step (middle 80 %) | CPU ms | s an epoch | ratio (range; "
        "by CPU) | peak MB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in made["rows"]:
        low, mid, high = (1e3 * row["step"][key] for key in ("low", "median", "high"))
        step = f"{mid:.1f} ({low:.1f}–{high:.1f}) | {1e3 * row['step_cpu']['median']:.1f}"
        ratio = (
            "{median:.2f} ({low:.2f}–{high:.2f}; {cpu:.2f})".format(**row["ratio"])
            if "ratio" in row
            else ""
        )
        print(
            f"| {row['side']} | {row['batch_size']} | {row['steps']} | {step} | "
            f"{row['epoch']:.2f} | {ratio} | {row['peak_mb']} |"
        )
    if "evaluation" in made:
        print(f"\nevaluation at K = {K}: {statistics.median(made['evaluation']['seconds']):.3f} s, "
              f"{made['evaluation']['share']:.3f} of an epoch")  # fmt: skip


def sides_of(case: str, arguments: argparse.Namespace, rows: tuple[str, ...] = ()) -> list[Side]:
    """Returns the case's rows, and ours again with the options of each of `rows` and of `--set`."""
    sides = [
        Side(label, data, code, arguments.base) for label, (data, code) in CASES[case][1].items()
    ]
    ours = [side for side in sides if side.code == "ours"]
    every = [dict(map(parse_pair, row.split(","))) for row in rows]
    if arguments.set and arguments.set not in every:
        every.append(arguments.set)
    for changes in every:
        text = " ".join(f"{key}={value}" for key, value in changes.items())
        sides += [
            replace(s, label=f"{s.label}, {text}", options=arguments.base | changes) for s in ours
        ]
    return sides


def curves(name: str, arguments: argparse.Namespace, peer_epoch: float) -> dict:
    """Measures seconds to `SHARE` of the validation recall@20 of the runs with `--base`."""
    metric, runs = f"recall@{K}", []
    case = CURVES.get(name, name)
    rows = OPTIONS[CASES[case][0]] if name in CURVES else ()
    ours = [side for side in sides_of(case, arguments, rows) if side.code == "ours"]
    for side in ours:
        for seed in range(arguments.seeds):
            options = side.options | {"seed": str(seed), "metric": metric}
            worker = Worker(replace(side, options=options), CASES[case][0], arguments, curve=True)
            worker.close()
            runs.append((side.label, seed, worker.first))
            print(
                f"{side.label}, seed {seed}: {worker.first['best']:.4f}, epoch "
                f"{worker.first['best_epoch']}",
                file=sys.stderr,
            )
    target, rows = SHARE * min(run["best"] for label, _, run in runs if label == OURS), []
    for label, seed, run in runs:
        history = run["history"]
        reached = next(
            (
                number
                for number, row in enumerate(history, start=1)
                if row.get(metric, -1) >= target
            ),
            None,
        )
        rows.append(
            {
                "side": label,
                "seed": seed,
                "best": run["best"],
                "best_epoch": run["best_epoch"],
                "epochs": reached,
            }
        )
        rows[-1] |= {key: run[key] for key in ("interval", "steps", "peak_mb")}
        rows[-1]["epoch"] = statistics.median(row["seconds"] for row in history)
        for key in ("seconds", "total_seconds"):  # without and with validation
            rows[-1][key] = None if reached is None else sum(row[key] for row in history[:reached])
        rows[-1]["curve"] = [round(row[metric], 5) for row in history if metric in row]
    epochs = statistics.median(row["epochs"] for row in rows if row["side"] == OURS)
    peer = epochs * peer_epoch
    print(
        f"\n{name}: to validation {metric} {target:.4f}; pyg {peer:.1f} s = {epochs:g} epochs × "
        f"{peer_epoch:.2f} s\n"
    )
    print(
        "| side | s an epoch | seeds there | epochs | s | with validation | ratio | best recall ± "
        "sd | 95 %, one seed | MB |"
    )
    print("| --- " * 10 + "|")
    for side in ours:
        mine = [row for row in rows if row["side"] == side.label]
        there = [row for row in mine if row["epochs"] is not None]
        best = [row["best"] for row in mine]
        spread = f" ± {statistics.stdev(best):.4f}" if len(best) > 1 else ""
        low, high = mine[0]["interval"]
        took = (
            [
                statistics.median(row[key] for row in there)
                for key in ("epochs", "seconds", "total_seconds")
            ]
            if there
            else None
        )
        text = (
            f"{took[0]:g} | {took[1]:.2f} | {took[2]:.2f} | {peer / took[1]:.1f}"
            if took
            else "– | – | – | –"
        )
        quality = (
            f"{statistics.fmean(best):.4f}{spread} | {low:.4f}–{high:.4f} | "
            f"{max(row['peak_mb'] for row in mine)}"
        )
        epoch = statistics.median(row["epoch"] for row in mine)
        print(f"| {side.label} | {epoch:.2f} | {len(there)} of {len(mine)} | {text} | {quality} |")
    derived = {"epochs": epochs, "epoch_s": peer_epoch, "seconds": peer}
    return {
        "target": target,
        "share": SHARE,
        "peer": derived,
        "rows": rows,
        "machine": machine(arguments.threads),
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated; '' for none")
    parser.add_argument("--scale", default="5,6,7", help="10^N interactions each; '' for none")
    parser.add_argument(
        "--curves",
        default="tiktok,options,options lightgcn",
        help=f"cases to train until they stop, or {', '.join(CURVES)}; '' for none",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of training or model, for further rows",
    )
    base = "training options of all sides; default batch_size=2048"
    parser.add_argument("--base", action="append", default=[], metavar="KEY=VALUE", help=base)
    parser.add_argument("--seeds", type=int, default=3, help="runs per curve")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=30, help="seconds of timing per side of a case"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--device",
        default="cpu",
        choices=("cpu", "cuda"),
        help="cuda: into results/train_cuda.json",
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file; it keeps the cases that this run does not touch"
    )
    parser.add_argument(
        "--profile", metavar="CASE", choices=CASES, help="profile a step of ours instead"
    )
    parser.add_argument(
        "--quick", action="store_true", help="TikTok and 10⁵ drawn pairs, a few seconds each"
    )
    arguments = parser.parse_args()
    arguments.out = arguments.out or RESULT.with_stem(
        "train_cuda" if arguments.device == "cuda" else "train"
    )
    arguments.set = dict(map(parse_pair, arguments.set))
    arguments.base = {"batch_size": "2048"} | dict(map(parse_pair, arguments.base))
    if arguments.profile:
        model, sides = CASES[arguments.profile]
        folder = shapes.prepared(sides[OURS][0], Folders.of(arguments))
        spec = {
            "model": model,
            "code": "profile",
            "options": arguments.base | arguments.set,
            "folder": str(folder),
        }
        subprocess.run(
            [sys.executable, "-m", SIDE, json.dumps(spec | {"threads": arguments.threads})],
            check=True,
        )
        return
    if arguments.quick:
        arguments.cases, arguments.scale, arguments.curves = "tiktok", "5", ""
        arguments.rounds, arguments.seconds = 3, 3
        arguments.out = arguments.cache / "quick" / "train.json"
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
    found = read_json(arguments.out) if arguments.out.is_file() else {}
    for case in filter(None, arguments.cases.split(",")):
        made = take_turns(
            sides_of(case, arguments), CASES[case][0], arguments, evaluate=case == "baby"
        )
        show(case, made)
        found[case] = made
        write_json(arguments.out, found)
    for power in filter(None, arguments.scale.split(",")):
        made = take_turns(
            [Side(OURS, f"scale-{power}", "ours", arguments.base | arguments.set)],
            "dualgnn",
            arguments,
        )
        show(f"10^{power} interactions", made)
        found[f"scale-{power}"] = made
        write_json(arguments.out, found)
    for case in filter(None, arguments.curves.split(",")):
        peer = next(
            row["epoch"] for row in found[CURVES.get(case, case)]["rows"] if row["side"] == "pyg"
        )
        found[f"{case} curve"] = curves(case, arguments, peer)
        write_json(arguments.out, found)


if __name__ == "__main__":
    main()
