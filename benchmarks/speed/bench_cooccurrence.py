"""Measures time and peak memory of the user co-occurrence lists (top 200, exact).

The logs are drawn: popularity ∝ (rank + q)^-a, user activity log-normal, no repeated pair. The cost
depends on the sum over items of degree². Every row gives it as `viewers`: the mean number of
viewers of a random interaction's item, as a share of all users. Public logs have 0.1 %
(MicroLens-50k), 0.1 to 0.4 % (Amazon-Book, Gowalla, Amazon-Baby, TikTok), 14 % (MovieLens-1M).

    baby         19,445 users ×   7,050 items,    118,551 pairs   the shape of Amazon-Baby
    movielens    55,485 users ×   5,986 items,  1,240,000 pairs   the shape of the MovieLens log of
                 the DualGNN paper
    microvideo 1,000,000 users × 300,000 items, 25,000,000 pairs  a tail as in MicroLens
    blockbuster  the same with one video seen by more than a quarter of all users: the worst case

Every shape runs in a process of its own, which imports numpy, scipy, pyarrow and numba. Two other
methods are measured on a sample and extrapolated. `sets` is the loop of public builders over pairs
of users, with Python sets and a dense matrix (written for this comparison; grows with users²).
`product` is blocks of SciPy's sparse R·Rᵀ with a sort of each row (grows with Σ degree²).

    python -m benchmarks.speed.bench_cooccurrence               all but blockbuster: ten minutes
    python -m benchmarks.speed.bench_cooccurrence --shape baby  one shape; the file keeps other rows
    python -m benchmarks.speed.bench_cooccurrence --quick       baby and movielens once, not written
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.lib.paths import REPOSITORY, RESULTS
from dualgnn_dgl.core.arrays import load_array
from dualgnn_dgl.core.files import read_json, write_json
from dualgnn_dgl.core.vocabulary import CO_MEASURES
from dualgnn_dgl.data import Interactions
from dualgnn_dgl.graphs.cooccurrence import co_occurrence

RESULT = RESULTS / "cooccurrence.json"
SHAPES = {  # users, items, pairs, exponent a, offset q
    "baby": (19_445, 7_050, 118_551, 0.75, 15),
    "movielens": (55_485, 5_986, 1_240_000, 1.0, 15),
    "microvideo": (1_000_000, 300_000, 25_000_000, 0.8, 200),
    "blockbuster": (1_000_000, 300_000, 25_000_000, 0.8, 0),
}
K = 200


def draw(users: int, items: int, pairs: int, exponent: float, offset: float) -> np.ndarray:
    """Draws distinct pairs and returns their keys user · items + item, (E,) int64."""
    rng = np.random.default_rng(0)
    popularity = np.cumsum((np.arange(1, items + 1) + offset) ** -exponent)
    activity = np.cumsum(rng.lognormal(size=users))
    item_of, keys = rng.permutation(items), np.empty(0, np.int64)
    while len(keys) < pairs:
        size = int((pairs - len(keys)) * 1.15) + 1000
        user = np.searchsorted(activity, rng.random(size) * activity[-1], "right")
        item = item_of[np.searchsorted(popularity, rng.random(size) * popularity[-1], "right")]
        keys = np.unique(np.concatenate([keys, user * items + item]))
    return rng.choice(keys, pairs, replace=False)


def peak() -> int:
    """Returns the largest resident memory of this process so far, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def sets(train: Interactions, sample: int) -> dict[str, float]:
    """Times the loop over all pairs of `sample` users, and extrapolates it to all users."""
    chosen = np.random.default_rng(1).choice(train.num_users, sample, replace=False)
    table = train.csr()[chosen]
    watched = [
        set(table.indices[a:b].tolist())
        for a, b in zip(table.indptr[:-1], table.indptr[1:], strict=True)
    ]
    began = time.perf_counter()
    counts = np.zeros((sample, sample), np.float32)
    for u in range(sample):
        for w in range(u + 1, sample):
            counts[u, w] = counts[w, u] = len(watched[u] & watched[w])
    for row in counts:
        np.argsort(-row)[:K]
    seconds = time.perf_counter() - began
    return {
        "sample_users": sample,
        "seconds": seconds,
        "extrapolated": seconds * (train.num_users / sample) ** 2,
    }


def product(train: Interactions, work: np.ndarray, sample: int) -> dict[str, float]:
    """Times R_block · Rᵀ and a stable sort of each row for `sample` users, and extrapolates it."""
    chosen = np.sort(np.random.default_rng(2).choice(train.num_users, sample, replace=False))
    table = train.csr()
    other, block = table.T.tocsr(), 256
    began = time.perf_counter()
    for first in range(0, sample, block):
        counts = table[chosen[first : first + block]] @ other
        counts.sort_indices()
        for a, b in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
            counts.indices[a:b][np.argsort(-counts.data[a:b], kind="stable")[: K + 1]]
    seconds = time.perf_counter() - began
    return {
        "sample_users": sample,
        "seconds": seconds,
        "extrapolated": seconds * float(work.sum() / work[chosen].sum()),
    }


