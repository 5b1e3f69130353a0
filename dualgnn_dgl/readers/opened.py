"""An opened table: where it is, its columns, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dualgnn_dgl.readers.read_stream import COMPRESSED


@dataclass(frozen=True)
class Table:
    """An opened table: where it is, its columns, and (text only) how it is written."""

    path: Path
    columns: tuple[str, ...]
    separator: str | None = None  # None: Parquet
    header: bool = True
    encoding: str = "utf-8"
    blank: int = 0  # lines before the first that is not blank

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name


def suffix(path: Path) -> str:
    """The suffix that says the format, below that of a compression: `.csv` of `log.csv.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()


def stem(path: Path) -> str:
    """The name without suffixes: `log` of `log.csv.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.stem
