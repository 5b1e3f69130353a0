"""The file formats: one function and one line in a table for each.

`CONTAINERS` says by the suffix how a file is opened. Text has dialects: `LOGS` and `ITEMS` are
tried in order, and the first that recognises the first lines opens the file. No other module of
`readers` looks at a suffix or guesses a separator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dualgnn_dgl.core.arrays import refuse_foreign
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.columns import NAMES, Columns, known_roles, plain
from dualgnn_dgl.readers.heads import Head, first_bytes, read_head
from dualgnn_dgl.readers.jsonlines import open_json_lines
from dualgnn_dgl.readers.lists import BLANKS, ListTable
from dualgnn_dgl.readers.parquet import open_parquet
from dualgnn_dgl.readers.shapes import (
    Shape,
    bare_shape,
    choose,
    is_comma_list,
    row_columns,
    tabbed_shape,
)
from dualgnn_dgl.readers.table import Table, stem, suffix
from dualgnn_dgl.readers.text import TextTable, open_text

SPLIT_FILES = {
    "train": 0,
    "training": 0,
    "valid": 1,
    "val": 1,
    "validation": 1,
    "test": 2,
    "testing": 2,
}
ITEM = ("item", "title")  # first columns of MovieLens' movies.dat and u.item


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
    opener: Callable[[Path], Table] | None = None
    features: bool = False
    role: str = ""
    begins: bytes = b""
    example: str = ""


@dataclass(frozen=True)
class Dialect:
    """Represents a way to write tables as text.

    Attributes:
        name: shown in the report and in messages.
        evidence: returns what in the first lines shows this dialect; '' if they do not.
        opener: opens one file, given its first lines, the name and the evidence.
        example: name of a file and its text: the pairs (1, 11), (1, 12) and (2, 11) of a log, or
            the items 11 and 12. The tests read it.
        named: the file names its columns.
    """

    name: str
    evidence: Callable[[Head], str]
    opener: Callable[[Head, str, str], Table]
    example: tuple[str, str]
    named: bool = True


# --- evidence: one function a dialect --------------------------------------------------------


def _recbole(head: Head) -> str:
    found = re.search(r":(token|float)(_seq)?(\t|,|$)", head.lines[0])
    return "the header gives types such as :token" if found else ""


def _mmrec(head: Head) -> str:
    found = suffix(head.path) == ".inter" and "x_label" in head.lines[0]
    return "an .inter file with the column x_label" if found else ""


def _pairs(head: Head) -> str:
    if head.has_header or any(line.count("\t") != 1 for line in head.lines):
        return ""
    if stem(head.path).lower().endswith("pairs") and head.layout is None:
        return "its name ends in pairs and every line has one tab"
    shape = choose(head.layout, lambda: tabbed_shape((head, *head.beside)))
    return shape.why if shape.lists else ""


def _adjacency(head: Head) -> str:
    shape = _bare(head)
    return shape.why if shape.lists else ""


def _rows(head: Head) -> str:
    if head.has_header or head.layout == "lists":
        return ""
    tabbed = all(line.count("\t") == 1 for line in head.lines)
    shape = (
        choose(head.layout, lambda: tabbed_shape((head, *head.beside)))
        if tabbed or head.layout
        else _bare(head)
    )
    return shape.why if shape.rows else ""


def _bare(head: Head) -> Shape:
    """Returns the shape of a file whose name says a split and whose lines are bare words."""
    if head.has_header:
        return Shape()
    if head.layout is None and (
        suffix(head.path) not in (".txt", "")
        or any(mark in head.lines[0] for mark in (",", ";", "::", "|"))
        or split_of(head.path) is None
    ):
        return Shape()
    return choose(head.layout, lambda: bare_shape((head, *head.beside)))


def _movielens(head: Head) -> str:
    found = suffix(head.path) in (".dat", ".data") and 2 <= len(head.fields()) <= 4
    return "a .dat or .data file without a header" if found and not head.has_header else ""


def _header(head: Head) -> str:
    return "the first line names the columns"


def _bare_items(head: Head) -> str:
    found = suffix(head.path) in (".dat", ".item", ".data")
    named = known_roles(head.fields()) & {"item"} or any(
        plain(name).endswith("id") for name in head.fields()
    )
    return "its first line names no column of ids" if found and not named else ""


def _item_list(head: Head) -> str:
    one = not any(mark in head.lines[0] for mark in ("\t", ",", ";", "|", "::"))
    return "one id a line" if one and suffix(head.path) == ".txt" else ""


# --- opening: shared by dialects of one shape ------------------------------------------------


def _open_header(head: Head, kind: str, why: str) -> Table:
    return open_text(head, None, kind, why)


def _open_rows(head: Head, kind: str, why: str) -> Table:
    return open_text(head, row_columns(head), kind, why)


def _open_bare_items(head: Head, kind: str, why: str) -> Table:
    return open_text(head, ITEM, kind, why)


def _open_pairs(head: Head, kind: str, why: str) -> Table:
    marks = BLANKS + b"," if is_comma_list(head) else BLANKS
    return ListTable(head.path, kind=kind, why=why, in_order=True, marks=marks)


def _open_lists(head: Head, kind: str, why: str) -> Table:
    return ListTable(head.path, kind=kind, why=why)


def _open_item_list(head: Head, kind: str, why: str) -> Table:
    header = plain(head.lines[0]) in (*NAMES["item"], "id")
    # An id may contain blanks; the unit separator occurs in no line.
    return TextTable(
        head.path, ("item",), kind, why, separator="\x1f", header=header, blank=head.blank
    )


# --- the tables: one line a format -----------------------------------------------------------

JSON_ROWS = '{"user":1,"item":11}\n{"user":1,"item":12}\n{"user":2,"item":11}\n'
RECBOLE_ROWS = "user_id:token\titem_id:token\n1\t11\n1\t12\n2\t11\n"
MMREC_ROWS = "userID\titemID\tx_label\n1\t11\t0\n1\t12\t0\n2\t11\t0\n"
MOVIELENS_ROWS = "1::11::5::97\n1::12::3::98\n2::11::4::99\n"
BARE_ROWS = "1 11 5\n1 12 3\n2 11 4\n"
CSV_ROWS = "user,item\n1,11\n1,12\n2,11\n"

CONTAINERS = (
    Container("Parquet", (".parquet",), open_parquet, features=True, begins=b"PAR1"),
    Container("JSON Lines", (".jsonl", ".ndjson"), open_json_lines, True, "", b"{", JSON_ROWS),
    Container("CSV or TSV", (".csv", ".tsv"), features=True),
    Container("text", (".txt", ".dat", ".data", ".tab", "")),
    Container("interactions of RecBole or MMRec", (".inter",), role="log"),
    Container("items of RecBole or MovieLens", (".item",), role="items"),
)
LOGS = (
    Dialect("RecBole atomic file", _recbole, _open_header, ("a.inter", RECBOLE_ROWS)),
    Dialect("MMRec .inter", _mmrec, _open_header, ("b.inter", MMREC_ROWS)),
    Dialect("MicroLens pairs", _pairs, _open_pairs, ("c_pairs.tsv", "1\t11 12\n2\t11\n"), False),
    Dialect(
        "LightGCN adjacency lists", _adjacency, _open_lists, ("train.txt", "1 11 12\n2 11\n"), False
    ),
    Dialect(
        "MovieLens without a header", _movielens, _open_rows, ("ratings.dat", MOVIELENS_ROWS), False
    ),
    Dialect("rows without a header", _rows, _open_rows, ("train.txt", BARE_ROWS), False),
    Dialect("CSV or TSV", _header, _open_header, ("log.csv", CSV_ROWS)),
)
ITEMS = (
    Dialect("items without a header", _bare_items, _open_bare_items, ("u.item", "11|x\n12|y\n")),
    Dialect("item list", _item_list, _open_item_list, ("list.txt", "11\n12\n")),
    Dialect("item table", _header, _open_header, ("items.csv", "item,title\n11,x\n12,y\n")),
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


def open_table(path: Path) -> Table:
    """Opens a table that names its columns."""
    container = container_of(path)
    return container.opener(path) if container.opener else open_text(read_head(path))


def open_items(path: Path) -> Table:
    """Opens an item table or a list of items."""
    container = container_of(path)
    if container.opener:
        return container.opener(path)
    head = read_head(path)
    dialect, why = next((one, why) for one in ITEMS if (why := one.evidence(head)))
    return dialect.opener(head, dialect.name, why)


def open_log(paths: Sequence[Path], columns: Columns) -> tuple[list[Table], bool]:
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


def _open_one(path: Path, paths: Sequence[Path], columns: Columns) -> tuple[Table, bool]:
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


def split_of(path: Path) -> int | None:
    """Returns the split that a file's name says it has, if any.

    >>> split_of(Path("ml-1m.valid.inter")), split_of(Path("log.csv"))
    (1, None)
    """
    return SPLIT_FILES.get(re.split(r"[._-]", stem(path).lower())[-1])
