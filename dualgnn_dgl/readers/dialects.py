"""Lists the dialects of text files: one function and one line in a table for each.

`LOGS` and `ITEMS` are tried in order, and the first that recognises the first lines opens the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dualgnn_dgl.readers.columns import NAMES, known_roles, plain
from dualgnn_dgl.readers.heads import Head
from dualgnn_dgl.readers.lists import BLANKS, OpenedLists
from dualgnn_dgl.readers.opened import OpenedFile, stem, suffix
from dualgnn_dgl.readers.shapes import (
    Shape,
    bare_shape,
    choose,
    is_comma_list,
    row_columns,
    tabbed_shape,
)
from dualgnn_dgl.readers.text import OpenedText, open_text

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
    opener: Callable[[Head, str, str], OpenedFile]
    example: tuple[str, str]
    named: bool = True


def split_of(path: Path) -> int | None:
    """Returns the split that a file's name says it has, if any.

    >>> split_of(Path("ml-1m.valid.inter")), split_of(Path("log.csv"))
    (1, None)
    """
    return SPLIT_FILES.get(re.split(r"[._-]", stem(path).lower())[-1])


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


def _open_header(head: Head, kind: str, why: str) -> OpenedFile:
    return open_text(head, None, kind, why)


def _open_rows(head: Head, kind: str, why: str) -> OpenedFile:
    return open_text(head, row_columns(head), kind, why)


def _open_bare_items(head: Head, kind: str, why: str) -> OpenedFile:
    return open_text(head, ITEM, kind, why)


def _open_pairs(head: Head, kind: str, why: str) -> OpenedFile:
    marks = BLANKS + b"," if is_comma_list(head) else BLANKS
    return OpenedLists(head.path, kind=kind, why=why, in_order=True, marks=marks)


def _open_lists(head: Head, kind: str, why: str) -> OpenedFile:
    return OpenedLists(head.path, kind=kind, why=why)


def _open_item_list(head: Head, kind: str, why: str) -> OpenedFile:
    header = plain(head.lines[0]) in (*NAMES["item"], "id")
    # An id may contain blanks; the unit separator occurs in no line.
    return OpenedText(
        head.path, ("item",), kind, why, separator="\x1f", header=header, blank=head.blank
    )


# --- the tables: one line a format -----------------------------------------------------------

RECBOLE_ROWS = "user_id:token\titem_id:token\n1\t11\n1\t12\n2\t11\n"
MMREC_ROWS = "userID\titemID\tx_label\n1\t11\t0\n1\t12\t0\n2\t11\t0\n"
MOVIELENS_ROWS = "1::11::5::97\n1::12::3::98\n2::11::4::99\n"
BARE_ROWS = "1 11 5\n1 12 3\n2 11 4\n"
CSV_ROWS = "user,item\n1,11\n1,12\n2,11\n"

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
