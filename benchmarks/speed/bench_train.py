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
from pathlib import Path

from benchmarks.lib.paths import RESULTS, Folders, add_folders
from benchmarks.speed import shapes
from benchmarks.speed.train_cases import CASES, CURVES, OURS, Side, sides_of
from benchmarks.speed.train_curves import K, curves
from benchmarks.speed.train_turns import SIDE, take_turns
from dualgnn_dgl.core.files import read_json, write_json
from dualgnn_dgl.core.options import parse_pair

RESULT = RESULTS / "train.json"


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
