"""One trial of a search: trains once, and ends early if it is among the worst."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dualgnn_dgl.core import memory
from dualgnn_dgl.core.progress import Progress
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.experiments.tuning.plan import Plan
from dualgnn_dgl.training import Inputs, train_model

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        number: number, from 0.
        state: 'complete', 'pruned' (ended early, for being among the worst), or 'failed'.
        params: values of the searched options.
        value: best validation metric.
        epoch: epoch of that value.
        epochs: number of epochs trained.
        seconds: wall-clock time.
        error: reason of a failure.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    epoch: int
    epochs: int
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Outcome:
    """The end of a trial: the fields of `Trial` that the training decides."""

    state: str
    value: float | None
    epoch: int
    epochs: int
    error: str = ""


class _Pruned(Exception):
    """Ends a training that is among the worst."""


class _Follower:
    """Passes on the progress of a trial, and ends it if Optuna finds it among the worst.

    Args:
        trial: the trial.
        report: callback for its progress; None for none.

    Attributes:
        last: last finished epoch with a validation value.
        epoch: epoch of the best value so far.
    """

    def __init__(
        self, trial: optuna.Trial, report: Callable[[Progress], None] | None = None
    ) -> None:
        self.trial, self.report = trial, report
        self.last: Progress | None = None
        self.epoch = 0

    def __call__(self, now: Progress, /) -> None:
        if self.report is not None:
            self.report(now)
        if not now.finished or now.best is None:
            return
        if self.last is None or now.best > (self.last.best or 0.0):
            self.epoch = now.epoch
        self.last = now
        self.trial.report(now.best, now.epoch)
        if self.trial.should_prune():
            raise _Pruned


def run_trial(
    trial: optuna.Trial,
    plan: Plan,
    inputs: Inputs,
    device: torch.device | str,
    report: Callable[[Progress], None] | None,
) -> Outcome:
    """Trains with the values of a trial.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
    """
    config, train = plan.resolved(trial.params)
    follower = _Follower(trial, report)
    try:
        fit = train_model(plan.model, inputs, config, train, device=device, report=follower).fit
    except _Pruned:
        last = follower.last
        assert last is not None
        return Outcome("pruned", last.best, follower.epoch, last.epoch)
    except (RunError, MemoryError, RuntimeError) as failure:
        if not isinstance(failure, RunError) and not memory.ran_out(failure):
            raise
        error = (str(failure).splitlines() or ["not enough memory"])[0][:1000]
        return Outcome("failed", None, follower.epoch, 0, error)
    if fit.interrupted:
        raise KeyboardInterrupt
    return Outcome("complete", fit.best_value, fit.best_epoch, len(fit.history))
