"""The manifest run.json: its schema, and its content for a training."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dualgnn_dgl import __version__
from dualgnn_dgl.core import schema
from dualgnn_dgl.core.engine import engine
from dualgnn_dgl.core.folders import Kind
from dualgnn_dgl.core.options import Options, to_toml
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.data.manifest import modality_name
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.models import MODELS
from dualgnn_dgl.training import Fit, TrainConfig
from dualgnn_dgl.training.state import METRIC_NAME

MARKER = "run.json"
FORMAT = 2  # 1: the SHA-256 of tensors and manifest only, under the key "sha256"
TENSORS = ("tables.safetensors", "weights.safetensors")
NAMES = r"run\.(json|toml)|(tables|weights)\.safetensors|history\.jsonl|curve\.png|update\.json"
FOLDER = Kind(MARKER, re.compile(NAMES), RunError, "train again")
PLACE_SCHEMA = schema.record({"path": schema.TEXT, "hash": schema.HEX64}, {"from_run": schema.TEXT})
RUN_SCHEMA = schema.record(
    {
        "format": schema.one_of(1, FORMAT),
        "model": schema.one_of(*MODELS),
        "config": schema.SETTINGS,
        "train": schema.SETTINGS,
        "data": PLACE_SCHEMA,
        "users": schema.whole(),
        "items": schema.whole(),
        "modalities": schema.list_of(modality_name),
        "best": schema.record(
            {"epoch": schema.whole(), "metric": METRIC_NAME, "value": schema.maybe(schema.METRIC)}
        ),
        "epochs": schema.whole(),
        "seconds": schema.number(0),
        "interrupted": schema.FLAG,
        "device": schema.DEVICE,
        "versions": schema.VERSIONS,
    },
    {**schema.EXTENSION, "sha256": schema.record(dict.fromkeys((*TENSORS, MARKER), schema.HEX64))},
)


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A training as its run folder records it.

    Attributes:
        fit: the training.
        model: name of the model.
        config: options of the model.
        train: options of training.
        dataset: data set of the training.
        device: name of the device.
    """

    fit: Fit
    model: str
    config: Options
    train: TrainConfig
    dataset: Dataset
    device: str


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a result depends on."""
    import numpy

    return {
        "dualgnn-dgl": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "dgl": engine(),
        "numpy": numpy.__version__,
    }


def describe(record: RunRecord, data: Mapping[str, str]) -> dict[str, Any]:
    """Returns the content of run.json, without the digests of files.

    Args:
        record: the training.
        data: place of the data, empty where they are in memory only.
    """
    fit, train, dataset = record.fit, record.train, record.dataset
    # The metric's name as measured: a catalogue of fewer than K items shortens the list.
    metric = next((key for row in fit.history for key in row if "@" in key), train.metric)
    return {
        "format": FORMAT,
        "model": record.model,
        "config": asdict(record.config),  # type: ignore[call-overload]
        "train": asdict(train),
        "data": {**data, "hash": dataset.hash},
        "users": dataset.num_users,
        "items": dataset.num_items,
        "modalities": list(dataset.modalities),
        "best": {"epoch": fit.best_epoch, "metric": metric, "value": fit.best_value},
        "epochs": len(fit.history),
        "seconds": sum(row.get("total_seconds", 0.0) for row in fit.history),
        "interrupted": fit.interrupted,
        "device": record.device,
        "versions": versions(),
    }


def run_toml(model: str, config: Options, train: TrainConfig) -> str:
    """Returns the whole configuration as TOML, in the form of `--print-config` and `--config`."""
    return f'name = "{model}"\n\n{to_toml(config, "model")}\n\n{to_toml(train, "train")}\n'
