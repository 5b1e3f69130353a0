"""Records the results of the tests' long form.

`make test-long` sets DUALGNN_LONG: tests then run their full number of cases and `record` their
results, dated, in benchmarks/results/reliability.json. In `make test` the same tests run a few
cases and record nothing.
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

LONG = bool(os.environ.get("DUALGNN_LONG"))
FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "reliability.json"


def record(key: str, figures: dict[str, Any]) -> None:
    """Writes results under `key` into the file, in the long form only; other keys stay."""
    if not LONG:
        return
    found = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    found[key] = {"date": datetime.date.today().isoformat(), **figures}
    beside = FILE.with_name(f".{FILE.name}.{os.getpid()}")
    beside.write_text(
        json.dumps(dict(sorted(found.items())), indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
    os.replace(beside, FILE)
