"""Progress of a verb: one type of event and one type of callback for all long work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """One event of a verb: a line for people, or the state of training.

    An event with a `message` has no other field that is worth showing, except `finished`.

    Attributes:
        epoch: Current epoch, from 1; 0 outside of training.
        step: Units of work done in the epoch, or in the whole task if there are no epochs.
        steps: Units of work in the epoch or task.
        loss: Training loss of the last finished epoch.
        value: Validation metric of the last finished epoch.
        best: Best validation metric so far.
        finished: Whether an epoch or a task has just ended. In training it is set once an epoch,
            after validation; loss and value are then those of this epoch.
        message: One line for people.
        task: Name of the task among several, such as "trial 3 of 0…19".
        epochs: Largest number of epochs.
        metric: Name of the validation metric.
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
    """An object that can ask the work to end early, such as a signal handler.

    Attributes:
        ask: Set by the verb once it can end by itself. Calling it lets the work end after the
            current step and returns a short text for people that says so.
    """

    ask: Callable[[], str] | None


def silent(progress: Progress, /) -> None:
    """Ignores every event."""


def say(report: Report, message: str) -> None:
    """Reports one line for people."""
    report(Progress(message=message))
