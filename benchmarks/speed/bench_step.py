"""Measures milliseconds per training step of every model, and seconds per ranking of all users.

    python -m benchmarks.speed.bench_step --data movielens-1m    on the CPU, two threads
    python -m benchmarks.speed.bench_step --data movielens-1m --device cuda
                                                                 on a GPU: results/step_cuda.json
    python -m benchmarks.speed.bench_step --models dualgnn,dualgnn_plus --threads 1

A step is that of `training.fit`: gradient, divergence monitor, Adam. Batches of `--batch` pairs are
drawn before the clock starts, and each model has its defaults. The table has the median round of
steps with the least and the most; on CUDA the device is synchronised at the end of a round. There
the step is measured with and without recording, and torch's profiler gives the time that the device
itself works on a step and its number of kernels: the rest of the step is the host that launches
them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.lib.datasets import DATA
from benchmarks.lib.machine import machine
from benchmarks.lib.paths import RESULTS, Folders, add_folders
from benchmarks.lib.prepared import prepare
from dualgnn_dgl import data, models
from dualgnn_dgl.core.files import read_json, write_json
from dualgnn_dgl.evaluation import Evaluator
from dualgnn_dgl.training import Inputs, TrainConfig, tables
from dualgnn_dgl.training.divergence import DivergenceMonitor
from dualgnn_dgl.training.sampling import TripleSampler
from dualgnn_dgl.training.step import Step

RESULT = RESULTS / "step.json"
TRAINED = tuple(name for name in models.MODELS if models.model_class(name).trainable)
WARM_UP, PROFILED = 5, 5


class Loop:
    """The inside of the training loop; each call is one step."""

    def __init__(
        self, name: str, dataset: data.Dataset, device: torch.device, batch: int, capture: bool
    ) -> None:
        self.model = Inputs.of(dataset, TrainConfig()).model(name, device=device)
        self.model.new_epoch(torch.Generator().manual_seed(0))
        self.model.train()
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.step, self.watch = (
            Step(self.model, device, capture=capture),
            DivergenceMonitor(self.model, device),
        )
        drawn = TripleSampler(dataset.train, device).epoch(
            batch, torch.Generator(device).manual_seed(0)
        )
        whole = [part for part in itertools.islice(drawn, 20) if len(part[0]) == batch]
        if not whole:
            raise SystemExit(
                f"--batch {batch}: the data hold {len(dataset.train)} training pairs, fewer than "
                f"a batch"
            )
        self.batches = itertools.cycle(whole)

    def __call__(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.watch.look(self.step(next(self.batches)))
        self.optimiser.step()


def wait(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(loop: Loop, device: torch.device, rounds: int, seconds: float) -> dict[str, float]:
    """Returns milliseconds per step: median, least and most over the rounds."""
    for _ in range(WARM_UP):
        loop()
    wait(device)
    began = time.perf_counter()
    loop()
    wait(device)
    steps = max(1, round(seconds / rounds / (time.perf_counter() - began)))
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(steps):
            loop()
        wait(device)
        found.append(1e3 * (time.perf_counter() - began) / steps)
    return {
        "ms": statistics.median(found),
        "min_ms": min(found),
        "max_ms": max(found),
        "steps": steps * rounds,
    }


def on_device(loop: Loop) -> dict[str, float]:
    """Returns the GPU's milliseconds and kernels for a step that is not recorded."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(PROFILED):
            loop()
        torch.cuda.synchronize()
    kernels = [
        event for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    kernels = [
        event for event in kernels if not event.name.startswith(("Optimizer.", "ProfilerStep"))
    ]
    spent = sum(event.time_range.elapsed_us() for event in kernels)
    return {"device_ms": spent / PROFILED / 1e3, "kernels": round(len(kernels) / PROFILED)}


def measure(name: str, dataset: data.Dataset, arguments: argparse.Namespace) -> dict[str, object]:
    """Measures a model's row."""
    device, row = torch.device(arguments.device), {"model": name}
    for capture in (False, True) if device.type == "cuda" else (False,):
        loop = Loop(name, dataset, device, arguments.batch, capture)
        found = timed(loop, device, arguments.rounds, arguments.seconds)
        if capture:
            row["recorded"] = found if loop.step.replayed is not None else None
            continue
        row["plain"] = found
        if device.type == "cuda":
            row |= on_device(loop)
        evaluator, seconds = Evaluator(dataset.valid, [dataset.train], ks=(20,)), []
        for _ in range(4):
            began = time.perf_counter()
            evaluator(*tables(loop.model))
            seconds.append(time.perf_counter() - began)
        row["evaluation_s"] = statistics.median(seconds[1:])
    return row


def line(row: dict) -> str:
    """Formats a row of the table."""
    plain, recorded = row["plain"], row.get("recorded")
    cells = [row["model"], "{ms:.2f} ({min_ms:.2f}–{max_ms:.2f})".format(**plain)]
    cells.append("{ms:.2f} ({min_ms:.2f}–{max_ms:.2f})".format(**recorded) if recorded else "–")
    cells += [f"{row['device_ms']:.2f}", str(row["kernels"])] if "kernels" in row else ["–", "–"]
    cells.append(f"{row['evaluation_s']:.3f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--data", default="movielens-1m", choices=DATA)
    parser.add_argument("--models", default=",".join(TRAINED))
    parser.add_argument("--batch", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="seconds of timing per model and way"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="cuda: into results/step_cuda.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = DATA[arguments.data]
    dataset = data.load(prepare(source.source, source.split, Folders.of(arguments)))
    file = RESULT.with_stem("step_cuda") if arguments.device == "cuda" else RESULT
    kept = read_json(file) if file.is_file() else {}
    rows = {row["model"]: row for row in kept.get(arguments.data, {}).get("rows", ())}
    print(
        f"{arguments.data}: {len(dataset.train):,} pairs, batches of {arguments.batch}, "
        f"{arguments.device}\n"
    )
    print(
        "| model | ms a step | recorded | on the device | kernels | s a ranking |\n| --- | --- | "
        "--- | --- | --- | --- |"
    )
    facts = {
        "pairs": len(dataset.train),
        "batch": arguments.batch,
        "machine": machine(arguments.threads),
    }
    for name in arguments.models.split(","):
        rows[name] = measure(name, dataset, arguments)
        print(line(rows[name]), flush=True)
        write_json(file, kept | {arguments.data: facts | {"rows": list(rows.values())}})


if __name__ == "__main__":
    main()
