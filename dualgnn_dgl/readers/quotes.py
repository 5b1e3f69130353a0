"""Finds quotation marks that swallow lines: one that never closes, or two stray ones.

Arrow reads the text between two marks as one field, with its line ends, as it must for text of
several lines. Two stray marks in a column that is not read therefore hide the rows between them
without a warning.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import streams

NEWLINE, RETURN = ord("\n"), ord("\r")


class Quoted(Protocol):
    """Describes what is needed of a text table here."""

    @property
    def path(self) -> Path:
        """Returns the file."""

    @property
    def name(self) -> str:
        """Returns its name."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns the names of the columns."""

    @property
    def separator(self) -> str:
        """Returns what divides fields."""

    @property
    def header(self) -> bool:
        """Returns whether the first line names the columns."""

    @property
    def encoding(self) -> str:
        """Returns the encoding of the text."""


def check_quotes(table: Quoted, rows: int, columns: Sequence[str]) -> str:
    """Compares the rows that were read with the lines of the file.

    Only a file with quotation marks is read again.

    Args:
        rows: how many Arrow read.
        columns: the names of the columns that were read; the first two hold ids.

    Returns:
        A note for the report where rows span several lines, else ''.

    Raises:
        DataError: for a mark that never closes, and where a line within a field looks like a row
            itself.
    """
    marks = sum(chunk.count(b'"') for chunk in _chunks(table))
    if marks % 2:
        _refuse_unclosed(table)
    return _spanning(table, columns) if marks and _filled_lines(table) - table.header > rows else ""


def _refuse_unclosed(table: Quoted) -> None:
    """Refuses a mark that never closes: all lines behind it are one field."""
    number = 1
    with _text(table) as lines:
        reader = csv.reader(lines, delimiter=table.separator, strict=True)
        try:
            for _ in reader:
                number = reader.line_num + 1
        except csv.Error as error:
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise _never_closes(table, number) from None
            # else a mark within a field: nothing is lost by it, unless lines are, and they are
            # counted


def _never_closes(table: Quoted, number: int) -> DataError:
    return DataError(
        f"{table.name}, line {number}, opens a quotation mark that never closes: fix the line"
    )


def _spanning(table: Quoted, columns: Sequence[str]) -> str:
    """Returns a note on the rows that span several lines.

    Raises:
        DataError: if one of those lines looks like a row itself.
    """
    places = [table.columns.index(name) for name in columns[:2]]
    first, spanning, number = 0, 0, 1
    with _text(table) as lines:
        seen: list[str] = []  # the lines of the row under way
        reader = csv.reader(_kept(lines, seen), delimiter=table.separator)
        try:
            for _ in reader:
                hidden = next(
                    (at for at, line in enumerate(seen[1:], 1) if _is_row(line, table, places)), 0
                )
                if hidden:
                    raise DataError(
                        f"{table.name}, line {number}, opens a quotation mark that closes in a "
                        f"later line, and line "
                        f"{number + hidden} in between looks like a row: take stray marks out, or "
                        f"double them in quoted text"
                    )
                if len(seen) > 1:
                    first, spanning = first or number, spanning + 1
                seen.clear()
                number = reader.line_num + 1
        except csv.Error:  # a field larger than any text
            raise _never_closes(table, number) from None
    if not spanning:
        return ""
    return (
        f"{table.name}: {spanning:,} rows span several lines, the first from line {first} on: "
        f"check the quotation marks there"
    )


def _text(table: Quoted) -> io.TextIOWrapper:
    """Returns the file as text; bytes that are not are replaced.

    Only lines, marks and ids matter here.
    """
    return io.TextIOWrapper(streams.open_stream(table.path), table.encoding, "replace", newline="")


def _chunks(table: Quoted) -> Iterator[bytes]:
    with streams.open_stream(table.path) as stream:
        yield from iter(lambda: stream.read(streams.BLOCK), b"")


def _filled_lines(table: Quoted) -> int:
    """Returns how many lines are not empty."""
    count, before = 0, False
    for chunk in _chunks(table):
        text = np.frombuffer(chunk, dtype=np.uint8)
        filled = (text != NEWLINE) & (text != RETURN)
        count += int(np.count_nonzero(filled[1:] & ~filled[:-1])) + int(filled[0] and not before)
        before = bool(filled[-1])
    return count


def _kept(lines: Iterator[str], seen: list[str]) -> Iterator[str]:
    """Yields lines and keeps a copy of each."""
    for line in lines:
        seen.append(line)
        yield line


def _is_row(line: str, table: Quoted, places: Sequence[int]) -> bool:
    """Returns whether a line by itself has all fields of a row, with ids where ids belong.

    Text of several words seldom has.
    """
    separator, line = table.separator, line.rstrip("\r\n")
    for fields in (line.split(separator), next(csv.reader([line], delimiter=separator), [])):
        if len(fields) == len(table.columns) and all(
            re.fullmatch(r"[^\s\"]+", fields[place]) for place in places
        ):
            return True
    return False
