"""Defines the output of readers: raw log, modalities and titles, in the user's own ids."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class RawLog:
    """Represents the rows of a log, one a view, in file order, with duplicates.

    In row e, user `user_ids[user[e]]` watched `item_ids[item[e]]`.

    Attributes:
        user, item: (E,) int64; codes into the id arrays.
        user_ids, item_ids: (U,), (I,) text; every distinct id once, in order of first appearance
            (ids are text everywhere, "7" and "007" differ).
        rating: (E,) float64 or None
        time: (E,) int64 or None; any unit; only the order counts, and it is exact. Where a file
            gives an order but no times (MicroLens pairs), the position within the user's list.
            Fractions that differ by less than a microsecond: the rank among all times.
        split: (E,) int8 or None; 0 train, 1 valid, 2 test, where the file carries a split.
        rows_read: int; data rows found in the files, including those dropped.
        dropped: reason -> number of rows the reader left out; rows_read = E + sum of these.
        files: the paths read.
        kind: the format recognised, in words ("MMRec .inter", "CSV", …).
        notes: what is odd about the file, though not wrong; for the report.
        evidence: why the files were taken for this format, for the report.
    """

    user: np.ndarray
    item: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    rating: np.ndarray | None = None
    time: np.ndarray | None = None
    split: np.ndarray | None = None
    rows_read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    kind: str = ""
    notes: tuple[str, ...] = ()
    evidence: str = ""


@dataclass(frozen=True, eq=False)
class RawModality:
    """Represents features of some items, by item id.

    Attributes:
        ids: (n,) text, each once
        values: (n, F) float32
        present: (n,) bool; False where the row was empty or NaN: *missing*, never zero.
        file: where it came from, for messages.
        notes: what is odd about it, though not wrong; for the report.
    """

    ids: np.ndarray
    values: np.ndarray
    present: np.ndarray
    file: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RawInput:
    """Bundles the input of one preprocess call.

    Log, modalities by name, titles by item id (may be empty), notes on titles.
    """

    log: RawLog
    modalities: dict[str, RawModality] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    name: str = ""
    notes: tuple[str, ...] = ()
