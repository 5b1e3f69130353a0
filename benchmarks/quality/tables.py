"""Makes the tables of the README, docs/results/ and benchmarks/README.md again from the summaries.

    python -m benchmarks.quality.tables            rewrites the tables and prints which have changed
    python -m benchmarks.quality.tables tiktok     prints one table of the comparison

A table follows the line `<!-- TABLE.json -->` and ends at the next empty line. Several names,
separated by commas, are one table of recall@20, with a row per split; after `best of`, the best
model of each. Everything else is written by hand: check the numbers in the text around a table that
has changed.
"""

from __future__ import annotations

import re
import sys

from benchmarks.lib.paths import REPOSITORY
from benchmarks.lib.tables import best, file_of, markdown, read_rows, side_by_side
from benchmarks.quality import ablation, fidelity

RESULT_PAGES = sorted((REPOSITORY / "docs" / "results").glob("*.md"))
PAGES = (REPOSITORY / "README.md", REPOSITORY / "benchmarks" / "README.md", *RESULT_PAGES)
MARK = re.compile(r"<!-- (best of )?([\w-]+\.json(?:, [\w-]+\.json)*) -->\n((?:\|.*\n)*)")
FORMATS = {"compare": markdown, "ablation": ablation.markdown, "fidelity": fidelity.markdown}


def refreshed(text: str) -> tuple[str, list[str]]:
    """Makes the marked tables of a document again.

    Args:
        text: The document.

    Returns:
        The document with its tables as in the summaries, and the names of the tables that have
        changed.
    """
    changed = []

    def replaced(found: re.Match[str]) -> str:
        wanted, files, before = found.groups()
        tables = {table: read_rows(table) for table in re.findall(r"([\w-]+)\.json", files)}
        for table in [table for table, rows in tables.items() if not rows]:
            raise SystemExit(
                f"{file_of(table)} is missing: make it again, or remove its mark from the document"
            )
        if wanted:
            made = best({table.removeprefix("compare-"): rows for table, rows in tables.items()})
        elif len(tables) > 1:
            made = side_by_side(
                {table.removeprefix("compare-"): rows for table, rows in tables.items()}
            )
        else:
            (table,) = tables
            made = FORMATS[table.partition("-")[0]](tables[table])
        if made + "\n" != before:
            changed.append(" and ".join(table.removeprefix("compare-") for table in tables))
        return f"<!-- {wanted or ''}{files} -->\n{made}\n"

    return MARK.sub(replaced, text), changed


def main() -> None:
    """Rewrites the pages, or prints the tables that the command line names."""
    for name in sys.argv[1:]:
        print(markdown(read_rows(f"compare-{name}")))
    if not sys.argv[1:]:
        changed = []
        for document in PAGES:
            text, names = refreshed(document.read_text("utf-8"))
            document.write_text(text, "utf-8")
            changed += names
        print(f"changed: {', '.join(changed) or 'none'}")


if __name__ == "__main__":
    main()
