"""Decides which rows of a log are positives: by conditions on columns, named or known.

A log of exposures, as short-video platforms keep it, has a row for every video that was shown. A
condition is written "COLUMN OP VALUE", for example "is_click == 1"; VALUE is a number, a text or
another column. A row is a positive if one of the conditions holds.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dualgnn_dgl.errors import DataError, unknown
from dualgnn_dgl.readers import values
from dualgnn_dgl.readers.columns import plain
from dualgnn_dgl.readers.opened import OpenedFile

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
# The condition that is taken where a log has the column and none was named; the first one counts.
# Clicks as in KuaiRand (CIKM 2022), watch ratios as in KuaiRec (CIKM 2022).
KNOWN = (
    "is_click == 1",
    "effective_view == 1",
    "long_view == 1",
    "watch_ratio > 2",
    "play_time_ms >= duration_ms",
)
HATED = "is_hate == 0"  # also needed by default, where the column is there
EXAMPLE = "write it as COLUMN OP VALUE, for example 'is_click == 1'"


@dataclass(frozen=True)
class Condition:
    """One condition on a row: the column, the sign, and a number, a text or another column."""

    column: str
    sign: str
    value: str
    other: bool = False  # whether `value` names a column

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.value}"

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return [self.column, self.value] if self.other else [self.column]

    def holds(self, batch: dict[str, pa.Array]) -> np.ndarray:
        """Returns where it holds, (n,) bool; an empty value never does."""
        column = batch[self.column]
        if not self.other and self.sign in ("==", "!=") and _number(self.value) is None:
            compare = pc.equal if self.sign == "==" else pc.not_equal
            found = compare(column.cast(pa.large_string()), self.value)  # null where it is empty
            return np.asarray(found.fill_null(False).to_numpy(zero_copy_only=False))
        left, unread, _ = values.ratings(column)
        right: Any = _number(self.value)
        if self.other:
            right, missing, _ = values.ratings(batch[self.value])
            unread = unread | missing
        return ~unread & np.asarray(COMPARE[self.sign](left, right))


@dataclass(frozen=True)
class Positives:
    """The conditions of one log.

    Attributes:
        conditions: one of them must hold.
        excluded: a condition that must hold as well; None for none.
        chosen: whether the conditions were taken by the names of columns, not given.
    """

    conditions: tuple[Condition, ...] = ()
    excluded: Condition | None = None
    chosen: bool = False

    def __str__(self) -> str:
        shown = " or ".join(map(str, self.conditions))
        return f"{shown}, and {self.excluded}" if self.excluded else shown

    @property
    def columns(self) -> list[str]:
        """The columns that are read for them, each once."""
        every = [*self.conditions, *([self.excluded] if self.excluded else [])]
        return list(dict.fromkeys(name for one in every for name in one.columns))

    @property
    def note(self) -> str:
        """The warning for conditions that were taken by the names of columns."""
        return (
            f"the rows with {self} are taken as positives, by the names of the columns: "
            "--positive 'COLUMN OP VALUE' names others, --positive '' takes every row"
        )

    def of(self, batch: dict[str, pa.Array]) -> np.ndarray:
        """Returns which rows are positives, (n,) bool."""
        found = np.logical_or.reduce([one.holds(batch) for one in self.conditions])
        return found & self.excluded.holds(batch) if self.excluded else found


def find(table: OpenedFile, wanted: Sequence[str] | None) -> Positives:
    """Returns the conditions of a table: those that the user named, or a known one.

    Args:
        table: the opened log.
        wanted: conditions; none of them takes every row, None looks for known columns.

    Raises:
        DataError: for a condition that cannot be read, or an unknown column.
    """
    if wanted is not None:
        return Positives(tuple(parse(text, table) for text in wanted))
    names = {plain(name): name for name in table.columns}
    for text in KNOWN:
        left, sign, right = text.split(" ")
        if plain(left) in names and (_number(right) is not None or plain(right) in names):
            known = parse(f"{names[plain(left)]} {sign} {names.get(plain(right), right)}", table)
            hated = names.get(plain(HATED.split(" ")[0]))
            return Positives((known,), parse(f"{hated} == 0", table) if hated else None, True)
    return Positives()


def parse(text: str, table: OpenedFile) -> Condition:
    """Reads a condition, and checks it against the columns of a table."""
    found = re.fullmatch(r"\s*(.+?)\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*", text, re.DOTALL)
    if found is None:
        raise DataError(f"--positive {text!r:.80} is no condition: {EXAMPLE}")
    column, sign, value = found.groups()
    if column not in table.columns:
        raise DataError(
            f"{table.name}: {unknown('column of --positive', column, table.columns[:200])}"
        )
    other = value in table.columns
    if not other and _number(value) is None and sign not in ("==", "!="):
        raise DataError(
            f"--positive {text!r:.80} compares by size with a text: give a number or a column"
        )
    return Condition(column, sign, value.strip("'\""), other)


def _number(text: str) -> float | None:
    """Returns a number, also true and false; None for other texts."""
    words = {"true": 1.0, "false": 0.0}
    try:
        found = words.get(text.strip().lower())
        found = float(text) if found is None else found
    except ValueError:
        return None
    return found if np.isfinite(found) else None
