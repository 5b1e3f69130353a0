"""Checks loader, sampler, trainer and metrics: repeats published results on published files.

    python -m benchmarks.quality.published --root SHARED/data

Amazon-Baby, MMRec's split (118,551 / 20,559 / 21,682), full ranking, only training pairs masked at
test, recall@20 of the epoch that is best on validation. Published (MMRec's evaluation table):
LightGCN 0.0754, BPR-MF 0.0575. The penalty is the one of those results (`penalty=norm`); the
configurations were chosen on validation (see LOG.md).
"""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.lib.paths import Folders, add_folders
from benchmarks.lib.prepared import prepare
from benchmarks.lib.tables import command_of, write_table
from benchmarks.lib.trainings import Trainings
from benchmarks.quality.compare import about

PUBLISHED = {
    # model: (configuration, published recall@20, largest relative difference)
    "bprmf": ({"penalty": "norm", "l2": 0.1}, 0.0575, 0.05),
    "lightgcn": ({"penalty": "norm", "l2": 1e-3, "layers": 2}, 0.0754, 0.03),
}
TRAIN = {"epochs": 400, "patience": 10, "eval_every": 3}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="three epochs: does it run?")
    arguments = parser.parse_args()
    folder = prepare("baby", "given", Folders.of(arguments))
    train = TRAIN | ({"epochs": 3} if arguments.quick else {})
    trainings = Trainings(
        "compare-baby", arguments.cache, threads=arguments.threads, quick=arguments.quick
    )
    rows = []
    print(
        "| model | recall@20 | 95 % interval | published | off by | within |\n| --- | --- | --- | "
        "--- | --- | --- |"
    )
    for model, (config, published, bound) in PUBLISHED.items():
        runs = [
            trainings.run("baby", folder, model, config, seed, train, mask="train")
            for seed in range(arguments.seeds)
        ]
        recall = sum(run["test"]["recall@20"] for run in runs) / len(runs)
        low, high = runs[0]["intervals"]["recall@20"]
        off = recall / published - 1
        verdict = f"{bound:.0%}: {'yes' if abs(off) <= bound else 'NO'}"
        print(
            f"| {model} | {recall:.4f} | {low:.4f}–{high:.4f} | {published} | {off:+.1%} | "
            f"{verdict} |",
            flush=True,
        )
        rows.append(
            {
                "model": model,
                "config": config,
                "recall@20": recall,
                "interval recall@20": [low, high],
            }
        )
        rows[-1] |= {
            "published": published,
            "off": off,
            "seeds": len(runs),
            "users": runs[0]["users"],
        }
        rows[-1]["trainings"] = [run["name"] for run in runs]
    if not arguments.quick:
        with trainings.packed_under_lock():
            command = command_of("benchmarks.quality.published", sys.argv[1:])
            write_table("published", about("baby", rows) | {"commands": [command]}, rows)


if __name__ == "__main__":
    main()
