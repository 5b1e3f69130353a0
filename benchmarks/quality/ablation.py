"""What each part of DualGNN-Plus is worth: its default settings with one part changed or left out.

    python -m benchmarks.quality.ablation --root SHARED/data --data tiktok --seeds 3

Every training is a cached result of compare.py, by the same options, and serves both columns; the defaults were chosen on
validation, so the test column decides nothing. Writes results/ablation-NAME.json.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.lib.paths import METRIC, RESULTS, Folders, add_folders
from benchmarks.lib.prepared import prepare
from benchmarks.quality.compare import COMPARE, DATA, cached, over_seeds, significance, users_mean
from benchmarks.quality.tables import small, spread

FIGURES = ("valid", METRIC, "ndcg@20")  # what a row shows
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
    "attention from the history": {"attention": "history"},
}


def ablate(name: str, folders: Folders, parts: dict[str, dict], seeds: int, train: dict, threads: int) -> list[dict]:
    """A row a part: means over seeds, and the users' recall@20 of the defaults minus the part's, tested."""
    folder = prepare(*DATA[name][:2], folders)
    rows, per_user = [], {}
    for part, config in parts.items():
        runs = [
            cached(name, folder, "dualgnn_plus", config, seed, train, test=True, threads=threads, results=COMPARE)
            for seed in range(seeds)
        ]
        figures = [run["test"] | {"valid": run["valid"]} for run in runs]
        rows.append({"part": part, "config": config, "seeds": seeds} | over_seeds(figures, FIGURES))
        per_user[part] = users_mean([run["hits"] for run in runs])
    found = significance(per_user, next(iter(parts)))
    return [row | found.get(row["part"], {}) for row in rows]


def markdown(rows: list[dict]) -> str:
    """The table, as it stands in the README of this folder."""
    heads = ("part", "seeds", "validation recall@20", "test recall@20", "test NDCG@20", "to the defaults", "p bootstrap")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        figures = [spread(row, key) for key in FIGURES]
        tests = [f"{row['difference']:+.4f}", small(row["p bootstrap"])] if "difference" in row else ["", ""]
        lines.append(f"| {' | '.join([row['part'], str(row['seeds']), *figures, *tests])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--data", default="tiktok")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", help="comma-separated numbers of the rows, 0 the defaults; all by default")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    names = list(PARTS)
    chosen = names if arguments.parts is None else [names[int(number)] for number in arguments.parts.split(",")]
    train = {"epochs": arguments.epochs, "patience": arguments.patience}
    parts = {name: PARTS[name] for name in chosen}
    rows = ablate(arguments.data, Folders.of(arguments), parts, arguments.seeds, train, arguments.threads)
    print(markdown(rows))
    (RESULTS / f"ablation-{arguments.data}.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
