"""Models of bench_newcomers.py: their options and their training."""

from __future__ import annotations

from dualgnn_dgl import models, training
from dualgnn_dgl.core.options import Options, build, keys
from dualgnn_dgl.data import Dataset

TRAIN = {
    "lightgcn": {
        "layers": 2,
        "l2": 1e-3,
        "lr": 3e-3,
        "epochs": 150,
        "patience": 6,
        "eval_every": 3,
    },
    "dualgnn": {"lr": 1e-3, "batch_size": 4096, "epochs": 50, "patience": 5},
    "dualgnn_plus": {"lr": 1e-3, "epochs": 50, "patience": 5},
    "vbpr": {"lr": 3e-3, "epochs": 150, "patience": 6, "eval_every": 3},
}


def usual(name: str) -> str:
    """Returns the split of the parts that hold out no videos."""
    return "given" if name == "tiktok" else "random"


def train(name: str, dataset: Dataset, quick: bool) -> tuple[models.Recommender, training.Fit]:
    """Trains a model with the options of `TRAIN`."""
    values = TRAIN[name] | ({"epochs": 2} if quick else {})
    kind = models.model_class(name)
    config, options = (
        build(part, {key: value for key, value in values.items() if key in keys(part)})
        for part in (kind.Config, training.TrainConfig)
    )
    trained = training.train_model(name, dataset, config, options)
    return trained.model, trained.fit


def config_of(model: str) -> Options:
    """Returns the model's own options in `TRAIN`."""
    kind = models.model_class(model).Config
    return build(kind, {key: value for key, value in TRAIN[model].items() if key in keys(kind)})
