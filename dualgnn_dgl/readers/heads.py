"""Reads the first lines of text files, from which a format is recognised."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dualgnn_dgl.core.inputs import refuse_special
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import streams
from dualgnn_dgl.readers.columns import known_roles
from dualgnn_dgl.readers.damage import empty, encoding_error, explained
from dualgnn_dgl.readers.opened import stem, suffix

# Bytes read of a file to recognise it; more where its first line is longer, up to a block.
HEAD = 1 << 16
MOST_LINES = 256
LATIN = (".dat", ".data")  # MovieLens' files are in UTF-8 or Latin-1
# Separators to look for in the first line, by suffix; the first one found there wins.
SEPARATORS = {
    ".csv": (",", "\t", ";", "|"),
    ".dat": ("::", "\t", ",", ";", "|", " "),
    ".data": ("\t", "::", ",", ";", "|", " "),
}
OTHER_SEPARATORS = ("\t", "::", ",", ";", "|", " ")


@dataclass(frozen=True)
class Head:
    """Represents the first lines of a text file.

    Attributes:
        path: the file.
        lines: its first lines (at most 256) that are not blank, without their ends.
        blank: blank lines before the first of these.
        wanted: the separator that the user named, if any.
        columns: the columns of users and items that the user named, if any.
        layout: the layout that the user named, if any.
        beside: the other files of the same log.
    """

    path: Path
    lines: list[str]
    blank: int = 0
    wanted: str | None = None
    columns: tuple[str, ...] = ()
    layout: str | None = None
    beside: tuple[Head, ...] = ()

    @property
    def separator(self) -> str:
        """Returns the separator: the one named, else the first usual one of the first line."""
        usual = SEPARATORS.get(suffix(self.path), OTHER_SEPARATORS)
        return self.wanted or next((mark for mark in usual if mark in self.lines[0]), ",")

    def fields(self, line: str | None = None) -> list[str]:
        """Returns the fields of a line, by default of the first."""
        return split_line(self.lines[0] if line is None else line, self.separator)

    @property
    def has_header(self) -> bool:
        """Returns whether the first line names the column of users or of items."""
        if self.layout is not None:
            return self.layout == "table"
        return bool(self.columns) or bool(known_roles(self.fields()) & {"user", "item"})


def read_head(path: Path, wanted: str | None = None, columns: Iterable[str] = ()) -> Head:
    """Reads the first lines of a text file.

    Raises:
        DataError: if the file is missing, empty, binary or not text in UTF-8 (or, for `.dat` and
            `.data`, Latin-1), or if its first line is longer than a block.
    """
    refuse_special(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: check the path")
    if path.is_dir():
        raise DataError(f"{path} is a folder: give a file here")
    start, ended = first_bytes(path)
    if not start.strip():
        raise empty(path)
    if start[:4] == b"PAR1":
        raise DataError(
            f"{path} is a Parquet file by another name: rename it to {stem(path)}.parquet"
        )
    if b"\0" in start:
        raise DataError(
            f"{path} is not a text table (a NUL byte at position {start.index(0)}): is it binary, "
            f"or text in UTF-16?"
        )
    start = start.removeprefix(codecs.BOM_UTF8)
    decoder = codecs.getincrementaldecoder("utf-8")(
        "replace" if suffix(path) in LATIN else "strict"
    )
    try:
        lines = io.StringIO(decoder.decode(start), newline=None).read().split("\n")
    except UnicodeDecodeError:
        raise encoding_error(path) from None
    # The last line may be cut by the end of the bytes.
    lines = [line for line in (lines if ended else lines[:-1]) if line.strip()]
    if not lines and not ended:
        raise DataError(
            f"{path} has a first line longer than {streams.BLOCK >> 20} MB: is it a table, with "
            f"one row a line?"
        )
    if not lines:
        raise empty(path)
    # Arrow counts the blank lines when it skips the header.
    blank = len(re.findall(rb"\r\n|\r|\n", start[: len(start) - len(start.lstrip())]))
    return Head(path, lines[:MOST_LINES], blank, wanted, tuple(columns))


def first_bytes(path: Path) -> tuple[bytes, bool]:
    """Returns the first bytes of a text file, and whether that is the whole file.

    They contain its first line that is not blank.
    """
    with explained(path, "readable table"), streams.open_stream(path) as stream:
        start = streams.read_fully(stream, HEAD)
        wanted = HEAD
        while len(start) == wanted < streams.BLOCK and not _has_line(start) and b"\0" not in start:
            more = streams.read_fully(stream, min(3 * wanted, streams.BLOCK - wanted))
            start, wanted = start + more, min(4 * wanted, streams.BLOCK)
        return start, len(start) < wanted or not stream.read(1)


def _has_line(start: bytes) -> bool:
    """Returns whether a line that is not blank ends within these bytes."""
    content = start.lstrip()
    return b"\n" in content or b"\r" in content


def split_line(line: str, separator: str) -> list[str]:
    """Returns the fields of one line; quotes count where the separator is one character."""
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [""])
    except csv.Error:  # a field longer than any name or id
        return line.split(separator)
