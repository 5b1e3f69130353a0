"""Writes the tables of compare.py into the README and docs/results/ from results/compare-NAME.json.

    python -m benchmarks.quality.tables            rewrites the tables of these pages; prints which have changed
    python -m benchmarks.quality.tables tiktok     prints one

A table follows the line `<!-- compare-NAME.json -->` and ends with the next empty line. With several names, separated by commas,
it shows their recall@20 side by side, one row for each split; after `best of`, the best model of each. Everything else on the
pages is written by hand, numbers in running text included: check them when a table has changed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from benchmarks.lib.paths import METRIC, REPOSITORY, RESULTS

PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs" / "results").glob("*.md")))
MARK = re.compile(r"<!-- (best of )?(compare-[\w-]+\.json(?:, compare-[\w-]+\.json)*) -->\n((?:\|.*\n)*)")
DATA = {
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
SPLITS = {"loo": "leave-one-out (each user's last)", "time": "by time, a share of each user's last", "random": "random"}


def table_of(name: str) -> Path:
    """Where the rows of a data set's table are kept."""
    return RESULTS / f"compare-{name}.json"


def kept_rows(name: str) -> list[dict]:
    """The rows of a data set's table so far, best first."""
    return json.loads(table_of(name).read_text()) if table_of(name).is_file() else []


def markdown(rows: list[dict]) -> str:
    """The table: mean over seeds ± their standard deviation, the users' 95 % interval, and each row's tests against the first."""
    published = any(row["published"] for row in rows)
    heads = ["model", "trials × seeds", "recall@10", METRIC, "95 % interval", "to the leader, p bootstrap, p Wilcoxon", "NDCG@20"]
    heads += ["published recall / NDCG@20"] if published else []
    heads += ["coverage@20", "s/epoch", "s to best", "MB"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for place, row in enumerate(rows):
        low, high = row[f"interval {METRIC}"]
        tests = "–" if place else ""
        if "difference" in row:
            tests = f"{row['difference']:+.4f}, {small(row['p bootstrap'])}, {small(row['p Wilcoxon'])}".replace("-", "−")
        cells = [row["model"], f"{row['trials']} × {row['seeds']}", f"{row['recall@10']:.4f}", spread(row, METRIC)]
        if not place:
            cells[0], cells[3] = f"**{cells[0]}**", f"**{cells[3]}**"
        cells += [f"{low:.4f}–{high:.4f}", tests, spread(row, "ndcg@20")]
        if published:
            cells.append("{:.4f} / {:.4f}".format(*row["published"]) if row["published"] else "")
        gpu = " (GPU)" if row["timed on a GPU"] else ""
        cells += [f"{row['coverage@20']:.3f}", f"{row['epoch_s']:.2f}{gpu}", f"{row['to_best_s']:.0f}{gpu}"]
        cells.append(f"{row['peak_mb']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def side_by_side(tables: dict[str, list[dict]]) -> str:
    """Recall@20 under several splits, name → rows: a column a model, in the order of the first table, – where it has no row."""
    models = [row["model"] for row in next(iter(tables.values()))]
    lines = [f"| split | {' | '.join(models)} |", "| --- " * (len(models) + 1) + "|"]
    for name, rows in tables.items():
        found = {row["model"]: f"{row[METRIC]:.4f}" for row in rows}
        cells = [SPLITS[name.rpartition("-")[2]], *(found.get(model, "–") for model in models)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def best(tables: dict[str, list[dict]]) -> str:
    """The best model of each table with the models whose difference from it is not significant at .05 in both tests."""
    heads = ["data set", "best model", METRIC, "95 % interval", "not significantly behind", "next", "dualgnn", "lightgcn"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, (first, *others) in tables.items():
        ties = [row for row in others if max(row.get("p bootstrap", 1), row.get("p Wilcoxon", 1)) >= 0.05]
        rest = next(row for row in others if row not in ties)
        found = {row["model"]: f"{row[METRIC]:.4f}" for row in (first, *others)}
        low, high = first[f"interval {METRIC}"]
        cells = [DATA[name], first["model"], f"**{spread(first, METRIC)}**", f"{low:.4f}–{high:.4f}"]
        cells += [", ".join(f"{row['model']} {row[METRIC]:.4f}" for row in ties), f"{rest['model']} {rest[METRIC]:.4f}"]
        lines.append(f"| {' | '.join([*cells, found.get('dualgnn', '–'), found.get('lightgcn', '–')])} |")
    return "\n".join(lines)


def spread(row: dict, metric: str) -> str:
    """Mean ± standard deviation over seeds, where there are several and they differ."""
    deviation = f"{row[f'{metric} sd']:.4f}" if row["seeds"] > 1 else "0.0000"
    return f"{row[metric]:.4f}" + (f" ± {deviation}" if deviation != "0.0000" else "")


def small(p: float) -> str:
    """A p-value for people.

    >>> small(0.00314), small(0.00004), small(1.0)
    ('.0031', '< .0001', '1.0000')
    """
    return f"{p:.4f}".removeprefix("0") if p >= 0.0001 else "< .0001"


def refreshed(text: str) -> tuple[str, list[str]]:
    """A document with its marked tables as they are now, and the names of those that have changed."""
    changed = []

    def anew(found: re.Match[str]) -> str:
        wanted, files, before = found.groups()
        tables = {name: kept_rows(name) for name in re.findall(r"compare-([\w-]+)\.json", files)}
        for name in [name for name, rows in tables.items() if not rows]:
            raise SystemExit(f"{table_of(name)} is not there: make it with compare.py --data {name}, or take the mark out")
        table = (best(tables) if wanted else side_by_side(tables) if len(tables) > 1 else markdown(*tables.values())) + "\n"
        if table != before:
            changed.append(" and ".join(tables))
        return f"<!-- {wanted or ''}{files} -->\n{table}"

    return MARK.sub(anew, text), changed


def main() -> None:
    for name in sys.argv[1:]:
        print(markdown(kept_rows(name)))
    if not sys.argv[1:]:
        changed = []
        for page in PAGES:
            text, found = refreshed(page.read_text(encoding="utf-8"))
            page.write_text(text, encoding="utf-8")
            changed += found
        print(f"changed: {', '.join(changed) or 'none'}")


if __name__ == "__main__":
    main()
