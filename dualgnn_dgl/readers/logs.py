"""Logs of who watched what, in every format that people have.

To add a format, add a line to `KINDS`.

A kind says by a file's name and first lines whether the file is of it, and reads one file, or
several that hold one split each, into a `RawLog`. Kinds are asked in order and the first that says
yes reads the log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dualgnn_dgl.core.arrays import refuse_foreign
from dualgnn_dgl.data.raw import RawLog
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import read_times
from dualgnn_dgl.readers import read_values as values
from dualgnn_dgl.readers.opened import Table, stem, suffix
from dualgnn_dgl.readers.read_adjacency import read_lists
from dualgnn_dgl.readers.read_columns import NAMES, find_column, need_column, plain
from dualgnn_dgl.readers.read_table import (
    TEXT,
    batches,
    head,
    open_table,
    sniff_separator,
    split_line,
)

SPLIT_FILES = {"train": 0, "training": 0, "valid": 1, "val": 1, "validation": 1, "test": 2}
DAT_COLUMNS = ("user", "item", "rating", "timestamp")  # of MovieLens' files without a header
Progress = Callable[[str], None] | None
Part = tuple[Path, int | None]  # a file and the split it holds, if the files are one per split


@dataclass(frozen=True)
class Columns:
    """The columns the user named: None is found by common names, "" (rating, time, split) is left
    unread.
    """

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    split: str | None = None
    separator: str | None = None


@dataclass(frozen=True)
class Kind:
    """A format of logs."""

    name: str
    # (file, its first lines ([] for Parquet), what the user named)
    recognises: Callable[[Path, list[str], Columns], bool]
    read: Callable[[Sequence[Part], Columns, str, Progress], RawLog]
    read_header: bool = True  # the columns are named in the file


def read_log(
    parts: Sequence[Part], columns: Columns | None = None, progress: Progress = None
) -> RawLog:
    """Read a log from one file, or from several that hold one split each.

    Raises
    ------
    DataError
        if a file is missing, empty, damaged or of no known kind, if a needed column is not found,
        or if no row is usable.
    """
    columns = columns or Columns()
    kind = kind_of(parts[0][0], columns)
    for path, _ in parts[1:]:
        if kind_of(path, columns) is not kind:
            raise DataError(
                f"{path.name} is {kind_of(path, columns).name}, but {parts[0][0].name} is "
                f"{kind.name}: "
                "give all splits in one format"
            )
    return kind.read(parts, columns, kind.name, progress)


def kind_of(path: Path, columns: Columns) -> Kind:
    """The first kind of `KINDS` that recognises the file."""
    refuse_foreign(path)
    if suffix(path) != ".parquet" and suffix(path) not in TEXT and path.exists():
        raise DataError(
            f"{path} has the suffix {suffix(path)}, which no reader knows: "
            f"give the log as .parquet or as text ({' '.join(filter(None, TEXT))})"
        )
    if not path.exists():
        raise DataError(f"{path} does not exist: check --input")
    lines = [] if suffix(path) == ".parquet" else head(path)
    return next(kind for kind in KINDS if kind.recognises(path, lines, columns))


# --- how a kind is recognised -------------------------------------------------------------------


def _is_parquet(path: Path, lines: list[str], columns: Columns) -> bool:
    return suffix(path) == ".parquet"


def _is_recbole(path: Path, lines: list[str], columns: Columns) -> bool:
    return bool(re.search(r":(token|float)(_seq)?(\t|,|$)", lines[0]))


def _is_mmrec(path: Path, lines: list[str], columns: Columns) -> bool:
    return suffix(path) == ".inter" and "x_label" in lines[0]


def _is_pairs(path: Path, lines: list[str], columns: Columns) -> bool:
    one_tab = all(line.count("\t") == 1 and line.split("\t")[0].strip() for line in lines)
    spaced = any(" " in line.split("\t")[-1].strip() for line in lines)
    return (
        one_tab
        and (spaced or stem(path).lower().endswith("pairs"))
        and not _has_header(path, lines, columns)
    )


def _is_adjacency(path: Path, lines: list[str], columns: Columns) -> bool:
    bare = suffix(path) in (".txt", "") and not any(
        mark in lines[0] for mark in (",", ";", "::", "|")
    )
    return bare and split_of(path) is not None and not _has_header(path, lines, columns)


def _is_movielens(path: Path, lines: list[str], columns: Columns) -> bool:
    separator = columns.separator or sniff_separator(path, lines[0])
    fields = split_line(lines[0], separator)
    return (
        suffix(path) in (".dat", ".data")
        and 2 <= len(fields) <= 4
        and not _has_header(path, lines, columns)
    )


def _is_text(path: Path, lines: list[str], columns: Columns) -> bool:
    return True


def _has_header(path: Path, lines: list[str], columns: Columns) -> bool:
    """Whether the first line names the user's or the item's column."""
    if columns.user or columns.item:
        return True
    fields = {
        plain(field)
        for field in split_line(lines[0], columns.separator or sniff_separator(path, lines[0]))
    }
    return bool(fields & {*NAMES["user"], *NAMES["item"]})


def split_of(path: Path) -> int | None:
    """The split a file's name says it holds: `train.txt`, `ml-1m.valid.inter`,
    `clicks_test.csv`.
    """
    return SPLIT_FILES.get(re.split(r"[._-]", stem(path).lower())[-1])


# --- how a kind is read -------------------------------------------------------------------------


def _read_pairs(parts: Sequence[Part], columns: Columns, name: str, progress: Progress) -> RawLog:
    return read_lists(parts, True, name, progress)


def _read_adjacency(
    parts: Sequence[Part], columns: Columns, name: str, progress: Progress
) -> RawLog:
    return read_lists(parts, False, name, progress)


def _read_movielens(
    parts: Sequence[Part], columns: Columns, name: str, progress: Progress
) -> RawLog:
    return _read_columns(parts, columns, name, progress, DAT_COLUMNS)


def _read_table(parts: Sequence[Part], columns: Columns, name: str, progress: Progress) -> RawLog:
    return _read_columns(parts, columns, name, progress, None)


def _roles(table: Table, columns: Columns, given: bool) -> dict[str, str]:
    """role -> column: user and item always, rating, time and split where they are."""
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
        found = (
            None
            if wanted == "" or (role == "split" and given)
            else find_column(table, role, wanted)
        )
        if found is not None:
            roles[role] = found
    return roles


def _read_columns(
    parts: Sequence[Part],
    columns: Columns,
    name: str,
    progress: Progress,
    header: Sequence[str] | None,
) -> RawLog:
    """Read tables with one row a watched video, batch by batch.

    Whatever the size, only codes and numbers stay in memory.
    """
    kept: dict[str, list[Any]] = {role: [] for role in ("user", "item", "rating", "time", "split")}
    dropped: dict[str, int] = {}
    samples: dict[str, str] = {}  # role -> an unreadable value, for the message
    roles: dict[str, str] = {}
    notes: list[str] = []
    rows_read, unit = 0, None
    for path, part in parts:
        table = open_table(path, columns.separator, header)
        found = _roles(table, columns, part is not None)
        if roles and found.keys() != roles.keys():
            raise DataError(
                f"{path.name} has other columns than {parts[0][0].name}: give all splits with the "
                f"same columns"
            )
        roles, rows, dates = found, 0, None
        if progress:
            progress(f"reading {path.name}")
        for arrays in batches(table, list(roles.values()), notes):
            batch = dict(zip(roles, arrays, strict=True))
            if dates is None and "time" in batch:
                dates = read_times.holds_dates(batch["time"])
                unit = _same_unit(
                    unit, read_times.clock(batch["time"], dates), path.name, parts[0][0].name
                )
            _add_batch(batch, roles, table.name, bool(dates), rows, kept, dropped, samples)
            if part is not None:
                kept["split"].append(np.full(len(kept["user"][-1][0]), part, dtype=np.int8))
            rows += len(arrays[0])
            if progress and rows // 5_000_000 > (rows - len(arrays[0])) // 5_000_000:
                progress(f"reading {path.name}: {rows:,} rows")
        if not rows:
            raise DataError(f"{path} holds no rows: give the log itself")
        rows_read += rows
    total = sum(len(codes) for codes, _ in kept["user"])
    if not total:
        raise _nothing_left(parts[0][0].name, roles, rows_read, dropped, samples)
    user, user_ids = values.unify(kept["user"])
    item, item_ids = values.unify(kept["item"])
    return RawLog(
        user=user,
        item=item,
        user_ids=user_ids,
        item_ids=item_ids,
        rating=np.concatenate(kept["rating"]) if "rating" in roles else None,
        time=read_times.join_times(kept["time"], f"{parts[0][0].name}, column {roles['time']},")
        if "time" in roles
        else None,
        split=np.concatenate(kept["split"]) if kept["split"] else None,
        rows_read=rows_read,
        dropped=dropped,
        files=tuple(str(path) for path, _ in parts),
        kind=name,
        notes=tuple(notes),
    )


def _add_batch(
    batch: dict[str, pa.Array],
    roles: dict[str, str],
    file: str,
    dates: bool,
    start: int,
    kept: dict[str, list[Any]],
    dropped: dict[str, int],
    samples: dict[str, str],
) -> None:
    """Convert one batch and append to `kept` what is usable.

    Every other row counts once in `dropped`, under its first fault.
    """
    size = len(batch["user"])
    good = np.ones(size, dtype=bool)
    found: dict[str, np.ndarray | tuple[np.ndarray, pa.Array]] = {}
    faults: list[tuple[str, str, np.ndarray]] = []  # (role, reason, rows (n,) bool)
    for role in ("user", "item"):
        codes, texts = found[role] = values.encode(
            batch[role], f"{file}, column {roles[role]}", start
        )
        blank = values.blank(texts)
        faults.append(
            (role, f"{role} id empty", blank[codes] if blank.any() else np.zeros(size, dtype=bool))
        )
    if "rating" in batch:
        found["rating"], unread, beyond = values.ratings(batch["rating"])
        faults += [
            ("rating", "rating not a number", unread),
            ("rating", "rating beyond a float's whole numbers", beyond),
        ]
    if "time" in batch:
        found["time"], unread, beyond = read_times.times(batch["time"], dates)
        faults += [("time", "time not readable", unread), ("time", "time beyond 64 bits", beyond)]
    if "split" in batch:
        found["split"] = values.splits(batch["split"], f"{file}, column {roles['split']}", start)
    for role, reason, rows in faults:
        rows = rows & good
        if rows.any():
            dropped[reason] = dropped.get(reason, 0) + int(rows.sum())
            samples.setdefault(role, _shown(batch[role][int(np.argmax(rows))]))
            good &= ~rows
    whole = bool(good.all())
    for role in found:
        if role in ("user", "item"):
            # encoded once more without the dropped rows, so that no id of theirs stays behind
            again = (
                found[role]
                if whole
                else values.encode(batch[role].filter(pa.array(good)), file, start)
            )
            kept[role].append(again)
        else:
            kept[role].append(found[role] if whole else found[role][good])


def _same_unit(unit: str | None, found: str | None, name: str, first: str) -> str | None:
    """The unit of the times; one log has one, or its files' times would be compared across
    units.
    """
    if unit is not None and found is not None and found != unit:
        raise DataError(
            f"{name} gives times in {found}, but {first} in {unit}: give all splits in one"
        )
    return unit or found


def _shown(value: pa.Scalar) -> str:
    """A value as text, also one that Python has no type for (a year beyond 9999)."""
    try:
        return str(value.as_py() if value.is_valid else "")
    except (ValueError, OverflowError, pa.ArrowException):
        return str(value)


def _nothing_left(
    name: str, roles: dict[str, str], rows: int, dropped: dict[str, int], samples: dict[str, str]
) -> DataError:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
    role = next((role for role in ("time", "rating", "item", "user") if role in samples), "user")
    remedy = {
        "time": "write times as numbers or as 2026-01-31 12:00:00, or leave them out with "
        "--time-col ''",
        "rating": "name the column of the ratings with --rating-col, or leave them out with "
        "--rating-col ''",
    }.get(role, f"name the column with --{role}-col")
    return DataError(
        f"none of the {rows} rows of {name} is usable ({reasons}; {roles[role]} holds "
        f"'{samples.get(role, '')[:40]}'): {remedy}"
    )


KINDS: tuple[Kind, ...] = (
    Kind("Parquet", _is_parquet, _read_table),
    Kind("RecBole atomic file", _is_recbole, _read_table),
    Kind("MMRec .inter", _is_mmrec, _read_table),
    Kind("MicroLens pairs", _is_pairs, _read_pairs, read_header=False),
    Kind("LightGCN adjacency lists", _is_adjacency, _read_adjacency, read_header=False),
    Kind("MovieLens without a header", _is_movielens, _read_movielens, read_header=False),
    Kind("CSV or TSV", _is_text, _read_table),
)
