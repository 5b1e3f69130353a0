"""Fit any `Recommender`: batches of triples, Adam, early stopping on the validation split, best epoch restored.

`fit` has no parameter through which test data could enter.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.errors import ConfigError, RunError
from dualgnn_dgl.evaluation import Evaluator, entries
from dualgnn_dgl.modality import IMPUTERS, impute
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.options import Options, option
from dualgnn_dgl.sampling import TripleSampler

METRICS = ("recall", "ndcg", "precision", "hit", "map", "mrr")


@dataclass(frozen=True)
class TrainConfig(Options):
    """How to train, whatever the model."""

    epochs: int = option(200, "epochs at most", low=1)
    lr: float = option(1e-3, "Adam's learning rate", low=0)
    batch_size: int = option(2048, "training pairs a batch", low=1)
    patience: int = option(10, "stop after this many validations in a row without a better one", low=1)
    metric: str = option("recall@20", "validation metric that picks the epoch")
    eval_every: int = option(1, "epochs between two validations", low=1)
    seed: int = option(0, "seed of the parameters, the order of batches and the negatives", low=0, high=2**63 - 1)
    impute: str = option("none", "how missing features are filled for the model, see `features`", choices=("none", *IMPUTERS))

    def __post_init__(self) -> None:
        super().__post_init__()
        name, _, k = self.metric.partition("@")
        if name not in METRICS or not re.fullmatch("[1-9][0-9]{0,8}", k):
            raise ConfigError(f"metric is '{self.metric:.40}': write one of {', '.join(METRICS)} and a length, as in recall@20")


def features(dataset: Dataset, config: TrainConfig) -> Mapping[str, Modality]:
    """The modalities that a model is to be built with: the data set's own, with holes filled where `config.impute` says so.

    Raises
    ------
    DataError
        if there is nothing to fill from.
    """
    return dataset.modalities if config.impute == "none" else impute(dataset, config.impute).modalities


@dataclass
class Fit:
    """What training leaves: the best epoch's tables and parameters, and the curve.

    `history` has one dictionary an epoch: epoch (from 1), loss, seconds, and the validation metric where it was taken.
    `attention` (U, M) is what `Recommender.user_attention` says at the best epoch.
    """

    user: Tensor
    item: Tensor
    state: dict[str, Tensor]
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    interrupted: bool = False
    attention: Tensor | None = None


@dataclass(frozen=True)
class Progress:
    """Where training stands, for a progress display: step of steps in an epoch, and the figures of the last finished one.

    `finished` is set once an epoch, after its validation: loss and value are then its own.
    """

    epoch: int
    step: int
    steps: int
    loss: float | None
    value: float | None
    best: float | None
    finished: bool = False


def fit(
    model: Recommender,
    train: Interactions,
    valid: Interactions,
    config: TrainConfig | None = None,
    *,
    report: Callable[[Progress], None] | None = None,
) -> Fit:
    """Train `model` where it lies (its device) and return the best epoch by `config.metric` on `valid`.

    With an empty `valid` there is nothing to choose by: all epochs run and the last one is kept. Ctrl-C ends training
    early and returns the best epoch so far, with `interrupted` set.

    Raises
    ------
    RunError
        when the loss or the tables stop being finite numbers; the message names the epoch.
    KeyboardInterrupt
        when it comes before the first epoch has ended.
    """
    config = config or TrainConfig()
    device = next(iter((*model.parameters(), *model.buffers()))).device
    k = int(config.metric.partition("@")[2])
    evaluator = Evaluator(valid, [train], ks=(min(k, train.num_items),)) if len(valid) else None
    metric = f"{config.metric.partition('@')[0]}@{min(k, train.num_items)}"
    if not model.trainable:
        return _untrained(model, evaluator, metric)

    sampler = TripleSampler(train, device)
    draw = torch.Generator(device).manual_seed(config.seed)
    draw_graph = torch.Generator().manual_seed(config.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    steps = math.ceil(len(sampler) / config.batch_size)
    result: Fit | None = None
    history: list[dict[str, Any]] = []
    best, since_best, value = None, 0, None
    try:
        for epoch in range(1, config.epochs + 1):
            started = time.perf_counter()
            model.train()
            model.new_epoch(draw_graph)
            total = torch.zeros((), device=device)
            for step, (users, positives, negatives) in enumerate(sampler.epoch(config.batch_size, draw), start=1):
                optimiser.zero_grad(set_to_none=True)
                loss = model.loss(users, positives, negatives)
                loss.backward()
                optimiser.step()
                total += loss.detach() * len(users)
                if report is not None:
                    last = history[-1]["loss"] if history else None
                    report(Progress(epoch, step, steps, last, value, best))
            row: dict[str, Any] = {"epoch": epoch, "loss": float(total) / len(sampler)}
            if not math.isfinite(row["loss"]):
                rate = f"--lr {config.lr / 10:g}"
                raise RunError(f"the loss became {row['loss']} in epoch {epoch}: lower the learning rate ({rate})")
            row["seconds"] = time.perf_counter() - started
            due = epoch % config.eval_every == 0 or epoch == config.epochs
            if evaluator is not None and due:
                user, item = tables(model, epoch)
                value = row[metric] = float(evaluator(user, item).means[metric])
                if best is None or value > best:
                    best, since_best = value, 0
                    result = Fit(user, item, _copy(model), best_epoch=epoch, best_value=value)
                else:
                    since_best += 1
            row["total_seconds"] = time.perf_counter() - started
            history.append(row)
            if report is not None:
                report(Progress(epoch, steps, steps, row["loss"], value, best, finished=True))
            if since_best >= config.patience:
                break
    except KeyboardInterrupt:
        if not history:
            raise
        if result is not None:
            result.interrupted = True
        else:
            user, item = tables(model, len(history))
            result = Fit(user, item, _copy(model), best_epoch=len(history), interrupted=True)
    if result is None:
        user, item = tables(model, len(history))
        result = Fit(user, item, _copy(model), best_epoch=len(history))
    result.history = history
    model.load_state_dict(result.state)
    attention = model.user_attention()
    result.attention = None if attention is None else attention.detach().clone()
    return result


def tables(model: Recommender, epoch: int = 0) -> tuple[Tensor, Tensor]:
    """The model's tables in evaluation mode, detached; refused when they are not finite."""
    model.eval()
    with torch.no_grad():
        user, item = model.embed()
    if not (bool(entries(user).isfinite().all()) and bool(entries(item).isfinite().all())):
        raise RunError(f"the embeddings are not finite after epoch {epoch}: lower the learning rate (--lr)")
    return user.detach().clone(), item.detach().clone()


def _copy(model: Recommender) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _untrained(model: Recommender, evaluator: Evaluator | None, metric: str) -> Fit:
    """A model without parameters has one epoch, in which nothing happens."""
    user, item = tables(model)
    value = None if evaluator is None else float(evaluator(user, item).means[metric])
    row: dict[str, Any] = {"epoch": 0, "loss": None, "seconds": 0.0}
    if value is not None:
        row[metric] = value
    return Fit(user, item, _copy(model), [row], best_epoch=0, best_value=value)
