"""Times the sides of a case of bench_train.py in turns, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

from benchmarks.lib.machine import machine
from benchmarks.lib.paths import REPOSITORY, Folders
from benchmarks.speed import shapes
from benchmarks.speed.train_cases import Side

SIDE = "benchmarks.speed.train_side"
WARM_UP = 3


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
