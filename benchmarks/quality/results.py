"""Makes every summary, table and picture under results/ again, and fails on a difference.

    python -m benchmarks.quality.results            checks
    python -m benchmarks.quality.results --write    writes the differences, for example after a
                                                    change of the statistics

Rows of the comparison, of its ablation and of the fidelity table are computed from their trainings
in the Parquet files; their settings, numbers of trials and commands are kept. Tables in documents
and pictures follow from the summaries. Nothing is trained. Pictures are compared only if the
installed Matplotlib is the one that drew them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from benchmarks.lib.paths import REPOSITORY, RESULTS
from benchmarks.lib.tables import file_of, write_table
from benchmarks.lib.trainings import Trainings, name_of
from benchmarks.quality import ablation, compare, fidelity, overview
from benchmarks.quality.ranking import ranked, results_of, valid_of
from benchmarks.quality.tables import PAGES, refreshed

RELATIVE, ABSOLUTE = 1e-9, 1e-12  # the last bits of a sum differ between versions of NumPy

Table = dict


def comparison(table: Table, trainings: Trainings) -> Table:
    """Computes the rows of a comparison again."""
    name, rows = table["data"]["name"], []
    for row in table["rows"]:
        runs = [named(trainings, training) for training in row["trainings"]]
        for seed, run in enumerate(runs):
            made = (run["model"], run["config"], run["train"], run["seed"])
            if made != (row["model"], row["config"], row["train"], seed):
                raise SystemExit(
                    f"{table['table']}: {run['name']} has not the settings of the row of "
                    f"{row['model']}"
                )
        if "settings of" in row:
            valid = valid_of(runs)
        else:  # The row of a search has the trial with these settings, which used validation only.
            valid = named(trainings, name_of(name, runs[0] | {"test": False}))["valid"]
        rows.append(row | {"valid": valid} | results_of(runs))
    rows = ranked(rows, trainings)
    return {"table": table["table"], **compare.about(name, rows), "rows": rows}


def ablated(table: Table, trainings: Trainings) -> Table:
    """Computes the rows of an ablation again."""
    return table | {"rows": ablation.measured(table["rows"], trainings)}


def faults(table: Table, trainings: Trainings) -> Table:
    """Computes the rows of the fidelity table again."""
    rows = []
    for row in table["rows"]:
        found = {
            side: [named(trainings, name) for name in row[side]["trainings"]]
            for side in fidelity.SIDES
        }
        rows.append(
            row | {side: row[side] | fidelity.results_of(runs) for side, runs in found.items()}
        )
    return table | {"rows": rows}


# First word of a table → the function that makes it, and the table of its trainings.
MADE: dict[str, tuple[Callable[[Table, Trainings], Table], str]] = {
    "compare": (comparison, "compare"),
    "ablation": (ablated, "compare"),
    "fidelity": (faults, "fidelity"),
}


def named(trainings: Trainings, name: str) -> dict:
    """Returns a training of the Parquet file with its name."""
    if name not in trainings.packed:
        raise SystemExit(f"{trainings.file} has no training {name}")
    return trainings.packed[name] | {"name": name}


def summaries(only: Collection[str] = ()) -> Iterator[tuple[Table, Table]]:
    """Yields each summary as it is on file, and made again.

    Args:
        only: Names of the tables, all if there are none.
    """
    for file in sorted(RESULTS.glob("*.json")):
        word, _, rest = file.stem.partition("-")
        if word in MADE and (not only or file.stem in only):
            maker, kind = MADE[word]
            with tempfile.TemporaryDirectory() as cache:
                trainings = Trainings(f"{kind}-{rest}" if rest else kind, Path(cache))
                kept = json.loads(file.read_text("utf-8"))
                yield kept, maker(kept, trainings)


def equal(one: object, other: object) -> bool:
    """Returns whether two JSON values are equal, floats to a relative 10⁻⁹ or an absolute 10⁻¹²."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            equal(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def pictures() -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """Yields each picture, and the function that draws it to a path."""
    from dualgnn_dgl.experiments import robustness

    yield RESULTS / "overview.png", lambda path: overview.draw(overview.tables(), path)
    for picture in sorted(RESULTS.glob("robustness-*.png")):
        summary = json.loads(picture.with_suffix(".json").read_text("utf-8"))
        yield picture, lambda path, summary=summary: robustness.draw(summary, path)


def same_picture(one: Path, other: Path) -> bool | None:
    """Returns whether two pictures have the same pixels.

    It returns None if they were drawn by different versions of Matplotlib.
    """
    from PIL import Image, ImageChops

    with Image.open(one) as first, Image.open(other) as second:
        if first.info.get("Software") != second.info.get("Software"):
            return None
        return (
            first.size == second.size
            and ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getbbox() is None
        )


def check_summaries(write: bool) -> Iterator[str | None]:
    """Yields for each summary its file's name if it differs, else None; writes it if asked to."""
    for kept, made in summaries():
        if equal(kept, made):
            yield None
            continue
        yield file_of(kept["table"]).name
        if write:
            write_table(made.pop("table"), made, made.pop("rows"))


def check_pages(write: bool) -> Iterator[str]:
    """Yields the tables in documents that differ from the summaries; writes them if asked to."""
    for document in PAGES:
        text, changed = refreshed(document.read_text("utf-8"))
        yield from (f"{document.relative_to(REPOSITORY)}: {name}" for name in changed)
        if write and changed:
            document.write_text(text, "utf-8")


def check_pictures(write: bool) -> Iterator[str | None]:
    """Yields for each picture its file's name if it differs, else None; draws it if asked to."""
    with tempfile.TemporaryDirectory() as folder:
        for picture, draw in pictures():
            draw(drawn := Path(folder) / picture.name)
            same = same_picture(picture, drawn)
            if same is None:
                text = "drawn by another version of Matplotlib, not compared"
                print(f"{picture.name}: {text}", file=sys.stderr)
            yield picture.name if same is False else None
            if write and same is False:
                draw(picture)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the differences")
    write = parser.parse_args().write
    files = list(check_summaries(write))
    pages = list(check_pages(write))
    files += check_pictures(write)
    different = [*filter(None, files), *pages]
    print(
        f"{len(files)} summaries and pictures, {len(PAGES)} documents; different: "
        f"{', '.join(different) or 'none'}"
    )
    if different and not write:
        sys.exit(1)


if __name__ == "__main__":
    main()
