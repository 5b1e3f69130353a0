"""Units of plain times since 1970, recognised by their size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dualgnn_dgl.errors import DataError

FIRST, LAST = 3 * 10**8, 42 * 10**8  # seconds: the years 1979 to 2103
FEWEST = 8  # times that can show two units; fewer may be numbers of any kind
SCALES = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def unit_of(times: np.ndarray) -> str | None:
    """Returns the unit in which all times (n,) are of the years 1979 to 2103; None if none is.

    >>> unit_of(np.array([1_700_000_000_000, 1_600_000_000_000]))
    'milliseconds'
    """
    if not times.size or times.dtype != np.int64:
        return None
    least, most = int(times.min()), int(times.max())
    return next(
        (unit for unit, n in SCALES.items() if FIRST * n <= least and most < LAST * n), None
    )


def as_microseconds(times: np.ndarray) -> np.ndarray | None:
    """Returns plain times (n,) in microseconds; None where the unit is not clear or too fine."""
    unit = unit_of(times)
    if unit is None or unit == "nanoseconds":
        return None
    return times * np.int64(10**6 // SCALES[unit])


def one_clock(
    parts: Sequence[np.ndarray], clocks: Sequence[str | None], where: str
) -> tuple[list[np.ndarray], bool]:
    """Returns the batches of times on one clock, and whether some were converted.

    Dates are microseconds already. Plain numbers beside them are converted if their size shows the
    unit.

    Args:
        parts: times of each batch.
        clocks: what each batch counts, see `times.clock`.
        where: the log, for messages.

    Raises:
        DataError: if dates and numbers of an unclear unit, or several units of numbers, are mixed.
    """
    plain = [clock == "plain numbers" for clock in clocks]
    if any(plain) and "microseconds" in clocks:
        together = [
            as_microseconds(part) if one else part for part, one in zip(parts, plain, strict=True)
        ]
        found = [part for part in together if part is not None]
        if len(found) < len(parts):
            raise DataError(
                f"{where} gives times as dates and as plain numbers, whose unit is not clear: "
                "give all splits in one"
            )
        return found, True
    if all(plain) and len(parts):
        _refuse_mixed(parts, where)
    return list(parts), False


def _refuse_mixed(parts: Sequence[np.ndarray], where: str) -> None:
    """Refuses numbers that are all of these years, but in several units."""
    if any(part.dtype != np.int64 for part in parts):
        return
    examples: dict[str, int] = {}
    inside = 0
    for part in parts:
        for unit, n in SCALES.items():
            chosen = (part >= FIRST * n) & (part < LAST * n)
            count = int(np.count_nonzero(chosen))
            if count:
                examples.setdefault(unit, int(part[np.argmax(chosen)]))
                inside += count
    if len(examples) > 1 and inside == sum(map(len, parts)) and inside >= FEWEST:
        listed = " and ".join(f"{unit} ({value})" for unit, value in examples.items())
        raise DataError(f"{where} gives times in {listed}: give all in one unit")
