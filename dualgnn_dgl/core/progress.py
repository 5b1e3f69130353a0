"""Progress of a verb: one event, one type of callback, used by everything that takes long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """One event of a verb at work: a line for people, or the state of a training.

    An event with a `message` carries nothing else that is worth showing, except `finished`.

    Attributes:
        epoch: present epoch, from 1; 0 outside of training.
        step: units of work done in the epoch, or in the whole task where there are no epochs.
        steps: units of work in the epoch or task.
        loss: training loss of the last finished epoch.
        value: validation metric of the last finished epoch.
        best: best validation metric so far.
        finished: whether an epoch or a task has just ended. In training it is set once an epoch,
            after validation; loss and value are then those of this epoch.
        message: one line for people.
        task: name of the task among several, such as "trial 3 of 0…19".
        epochs: number of epochs at most.
        metric: name of the validation metric.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    value: float | None = None
    best: float | None = None
    finished: bool = False
    message: str = ""
    task: str = ""
    epochs: int = 0
    metric: str = ""


class Report(Protocol):
    """A function that is called with every event.

    It may raise `KeyboardInterrupt` to end the work.
    """

    def __call__(self, progress: Progress, /) -> None:
        """Shows or records the event."""


class Stoppable(Protocol):
    """An object that can ask the work to end early, such as the handler of a signal.

    Attributes:
        ask: set by the verb once it can end by itself. Calling it lets the work end after the
            present step and returns a few words for people that say so.
    """

    ask: Callable[[], str] | None


def silent(progress: Progress, /) -> None:
    """Ignores every event."""


def say(report: Report, message: str) -> None:
    """Reports one line for people."""
    report(Progress(message=message))
