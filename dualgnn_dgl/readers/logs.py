"""Reads logs of views: rows of any opened table become a `RawLog`.

`formats` opens the files; here the columns are found, converted and joined, batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dualgnn_dgl.data.raw import RawLog
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import positives, times, values
from dualgnn_dgl.readers.columns import Columns, find_column, need_column, shown
from dualgnn_dgl.readers.epochs import one_clock
from dualgnn_dgl.readers.formats import open_log
from dualgnn_dgl.readers.lists import position_within
from dualgnn_dgl.readers.opened import OpenedFile
from dualgnn_dgl.readers.positives import Positives

Progress = Callable[[str], None] | None
Part = tuple[Path, int | None]  # a file and the split it has, if the files are one per split
STEP = 5_000_000  # rows between two messages of progress


def read_log(
    parts: Sequence[Part], columns: Columns | None = None, progress: Progress = None
) -> RawLog:
    """Reads a log from one file, or from several that hold one split each.

    For a log of any size, only codes and numbers stay in memory.

    Raises:
        DataError: if a file is missing, empty, damaged or of no known format, if a needed column is
            not found, or if no row is usable.
    """
    columns = columns or Columns()
    tables, _ = open_log([path for path, _ in parts], columns)
    rows = _Rows(tables[0], unused=columns.unused)
    for table, (_, part) in zip(tables, parts, strict=True):
        rows.add_table(table, columns, part, progress)
    return rows.log(tables)


@dataclass
class _Rows:
    """Collects the usable rows of all files.

    Attributes:
        first: the first file, named in messages.
        roles: role -> column of the file under way.
        kept: role -> converted batches.
        dropped: reason -> number of rows.
        samples: role -> a value that could not be read.
        notes: remarks for the report.
        unused: roles that no later step looks at.
        read: rows read.
        unit: unit of the times of the first file that has one.
        clocks: unit of each batch of times.
    """

    first: OpenedFile
    roles: dict[str, str] = field(default_factory=dict)
    kept: dict[str, list[Any]] = field(
        default_factory=lambda: {role: [] for role in ("user", "item", "rating", "time", "split")}
    )
    dropped: dict[str, int] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unused: tuple[str, ...] = ()
    read: int = 0
    unit: str | None = None
    clocks: list[str | None] = field(default_factory=list)

    def add_table(
        self, table: OpenedFile, columns: Columns, part: int | None, progress: Progress
    ) -> None:
        """Reads one file; `part` is the split it has, if any."""
        found = _roles(table, columns, part is not None)
        wanted = positives.find(table, columns.positive)
        needed = list(dict.fromkeys([*found.values(), *wanted.columns]))
        if self.roles and found.keys() != self.roles.keys():
            raise DataError(
                f"{table.name} has other columns than {self.first.name}: give all splits with the "
                f"same columns"
            )
        self.roles, rows, dates, clock = found, 0, None, None
        if progress:
            progress(f"reading {table.name}")
        for arrays in table.batches(needed, self.notes):
            read = dict(zip(needed, arrays, strict=True))
            batch = {role: read[name] for role, name in found.items()}
            if dates is None and "time" in batch:
                dates = times.holds_dates(batch["time"])
                clock = times.clock(batch["time"], dates)
                self._check_unit(clock, table.name)
            if "time" in batch:
                self.clocks.append(clock)
            self._add_batch(batch, table.name, bool(dates), rows, (wanted, read))
            if part is not None:
                self.kept["split"].append(
                    np.full(len(self.kept["user"][-1][0]), part, dtype=np.int8)
                )
            rows += len(arrays[0])
            if progress and rows // STEP > (rows - len(arrays[0])) // STEP:
                progress(f"reading {table.name}: {rows:,} rows")
        if not rows and table.row_per_line:
            raise DataError(f"{table.path} holds no rows: give the log itself")
        self.read += rows
        if wanted.chosen:
            self.notes += [wanted.note] if wanted.note not in self.notes else []

    def _check_unit(self, unit: str | None, name: str) -> None:
        """Refuses files with times in several units, unless dates meet plain numbers."""
        units = {self.unit, unit} - {None}
        if len(units) > 1 and units != {"microseconds", "plain numbers"}:
            raise DataError(
                f"{name} gives times in {unit}, but {self.first.name} in {self.unit}: give all "
                "splits in one"
            )
        self.unit = self.unit or unit

    def _add_batch(
        self,
        batch: dict[str, pa.Array],
        file: str,
        dates: bool,
        start: int,
        wanted: tuple[Positives, dict[str, pa.Array]],
    ) -> None:
        """Converts one batch and keeps the usable rows.

        Every other row counts once in `dropped`, under its first fault.
        """
        converted, faults = self._converted(batch, file, dates, start)
        conditions, read = wanted
        if conditions.conditions:
            faults.append(("positive", f"no positive ({conditions})", ~conditions.of(read)))
        good = np.ones(len(batch["user"]), dtype=bool)
        for role, reason, rows in faults:
            rows = rows & good
            if rows.any():
                self.dropped[reason] = self.dropped.get(reason, 0) + int(rows.sum())
                sample = batch[role] if role in batch else read[conditions.columns[0]]
                self.samples.setdefault(role, shown(sample[int(np.argmax(rows))]))
                good &= ~rows
        whole = bool(good.all())
        for role, column in converted.items():
            if whole:
                self.kept[role].append(column)
            elif role in ("user", "item"):
                # Encoded again without the dropped rows, so that none of their ids remains.
                kept = batch[role].filter(pa.array(good))
                self.kept[role].append(values.encode(kept, file, start))
            else:
                self.kept[role].append(column[good])

    def _converted(
        self, batch: dict[str, pa.Array], file: str, dates: bool, start: int
    ) -> tuple[dict[str, Any], list[tuple[str, str, np.ndarray]]]:
        """Returns the columns by role, and faults as (role, reason, rows (n,) bool)."""
        found: dict[str, Any] = {}
        faults: list[tuple[str, str, np.ndarray]] = []
        for role in ("user", "item"):
            where = f"{file}, column {self.roles[role]}"
            codes, texts = found[role] = values.encode(batch[role], where, start)
            blank, null = values.blank(texts), values.null_words(texts)
            if blank.any():
                faults.append((role, f"{role} id empty", blank[codes]))
            if null.any():
                faults.append((role, f"{role} id is a word for missing (NULL, NaN)", null[codes]))
        faults += self._headers(found)
        if "rating" in batch:
            found["rating"], unread, beyond = values.ratings(batch["rating"])
            if "rating" in self.unused:
                found["rating"][unread | beyond] = np.nan
            else:
                faults += [
                    ("rating", "rating not a number", unread),
                    ("rating", "rating beyond a float's whole numbers", beyond),
                ]
        if "time" in batch:
            found["time"], unread, beyond = times.times(batch["time"], dates)
            faults += [
                ("time", "time not readable", unread),
                ("time", "time beyond 64 bits", beyond),
            ]
        if "split" in batch:
            where = f"{file}, column {self.roles['split']}"
            found["split"] = values.splits(batch["split"], where, start)
        return found, faults

    def _headers(self, found: dict[str, Any]) -> list[tuple[str, str, np.ndarray]]:
        """Returns the fault of rows that repeat the header, as joined files have them."""
        names = [self.roles["user"], self.roles["item"]]
        same = [
            values.equal(found[role][1], name)
            for role, name in zip(("user", "item"), names, strict=True)
        ]
        if not all(one.any() for one in same):
            return []
        repeated = same[0][found["user"][0]] & same[1][found["item"][0]]
        return [("user", "repeated header", repeated)] if repeated.any() else []

    def log(self, tables: Sequence[OpenedFile]) -> RawLog:
        """Joins the batches of all files."""
        if not sum(len(codes) for codes, _ in self.kept["user"]):
            raise self._nothing_left(tables)
        user, user_ids = values.unify(self.kept["user"])
        item, item_ids = values.unify(self.kept["item"])
        time = position_within(user) if self.first.ordered else None
        if "time" in self.roles:
            where = f"{self.first.name}, column {self.roles['time']},"
            parts, converted = one_clock(self.kept["time"], self.clocks, where.rstrip(","))
            if converted:
                self.notes.append(
                    "times are dates in some files and numbers in others: all were converted to "
                    "microseconds since 1970"
                )
            time = times.join_times(parts, where)
        return RawLog(
            user=user,
            item=item,
            user_ids=user_ids,
            item_ids=item_ids,
            rating=np.concatenate(self.kept["rating"]) if "rating" in self.roles else None,
            time=time,
            split=np.concatenate(self.kept["split"]) if self.kept["split"] else None,
            rows_read=self.read,
            dropped=self.dropped,
            files=tuple(str(table.path) for table in tables),
            kind=self.first.kind,
            notes=tuple(self.notes),
            evidence=self.first.why,
        )

    def _nothing_left(self, tables: Sequence[OpenedFile]) -> DataError:
        """Returns the error for a log without a usable row."""
        if not self.first.row_per_line and not self.read:
            names = ", ".join(table.name for table in tables)
            return DataError(
                f"{names} holds no interactions: each line must be a user and that user's items, "
                f"separated by blanks"
            )
        reasons = ", ".join(f"{reason}: {count}" for reason, count in self.dropped.items())
        role = next(
            (r for r in ("time", "rating", "item", "user", "positive") if r in self.samples), "user"
        )
        remedy = {
            "time": "write times as numbers or as 2026-01-31 12:00:00, or leave them out with "
            "--time-col ''",
            "rating": "name the column of the ratings with --rating-col, or leave them out with "
            "--rating-col ''",
            "positive": "name another condition with --positive, or take every row with "
            "--positive ''",
        }.get(role, f"name the column with --{role}-col")
        return DataError(
            f"none of the {self.read} rows of {self.first.name} is usable ({reasons}; "
            f"{self.roles.get(role, role)} holds '{self.samples.get(role, '')[:40]}'): {remedy}"
        )


def _roles(table: OpenedFile, columns: Columns, given: bool) -> dict[str, str]:
    """Returns role -> column: user and item always, rating, time and split where they are."""
    roles = {
        "user": need_column(table, "user", columns.user),
        "item": need_column(table, "item", columns.item),
    }
    if roles["user"] == roles["item"]:
        raise DataError(
            f"{table.name}: the column {roles['user']} cannot be both user and item: name them "
            f"with --user-col and --item-col"
        )
    for role in ("rating", "time", "split"):
        wanted = getattr(columns, role)
        if wanted == "" or (role == "split" and given):
            continue
        if role == "time" and wanted is None and "time" in columns.unused:
            continue
        found = find_column(table, role, wanted)
        if found is not None:
            roles[role] = found
    lists = next((name for name in roles.values() if name.endswith("_seq")), None)
    if lists is not None and ":" in lists:
        raise DataError(
            f"{table.name}: the column {lists} holds lists, one value a row is needed: write one "
            "row for each user and item"
        )
    return roles
