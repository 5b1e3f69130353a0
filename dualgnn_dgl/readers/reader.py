"""Reads a file or a folder into a `RawInput`: the log, the features and the item table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dualgnn_dgl.core.inputs import refuse_special
from dualgnn_dgl.core.vocabulary import LAYOUTS
from dualgnn_dgl.data.raw import RawInput
from dualgnn_dgl.errors import DataError, unknown
from dualgnn_dgl.readers.columns import Columns
from dualgnn_dgl.readers.features import looks_like_features, modality_name, read_modality
from dualgnn_dgl.readers.folders import find_items, find_log, regular_files, special_files
from dualgnn_dgl.readers.items import ItemList, read_items
from dualgnn_dgl.readers.logs import Part, read_log
from dualgnn_dgl.readers.opened import stem
from dualgnn_dgl.readers.pipe import as_file

SEPARATORS = {r"\t": "\t", "tab": "\t", "space": " "}  # other ways to write them


def read(
    path: str | Path,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    split_col: str | None = None,
    separator: str | None = None,
    layout: str | None = None,
    positive: Sequence[str] | None = None,
    unused: Sequence[str] = (),
    features: Sequence[str | Path] = (),
    items: str | Path | None = None,
    zero_is_missing: bool = False,
    progress: Callable[[str], None] | None = None,
) -> RawInput:
    r"""Reads a log with its features and titles from a file or a folder.

    Of a file, only the log is read, with the `features` and `items` named. In a folder (not in
    folders below it), what is not named is found by these rules. Two files that fit are an error
    that names both.

    * Log: first by name. That is `*.inter`; `u.data`; a table whose name ends in ratings,
      interactions, pairs, log(s), events, views, clicks, watches or history (`ratings.csv`,
      `MicroLens-50k_pairs.tsv`); files that share all but a last word train(ing), val(id,
      validation) and test(ing) (`train.txt` and `test.txt`, `ml.train.inter`, …), which together
      are one log with its split given. Of these, those in which users and items are found. Else any
      table with a column of users and one of items.
    * Item table: `*.item`, or a table whose name ends in items, item, movies, videos or titles.
    * Features: every `.npy` but MMRec's `user_graph_dict.npy`, and every table that
      `looks_like_features`. The name of the modality is that of the file without `_feat`,
      `_features`, `_embedding` and the like.

    Pipes, sockets and devices in a folder are left out, and `progress` says so. A log may come
    through a pipe: `/dev/stdin` or `-`, see `pipe`.

    Args:
        path: the log, or a folder that contains it.
        user_col: column of user ids; None finds a common name (`columns.NAMES`).
        item_col: column of item ids; None finds a common name.
        rating_col: column of ratings; None finds a common name, "" leaves ratings unread.
        time_col: column of times, likewise.
        split_col: column of the split, likewise.
        separator: of the fields of a text log, "\t" may be written with a backslash; None finds it.
        layout: one of `vocabulary.LAYOUTS`, for the lines of a text log; None finds it.
        positive: conditions "COLUMN OP VALUE"; a row is a positive if one holds. An empty list
            takes every row, None the known condition of a column such as is_click, see `positives`.
        unused: "rating", "time": no row is dropped for an unreadable rating, and times found by
            their name are not read.
        features: feature files, instead of those found in the folder; a relative path may start in
            the folder.
        items: the item table, instead of the one found in the folder.
        zero_is_missing: rows of features that are zero throughout are missing.
        progress: called with a few words at each step.

    Raises:
        DataError: for anything that cannot be read or is ambiguous; the message names the file and
            the remedy.
    """
    if layout is not None and layout not in LAYOUTS:
        raise DataError(unknown("layout", layout, LAYOUTS))
    columns = Columns(
        user_col or None,
        item_col or None,
        rating_col,
        time_col,
        split_col,
        _separator(separator),
        layout,
        tuple(unused),
        None if positive is None else tuple(text for text in positive if text.strip()),
    )
    with as_file(path) as file:
        refuse_special(file)
        if not file.exists():
            raise DataError(f"{file} does not exist: check --input")
        raw = _read(_find(file, columns, features, items), columns, zero_is_missing, progress)
    if file.exists():
        return raw
    named = "/dev/stdin" if path == "-" else str(path)  # the file was a copy, gone by now
    return replace(raw, log=replace(raw.log, files=(named,)))


@dataclass(frozen=True)
class _Found:
    """Lists the files to read, and the names in the folder that are not read."""

    name: str
    log: list[Part]
    items: Path | None
    features: list[Path]
    unread: list[str]


def _separator(named: str | None) -> str | None:
    """Returns the separator that the user named, after a check."""
    separator = SEPARATORS.get(named, named) if named is not None else None
    if separator is not None and (not separator or "\n" in separator or '"' in separator):
        raise DataError(
            f"{separator!r} cannot separate fields: give --separator a comma, a tab (\\t), "
            f"'::' or the like"
        )
    return separator


def _find(
    path: Path, columns: Columns, features: Sequence[str | Path], items: str | Path | None
) -> _Found:
    """Finds the files to read."""
    if not path.is_dir():
        item_path = Path(items) if items is not None else None
        return _Found(stem(path), [(path, None)], item_path, [Path(one) for one in features], [])
    files = regular_files(path)
    parts = find_log(path, files, columns)
    log_files = [part for part, _ in parts]
    rest = [file for file in files if file not in log_files]
    item_path = _placed(items, path) if items is not None else find_items(path, rest)
    chosen = [_placed(file, path) for file in features] or [
        file for file in rest if file != item_path and looks_like_features(file)
    ]
    unread = [file.name for file in rest if file not in (item_path, *chosen)]
    unread += [f"{name} ({kind})" for name, kind in special_files(path)]
    return _Found(path.resolve().name, parts, item_path, chosen, unread)


def _placed(file: str | Path, folder: Path) -> Path:
    """Returns a path as given, or if it does not exist, in the folder."""
    file = Path(file)
    return folder / file if not file.exists() and (folder / file).exists() else file


def _read(
    found: _Found,
    columns: Columns,
    zero_is_missing: bool,
    progress: Callable[[str], None] | None,
) -> RawInput:
    """Reads the files."""
    log = read_log(found.log, columns, progress)
    item_list = read_items(found.items, columns.item) if found.items is not None else None
    if progress and found.unread:
        more = ", …" if len(found.unread) > 8 else ""
        progress(f"not read: {', '.join(found.unread[:8])}{more}")
    log_name = found.log[0][0].name
    return RawInput(
        log=log,
        modalities={
            name: read_modality(
                file, log.item_ids, log_name, item_list, columns.item, zero_is_missing
            )
            for name, file in _by_modality(found.features, progress)
        },
        titles=_titles(item_list, log.item_ids, log_name),
        name=found.name,
        notes=item_list.notes if item_list is not None else (),
    )


def _by_modality(
    paths: Sequence[Path], progress: Callable[[str], None] | None
) -> Iterator[tuple[str, Path]]:
    """Yields the name of each modality and its file, after the check that no name occurs twice."""
    files: dict[str, Path] = {}
    for file in paths:
        name = modality_name(file)
        if name in files:
            raise DataError(
                f"{files[name].name} and {file.name} would both be the modality {name}: rename "
                f"one, or choose with --features"
            )
        files[name] = file
    for name, file in files.items():
        if progress:
            progress(f"reading {file.name}")
        yield name, file


def _titles(items: ItemList | None, log_ids: np.ndarray, log_name: str) -> dict[str, str]:
    """Returns item id -> title, where there is one."""
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
