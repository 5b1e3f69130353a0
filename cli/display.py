"""Shows the progress of a command on stderr: lines, and a live bar on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualgnn_dgl.cli import streams
from dualgnn_dgl.errors import clean

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from dualgnn_dgl.core.progress import Progress


class Display:
    """Shows events of progress, for use as a context manager.

    A message is one line. A training is a live bar on a terminal, elsewhere one line an epoch.
    Without `lines`, epochs are shown on a terminal only.
    """

    def __init__(self, *, lines: bool = True) -> None:
        self.lines = lines
        self.bar: Bar | None = None
        self.bar_task: TaskID | None = None
        self.task = ""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __call__(self, progress: Progress, /) -> None:
        """Shows one event."""
        if progress.message:
            if progress.finished:
                self.close()
            streams.note(progress.message)
            return
        if progress.task != self.task:
            self.close()
            self.task = progress.task
        if streams.terminal() or self.bar is not None:
            self._move(progress)
        elif progress.finished and self.lines:
            streams.note(_line(progress))

    def _move(self, progress: Progress) -> None:
        """Moves the bar, which starts with the first event of a task."""
        if self.bar is None:
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            times = (TimeElapsedColumn(), TextColumn("left", markup=False), TimeRemainingColumn())
            columns = (TextColumn("{task.description}", markup=False), BarColumn(None), *times)
            self.bar = Bar(*columns, console=streams.console(), transient=True)
            self.bar.start()
            self.bar_task = self.bar.add_task("epoch 1", total=None)
        assert self.bar_task is not None
        total = progress.steps * progress.epochs
        done = progress.steps * (progress.epoch - 1) + progress.step
        self.bar.update(
            self.bar_task, description=clean(_line(progress)), completed=done, total=total
        )


def _line(progress: Progress) -> str:
    """Renders the epoch, loss and validation metric of the last finished epoch."""
    shown = [progress.task] if progress.task else []
    shown.append(f"epoch {progress.epoch}/{progress.epochs}")
    if progress.loss is not None:
        shown.append(f"loss {progress.loss:.4f}")
    if progress.value is not None:
        shown.append(f"{progress.metric} {progress.value:.4f} (best {progress.best:.4f})")
    return " · ".join(shown)
