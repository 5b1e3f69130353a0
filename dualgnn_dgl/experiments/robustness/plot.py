"""Draws the curves of a robustness experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dualgnn_dgl.core.files import atomic_file

STYLES = {
    "mask": "-",
    "drop-items": (0, (1, 1)),
    "zero": "--",
    "mean": "-.",
    "ppr": (0, (5, 1, 1, 1, 1, 1)),
}
OTHER = ":"
MARKERS = {
    "mask": "o",
    "drop-items": "x",
    "zero": "s",
    "mean": "D",
    "neighbour_mean": "^",
    "multi_hop": "v",
    "ppr": "P",
}


def draw(summary: Mapping[str, Any], path: str | Path) -> None:
    """Draws a panel for each stage and pattern: the metric over the share that is missing.

    A band shows the users' 95 % interval. A model has a colour, a strategy a line style and a
    marker.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [panel for panel in summary["panels"] if panel["rows"]]
    if not panels:
        return
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    curves = max(len(panel["rows"]) for panel in panels)
    figure = Figure(figsize=(6.2 * columns, 4.6 * lines + 0.1 * curves), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    models = list(dict.fromkeys(row["model"] for panel in panels for row in panel["rows"]))
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=False):
        for row in panel["rows"]:
            points = [
                (rate, row["points"][f"{rate:g}"])
                for rate in panel["rates"]
                if f"{rate:g}" in row["points"]
            ]
            rates, means = (
                [100 * rate for rate, _ in points],
                [point["mean"] for _, point in points],
            )
            low, high = ([point["interval"][end] for _, point in points] for end in (0, 1))
            colour = f"C{models.index(row['model']) % 10}"
            label = f"{row['model']} · {row['strategy']}"
            style, marker = STYLES.get(row["strategy"], OTHER), MARKERS.get(row["strategy"], ".")
            (line,) = axis.plot(
                rates,
                means,
                color=colour,
                linestyle=style,
                marker=marker,
                markersize=4,
                linewidth=1.5,
            )
            axis.fill_between(rates, low, high, color=colour, alpha=0.08, linewidth=0)
            handles.setdefault(label, line)
        axis.set_title(f"pattern: {panel['holes']}, {panel['stage']}", fontsize=10)
        axis.set_xlabel("features missing, %")
        axis.set_ylabel(summary["metric"])
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    # The line is long enough to distinguish the dashes.
    wide = {"ncols": min(2 * columns, len(handles)), "handlelength": 4}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        frameon=False,
        fontsize=8,
        **wide,
    )
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
