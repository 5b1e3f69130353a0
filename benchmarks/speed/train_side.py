"""One side of bench_train.py: a process that trains and answers with the time of each step.

It starts with a JSON object: data, code and options. Commands come on stdin, one per line: a number
of steps, or `evaluate`. Each is answered by one line of JSON. With "curve" set it trains until it
stops by itself, and answers with the results.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from dualgnn_dgl import data, models, training
from dualgnn_dgl.core.options import build, keys
from dualgnn_dgl.data import Interactions
from dualgnn_dgl.evaluation import Evaluator, bootstrap
from dualgnn_dgl.training.sampling import TripleSampler

K = 20


class Stop(Exception):
    """Leaves the training loop after the last command."""


class Pacer:
    """Lets a training loop run a number of steps, and answers with their seconds."""

    def __init__(self, model, dataset) -> None:
        self.model, self.dataset = model, dataset
        self.next()

    def next(self) -> None:
        """Waits for a number of steps, and answers other commands."""
        for line in sys.stdin:
            if line.strip() == "evaluate":
                answer({"seconds": evaluation_seconds(self.model, self.dataset)})
                continue
            self.left, self.wall, self.cpu, self.inner = int(line), [], [], []
            self.clock = time.perf_counter(), time.process_time()
            return
        raise Stop

    def tick(self, step: int, steps: int) -> None:
        """Records the time of step `step` (from 1) of `steps` in an epoch."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        self.wall.append(now[0] - self.clock[0])
        self.cpu.append(now[1] - self.clock[1])
        self.inner.append(step > 1 or steps == 1)  # an epoch's first step also draws its triples
        self.left -= 1
        if self.left == 0:
            kept = [place for place, inner in enumerate(self.inner) if inner] or range(
                len(self.wall)
            )
            shown = {"wall": [self.wall[p] for p in kept], "cpu": [self.cpu[p] for p in kept]}
            answer(shown | {"steps": steps, "peak_mb": peak_mb()})
            self.next()
            return
        self.clock = time.perf_counter(), time.process_time()


def answer(content: dict) -> None:
    """Prints one answer to the process that asked."""
    print(json.dumps(content), flush=True)


def peak_mb(reset: bool = False) -> int:
    """Returns the peak resident memory of this process since the last reset, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return peak


def evaluation_seconds(model, dataset) -> list[float]:
    """Times full ranking and metrics at K = 20 for users with a validation pair.

    It has five calls, after one that does not count.
    """
    evaluator, (user, item) = (
        Evaluator(dataset.valid, [dataset.train], ks=(K,)),
        training.tables(model),
    )
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        evaluator(user, item)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def build_ours(spec: dict, dataset):
    """Returns our model, its inputs and its training options."""
    kind = models.model_class(spec["model"])
    unknown = set(spec["options"]) - set(keys(kind.Config)) - set(keys(training.TrainConfig))
    if unknown:
        raise SystemExit(
            f"--set {unknown.pop()}: neither training nor {spec['model']} has such an option"
        )
    config, train = (
        build(part, {k: v for k, v in spec["options"].items() if k in keys(part)})
        for part in (kind.Config, training.TrainConfig)
    )
    inputs = training.Inputs.of(dataset, train)
    return inputs.model(spec["model"], config, train.seed), inputs, train


def work(spec: dict) -> None:
    """Loads, builds and trains one side, as commanded."""
    torch.set_num_threads(spec["threads"])
    dataset = data.load(spec["folder"])
    loading_mb, began = peak_mb(reset=True), time.perf_counter()
    if spec["code"] == "ours":
        model, inputs, train = build_ours(spec, dataset)
    else:
        model, inputs, train = (
            build_peer(spec, dataset),
            None,
            build(training.TrainConfig, spec["options"], "--base"),
        )
    model = model.to(spec["device"])
    setup = time.perf_counter() - began
    if spec["curve"]:
        fit = inputs.fit(model, train)
        found = Evaluator(dataset.valid, [dataset.train], ks=(K,))(fit.user, fit.item)
        interval = bootstrap(found.per_user, seed=0)[f"recall@{K}"]
        steps = math.ceil(len(dataset.train) / (train.batch_size * train.share_propagation))
        facts = {
            "best": fit.best_value,
            "best_epoch": fit.best_epoch,
            "interval": list(interval),
            "steps": steps,
        }
        answer(facts | {"history": fit.history, "peak_mb": peak_mb()})
        return
    device = torch.device(spec["device"])
    sampler, draw = TripleSampler(dataset.train, device), torch.Generator(device).manual_seed(0)
    began = time.perf_counter()
    next(sampler.epoch(train.batch_size, draw))
    drawing = time.perf_counter() - began
    del sampler
    sizes = {
        "pairs": len(dataset.train),
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch_size": train.batch_size,
    }
    memory = {"loading_mb": loading_mb, "setup_mb": peak_mb(reset=True)}
    answer({"setup_s": setup, "draw_s": drawing, **sizes, **memory})
    with contextlib.suppress(Stop):
        pacer = Pacer(model, dataset)
        if spec["code"] == "ours":
            # Without validation pairs the loop has steps only.
            none = Interactions([], [], dataset.num_users, dataset.num_items)
            endless = replace(train, epochs=1_000_000)
            replace(inputs, dataset=replace(dataset, valid=none)).fit(
                model, endless, report=lambda p: None if p.finished else pacer.tick(p.step, p.steps)
            )
        else:
            from benchmarks.speed import peers

            for step, steps in peers.train_steps(model, dataset.train, train.batch_size, train.lr):
                pacer.tick(step, steps)


def build_peer(spec: dict, dataset):
    """Returns the peer of peers.py with its initial parameters."""
    try:
        from benchmarks.speed import peers
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: pip install -e '.[bench]'") from None
    if spec["model"] == "lightgcn":
        return peers.PygLightGCN(
            dataset.train, form="csr" if spec["code"] == "pyg-csr" else "edges"
        )
    return peers.PygDualGNN(dataset.train, dataset.modalities, dataset.co_occurrence)


def profile(spec: dict) -> None:
    """Prints the time within ten of our steps, by operator and shape."""
    torch.set_num_threads(spec["threads"])
    dataset = data.load(spec["folder"])
    model, _, train = build_ours(spec, dataset)
    optimiser, sampler = (
        torch.optim.Adam(model.parameters(), lr=train.lr),
        TripleSampler(dataset.train),
    )
    batches = sampler.epoch(train.batch_size, torch.Generator().manual_seed(0))

    def steps(count: int) -> None:
        for _, batch in zip(range(count), batches, strict=False):
            optimiser.zero_grad(set_to_none=True)
            model.loss(*batch).backward()
            optimiser.step()

    steps(3)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
    ) as found:
        steps(10)
    table = found.key_averages(group_by_input_shape=True)
    print(
        table.table(
            sort_by="self_cpu_time_total",
            row_limit=30,
            max_name_column_width=36,
            max_shapes_column_width=60,
        )
    )


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    (profile if asked["code"] == "profile" else work)(asked)
