"""From a file or folder, as people have them, to a `RawInput`.

Find the log, the features and the item table, and read them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dualgnn_dgl.core.inputs import refuse_special, special
from dualgnn_dgl.data.raw import RawInput, RawModality
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.features import looks_like_features, modality_name, read_modality
from dualgnn_dgl.readers.logs import Columns, Part, kind_of, read_log, split_of
from dualgnn_dgl.readers.opened import stem, suffix
from dualgnn_dgl.readers.read_columns import candidates
from dualgnn_dgl.readers.read_items import ItemList, read_items
from dualgnn_dgl.readers.read_pipe import as_file
from dualgnn_dgl.readers.read_table import TEXT, open_table

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
TABLE_SUFFIXES = (*(kind for kind in TEXT if kind), ".parquet")


def read(
    path: str | Path,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    split_col: str | None = None,
    separator: str | None = None,
    features: Sequence[str | Path] = (),
    items: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> RawInput:
    r"""Read a log with its features and titles from a file or a folder.

    Of a file, only the log is read, with the `features` and `items` named. In a folder (not in
    folders below it), what is not named is found by these rules; where two files fit, that is an
    error which names both.

    log
        1. by name: `*.inter`; `u.data`; a table whose name ends in ratings, interactions, pairs,
           log(s), events, views, clicks, watches or history (`ratings.csv`,
           `MicroLens-50k_pairs.tsv`); files that share all but a last word train, valid (val,
           validation) and test (`train.txt` and `test.txt`, `ml.train.inter`, …), which together
           are one log with its split given. Of these, the ones in which users and items are found.
        2. else any table with a column of users and one of items.
    item table
        `*.item`, or a table whose name ends in items, item, movies, videos or titles.
    features
        every `.npy` but MMRec's `user_graph_dict.npy`, and every Parquet, CSV and TSV table that
        `looks_like_features`. The name of the modality is that of the file without `_feat`,
        `_features`, `_embedding` and the like.

    What is no file in a folder (a pipe, a socket, a device) is left out, and `progress` says so. A
    log may come through a pipe:
    `/dev/stdin` or `-`, see `read_pipe`.

    Parameters
    ----------
    path : the log, or a folder that holds it.
    user_col, item_col, rating_col, time_col, split_col : names of columns; None finds the common
        ones (`read_columns.NAMES`), and "" for rating, time or split leaves such a column unread.
    separator : of the fields of a text log, "\t" may be written with a backslash; None finds it
        out.
    features : feature files, instead of those found in the folder; a relative path may start in the
        folder.
    items : the item table, instead of the one found in the folder.
    progress : called with a few words now and then.

    Raises
    ------
    DataError
        for anything that cannot be read or is ambiguous; the message says which file and what to
        do.
    """
    with as_file(path) as file:
        raw = _read(
            file,
            separator,
            (user_col, item_col, rating_col, time_col, split_col),
            features,
            items,
            progress,
        )
    if file.exists():
        return raw
    named = "/dev/stdin" if path == "-" else str(path)  # what was read is a copy, gone by now
    return replace(raw, log=replace(raw.log, files=(named,)))


def _read(
    path: Path,
    separator: str | None,
    names: tuple[str | None, str | None, str | None, str | None, str | None],
    features: Sequence[str | Path],
    items: str | Path | None,
    progress: Callable[[str], None] | None,
) -> RawInput:
    """`read` of a path that can be opened several times.

    `names` are those of the columns, in the order of `Columns`.
    """
    user_col, item_col, rating_col, time_col, split_col = names
    if separator is not None:
        separator = {r"\t": "\t", "tab": "\t", "space": " "}.get(separator, separator)
        if not separator or "\n" in separator or '"' in separator:
            raise DataError(
                f"{separator!r} cannot separate fields: give --separator a comma, a tab (\\t), "
                f"'::' or the like"
            )
    columns = Columns(
        user_col or None, item_col or None, rating_col, time_col, split_col, separator
    )
    refuse_special(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: check --input")
    folder, beside = (path, _files(path)) if path.is_dir() else (None, [])
    parts: list[Part] = [(path, None)] if folder is None else find_log(folder, beside, columns)
    log = read_log(parts, columns, progress)

    rest = [file for file in beside if file not in [part for part, _ in parts]]
    item_path = _placed(items, folder) if items is not None else find_items(folder, rest)
    item_list = read_items(item_path, item_col) if item_path is not None else None
    if features:
        feature_paths = [_placed(file, folder) for file in features]
    else:
        feature_paths = [file for file in rest if file != item_path and looks_like_features(file)]
    unread = [file.name for file in rest if file not in (item_path, *feature_paths)]
    unread += [f"{name} ({kind})" for name, kind in _special(folder)]
    if progress and unread:
        progress(f"not read: {', '.join(unread[:8])}{', …' if len(unread) > 8 else ''}")
    log_name = parts[0][0].name
    return RawInput(
        log=log,
        modalities=_modalities(
            feature_paths, log.item_ids, log_name, item_list, item_col, progress
        ),
        titles=_titles(item_list, log.item_ids, log_name),
        name=path.resolve().name if folder is not None else stem(path),
        notes=item_list.notes if item_list is not None else (),
    )


def _files(folder: Path) -> list[Path]:
    """The files of a folder, by name, without hidden ones."""
    return sorted(
        file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")
    )


def _special(folder: Path | None) -> list[tuple[str, str]]:
    """The names in a folder, without hidden ones, that are neither files nor folders, and what they
    are.
    """
    found = (
        [(file.name, special(file)) for file in sorted(folder.iterdir())]
        if folder is not None
        else []
    )
    return [(name, kind) for name, kind in found if kind and not name.startswith(".")]


def _placed(file: str | Path, folder: Path | None) -> Path:
    """A path as given, or if nothing is there, in the folder."""
    file = Path(file)
    return (
        folder / file
        if folder is not None and not file.exists() and (folder / file).exists()
        else file
    )


def find_log(folder: Path, files: Sequence[Path], columns: Columns) -> list[Part]:
    """The log's file, or its files with the split each holds; see `read` for the rules."""
    tables = [file for file in files if suffix(file) in TABLE_SUFFIXES]
    named = _split_groups(tables)
    grouped = {file for group in named for file, _ in group}
    named += [[(file, None)] for file in tables if file not in grouped and _named_log(file)]
    usable = [group for group in named if _can_be_log(group[0][0], columns)]
    if not usable and len(named) == 1:
        usable = named  # reading it says what is wrong with it
    if not usable:
        usable = [[(file, None)] for file in tables if _can_be_log(file, columns, strict=True)]
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


