"""Fits any `Recommender`: batches, Adam, early stopping on validation, best epoch restored."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dualgnn_dgl.core.options import build
from dualgnn_dgl.core.progress import Progress, Report
from dualgnn_dgl.data import Interactions, Modality
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.evaluation import Evaluator
from dualgnn_dgl.evaluation.tables import entries
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.models.train_config import TrainConfig
from dualgnn_dgl.training.blocks import Blocks
from dualgnn_dgl.training.cold_items import ColdItems, all_cold
from dualgnn_dgl.training.deterministic import deterministic
from dualgnn_dgl.training.divergence import (
    REMEDY,
    DivergenceMonitor,
    check_parameters,
    listed,
    not_finite,
)
from dualgnn_dgl.training.sampling import TripleSampler
from dualgnn_dgl.training.state import CheckpointHook, Fit, State
from dualgnn_dgl.training.step import Step


def fit(
    model: Recommender,
    train: Interactions,
    valid: Interactions,
    config: TrainConfig | None = None,
    *,
    report: Report | None = None,
    hook: CheckpointHook | None = None,
    modalities: Mapping[str, Modality] | None = None,
) -> Fit:
    """Trains `model` in place, on its current device, and returns the best epoch.

    On the CPU, a resumed training ends bit-identically to an uninterrupted one. Resuming also sets
    torch's default generator. Ctrl-C ends training early and returns the best epoch so far, with
    `interrupted` set.

    Args:
        model: Model to train.
        train: Training pairs.
        valid: Validation pairs, which choose the best epoch by `config.metric`. If there are none,
            all epochs run and the last one is kept. If no item of them was watched in training,
            they are ranked among such items, whose vectors come from their features alone.
        config: Options; None takes the model's own defaults (`Recommender.TRAIN`), as `dualgnn
            train` does.
        report: Called with the progress after each batch and epoch.
        hook: Receives snapshots when it asks for them, and may have one to resume from.
        modalities: The features that the model was built with, for items unseen in training.

    Raises:
        RunError: If the loss, a gradient, the parameters or the tables are not finite; the message
            names epoch, batch and parameter.
        ConfigError: If `config.deterministic` is set and an operation has no deterministic form on
            the device; the message names it.
        KeyboardInterrupt: If Ctrl-C comes before the first epoch has ended.
    """
    config = build(TrainConfig, model.TRAIN) if config is None else config
    with deterministic(config.deterministic):
        if not model.trainable:
            return as_it_is(model, train, valid, config)
        return _Loop(
            model, train, Validation.of(train, valid, config, modalities), config, report, hook
        ).run()


class Validation:
    """The metric that chooses the best epoch; `value` is None for a split without pairs.

    Args:
        metric: Name of the metric, such as `recall@20`.
        evaluator: Ranks the catalogue for the users of the validation split.
        cold: Ranks items without training pairs instead, if the split has no others.
    """

    def __init__(
        self, metric: str, evaluator: Evaluator | None, cold: ColdItems | None = None
    ) -> None:
        self.metric, self.evaluator, self.cold = metric, evaluator, cold

    @classmethod
    def of(
        cls,
        train: Interactions,
        valid: Interactions,
        config: TrainConfig,
        modalities: Mapping[str, Modality] | None = None,
    ) -> Validation:
        """Chooses between ranking the whole catalogue and ranking cold items.

        K is cut to the size of the catalogue.
        """
        metric, k = config.metric_within(train.num_items)
        if modalities and all_cold(train, valid):
            cold = ColdItems(train, modalities, valid, [train], ks=(k,))
            return cls(config.metric_within(cold.evaluator.ks[-1])[0], None, cold)
        return cls(metric, Evaluator(valid, [train], ks=(k,)) if len(valid) else None)

    def value(self, model: Recommender, user: Tensor, item: Tensor) -> float | None:
        """Returns the metric of a model with the tables `user` (U, D) and `item` (I, D)."""
        if self.cold is not None:
            return float(self.cold(model).means[self.metric])
        return (
            None if self.evaluator is None else float(self.evaluator(user, item).means[self.metric])
        )

    def __bool__(self) -> bool:
        return self.evaluator is not None or self.cold is not None


class _Loop:
    """Runs epochs of batches until the patience is used up, and owns all that changes."""

    def __init__(
        self,
        model: Recommender,
        train: Interactions,
        validation: Validation,
        config: TrainConfig,
        report: Report | None,
        hook: CheckpointHook | None,
    ) -> None:
        device = next(iter((*model.parameters(), *model.buffers()))).device
        self.model, self.validation, self.config, self.report, self.hook = (
            model,
            validation,
            config,
            report,
            hook,
        )
        self.sampler = TripleSampler(train, device)
        self.draw = torch.Generator(device).manual_seed(config.seed)
        draw_graph = torch.Generator().manual_seed(config.seed)
        draw_blocks = torch.Generator(device).manual_seed(config.seed)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
        self.size = config.batch_size * config.share_propagation
        self.steps = math.ceil(len(self.sampler) / self.size)
        self.state = State(
            model, self.optimiser, device, batches=self.draw, graph=draw_graph, blocks=draw_blocks
        )
        sizes = train.num_users, train.num_items
        self.gradient = Step(
            model,
            device,
            share=config.share_propagation,
            blocks=Blocks(model, *sizes, config.fanout, config.hops, draw_blocks)
            if config.fanout
            else None,
            capture=config.cuda_graph,
            bfloat16=config.precision == "bfloat16",
        )
        self.watch = DivergenceMonitor(model, device)
        if hook is not None and hook.start is not None:
            self.state.restore(hook.start, self.steps)

    def run(self) -> Fit:
        """Trains to the end, or to Ctrl-C after an epoch, and restores the best epoch."""
        state, interrupted = self.state, False
        try:
            while state.epoch <= self.config.epochs and state.since_best < self.config.patience:
                self._epoch()
        except KeyboardInterrupt:
            if not state.history:
                raise
            interrupted = True
        result = state.best
        if result is None:
            user, item = tables(self.model, len(state.history))
            result = Fit(user, item, _copy(self.model), best_epoch=len(state.history))
        result.history, result.interrupted = state.history, interrupted
        self.model.load_state_dict(result.state)
        result.attention = _attention(self.model)
        return result

    def _epoch(self) -> None:
        """Runs one epoch: batches, validation, history, and a checkpoint if one is due."""
        state, config = self.state, self.config
        epoch, started = state.epoch, time.perf_counter() - state.seconds
        self._batches(epoch, started)
        self.watch.check(epoch)
        row: dict[str, Any] = {"epoch": epoch, "loss": float(state.total) / len(self.sampler)}
        if not math.isfinite(row["loss"]):
            raise RunError(f"the loss of epoch {epoch} sums up to {row['loss']}: {REMEDY}")
        row["seconds"] = time.perf_counter() - started
        if self.validation and (epoch % config.eval_every == 0 or epoch == config.epochs):
            self._validate(epoch, row)
        row["total_seconds"] = time.perf_counter() - started
        state.end_epoch(row)
        self._tell(epoch, self.steps, row["loss"], finished=True)
        last = epoch == config.epochs or state.since_best >= config.patience
        if self.hook is not None and self.hook.due(epoch, last=last):
            self._keep(last)

    def _batches(self, epoch: int, started: float) -> None:
        """Runs the remaining batches of an epoch."""
        state = self.state
        self.model.train()
        self.watch.begin(state.step)
        for batch in state.begin(self.sampler.epoch(self.size, self.draw)):
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.gradient(batch)
            self.watch.look(loss)
            self.watch.check(epoch, state.step)
            self.optimiser.step()
            state.total += loss * len(batch[0])
            state.step += 1
            self._tell(epoch, state.step, state.history[-1]["loss"] if state.history else None)
            if self.hook is not None and self.hook.due():
                state.seconds = time.perf_counter() - started
                self._keep()

    def _validate(self, epoch: int, row: dict[str, Any]) -> None:
        """Measures an epoch, adds the metric to its row, and keeps the best tables."""
        state = self.state
        user, item = tables(self.model, epoch)
        state.value = row[self.validation.metric] = self.validation.value(self.model, user, item)
        if state.best_value is None or (state.value is not None and state.value > state.best_value):
            state.since_best = 0
            state.best = Fit(
                user, item, _copy(self.model), best_epoch=epoch, best_value=state.value
            )
        else:
            state.since_best += 1

    def _tell(self, epoch: int, step: int, loss: float | None, finished: bool = False) -> None:
        """Reports progress."""
        if self.report is not None:
            shown: dict[str, Any] = {
                "epochs": self.config.epochs,
                "metric": self.validation.metric,
                "finished": finished,
            }
            self.report(
                Progress(
                    epoch, step, self.steps, loss, self.state.value, self.state.best_value, **shown
                )
            )

    def _keep(self, last: bool = False) -> None:
        """Hands over a snapshot of finite numbers; ends the training if the hook asks for it."""
        self.watch.check(self.state.epoch)
        check_parameters(self.model, self.state.epoch, self.state.step)
        assert self.hook is not None
        self.hook.keep(self.state.snapshot())
        if self.hook.stop and not last:
            raise KeyboardInterrupt


def tables(model: Recommender, epoch: int = 0) -> tuple[Tensor, Tensor]:
    """Returns the model's tables in evaluation mode, detached; raises `RunError` if not finite."""
    model.eval()
    with torch.no_grad():
        user, item = model.embed()
    if bad := not_finite({"user": entries(user), "item": entries(item)}):
        parameters = not_finite(dict(model.named_parameters()))
        cause = f" ({listed(parameters)} is not finite)" if parameters else ""
        raise RunError(
            f"the {' and the '.join(bad)} table is not finite after epoch {epoch}{cause}: {REMEDY}"
        )
    return user.detach().clone(), item.detach().clone()


def _copy(model: Recommender) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def as_it_is(
    model: Recommender, train: Interactions, valid: Interactions, config: TrainConfig
) -> Fit:
    """Returns the tables of an untrained model and its validation metric, as an epoch 0."""
    user, item = tables(model)
    row: dict[str, Any] = {"epoch": 0, "loss": None, "seconds": 0.0}
    validation = Validation.of(train, valid, config)
    value = validation.value(model, user, item)
    if value is not None:
        row[validation.metric] = value
    return Fit(
        user, item, _copy(model), [row], best_epoch=0, best_value=value, attention=_attention(model)
    )


def _attention(model: Recommender) -> Tensor | None:
    """Returns a copy of the model's attention, (U, M), or None if it has none."""
    attention = model.user_attention()
    return None if attention is None else attention.detach().clone()
