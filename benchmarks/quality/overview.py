"""Draws the tables of compare.py as one picture, results/overview.png.

    python -m benchmarks.quality.overview

It shows every model's test recall@20 on every data set. A dot is the mean over the seeds. A line is
the 95 % interval over the test users of the first seed, moved to that mean. The script reads
results/compare-NAME.json and trains nothing; the README's tables have the number of trials.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.lib.paths import METRIC, RESULTS
from benchmarks.lib.tables import read_rows

TITLES = {
    "tiktok": "TikTok (image, audio)",
    "microlens-15k-loo": "MicroLens, 15,000 users (titles)",
    "microlens-15k-random": "… the same, split at random",
    "microlens-loo": "MicroLens-50k (titles), last video",
    "microlens-time": "MicroLens-50k (titles), by time",
    "movielens-1m": "MovieLens-1M (posters, plots)",
    "movielens-800": "MovieLens-1M, 800 users",
    "baby": "Amazon-Baby (no features)",
}
FAMILY, OTHERS = "#c2410c", "#475569"


def draw(tables: dict[str, list[dict]], file: Path) -> None:
    """Draws a panel per data set and a row per model, best first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from dualgnn_dgl.core.files import atomic_file

    figure = Figure(figsize=(15, 7.2), layout="constrained")
    panels = figure.subplots(2, -(-len(tables) // 2)).flat
    for panel in panels[len(tables) :]:
        panel.set_axis_off()
    for panel, (name, rows) in zip(panels, tables.items(), strict=False):
        rows = sorted(rows, key=lambda row: row[METRIC])
        for place, row in enumerate(rows):
            colour = FAMILY if row["model"].startswith("dualgnn") else OTHERS
            low, high = row[f"interval {METRIC}"]
            half = (high - low) / 2
            panel.plot(
                [row[METRIC] - half, row[METRIC] + half],
                [place, place],
                color=colour,
                linewidth=2,
                alpha=0.45,
            )
            panel.plot(row[METRIC], place, "o", color=colour, markersize=6)
        panel.set_yticks(range(len(rows)), [row["model"] for row in rows])
        for label in panel.get_yticklabels():
            label.set_color(FAMILY if label.get_text().startswith("dualgnn") else OTHERS)
        panel.set_title(TITLES[name], fontsize=11, loc="left")
        panel.set_xlim(left=0)
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"test {METRIC}, ranked over the whole catalogue", fontsize=11)
    with atomic_file(file) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def tables() -> dict[str, list[dict]]:
    """Returns the rows of every data set of the picture that has a table."""
    found = {name: read_rows(f"compare-{name}") for name in TITLES}
    return {name: rows for name, rows in found.items() if rows}


if __name__ == "__main__":
    draw(tables(), RESULTS / "overview.png")
