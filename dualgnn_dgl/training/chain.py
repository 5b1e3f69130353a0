"""Goes from a data set to a trained model: features, graph, model, device, fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dualgnn_dgl.core.options import Options, build
from dualgnn_dgl.core.progress import Report
from dualgnn_dgl.data import Dataset, Modality
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.modality import impute
from dualgnn_dgl.models import create, model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.models.train_config import TrainConfig
from dualgnn_dgl.training.loop import fit
from dualgnn_dgl.training.state import CheckpointHook, Fit


def features(dataset: Dataset, config: TrainConfig) -> Mapping[str, Modality]:
    """Returns the modalities that a model is built with.

    These are the data set's own, with missing features imputed if `config.impute` asks for it.

    Raises:
        DataError: If there is nothing to impute from.
    """
    return (
        dataset.modalities if config.impute == "none" else impute(dataset, config.impute).modalities
    )


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that models are built from and trained on; one may serve several trainings.

    Attributes:
        dataset: splits and ids.
        graph: DGL heterograph of the data set.
        modalities: modalities as the model sees them, with missing features imputed where that is
            wanted.
    """

    dataset: Dataset
    graph: Any
    modalities: Mapping[str, Modality]

    @classmethod
    def of(cls, dataset: Dataset, train: TrainConfig) -> Inputs:
        """Builds the graph and imputes missing features as `train.impute` says.

        Raises:
            DataError: if there is nothing to impute from.
        """
        modalities = features(dataset, train)
        return cls(dataset, heterograph(dataset), modalities)

    def model(
        self,
        name: str | type[Recommender],
        config: Options | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Recommender:
        """Builds an untrained model, see `models.create`, and moves it to `device`."""
        return create(name, self.graph, self.modalities, config, seed).to(device)

    def fit(
        self,
        model: Recommender,
        train: TrainConfig | None = None,
        *,
        report: Report | None = None,
        hook: CheckpointHook | None = None,
    ) -> Fit:
        """Trains a model that was built from these inputs, see `fit`."""
        splits = self.dataset.train, self.dataset.valid
        return fit(model, *splits, train, report=report, hook=hook, modalities=self.modalities)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model, the inputs it was built from, and the seconds that building it took."""

    model: Recommender
    fit: Fit
    inputs: Inputs
    setup_seconds: float


def train_model(
    name: str | type[Recommender],
    data: Dataset | Inputs,
    config: Options | None = None,
    train: TrainConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    report: Report | None = None,
    hook: CheckpointHook | None = None,
    ready: Callable[[Recommender, Inputs, float], None] | None = None,
) -> Trained:
    """Goes from a data set to a trained model: features, graph, model, device, fit.

    Every training in this project goes through here, so that the same options give the same result
    everywhere.

    Args:
        name: A key of `models.MODELS`, or the class of another model.
        data: data set, or the inputs made of it for several trainings; `train.impute` has then been
            applied.
        config: the model's options; None takes its defaults.
        train: options of training; None takes the model's own defaults.
        device: device to train on.
        report: see `fit`.
        hook: see `fit`.
        ready: called with the untrained model, its inputs and the seconds so far before training
            begins.

    Raises:
        DataError: if there is nothing to impute from.
        ConfigError: for an unknown model, or one that needs features where there are none.
        RunError: see `fit`.
        KeyboardInterrupt: see `fit`.
    """
    started = time.perf_counter()
    train = build(TrainConfig, model_class(name).TRAIN) if train is None else train
    inputs = data if isinstance(data, Inputs) else Inputs.of(data, train)
    model = inputs.model(name, config, train.seed, device)
    seconds = time.perf_counter() - started
    if ready is not None:
        ready(model, inputs, seconds)
    return Trained(model, inputs.fit(model, train, report=report, hook=hook), inputs, seconds)
