"""Fit any `Recommender`: batches of triples, Adam, early stopping on the validation split, best epoch restored.

`fit` has no parameter through which test data could enter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualgnn_dgl.blocks import Blocks
from dualgnn_dgl.cold_items import ColdItems, all_cold
from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.deterministic import deterministic
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.evaluation import Evaluator, entries
from dualgnn_dgl.finite import REMEDY, Watch, check_parameters, listed, not_finite
from dualgnn_dgl.graph import heterograph
from dualgnn_dgl.modality import impute
from dualgnn_dgl.models import create, model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.options import Options, build
from dualgnn_dgl.progress import Progress as Progress
from dualgnn_dgl.progress import Report
from dualgnn_dgl.sampling import TripleSampler
from dualgnn_dgl.state import Fit as Fit
from dualgnn_dgl.state import Keeper, State
from dualgnn_dgl.step import Step
from dualgnn_dgl.train_config import TrainConfig as TrainConfig


def features(dataset: Dataset, config: TrainConfig) -> Mapping[str, Modality]:
    """The modalities that a model is to be built with: the data set's own, with holes filled where `config.impute` says so.

    Raises
    ------
    DataError
        if there is nothing to fill from.
    """
    return dataset.modalities if config.impute == "none" else impute(dataset, config.impute).modalities


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that models are built from and trained on; one may serve several trainings.

    Attributes:
        dataset: splits and ids.
        graph: DGL heterograph of the data set.
        modalities: modalities as the model sees them, with missing features imputed where that is wanted.
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

    def model(self, name: str, config: Options | None = None, seed: int = 0, device: torch.device | str = "cpu") -> Recommender:
        """Builds an untrained model, see `models.create`, and moves it to `device`."""
        return create(name, self.graph, self.modalities, config, seed).to(device)

    def fit(
        self,
        model: Recommender,
        train: TrainConfig | None = None,
        *,
        report: Report | None = None,
        keeper: Keeper | None = None,
    ) -> Fit:
        """Trains a model that was built from these inputs, see `fit`."""
        splits = self.dataset.train, self.dataset.valid
        return fit(model, *splits, train, report=report, keeper=keeper, modalities=self.modalities)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model, the inputs it was built from, and the seconds that building it took."""

    model: Recommender
    fit: Fit
    inputs: Inputs
    setup_seconds: float


