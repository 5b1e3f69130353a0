"""Ranking under missing modalities on real data: the experiments behind the robustness tables, through the library's own engine.

    python benchmarks/robustness.py --root SHARED/data --data tiktok --models dualgnn_plus,lightgcn --rates 0,.6 --seeds 2

`tiktok` is the small public set with its own split. `microlens` is MicroLens-50k with its titles as 384 text features, of
15,000 users drawn with seed 0 (a full set takes this machine days), 5-core, each user's last pair held out and the one
before for validation. `movielens` is bench_newcomers.py's sample of MovieLens-1M: 800 users, posters and plots, `random`.
Settings of the models and of their training are their defaults but for SETTINGS, the ones that benchmarks/compare.py chose on
validation without holes; the number of seeds, rates and strategies is said by the table. Stop it and run on at will: cells
lie under .benchmarks/robustness/, the summary goes to results/robustness-NAME.json and the picture beside it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dualgnn_dgl.data import Dataset

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".benchmarks"
USERS = 15_000
SETTINGS = {
    "tiktok": {"lightgcn": {"layers": 2, "l2": 1e-3}},
    "microlens": {},
    "movielens": {},
}


def load(name: str, root: Path) -> Dataset:
    """The data set, prepared once."""
    from dualgnn_dgl import data

    if name == "movielens":
        import bench_newcomers

        return bench_newcomers.prepare("movielens-800", root, "random")
    return data.load(prepare(name, root))


def prepare(name: str, root: Path) -> Path:
    """The prepared folder of a data set, made once."""
    from dualgnn_dgl import data, preprocess
    from dualgnn_dgl.preprocess.reader import read

    folder = CACHE / "data" / (name if name == "tiktok" else f"{name}-{USERS}")
    if (folder / data.MANIFEST).is_file():
        return folder
    source, options = root / "tiktok", {"split": "given"}
    if name == "microlens":
        source, options = sampled(root / "microlens-50k"), {"split": "leave-one-out", "k_core": 5}
    prepared = preprocess.prepare(read(source), preprocess.Options(**options))
    data.save(prepared.dataset, folder, options=options, report=prepared.report, force=True)
    return folder


def sampled(source: Path) -> Path:
    """MicroLens's pairs of USERS users, one line each, drawn with seed 0; the features as they are."""
    folder = CACHE / "raw" / f"microlens-{USERS}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = (source / "MicroLens-50k_pairs.tsv").read_text().splitlines()
    chosen = np.sort(np.random.default_rng(0).choice(len(lines), USERS, replace=False))
    (folder / "MicroLens-50k_pairs.tsv").write_text("\n".join(lines[line] for line in chosen) + "\n")
    link = folder / "title_minilm.parquet"
    if not link.exists():
        link.symlink_to((source / link.name).resolve())
    return folder


def settings(name: str, model: str, own: dict[str, str], train: dict[str, object]) -> tuple[object, object]:
    """Configuration of the model and of its training."""
    from dualgnn_dgl.models import model_class, training_defaults
    from dualgnn_dgl.options import build, keys
    from dualgnn_dgl.training import TrainConfig

    values = {**train, **training_defaults(model), **SETTINGS[name].get(model, {}), **own}
    kind = model_class(model).Config
    return (
        build(kind, {key: value for key, value in values.items() if key in keys(kind)}),
        build(TrainConfig, {key: value for key, value in values.items() if key in keys(TrainConfig)}),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=HERE.parent.parent / "shared" / "data", help="folder of the raw data sets")
    parser.add_argument("--data", default="tiktok", choices=tuple(SETTINGS))
    parser.add_argument("--models", default="dualgnn_plus,lightgcn")
    parser.add_argument("--rates", default="0,.2,.4,.6,.8,.95")
    parser.add_argument("--patterns", default="random")
    parser.add_argument("--stages", default="train+test")
    parser.add_argument("--strategies", default="mask,zero,mean,ppr,drop-items")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--patience", type=int, default=10, help="of models that bring none of their own")
    parser.add_argument("--set", action="append", default=[], metavar="MODEL.KEY=VALUE", help="a model's own option")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", help="of the result; the data set's by default")
    parser.add_argument("--quick", action="store_true", help="one epoch, one seed: does it run?")
    arguments = parser.parse_args()

    import torch

    from dualgnn_dgl import robustness
    from dualgnn_dgl.files import write_json

    torch.set_num_threads(arguments.threads)
    names = tuple(arguments.models.split(","))
    train = {"epochs": 1 if arguments.quick else arguments.epochs, "patience": arguments.patience}
    own: dict[str, dict[str, str]] = {name: {} for name in names}
    for pair in arguments.set:
        key, _, value = pair.partition("=")
        model, _, key = key.partition(".")
        own[model][key] = value
    plan = robustness.Plan(
        names,
        {name: settings(arguments.data, name, own[name], train) for name in names},
        tuple(float(rate) for rate in arguments.rates.split(",")),
        tuple(arguments.patterns.split(",")),
        tuple(arguments.stages.split(",")),
        tuple(arguments.strategies.split(",")),
        1 if arguments.quick else arguments.seeds,
    )
    dataset = load(arguments.data, arguments.root)
    folder = CACHE / "robustness" / (f"{arguments.data}-quick" if arguments.quick else arguments.data)

    def say(done: int, total: int, cell: robustness.Cell, found: dict) -> None:
        figure = found["metrics"]["recall@20"] if "metrics" in found else found["refused"]
        line = f"{done}/{total} {cell}: {figure}, epoch {found.get('best_epoch')}, {found['seconds']} s"
        print(line, file=sys.stderr, flush=True)

    left = robustness.run(plan, dataset, folder, "cpu", seconds=60 * arguments.minutes, report=say)
    summary = robustness.summarise(plan, dataset, folder)
    print(robustness.markdown(summary))
    if left:
        print(f"{left} cells are still to run", file=sys.stderr)
    if not arguments.quick:
        result = HERE / "results" / f"robustness-{arguments.name or arguments.data}"
        write_json(result.with_suffix(".json"), summary | {"missing_cells": left})
        robustness.draw(summary, result.with_suffix(".png"))


if __name__ == "__main__":
    main()
