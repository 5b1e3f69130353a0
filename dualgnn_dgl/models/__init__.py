"""The models, by the names of the command line.

To add one, write `models/<name>.py` with a class derived from `base.Recommender` and add one line
here. The module docstring gives the source, the equations with shapes, and the differences from the
authors' code. The class has a frozen `Config`, `TRAIN` and `SEARCH` where it needs them, the
constructor, and `embed`. The contract tests and the command line find the model in this table.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dualgnn_dgl.errors import ConfigError, unknown

if TYPE_CHECKING:
    from dualgnn_dgl.models.base import Recommender

MODELS = {
    "dualgnn": "DualGNN",
    "dualgnn_plus": "DualGNNPlus",
    "mgcn": "MGCN",
    "freedom": "FREEDOM",
    "bm3": "BM3",
    "grcn": "GRCN",
    "mmgcn": "MMGCN",
    "vbpr": "VBPR",
    "lightgcn": "LightGCN",
    "bprmf": "BPRMF",
    "itemknn": "ItemKNN",
    "mostpop": "MostPop",
}


def model_class(name: str | type[Recommender]) -> type[Recommender]:
    """Returns the class of a model, importing its module.

    Args:
        name: A key of `MODELS`; a class is returned as it is.

    Raises:
        ConfigError: For an unknown name; the message names the nearest.
    """
    if isinstance(name, type):
        return name
    if name not in MODELS:
        raise ConfigError(unknown("model", name, MODELS))
    return getattr(importlib.import_module(f"dualgnn_dgl.models.{name}"), MODELS[name])


def create(
    name: str | type[Recommender],
    graph: Any,
    modalities: Mapping[str, Any],
    config: Any = None,
    seed: int = 0,
) -> Recommender:
    """Builds a model on the CPU from a seed.

    The same seed gives the same parameters. The global random state is left as it is.

    Args:
        name: A key of `MODELS`, or the class of another model.
        graph: DGL heterograph from `graphs.heterographs.heterograph`.
        modalities: `data.Modality` by name.
        config: The model's `Config`; None takes its defaults.
        seed: Seed of the parameters.

    Raises:
        ConfigError: For an unknown name, or a model that needs modalities where there are none.
    """
    import torch

    kind = model_class(name)
    if kind.uses_modalities and kind.needs_modalities and not modalities:
        others = "dualgnn_plus or lightgcn"
        raise ConfigError(
            f"model {name} needs item features and the data set has none: add feature files, or "
            f"use {others}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(graph, modalities, kind.Config() if config is None else config)