def train_model(
    name: str,
    data: Dataset | Inputs,
    config: Options | None = None,
    train: TrainConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    report: Report | None = None,
    keeper: Keeper | None = None,
    ready: Callable[[Recommender, Inputs, float], None] | None = None,
) -> Trained:
    """Goes from a data set to a trained model: features, graph, model, device, fit.

    Every training in this project goes through here, so that the same options give the same result everywhere.

    Args:
        name: a key of `models.MODELS`.
        data: data set, or the inputs made of it for several trainings; `train.impute` has then been applied.
        config: the model's options; None takes its defaults.
        train: options of training; None takes the model's own defaults.
        device: device to train on.
        report: see `fit`.
        keeper: see `fit`.
        ready: called with the untrained model, its inputs and the seconds so far before training begins.

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
    return Trained(model, inputs.fit(model, train, report=report, keeper=keeper), inputs, seconds)


def fit(
    model: Recommender,
    train: Interactions,
    valid: Interactions,
    config: TrainConfig | None = None,
    *,
    report: Report | None = None,
    keeper: Keeper | None = None,
    modalities: Mapping[str, Modality] | None = None,
) -> Fit:
    """Train `model` where it lies (its device) and return the best epoch by `config.metric` on `valid`.

    Without a `config` it trains with the model's own defaults (`Recommender.TRAIN`), as `dualgnn train` does. With an empty
    `valid` there is nothing to choose by: all epochs run and the last one is kept. Ctrl-C ends training
    early and returns the best epoch so far, with `interrupted` set. A `keeper` is handed snapshots when it wants them, and
    may hold one to go on from: on the CPU the end is then the same, to the bit, as without the break. (Going on sets
    torch's default generator, too.) Where no video of `valid` was watched in training, they are ranked among such videos, each
    placed by its modalities alone, if `modalities` says what the model was built with.

    Raises
    ------
    RunError
        when the loss, a gradient, the parameters or the tables stop being finite numbers; the message names epoch, batch
        and parameter.
    ConfigError
        when `config.deterministic` is set and the device has no deterministic form of something; the message names it.
    KeyboardInterrupt
        when it comes before the first epoch has ended.
    """
    config = build(TrainConfig, model.TRAIN) if config is None else config
    with deterministic(config.deterministic):
        return _fit(model, train, valid, config, report, keeper, modalities)


def _fit(
    model: Recommender,
    train: Interactions,
    valid: Interactions,
    config: TrainConfig,
    report: Report | None,
    keeper: Keeper | None,
    modalities: Mapping[str, Modality] | None,
) -> Fit:
    device = next(iter((*model.parameters(), *model.buffers()))).device
    if not model.trainable:
        return as_it_is(model, train, valid, config)
    metric, k = config.metric_within(train.num_items)
    evaluator = Evaluator(valid, [train], ks=(k,)) if len(valid) else None
    cold = None
    if modalities and all_cold(train, valid):
        cold = ColdItems(train, modalities, valid, [train], ks=(k,))
        metric, _ = config.metric_within(cold.evaluator.ks[-1])

    sampler = TripleSampler(train, device)
    draw = torch.Generator(device).manual_seed(config.seed)
    draw_graph = torch.Generator().manual_seed(config.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    size = config.batch_size * config.share_propagation
    steps = math.ceil(len(sampler) / size)
    draw_blocks = torch.Generator(device).manual_seed(config.seed)
    state = State(model, optimiser, device, batches=draw, graph=draw_graph, blocks=draw_blocks)
    blocks = Blocks(model, train.num_users, train.num_items, config.fanout, config.hops, draw_blocks) if config.fanout else None
    gradient = Step(
        model,
        device,
        share=config.share_propagation,
        blocks=blocks,
        capture=config.cuda_graph,
        bfloat16=config.precision == "bfloat16",
    )
    watch = Watch(model, device)
    if keeper is not None and keeper.start is not None:
        state.restore(keeper.start, steps)
    shown: dict[str, Any] = {"epochs": config.epochs, "metric": metric}
    interrupted = False
    try:
        while state.epoch <= config.epochs and state.since_best < config.patience:
            epoch, started = state.epoch, time.perf_counter() - state.seconds
            model.train()
            watch.begin(state.step)
            for batch in state.begin(sampler.epoch(size, draw)):
                optimiser.zero_grad(set_to_none=True)
                loss = gradient(batch)
                watch.look(loss)
                watch.check(epoch, state.step)
                optimiser.step()
                state.total += loss * len(batch[0])
                state.step += 1
                if report is not None:
                    before = state.history[-1]["loss"] if state.history else None
                    report(Progress(epoch, state.step, steps, before, state.value, state.best_value, **shown))
                if keeper is not None and keeper.due():
                    state.seconds = time.perf_counter() - started
                    _keep(keeper, state, watch)
            watch.check(epoch)
            row: dict[str, Any] = {"epoch": epoch, "loss": float(state.total) / len(sampler)}
            if not math.isfinite(row["loss"]):
                raise RunError(f"the loss of epoch {epoch} sums up to {row['loss']}: {REMEDY}")
            row["seconds"] = time.perf_counter() - started
            due = epoch % config.eval_every == 0 or epoch == config.epochs
            if evaluator is not None and due:
                user, item = tables(model, epoch)
                found = evaluator(user, item) if cold is None else cold(model)
                state.value = row[metric] = float(found.means[metric])
                if state.best_value is None or state.value > state.best_value:
                    state.since_best = 0
                    state.best = Fit(user, item, _copy(model), best_epoch=epoch, best_value=state.value)
                else:
                    state.since_best += 1
            row["total_seconds"] = time.perf_counter() - started
            state.end_epoch(row)
            if report is not None:
                report(Progress(epoch, steps, steps, row["loss"], state.value, state.best_value, finished=True, **shown))
            last = epoch == config.epochs or state.since_best >= config.patience
            if keeper is not None and keeper.due(epoch, last=last):
                _keep(keeper, state, watch, last)
    except KeyboardInterrupt:
        if not state.history:
            raise
        interrupted = True
    result = state.best
    if result is None:
        user, item = tables(model, len(state.history))
        result = Fit(user, item, _copy(model), best_epoch=len(state.history))
    result.history, result.interrupted = state.history, interrupted
    model.load_state_dict(result.state)
    result.attention = _attention(model)
    return result


def _keep(keeper: Keeper, state: State, watch: Watch, last: bool = False) -> None:
    """Hand over a snapshot, of finite numbers only; and end the training here if that is wanted."""
    watch.check(state.epoch)
    check_parameters(state.model, state.epoch, state.step)
    keeper.keep(state.snapshot())
    if keeper.stop and not last:
        raise KeyboardInterrupt


def tables(model: Recommender, epoch: int = 0) -> tuple[Tensor, Tensor]:
    """The model's tables in evaluation mode, detached; refused when they are not finite."""
    model.eval()
    with torch.no_grad():
        user, item = model.embed()
    if bad := not_finite({"user": entries(user), "item": entries(item)}):
        parameters = not_finite(dict(model.named_parameters()))
        cause = f" ({listed(parameters)} is not finite)" if parameters else ""
        raise RunError(f"the {' and the '.join(bad)} table is not finite after epoch {epoch}{cause}: {REMEDY}")
    return user.detach().clone(), item.detach().clone()


def _copy(model: Recommender) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def as_it_is(model: Recommender, train: Interactions, valid: Interactions, config: TrainConfig) -> Fit:
    """The tables of a model that is not trained, or not any further, and its figure on `valid`, as an epoch 0."""
    user, item = tables(model)
    value, row = None, {"epoch": 0, "loss": None, "seconds": 0.0}
    if len(valid):
        metric, k = config.metric_within(train.num_items)
        value = row[metric] = float(Evaluator(valid, [train], ks=(k,))(user, item).means[metric])
    return Fit(user, item, _copy(model), [row], best_epoch=0, best_value=value, attention=_attention(model))


def _attention(model: Recommender) -> Tensor | None:
    """What the model says of its users' attention now, (U, M), on its own; None where it has none."""
    attention = model.user_attention()
    return None if attention is None else attention.detach().clone()