def one(path: Path, users: int, items: int, runs: int, measures: list[str]) -> dict:
    """Measures one shape; called in a process of its own."""
    keys = load_array(path)
    train = Interactions(keys // items, keys % items, users, items)
    del keys
    degree = np.bincount(train.item, minlength=items)
    work = np.bincount(train.user, weights=degree[train.item], minlength=users)
    tiny = Interactions(np.array([0, 1]), np.array([0, 0]), 2, 1)
    began = time.perf_counter()
    # Two users with a common item compile the sweep; two among many compile the tally.
    co_occurrence(tiny)
    co_occurrence(Interactions(np.array([0, 1]), np.array([0, 0]), 99, 1))
    found = {
        "users": users,
        "items": items,
        "pairs": len(train),
        "visits": int(work.sum()),
        "viewers": float(work.sum() / len(train) / users),
        "most_watched": float(degree.max() / users),
        "compile_seconds": time.perf_counter() - began,
        "measures": {},
    }
    for measure in measures:
        wall, busy, entries = [], [], 0
        for _ in range(runs):
            began, used = time.perf_counter(), time.process_time()
            entries = co_occurrence(train, K, measure).neighbour.size
            wall.append(time.perf_counter() - began)
            busy.append(time.process_time() - used)
        found["measures"][measure] = {
            "seconds": {
                "median": statistics.median(wall),
                "min": min(wall),
                "max": max(wall),
                "runs": runs,
            },
            "cpu_seconds": statistics.median(busy),
            "entries": entries,
        }
    found["peak_bytes"] = peak()
    if users < 100_000:
        found["sets"], found["product"] = sets(train, 1200), product(train, work, 1500)
    return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the two small shapes, one run each")
    parser.add_argument("--shape", choices=list(SHAPES), help="only this one")
    parser.add_argument(
        "--child",
        nargs=5,
        metavar=("FILE", "USERS", "ITEMS", "RUNS", "MEASURES"),
        help=argparse.SUPPRESS,
    )
    given = parser.parse_args()
    if given.child:
        path, users, items, runs, measures = given.child
        print(json.dumps(one(Path(path), int(users), int(items), int(runs), measures.split(","))))
        return
    names = (
        [given.shape]
        if given.shape
        else ["baby", "movielens"]
        if given.quick
        else ["baby", "movielens", "microvideo"]
    )
    shapes = {}
    print(
        f"{'shape':12} {'viewers':>8} {'measure':>8} {'median s':>9} {'range':>15} {'CPU s':>7} "
        f"{'peak MB':>8} {'compile s':>9}"
    )
    for name in names:
        users, items, *_ = SHAPES[name]
        runs, measures = (
            (1 if given.quick else 3),
            (["count"] if users > 100_000 else list(CO_MEASURES)),
        )
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "keys.npy", draw(*SHAPES[name]), allow_pickle=False)
            command = [
                sys.executable,
                "-m",
                "benchmarks.speed.bench_cooccurrence",
                "--child",
                f"{folder}/keys.npy",
            ]
            command += [str(users), str(items), str(runs), ",".join(measures)]
            answer = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        if answer.returncode:
            sys.exit(answer.stderr)
        found = shapes[name] = json.loads(answer.stdout)
        for measure, row in found["measures"].items():
            took = row["seconds"]
            spread = f"{took['min']:.2f}–{took['max']:.2f}"
            print(
                f"{name:12} {found['viewers']:8.2%} {measure:>8} {took['median']:9.2f} "
                f"{spread:>15} {row['cpu_seconds']:7.1f}"
                f" {found['peak_bytes'] / 1e6:8.0f} {found['compile_seconds']:9.1f}"
            )
        for rival in ("sets", "product"):
            if rival in found:
                took = found[rival]
                print(
                    f"{'':12} {'':8} {rival:>8} {took['extrapolated']:9.0f}   extrapolated from "
                    f"{took['seconds']:.1f} s"
                    f" for {took['sample_users']} users"
                )
    if not given.quick:
        kept = read_json(RESULT)["shapes"] if given.shape and RESULT.is_file() else {}
        packages = ("numpy", "scipy", "pyarrow", "numba", "dualgnn-dgl")
        machine = {
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
            "load_at_the_end": os.getloadavg()[0],
        }
        for row in shapes.values():
            row["machine"] = machine
        command = "python -m benchmarks.speed.bench_cooccurrence"
        versions = {name: version(name) for name in packages}
        write_json(
            RESULT,
            {
                "command": command,
                "k": K,
                "machine": machine,
                "versions": versions,
                "shapes": kept | shapes,
            },
        )
        print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
