"""Renders the summary of a robustness experiment as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COMPARED_AT = 0.6  # The table compares rows at the plan's rate nearest to this one.


def markdown(summary: Mapping[str, Any]) -> str:
    """Renders the summary as Markdown: the curves, then the comparison near a rate of 60 %."""
    parts = []
    for panel in summary["panels"]:
        rates = panel["rates"]
        parts.append(f"### {summary['metric']}, pattern {panel['holes']}, {panel['stage']}")
        head = ["model", "strategy", *(f"{rate:.0%}" for rate in rates), "area", "kept area"]
        lines = []
        for row in panel["rows"]:
            points = [row["points"].get(f"{rate:g}") for rate in rates]
            cells = ["–" if point is None else f"{point['mean']:.4f}" for point in points]
            areas = [f"{row[name]:.4f}" if name in row else "–" for name in ("area", "kept_area")]
            lines.append([row["model"], row["strategy"], *cells, *areas])
        parts.append(_grid(head, lines))
        rate = min(
            (rate for rate in rates if rate > 0),
            key=lambda rate: abs(rate - COMPARED_AT),
            default=None,
        )
        if rate is not None and panel["rows"]:
            parts.append(_versus(panel, f"{rate:g}", f"{rate:.0%}", summary["metric"]))
    for name, reason in summary["refused"].items():
        parts.append(f"refused: {name}: {reason}")
    return "\n\n".join(parts) + "\n"


def _versus(panel: Mapping[str, Any], key: str, label: str, metric: str) -> str:
    first, lines = panel["rows"][0], []
    groups = ("warm", "cold", "complete", "incomplete")
    for row in panel["rows"]:
        point = row["points"].get(key)
        if point is None:
            continue
        low, high = point["interval"]
        spread = "" if point["deviation"] is None else f" (± {point['deviation']:.4f})"
        cells = [
            row["model"],
            row["strategy"],
            f"{point['seeds']}{spread}",
            f"{point['mean']:.4f} [{low:.4f}, {high:.4f}]",
        ]
        ends = [f"{end:.1%}" for end in point.get("kept_interval", ())]
        cells.append(f"{point['kept']:.1%} [{', '.join(ends)}]" if ends else "–")
        for name in ("versus", "kept_versus"):
            found = point.get(name)
            cells.append(
                "–" if found is None else f"{found['difference']:+.4f} (p {found['p']:.3f})"
            )
        figures = [point["groups"].get(group, {}).get(metric) for group in groups]
        lines.append([*cells, *("–" if figure is None else f"{figure:.4f}" for figure in figures)])
    head = [
        "model",
        "strategy",
        "seeds",
        f"{metric} at {label}",
        "kept",
        "first − this",
        "kept: first − this",
        *groups,
    ]
    return f"Against {first['model']} {first['strategy']}, at {label} missing:\n\n" + _grid(
        head, lines
    )


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
