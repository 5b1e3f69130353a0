"""Finds the log, the item table and the feature files of a folder by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dualgnn_dgl.core.inputs import special
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.columns import Columns, candidates
from dualgnn_dgl.readers.dialects import split_of
from dualgnn_dgl.readers.formats import is_table, open_log, role_of
from dualgnn_dgl.readers.logs import Part
from dualgnn_dgl.readers.opened import stem

# The last word of a log's name ("MicroLens-50k_pairs.tsv") and of an item table's
# ("MicroLens-50k_titles.csv").
LOG_NAMES = (
    "ratings",
    "interactions",
    "pairs",
    "log",
    "logs",
    "events",
    "views",
    "clicks",
    "watches",
    "history",
    "inter",
)
ITEM_NAMES = ("items", "item", "movies", "videos", "titles")


def regular_files(folder: Path) -> list[Path]:
    """Returns the files of a folder, by name, without hidden ones."""
    return sorted(
        file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")
    )


def special_files(folder: Path) -> list[tuple[str, str]]:
    """Returns names and kinds of what is neither a file nor a folder, without hidden ones."""
    found = [(file.name, special(file)) for file in sorted(folder.iterdir())]
    return [(name, kind) for name, kind in found if kind and not name.startswith(".")]


def find_log(folder: Path, files: Sequence[Path], columns: Columns) -> list[Part]:
    """Returns the log's file, or its files with the split of each; see `reader.read`."""
    tables = [file for file in files if is_table(file)]
    named = _split_groups(tables)
    grouped = {file for group in named for file, _ in group}
    named += [[(file, None)] for file in tables if file not in grouped and _named_log(file)]
    usable = [group for group in named if _can_be_log([part for part, _ in group], columns)]
    if not usable and len(named) == 1:
        usable = named  # reading it says what is wrong with it
    if not usable:
        usable = [[(file, None)] for file in tables if _can_be_log([file], columns, strict=True)]
    if len(usable) > 1:
        names = ", ".join(group[0][0].name for group in usable)
        raise DataError(
            f"{folder} holds several logs ({names}): point --input at one of them and name its "
            f"--features and --items"
        )
    if not usable:
        seen = ", ".join(file.name for file in files[:12]) or "no files"
        raise DataError(
            f"{folder} holds no log of users and items (seen: {seen}): "
            "point --input at the log, and name its columns with --user-col and --item-col"
        )
    return usable[0]


def find_items(folder: Path, files: Sequence[Path]) -> Path | None:
    """Returns the item table of a folder, if there is one; see `reader.read`."""
    found = [
        file
        for file in files
        if role_of(file) == "items" or (is_table(file) and _last_word(file) in ITEM_NAMES)
    ]
    if len(found) > 1:
        raise DataError(
            f"{folder} holds several item tables ({', '.join(file.name for file in found)}): "
            f"choose with --items"
        )
    return found[0] if found else None


def _split_groups(tables: Sequence[Path]) -> list[list[Part]]:
    """Returns files that share all but a last word train, valid or test, in that order.

    A lone train file has no split.
    """
    groups: dict[str, list[Part]] = {}
    for file in tables:
        if split_of(file) is not None:
            rest = re.split(r"[._-]", stem(file))[:-1]
            groups.setdefault("_".join(rest), []).append((file, split_of(file)))
    found: list[list[Part]] = []
    for group in groups.values():
        group.sort(key=lambda part: part[1] or 0)
        held = [split for _, split in group]
        if len(set(held)) < len(held):
            raise DataError(
                f"{group[0][0].parent} holds one split twice "
                f"({', '.join(file.name for file, _ in group)}): keep one file each"
            )
        if held[0] == 0:
            found.append(group if len(group) > 1 else [(group[0][0], None)])
    return found


def _last_word(file: Path) -> str:
    return re.split(r"[._\s-]", stem(file).lower())[-1]


def _named_log(file: Path) -> bool:
    return role_of(file) == "log" or file.name == "u.data" or _last_word(file) in LOG_NAMES


def _can_be_log(files: Sequence[Path], columns: Columns, strict: bool = False) -> bool:
    """Returns whether users and items are found in the files of a log.

    Args:
        strict: accept a header that names them only, for a file with any name.
    """
    try:
        (table, *_), named = open_log(files, columns)
        if not named:
            return not strict
        return all(candidates(table, role, getattr(columns, role)) for role in ("user", "item"))
    except DataError:
        return False