def _split_groups(tables: Sequence[Path]) -> list[list[Part]]:
    """Files that share all but a last word train, valid or test, each group in that order.

    A lone train file has no split.
    """
    groups: dict[tuple[str, str], list[Part]] = {}
    for file in tables:
        if split_of(file) is not None:
            rest = re.split(r"[._-]", stem(file))[:-1]
            groups.setdefault(("_".join(rest), suffix(file)), []).append((file, split_of(file)))
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
    return suffix(file) == ".inter" or file.name == "u.data" or _last_word(file) in LOG_NAMES


def _can_be_log(file: Path, columns: Columns, strict: bool = False) -> bool:
    """Whether users and items are found in a file.

    `strict`: by a header that names them, for a file with any name.
    """
    try:
        kind = kind_of(file, columns)
        if kind.read_header:
            table = open_table(file, columns.separator)
            return all(candidates(table, role, getattr(columns, role)) for role in ("user", "item"))
        return not strict
    except DataError:
        return False


def find_items(folder: Path | None, files: Sequence[Path]) -> Path | None:
    """The item table of a folder, if there is one; see `read` for the rules."""
    found = [
        file
        for file in files
        if suffix(file) == ".item"
        or (suffix(file) in TABLE_SUFFIXES and _last_word(file) in ITEM_NAMES)
    ]
    if len(found) > 1:
        raise DataError(
            f"{folder} holds several item tables ({', '.join(file.name for file in found)}): "
            f"choose with --items"
        )
    return found[0] if found else None


def _modalities(
    paths: Sequence[Path],
    log_ids: np.ndarray,
    log_name: str,
    items: ItemList | None,
    item_col: str | None,
    progress: Callable[[str], None] | None,
) -> dict[str, RawModality]:
    """Every feature file by the name of its modality."""
    files: dict[str, Path] = {}
    for file in paths:
        name = modality_name(file)
        if name in files:
            raise DataError(
                f"{files[name].name} and {file.name} would both be the modality {name}: rename "
                f"one, or choose with --features"
            )
        files[name] = file
    modalities = {}
    for name, file in files.items():
        if progress:
            progress(f"reading {file.name}")
        modalities[name] = read_modality(file, log_ids, log_name, items, item_col)
    return modalities


def _titles(items: ItemList | None, log_ids: np.ndarray, log_name: str) -> dict[str, str]:
    """Item id -> title, where there is one."""
    if items is None:
        return {}
    if not np.isin(items.ids, log_ids).any():
        raise DataError(
            f"{items.file} shares no item with {log_name}: its ids look like '{items.ids[0]}', "
            f"the log's like '{log_ids[0]}'; "
            "key it by the log's item ids"
        )
    if items.titles is None:
        return {}
    return {
        item: title for item, title in zip(items.ids.tolist(), items.titles, strict=True) if title
    }
