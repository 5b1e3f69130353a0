"""Compares published faults with their fixes, model by model.

    python -m benchmarks.quality.fidelity --root SHARED/data --seeds 3

The table shows how much each fault of public code changes the results. Every row is a model with
one switch: `fixed` is the model of this package, `published` a class of benchmarks/lib/released.py
that does what the authors' code or its best port does. Both sides share data, split, λ (the one
published for TikTok), learning rate, batch, patience and seeds; nothing is tuned here. TikTok's
published files have both modalities for every video, so the row about missing modalities first
removes 40 % of each modality's features, the same for both sides. Every training is kept
(trainings.py), so a run can be stopped and started again. Prints the table and writes
results/fidelity.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.lib.packed import Training
from benchmarks.lib.paths import Folders, add_folders
from benchmarks.lib.prepared import prepare
from benchmarks.lib.tables import command_of, write_table
from benchmarks.lib.trainings import Trainings
from benchmarks.quality.compare import about

REMOVED = 0.4  # share of each modality's rows
TRAIN = {"epochs": 60, "patience": 8, "batch_size": 8192}


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        fault: Name of the fault in the table.
        model: Name of the model.
        published: Switch of released.py that restores the published behaviour.
        shared: Options of the model that both sides share.
        train: Options of training that both sides share.
        removed: Whether `REMOVED` of the features are removed first.
    """

    fault: str
    model: str
    published: dict[str, object]
    shared: dict[str, object]
    train: dict[str, object]
    removed: bool = False


DUALGNN = ({"l2": 0.1}, {"lr": 1e-3})
CASES = (
    Case("softmax only at the start", "dualgnn", {"attention": "released"}, *DUALGNN),
    Case("first modality overwritten by the sum", "dualgnn", {"user_fusion": "aliased"}, *DUALGNN),
    Case("missing modality as zeros", "dualgnn", {"missing": "zero"}, *DUALGNN, removed=True),
    Case(
        "routing moves nothing", "grcn", {"routing_edges": "released"}, {"l2": 1e-3}, {"lr": 5e-3}
    ),
    Case(
        "embeddings never trained", "mmgcn", {"frozen_embeddings": True}, {"l2": 0.1}, {"lr": 3e-3}
    ),
)


def without_features(folder: Path, cache: Path) -> Path:
    """Removes `REMOVED` of every modality's rows once, and returns the new folder."""
    from dualgnn_dgl import data
    from dualgnn_dgl.modality import drop

    target = cache / "data" / f"{folder.name}-holes"
    if not (target / data.MANIFEST).is_file():
        data.save(
            drop(data.load(folder), REMOVED),
            target,
            options={"made for": "fidelity.py", "holes": REMOVED},
            force=True,
        )
    return target


def side(
    case: Case,
    switch: dict[str, object],
    folder: Path,
    seeds: int,
    train: dict[str, object],
    trainings: Trainings,
) -> dict:
    """Trains one side of a case with every seed, and returns its results."""
    config, options = {**case.shared, **switch}, {**train, **case.train}
    runs = [
        trainings.run("tiktok", folder, case.model, config, seed, options, mask="all")
        for seed in range(seeds)
    ]
    return {"options": switch} | results_of(runs)


def results_of(runs: list[Training]) -> dict:
    """Returns the results of one side from its tests, one a seed."""
    found: dict = {"seeds": len(runs), "valid": float(np.mean([run["valid"] for run in runs]))}
    for metric in ("recall@20", "ndcg@20", "coverage@20"):
        values = [run["test"][metric] for run in runs]
        found[metric] = float(np.mean(values))
        found[f"{metric} sd"] = float(np.std(values, ddof=1)) if len(runs) > 1 else None
    found["interval recall@20"] = runs[0]["intervals"]["recall@20"]
    found["best_epochs"] = [run["best_epoch"] for run in runs]
    return found | {"users": runs[0]["users"], "trainings": [run["name"] for run in runs]}


def markdown(rows: list[dict]) -> str:
    """Formats the table of benchmarks/README.md."""
    lines = [
        "| model | fault | switch | recall@20 published | fixed | NDCG@20 published | fixed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        switch = ", ".join(
            f"{key}={str(value).lower()}" for key, value in row["published"]["options"].items()
        )
        figures = [(row[name], metric) for metric in ("recall@20", "ndcg@20") for name in SIDES]
        cells = [f"{found[metric]:.4f}{_deviation(found, metric)}" for found, metric in figures]
        model = row["model"] + (
            f", {row['removed']:.0%} of features removed".replace("%", " %")
            if row["removed"]
            else ""
        )
        lines.append(f"| {model} | {row['fault']} | `{switch}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


SIDES = ("published", "fixed")


def _deviation(found: dict, metric: str) -> str:
    deviation = found[f"{metric} sd"]
    return "" if deviation is None else f" ± {deviation:.4f}"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_folders(parser)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--only",
        choices=sorted({case.model for case in CASES}),
        help="the cases of one model; no file",
    )
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs: does it run?")
    arguments = parser.parse_args()
    seeds, train = (1, {**TRAIN, "epochs": 2}) if arguments.quick else (arguments.seeds, TRAIN)
    trainings = Trainings("fidelity", arguments.cache, quick=arguments.quick)
    folder, rows = prepare("tiktok", "given", Folders.of(arguments)), []
    for case in CASES:
        if arguments.only in (None, case.model):
            place = without_features(folder, arguments.cache) if case.removed else folder
            switches = zip(SIDES, (case.published, {}), strict=True)
            found = {
                name: side(case, switch, place, seeds, train, trainings)
                for name, switch in switches
            }
            rows.append(
                {
                    "model": case.model,
                    "fault": case.fault,
                    "removed": REMOVED if case.removed else 0,
                    **found,
                }
            )
            print(f"{case.model}: {case.fault}: done", file=sys.stderr)
    print(markdown(rows))
    if not arguments.quick and arguments.only is None:
        head = about("tiktok", [rows[0]["fixed"]]) | {
            "commands": [command_of("benchmarks.quality.fidelity", sys.argv[1:])]
        }
        with trainings.packed_under_lock():
            write_table(
                "fidelity",
                head | {"note": None, "train": TRAIN, "cases": [asdict(case) for case in CASES]},
                rows,
            )


if __name__ == "__main__":
    main()
