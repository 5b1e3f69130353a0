"""Measures seconds to a given recall for bench_train.py."""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace

from benchmarks.lib.machine import machine
from benchmarks.speed.train_cases import CASES, CURVES, OPTIONS, OURS, sides_of
from benchmarks.speed.train_turns import Worker

SHARE, K = 0.99, 20


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
