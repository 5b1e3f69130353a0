"""Measures a list of 10 for one user against the product and `torch.topk` alone.

    python -m benchmarks.speed.bench_request            20,000, 100,000 and 1,000,000 items, D = 64
    python -m benchmarks.speed.bench_request --quick    20,000 items, nothing is written

`Ranker` has an item table that was checked once. `top_k` checks it at every call. `blocks` is
`top_k` without the shortlist: its only way before there was one. The lists and the scores of all
three are bit-identical. The baseline, `torch.topk(user @ item.T, 10)`, orders ties arbitrarily
and checks nothing. Each way takes turns with the baseline, in one process with one thread. The
table has the median and the least of its times, the median of the ratios within a turn, and the
ratio of the least times. On a busy machine only CPU time and the least times are meaningful.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

from benchmarks.lib.machine import machine
from benchmarks.lib.paths import RESULTS
from benchmarks.lib.tables import command_of
from dualgnn_dgl.core.files import write_json
from dualgnn_dgl.evaluation import ranking, top_k
from dualgnn_dgl.evaluation.ranking import Ranker

RESULT = RESULTS / "request.json"
SIZES = {20_000: 301, 100_000: 101, 1_000_000: 15}  # items → turns
WIDTH, K = 64, 10
PARTS = ("ms", "least ms", "ratio", "ratio of the least")
Lists = tuple[Tensor, Tensor]


def in_blocks(user: Tensor, item: Tensor) -> Lists:
    """Ranks with the checks at every call and without the shortlist."""
    with mock.patch.object(ranking, "rank_one", lambda *_: None):
        return top_k(user, item, K)


def measure(items: int, turns: int) -> dict:
    """Times one user's list for a random table, and checks that all ways agree."""
    draw = torch.Generator().manual_seed(0)
    user, item = (torch.randn(size, WIDTH, generator=draw) for size in (1, items))
    ranker = Ranker(item)
    ways: dict[str, Callable[[], Lists]] = {
        "torch": lambda: torch.topk(user @ item.T, K),
        "Ranker": lambda: ranker.top_k(user, K),
        "top_k": lambda: top_k(user, item, K),
        "blocks": lambda: in_blocks(user, item),
    }
    found = {name: way() for name, way in ways.items()}
    for name in ("top_k", "Ranker"):
        if not all(map(torch.equal, found[name], found["blocks"])):
            raise SystemExit(f"{name} and blocks differ at {items} items")
    row: dict = {"items": items, "turns": turns}
    for name, way in ways.items():
        row[name] = against(ways["torch"], way, turns)
    return row


def against(base: Callable[[], Lists], way: Callable[[], Lists], turns: int) -> dict[str, float]:
    """Times a way in turns with the baseline, in wall time and in CPU time."""
    clocks: list[list[tuple[float, float]]] = []
    for _ in range(turns):
        clock = [(time.perf_counter(), time.thread_time())]
        for work in (base, way):
            work()
            clock.append((time.perf_counter(), time.thread_time()))
        clocks.append(clock)
    found = {}
    for place, kind in enumerate(("wall", "cpu")):
        pairs = [(b[place] - a[place], c[place] - b[place]) for a, b, c in clocks]
        bases, mine = zip(*pairs, strict=True)
        found[f"{kind}_ms"] = 1e3 * statistics.median(mine)
        found[f"{kind}_min_ms"] = 1e3 * min(mine)
        found[f"{kind}_ratio"] = statistics.median(one / other for other, one in pairs)
        found[f"{kind}_ratio_of_min"] = min(mine) / min(bases)
    return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, not written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load, rows = os.getloadavg()[0], []
    heads = ["items", "way", *(f"{kind} {part}" for kind in ("wall", "CPU") for part in PARTS)]
    print(f"| {' | '.join(heads)} |\n" + "| --- " * len(heads) + "|")
    for items, turns in list(SIZES.items())[: 1 if arguments.quick else None]:
        rows.append(measure(items, turns))
        for name in ("torch", "Ranker", "top_k", "blocks"):
            cells = [f"{value:.3f}" for value in rows[-1][name].values()]
            print(f"| {items:,} | {name} | {' | '.join(cells)} |", flush=True)
    if not arguments.quick:
        facts = {"command": command_of("benchmarks.speed.bench_request", sys.argv[1:])}
        facts |= {"width": WIDTH, "k": K, "load_before": load, "machine": machine(1)}
        write_json(RESULT, facts | {"rows": rows})


if __name__ == "__main__":
    main()
