"""Measures each part of DualGNN-Plus: its default settings with one part changed or left out.

    python -m benchmarks.quality.ablation --data tiktok --seeds 3

Every training is one of the comparison's, with the same options, and serves both columns. The
defaults were chosen on validation, so the test column decides nothing. Writes
results/ablation-NAME.json.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.lib.datasets import DATA
from benchmarks.lib.packed import Training
from benchmarks.lib.paths import METRIC, Folders, add_folders
from benchmarks.lib.prepared import prepare
from benchmarks.lib.tables import command_of, small, spread, write_table
from benchmarks.lib.trainings import Trainings
from benchmarks.quality.compare import about
from benchmarks.quality.ranking import over_seeds, significance, users_mean

FIGURES = ("valid", METRIC, "ndcg@20")  # the results in a row
PARTS: dict[str, dict] = {
    "defaults": {},
    "a batch's own pairs stay in the graph": {"hide": False},
    "videos without a bias": {"bias": False},
    "modalities at 0.5": {"item_weight": 0.5, "user_weight": 0.5},
    "no item graphs": {"item_weight": 0.0, "user_weight": 0.0},
    "no modalities on the user side": {"user_weight": 0.0},
    "no modalities on the item side": {"item_weight": 0.0},
    "with the user hop, β = 0.3": {"cooc_share": 0.3},
    "two layers": {"layers": 2},
    "width 64": {"width": 64},
}


def train_parts(
    name: str,
    folders: Folders,
    parts: dict[str, dict],
    seeds: int,
    train: dict,
    trainings: Trainings,
) -> list[dict]:
    """Trains every part with every seed, and returns its row without results."""
    data = DATA[name]
    folder, rows = prepare(data.source, data.split, folders), []
    for part, config in parts.items():
        runs = [
            trainings.run(name, folder, "dualgnn_plus", config, seed, train, mask=data.mask)
            for seed in range(seeds)
        ]
        rows.append(
            {
                "part": part,
                "config": config,
                "seeds": seeds,
                "trainings": [run["name"] for run in runs],
            }
        )
    return rows


def measured(rows: list[dict], trainings: Trainings) -> list[dict]:
    """Returns the rows with means over their seeds, and recall@20 tested against the first row.

    The first row has the defaults.
    """
    found, per_user = [], {}
    for row in rows:
        runs: list[Training] = [trainings.find(name) for name in row["trainings"]]
        facts = {key: row[key] for key in ("part", "config", "seeds", "trainings")} | {
            "users": runs[0]["users"]
        }
        found.append(
            facts | over_seeds([run["test"] | {"valid": run["valid"]} for run in runs], FIGURES)
        )
        per_user[row["part"]] = users_mean(row["trainings"], trainings)
    tests = significance(per_user, rows[0]["part"])
    return [row | tests.get(row["part"], {}) for row in found]


def markdown(rows: list[dict]) -> str:
    """Formats the table of benchmarks/README.md."""
    heads = (
        "part",
        "seeds",
        "validation recall@20",
        "test recall@20",
        "test NDCG@20",
        "to the defaults",
        "p bootstrap",
    )
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        figures = [spread(row, key) for key in FIGURES]
        tests = (
            [f"{row['difference']:+.4f}".replace("-", "−"), small(row["p bootstrap"])]
            if "difference" in row
            else ["", ""]
        )
        lines.append(f"| {' | '.join([row['part'], str(row['seeds']), *figures, *tests])} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--data", default="tiktok")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--parts", help="comma-separated numbers of the rows, 0 the defaults; all by default"
    )
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    names = list(PARTS)
    chosen = (
        names
        if arguments.parts is None
        else [names[int(number)] for number in arguments.parts.split(",")]
    )
    train = {"epochs": arguments.epochs, "patience": arguments.patience}
    parts = {name: PARTS[name] for name in chosen}
    table = f"ablation-{arguments.data}"
    trainings = Trainings(f"compare-{arguments.data}", arguments.cache, threads=arguments.threads)
    rows = train_parts(
        arguments.data, Folders.of(arguments), parts, arguments.seeds, train, trainings
    )
    with trainings.packed_under_lock():
        rows = measured(rows, trainings)
        command = command_of("benchmarks.quality.ablation", sys.argv[1:])
        write_table(table, about(arguments.data, rows) | {"commands": [command]}, rows)
    print(markdown(rows))


if __name__ == "__main__":
    main()
