"""Summaries of tables: `results/TABLE.json`, and the Markdown of the comparison."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from benchmarks.lib.paths import METRIC, RESULTS

TITLES = {
    "tiktok": "TikTok",
    "microlens-15k-loo": "MicroLens sample, last video",
    "microlens-15k-time": "MicroLens sample, by time",
    "microlens-15k-random": "MicroLens sample, random",
    "microlens-loo": "MicroLens-50k, last video",
    "microlens-time": "MicroLens-50k, by time",
    "movielens-800": "MovieLens-1M sample",
    "movielens-1m": "MovieLens-1M",
    "baby": "Amazon-Baby, no features",
}
SPLITS = {
    "loo": "leave-one-out (each user's last)",
    "time": "by time, a share of each user's last",
    "random": "random",
}
OF_THE_MACHINE = ("--root", "--cache")


def file_of(table: str) -> Path:
    """Returns the summary of a table, which need not exist."""
    return RESULTS / f"{table}.json"


def read_rows(table: str) -> list[dict]:
    """Returns the rows of a table, none if it has no summary."""
    file = file_of(table)
    return json.loads(file.read_text("utf-8"))["rows"] if file.is_file() else []


def write_table(table: str, about: dict, rows: list[dict]) -> None:
    """Writes the summary of a table, atomically.

    Args:
        table: Name of the table.
        about: Fields before `rows`, common to all rows.
        rows: Rows of the table.
    """
    from dualgnn_dgl.core.files import write_json

    write_json(file_of(table), {"table": table, **about, "rows": rows})


def command_of(module: str, words: list[str]) -> str:
    """Returns the command that makes a result, without the folders of this machine.

    >>> command_of("benchmarks.quality.compare", ["--root", "/raw", "--data", "baby", "--cache=/c"])
    'python -m benchmarks.quality.compare --data baby'
    """
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in OF_THE_MACHINE:
            kept.append(word)
        skip = not skip and word in OF_THE_MACHINE
    return shlex.join(["python", "-m", module, *kept])


def markdown(rows: list[dict]) -> str:
    """Formats the rows of a comparison.

    A row has the mean over seeds ± their standard deviation, the users' 95 % interval, and its
    tests against the first row.
    """
    published = any(row["published"] for row in rows)
    heads = [
        "model",
        "trials × seeds",
        "recall@10",
        METRIC,
        "95 % interval",
        "to the leader, p bootstrap, p Wilcoxon",
        "NDCG@20",
    ]
    heads += ["published recall / NDCG@20"] if published else []
    heads += ["coverage@20", "s/epoch", "s to best", "MB"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for place, row in enumerate(rows):
        low, high = row[f"interval {METRIC}"]
        tests = "–" if place else ""
        if "difference" in row:
            found = (
                f"{row['difference']:+.4f}",
                small(row["p bootstrap"]),
                small(row["p Wilcoxon"]),
            )
            tests = ", ".join(found).replace("-", "−")
        cells = [
            row["model"],
            f"{row['trials']} × {row['seeds']}",
            f"{row['recall@10']:.4f}",
            spread(row, METRIC),
        ]
        if not place:
            cells[0], cells[3] = f"**{cells[0]}**", f"**{cells[3]}**"
        cells += [f"{low:.4f}–{high:.4f}", tests, spread(row, "ndcg@20")]
        if published:
            cells.append("{:.4f} / {:.4f}".format(*row["published"]) if row["published"] else "")
        gpu = " (GPU)" if row["timed on a GPU"] else ""
        cells += [
            f"{row['coverage@20']:.3f}",
            f"{row['epoch_s']:.2f}{gpu}",
            f"{row['to_best_s']:.0f}{gpu}",
        ]
        cells.append(f"{row['peak_mb']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def side_by_side(tables: dict[str, list[dict]]) -> str:
    """Formats recall@20 under several splits, with a row per split.

    Args:
        tables: Data set → rows. The first table gives the columns; – marks a model that another
            table lacks.
    """
    models = [row["model"] for row in next(iter(tables.values()))]
    lines = [f"| split | {' | '.join(models)} |", "| --- " * (len(models) + 1) + "|"]
    for name, rows in tables.items():
        found = {row["model"]: f"{row[METRIC]:.4f}" for row in rows}
        cells = [SPLITS[name.rpartition("-")[2]], *(found.get(model, "–") for model in models)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def best(tables: dict[str, list[dict]]) -> str:
    """Formats the best model of each table and the models not significantly behind it.

    A model counts as behind where the difference is significant at .05 in both tests.

    Args:
        tables: Data set → rows, best first.
    """
    heads = [
        "data set",
        "best model",
        METRIC,
        "95 % interval",
        "not significantly behind",
        "next",
        "dualgnn",
        "lightgcn",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, (first, *others) in tables.items():
        ties = [
            row
            for row in others
            if max(row.get("p bootstrap", 1), row.get("p Wilcoxon", 1)) >= 0.05
        ]
        rest = next(row for row in others if row not in ties)
        found = {row["model"]: f"{row[METRIC]:.4f}" for row in (first, *others)}
        low, high = first[f"interval {METRIC}"]
        cells = [
            TITLES[name],
            first["model"],
            f"**{spread(first, METRIC)}**",
            f"{low:.4f}–{high:.4f}",
        ]
        cells += [
            ", ".join(f"{row['model']} {row[METRIC]:.4f}" for row in ties),
            f"{rest['model']} {rest[METRIC]:.4f}",
        ]
        lines.append(
            f"| {' | '.join([*cells, found.get('dualgnn', '–'), found.get('lightgcn', '–')])} |"
        )
    return "\n".join(lines)


def spread(row: dict, metric: str) -> str:
    """Formats the mean, and ± the standard deviation over seeds where it is not zero."""
    deviation = f"{row[f'{metric} sd']:.4f}" if row["seeds"] > 1 else "0.0000"
    return f"{row[metric]:.4f}" + (f" ± {deviation}" if deviation != "0.0000" else "")


def small(p: float) -> str:
    """Formats a p-value.

    >>> small(0.00314), small(0.00004), small(1.0)
    ('.0031', '< .0001', '1.0000')
    """
    return f"{p:.4f}".removeprefix("0") if p >= 0.0001 else "< .0001"
