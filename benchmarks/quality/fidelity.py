"""Published and mended, side by side: what the faults of public code do to the figures, model by model.

    python -m benchmarks.quality.fidelity --root SHARED/data --seeds 3

Every row is a model with one switch; `mended` is what this package does by default, the other what the authors' code or its
best known port does. Both sides share everything else: data, split, λ (the one published for TikTok), learning rate, batch,
patience and seeds; nothing is tuned here. TikTok's published files have both modalities for every video, so the row about
missing modalities takes 40 % of each modality's features away first, the same for both sides. Each training is a process of its
own and a cached result under results/fidelity/ (see compare.py); stop it and run on at will.
The result is results/fidelity.json and the table that it prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.lib.paths import RESULTS, Folders, add_folders
from benchmarks.lib.prepared import prepare
from benchmarks.quality.compare import cached

TRAININGS = RESULTS / "fidelity"
HOLES = 0.4
TRAIN = {"epochs": 60, "patience": 8, "batch_size": 8192}


@dataclass(frozen=True)
class Case:
    """One fault: the switch that brings it back, and the options of the model and of training that both sides share."""

    fault: str
    model: str
    published: dict[str, object]
    shared: dict[str, object]
    train: dict[str, object]
    holes: bool = False


DUALGNN = ({"l2": 0.1}, {"lr": 1e-3})
CASES = (
    Case("softmax only at the start", "dualgnn", {"attention": "released"}, *DUALGNN),
    Case("first modality overwritten by the sum", "dualgnn", {"user_fusion": "aliased"}, *DUALGNN),
    Case("missing modality as zeros", "dualgnn", {"missing": "zero"}, *DUALGNN, holes=True),
    Case("routing moves nothing", "grcn", {"routing_edges": "released"}, {"l2": 1e-3}, {"lr": 5e-3}),
    Case("embeddings never trained", "mmgcn", {"frozen_embeddings": True}, {"l2": 0.1}, {"lr": 3e-3}),
)


def with_holes(folder: Path, cache: Path) -> Path:
    """The same prepared data with `HOLES` of every modality's rows gone; made once."""
    from dualgnn_dgl import data
    from dualgnn_dgl.modality import drop

    target = cache / "data" / f"{folder.name}-holes"
    if not (target / data.MANIFEST).is_file():
        data.save(drop(data.load(folder), HOLES), target, options={"made for": "fidelity.py", "holes": HOLES}, force=True)
    return target


def side(case: Case, switch: dict[str, object], folder: Path, seeds: int, train: dict[str, object], results: Path) -> dict:
    """One side of a case, every seed."""
    config, options = {**case.shared, **switch}, {**train, **case.train}
    runs = [
        cached("tiktok", folder, case.model, config, seed, options, test=True, threads=1, results=results)
        for seed in range(seeds)
    ]
    found = {"options": switch, "seeds": seeds, "valid": float(np.mean([run["valid"] for run in runs]))}
    for metric in ("recall@20", "ndcg@20", "coverage@20"):
        values = [run["test"][metric] for run in runs]
        found[metric] = float(np.mean(values))
        found[f"{metric} sd"] = float(np.std(values, ddof=1)) if seeds > 1 else None
    found["interval recall@20"] = runs[0]["intervals"]["recall@20"]
    found["best_epochs"] = [run["best_epoch"] for run in runs]
    return found


def markdown(rows: list[dict]) -> str:
    """The table as it stands in benchmarks/README.md."""
    lines = [
        "| model | fault | switch | recall@20 published | mended | NDCG@20 published | mended |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        switch = ", ".join(f"{key}={str(value).lower()}" for key, value in row["published"]["options"].items())
        figures = [(row[name], metric) for metric in ("recall@20", "ndcg@20") for name in SIDES]
        cells = [f"{found[metric]:.4f}{_deviation(found, metric)}" for found, metric in figures]
        lines.append(f"| {row['model']} | {row['fault']} | `{switch}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


SIDES = ("published", "mended")


def _deviation(found: dict, metric: str) -> str:
    deviation = found[f"{metric} sd"]
    return "" if deviation is None else f" ± {deviation:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=sorted({case.model for case in CASES}), help="the cases of one model; no file")
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs: does it run?")
    arguments = parser.parse_args()
    seeds, train, results = arguments.seeds, TRAIN, TRAININGS
    if arguments.quick:
        seeds, train, results = 1, {**TRAIN, "epochs": 2}, arguments.cache / "quick"
    folder, rows = prepare("tiktok", "given", Folders.of(arguments)), []
    for case in CASES:
        if arguments.only in (None, case.model):
            place = with_holes(folder, arguments.cache) if case.holes else folder
            switches = zip(SIDES, (case.published, {}), strict=True)
            found = {name: side(case, switch, place, seeds, train, results) for name, switch in switches}
            rows.append({"model": case.model, "fault": case.fault, "holes": HOLES if case.holes else 0, **found})
            print(f"{case.model}: {case.fault}: done", file=sys.stderr)
    print(markdown(rows))
    if not arguments.quick and arguments.only is None:
        written = json.dumps({"train": TRAIN, "cases": [asdict(case) for case in CASES], "rows": rows}, indent=2)
        (RESULTS / "fidelity.json").write_text(written + "\n")


if __name__ == "__main__":
    main()
