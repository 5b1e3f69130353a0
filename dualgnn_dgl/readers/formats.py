"""Lists the containers of tables, and opens files: one function and one line for each format.

`CONTAINERS` says by the suffix how a file is opened. Text has dialects, see `dialects`. No other
module of `readers` looks at a suffix or guesses a separator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dualgnn_dgl.core.arrays import refuse_foreign
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.columns import Columns
from dualgnn_dgl.readers.dialects import ITEMS, LOGS
from dualgnn_dgl.readers.heads import first_bytes, read_head
from dualgnn_dgl.readers.jsonlines import open_json_lines
from dualgnn_dgl.readers.opened import OpenedFile, suffix
from dualgnn_dgl.readers.parquet import open_parquet
from dualgnn_dgl.readers.text import open_text


@dataclass(frozen=True)
class Container:
    """Represents how files of some suffixes are opened.

    Attributes:
        name: for messages.
        suffixes: in lower case, below that of a compression.
        opener: opens the file; None for text, which a dialect opens.
        features: in a folder, such a file may be a feature table.
        role: "log" or "items" where the suffix alone says so.
        begins: bytes that such a file begins with, to recognise it without a suffix.
        example: the pairs (1, 11), (1, 12) and (2, 11) as such a file, for the tests; '' if it is
            not text, or if its dialects have examples.
    """

    name: str
    suffixes: tuple[str, ...]
    opener: Callable[[Path], OpenedFile] | None = None
    features: bool = False
    role: str = ""
    begins: bytes = b""
    example: str = ""


JSON_ROWS = '{"user":1,"item":11}\n{"user":1,"item":12}\n{"user":2,"item":11}\n'

CONTAINERS = (
    Container("Parquet", (".parquet",), open_parquet, features=True, begins=b"PAR1"),
    Container("JSON Lines", (".jsonl", ".ndjson"), open_json_lines, True, "", b"{", JSON_ROWS),
    Container("CSV or TSV", (".csv", ".tsv"), features=True),
    Container("text", (".txt", ".dat", ".data", ".tab", "")),
    Container("interactions of RecBole or MMRec", (".inter",), role="log"),
    Container("items of RecBole or MovieLens", (".item",), role="items"),
)
ARRAYS = (".npy",)


def container_of(path: Path) -> Container:
    """Returns how a file is opened: by its suffix, or by its first bytes if it has none.

    Raises:
        DataError: if it is missing, a pickle or an archive, or of no known format.
    """
    refuse_foreign(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: check the path")
    found = _by_suffix(path)
    if found is None:
        raise DataError(
            f"{path} has the suffix {suffix(path)}, which no reader knows: give one of "
            f"{listed_suffixes()}"
        )
    if not suffix(path) and path.is_file():
        start = first_bytes(path)[0]
        return next(
            (one for one in CONTAINERS if one.begins and start.startswith(one.begins)), found
        )
    return found


def _by_suffix(path: Path) -> Container | None:
    return next((one for one in CONTAINERS if suffix(path) in one.suffixes), None)


def open_table(path: Path) -> OpenedFile:
    """Opens a table that names its columns."""
    container = container_of(path)
    return container.opener(path) if container.opener else open_text(read_head(path))


def open_items(path: Path) -> OpenedFile:
    """Opens an item table or a list of items."""
    container = container_of(path)
    if container.opener:
        return container.opener(path)
    head = read_head(path)
    dialect, why = next((one, why) for one in ITEMS if (why := one.evidence(head)))
    return dialect.opener(head, dialect.name, why)


def open_log(paths: Sequence[Path], columns: Columns) -> tuple[list[OpenedFile], bool]:
    """Opens the files of one log, and returns whether they name their columns.

    Raises:
        DataError: if a file is missing, empty, damaged or of no known format, or if the files are
            of several formats.
    """
    opened = [_open_one(path, paths, columns) for path in paths]
    tables = [table for table, _ in opened]
    for table in tables[1:]:
        if table.kind != tables[0].kind:
            raise DataError(
                f"{table.name} is {table.kind}, but {tables[0].name} is {tables[0].kind}: give all "
                "splits in one format"
            )
    return tables, opened[0][1]


def _open_one(path: Path, paths: Sequence[Path], columns: Columns) -> tuple[OpenedFile, bool]:
    container = container_of(path)
    if container.opener:
        return container.opener(path), True
    named = tuple(filter(None, (columns.user, columns.item)))
    text = [one for one in paths if one == path or not container_of(one).opener]
    heads = {
        one: replace(read_head(one, columns.separator, named), layout=columns.layout)
        for one in text
    }
    others = tuple(head for one, head in heads.items() if one != path)
    head = replace(heads[path], beside=others)
    dialect, why = next((one, why) for one in LOGS if (why := one.evidence(head)))
    return dialect.opener(head, dialect.name, why), dialect.named


def is_array(path: Path) -> bool:
    """Returns whether a file is an array by its name."""
    return suffix(path) in ARRAYS


def is_table(path: Path) -> bool:
    """Returns whether a file in a folder can be a table; one without a suffix is not tried."""
    return bool(suffix(path)) and _by_suffix(path) is not None


def may_hold_features(path: Path) -> bool:
    """Returns whether a file can be a table of features by its name."""
    container = _by_suffix(path)
    return container is not None and container.features


def role_of(path: Path) -> str:
    """Returns "log" or "items" where the suffix alone says so, else ''."""
    container = _by_suffix(path)
    return container.role if container else ""


def listed_suffixes(features: bool = False) -> str:
    """Returns the suffixes of all formats, or of feature tables, for a message."""
    chosen = [one for one in CONTAINERS if one.features or not features]
    return " ".join(ending for one in chosen for ending in one.suffixes if ending)
