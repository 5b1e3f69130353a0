"""Shows the progress of a command on stderr: a bar a step on a terminal, else a line a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.show import note
from dualgnn_dgl.errors import clean

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dualgnn_dgl.core.progress import Progress, Report


@contextmanager
def bars() -> Iterator[Report]:
    """Yields a function that shows the current step.

    On a terminal it shows a bar with the time, elsewhere one line a step.
    """
    if not streams.terminal():
        yield lines()
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=streams.console()) as shown:
        tasks: list[TaskID] = []

        def show(progress: Progress) -> None:
            if not progress.message and tasks:
                shown.update(tasks[-1], total=progress.steps, completed=progress.step)
                return
            finish()
            tasks.append(shown.add_task(clean(progress.message), total=None))

        def finish() -> None:
            if tasks:
                shown.update(tasks[-1], total=1, completed=1)
                shown.stop_task(tasks[-1])

        yield show
        finish()


def lines() -> Report:
    """Returns a function that writes a line a step, and one a quarter of a long step."""
    reached = 0

    def show(progress: Progress) -> None:
        nonlocal reached
        if progress.message:
            reached = 0
            note(progress.message)
            return
        quarter = progress.step * 4 // max(progress.steps, 1)
        if quarter > reached and progress.step < progress.steps:
            reached = quarter
            note(f"{progress.task}: {quarter * 25} %")

    return show
