"""Defines an opened table: its columns, and how to read them in any file format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from dualgnn_dgl.readers.streams import COMPRESSED


@dataclass(frozen=True)
class OpenedFile:
    """Represents one opened file; each format is a subclass.

    Attributes:
        path: the file.
        columns: names of the columns, in file order.
        kind: the format in words, for the report and for messages.
        why: the evidence for the format, for the report.
        typed: the columns have types of their own; else every value is text.
        row_per_line: a file without rows is a mistake.
    """

    path: Path
    columns: tuple[str, ...]
    kind: str = ""
    why: str = ""
    typed: ClassVar[bool] = True
    row_per_line: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Returns the file's name, for messages."""
        return self.path.name

    @property
    def ordered(self) -> bool:
        """Returns whether the rows of a user are in time order."""
        return False

    def batches(
        self, columns: Sequence[str], notes: list[str] | None = None
    ) -> Iterator[list[pa.Array]]:
        """Reads the named columns batch by batch, in file order.

        Args:
            columns: names of columns; the first two hold ids.
            notes: receives remarks on a file that is odd, though not wrong.

        Raises:
            DataError: if the file is damaged.
        """
        raise NotImplementedError

    def types(self) -> dict[str, pa.DataType]:
        """Returns the type of every column; for text, as the first rows suggest.

        Raises:
            DataError: if a name occurs twice.
        """
        raise NotImplementedError

    def read(self, id_name: str, names: Sequence[str]) -> pa.Table:
        """Reads the column of ids and the columns of features, whole.

        Raises:
            DataError: if a feature is not a number, or the file is damaged.
        """
        raise NotImplementedError

    def headless(self) -> bool:
        """Returns whether the header looks like a row of data."""
        return False


def suffix(path: Path) -> str:
    """Returns the suffix that names the format, below one of a compression.

    >>> suffix(Path("log.csv.gz"))
    '.csv'
    """
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()


def stem(path: Path) -> str:
    """Returns the name without suffixes.

    >>> stem(Path("log.csv.gz"))
    'log'
    """
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.stem
