"""Measures ranking under missing modalities on real data, through the library's own engine.

    python -m benchmarks.quality.robustness --root SHARED/data --data tiktok --models
    dualgnn_plus,lightgcn --rates 0,.6 --seeds 2

`tiktok` is the small public set with its own split. `microlens` is MicroLens-50k with its titles as
384 text features, of 15,000 users drawn with seed 0 (the full set takes days), 5-core, each user's
last pair held out and the one before for validation. `movielens` is a sample of MovieLens-1M: 800
users, posters and plots, `random` (prepared.py). Settings of the models and of their training are
their defaults except for SETTINGS, which compare.py chose on validation without missing modalities;
the table has the number of seeds, rates and strategies. The script can be stopped and started
again: cells are kept under robustness/ in the cache, the summary goes to
results/robustness-NAME.json and the picture beside it.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.lib.paths import RESULTS, Folders, add_folders
from benchmarks.lib.prepared import prepare

SETS = {  # name → source in prepared.py, split
    "tiktok": ("tiktok", "given"),
    "microlens": ("microlens-15k", "leave-one-out"),
    "movielens": ("movielens-800", "random"),
}
SETTINGS = {
    "tiktok": {"lightgcn": {"layers": 2, "l2": 1e-3}},
    "microlens": {},
    "movielens": {},
}


def settings(
    name: str, model: str, own: dict[str, str], train: dict[str, object]
) -> tuple[object, object]:
    """Returns the options of the model and of its training."""
    from dualgnn_dgl.core.options import build, keys
    from dualgnn_dgl.models import model_class
    from dualgnn_dgl.training import TrainConfig

    values = {**train, **model_class(model).TRAIN, **SETTINGS[name].get(model, {}), **own}
    of_training = keys(TrainConfig)
    config = {key: value for key, value in values.items() if key not in of_training}
    options = {key: value for key, value in values.items() if key in of_training}
    return build(model_class(model).Config, config), build(TrainConfig, options)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--data", default="tiktok", choices=tuple(SETS))
    parser.add_argument("--models", default="dualgnn_plus,lightgcn")
    parser.add_argument("--rates", default="0,.2,.4,.6,.8,.95")
    parser.add_argument("--patterns", default="random")
    parser.add_argument("--stages", default="train+test")
    parser.add_argument("--strategies", default="mask,zero,mean,ppr,drop-items")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument(
        "--patience", type=int, default=10, help="patience of models without their own"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="MODEL.KEY=VALUE", help="a model's own option"
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="minutes after which no new cell begins"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", help="name of the result; the data set's by default")
    parser.add_argument("--quick", action="store_true", help="one epoch, one seed: does it run?")
    arguments = parser.parse_args()

    import torch

    from dualgnn_dgl import data
    from dualgnn_dgl.core.files import write_json
    from dualgnn_dgl.experiments import robustness

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
    dataset = data.load(prepare(*SETS[arguments.data], Folders.of(arguments)))
    folder = (
        arguments.cache
        / "robustness"
        / (f"{arguments.data}-quick" if arguments.quick else arguments.data)
    )

    def say(done: int, total: int, cell: robustness.Cell, found: dict) -> None:
        figure = found["metrics"]["recall@20"] if "metrics" in found else found["refused"]
        line = (
            f"{done}/{total} {cell}: {figure}, epoch {found.get('best_epoch')}, "
            f"{found['seconds']} s"
        )
        print(line, file=sys.stderr, flush=True)

    left = robustness.run(plan, dataset, folder, "cpu", seconds=60 * arguments.minutes, report=say)
    summary = robustness.summarise(plan, dataset, folder)
    print(robustness.markdown(summary))
    if left:
        print(f"{left} cells are still to run", file=sys.stderr)
    if not arguments.quick:
        result = RESULTS / f"robustness-{arguments.name or arguments.data}"
        write_json(result.with_suffix(".json"), summary | {"missing_cells": left})
        robustness.draw(summary, result.with_suffix(".png"))


if __name__ == "__main__":
    main()
