"""Draws the training curve of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw_curve(history: Sequence[Mapping[str, Any]], metric: str, best: int, path: Path) -> None:
    """Draws loss and validation metric over epochs, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.subplots()
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss"] for row in history], color="tab:gray", label="training loss")
    left.set_xlabel("epoch")
    left.set_ylabel("training loss")
    name = next((key for row in history for key in row if "@" in key), None)
    handles = left.get_lines()
    if name is not None:
        right = left.twinx()
        points = [(row["epoch"], row[name]) for row in history if name in row]
        right.plot(
            *zip(*points, strict=True), color="tab:blue", marker=".", label=f"validation {name}"
        )
        right.axvline(best, color="tab:orange", linestyle="--", label=f"best epoch {best}")
        right.set_ylabel(f"validation {name}")
        right.set_ylim(bottom=0)
        handles = handles + right.get_lines()
    left.legend(
        handles=handles, loc="lower center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 1.0)
    )
    figure.savefig(path, format="png", dpi=120)
