"""Reads item features and reduces them to fewer columns.

Features are arrays aligned with an item list, or tables keyed by item id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from dualgnn_dgl.core.arrays import load_array, refuse_foreign
from dualgnn_dgl.data.projection import FeatureProjection
from dualgnn_dgl.data.raw import RawModality
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.columns import NAMES, find_column, plain
from dualgnn_dgl.readers.feature_tables import (
    INDEX_COLUMNS,
    is_list,
    is_number,
    read_feature_table,
)
from dualgnn_dgl.readers.formats import is_array, listed_suffixes, may_hold_features, open_table
from dualgnn_dgl.readers.items import ItemList, id_column, read_items
from dualgnn_dgl.readers.opened import stem

ENDINGS = re.compile(r"[._-](feats?|features?|embs?|embeddings?)$", re.IGNORECASE)
MOST_ROWS = 50_000  # of the rows that a reduction is fitted on
MISSING = "or mark the item missing by NaN throughout"


def modality_name(path: Path) -> str:
    """Returns the name of the modality of a file.

    >>> [modality_name(Path(name)) for name in ("visual.npy", "image_feat.npy", "a_minilm.csv")]
    ['visual', 'image', 'a_minilm']
    """
    return re.sub(r"[^\w.-]", "_", ENDINGS.sub("", stem(path))).lstrip(".") or "feature"


def looks_like_features(path: Path) -> bool:
    """Returns whether a file found beside a log is read as features.

    That is every array, and tables of numbers by item id.

    Such a table has a column of item ids, none of users, and else a column of lists, or numbers
    throughout, none of which is named as an id, a time, a rating or a split.
    """
    if is_array(path):
        # MMRec's co-occurrence lists are a pickle; they are computed again here.
        return path.name != "user_graph_dict.npy"
    if not may_hold_features(path):
        return False
    try:
        table = open_table(path)
        name = id_column(table)
        if name is None or find_column(table, "user"):
            return False
        kinds = table.types()
    except DataError:
        return False
    others = {
        column: kind
        for column, kind in kinds.items()
        if column != name and plain(column) not in INDEX_COLUMNS
    }
    if any(is_list(kind) for kind in others.values()):
        return True
    known = {*NAMES["item"], *NAMES["time"], *NAMES["rating"], *NAMES["split"]}
    foreign = any(
        plain(column) in known or re.search(r"(^|[_-])id$|[a-z](Id|ID)$", column)
        for column in others
    )
    return bool(others) and not foreign and all(is_number(kind) for kind in others.values())


def read_modality(
    path: Path,
    log_ids: np.ndarray | None,
    log_name: str,
    items: ItemList | None = None,
    item_col: str | None = None,
    zero_is_missing: bool = False,
) -> RawModality:
    """Reads one feature file.

    Args:
        log_ids: (I,) text; the item ids of the log, at least one of which must have features; None
            for videos that are in no log yet.
        items: the item list that arrays are aligned with; `<array>.ids.txt` or `<array>_ids.txt`
            beside the array goes before it, and without either, row r of an array is item r, if the
            log's ids are whole numbers below the row count.
        item_col: the column of item ids, as in the log; common names are found.

    Raises:
        DataError: if the file is not a numeric (n, F) array or table, holds infinities or rows that
            are partly NaN, names an item twice, does not fit the item list, or shares no item with
            the log.
    """
    refuse_foreign(path)  # pipes and devices as well
    if is_array(path):
        modality = _read_array(path, log_ids, log_name, items)
    elif may_hold_features(path):
        ids, values = read_feature_table(path, item_col)
        modality = RawModality(
            ids,
            values,
            _present(values, path.name, lambda row: f"the row of item '{ids[row]}'"),
            str(path),
        )
    elif not path.exists():
        raise DataError(f"{path} does not exist: check --features")
    else:
        raise DataError(
            f"{path} is no feature file: give a .npy array (numpy.save), or a table keyed by item "
            f"id ({listed_suffixes(features=True)})"
        )
    if log_ids is not None and not np.isin(modality.ids, log_ids).any():
        raise DataError(
            f"{path.name} shares no item with {log_name}: its ids look like '{modality.ids[0]}', "
            f"the log's like '{log_ids[0]}'; key it by the log's item ids"
        )
    return _zero_rows(modality, path.name, zero_is_missing)


def _zero_rows(modality: RawModality, file: str, missing: bool) -> RawModality:
    """Marks rows of zeros as missing if the user asked for it, else notes them."""
    zero = modality.present & ~modality.values.any(axis=1)
    count = int(np.count_nonzero(zero))
    if missing:
        return replace(modality, present=modality.present & ~zero)
    if not count:
        return modality
    note = (
        f"{file}: {count:,} of {len(zero):,} rows are zero throughout and count as present: if "
        "they are missing, say --zero-is-missing"
    )
    return replace(modality, notes=(*modality.notes, note))


def _read_array(
    path: Path, log_ids: np.ndarray | None, log_name: str, items: ItemList | None
) -> RawModality:
    """Reads an array (n, F) whose row r describes row r of an item list, or item r."""
    if not path.exists():
        raise DataError(f"{path} does not exist: check --features")
    array = load_array(path)
    if array.dtype.kind not in "fiu":
        raise DataError(
            f"{path.name} holds {array.dtype}, features are real numbers: save "
            f"array.astype('float32')"
        )
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(
            f"{path.name} has the shape {array.shape}, features are (items, columns): give one "
            f"row per item"
        )
    beside = [
        path.with_name(f"{name}{ending}")
        for name in (path.stem, modality_name(path))
        for ending in (".ids.txt", "_ids.txt")
    ]
    # one that cannot be read must not be passed over
    own = next((file for file in beside if os.path.lexists(file)), None)
    if own is not None:
        items = read_items(own)
    rows = len(array)
    notes: tuple[str, ...] = items.notes if own is not None and items is not None else ()
    if items is not None:
        if rows != len(items.ids):
            raise DataError(
                f"{path.name} has {rows} rows but {items.file} lists {len(items.ids)} items. "
                f"Row r of an array must describe row r of {items.file}."
            )
        ids = items.ids
    elif log_ids is None:
        ids = np.arange(rows).astype(np.str_)
    else:
        ids = _row_numbers(path, rows, log_ids, log_name)
        # Perhaps the ids are no row numbers at all.
        if rows > len(log_ids):
            notes = (
                f"{path.name}: without an item list, row r was taken for item r; "
                f"{rows - len(log_ids):,} of its {rows:,} rows "
                f"belong to no item of {log_name}. If that is wrong, list the items in the order "
                f"of the rows with --items",
            )
    # what float32 cannot hold becomes infinite, and is refused below
    with np.errstate(over="ignore"):
        values = array.astype(np.float32, copy=False)
    return RawModality(
        ids, values, _present(values, path.name, lambda row: f"row {row}"), str(path), notes
    )


def _row_numbers(path: Path, rows: int, log_ids: np.ndarray, log_name: str) -> np.ndarray:
    """Returns ids "0"…"n-1" for an array without an item list, if the log's ids can be those."""
    remedy = (
        f"list the items in the order of the rows in {path.stem}_ids.txt or --items, or name only "
        f"the right files with --features"
    )
    whole = np.char.isdecimal(log_ids) & (
        (np.char.str_len(log_ids) == 1) | ~np.char.startswith(log_ids, "0")
    )
    if not whole.all():
        other = log_ids[~whole][0]
        raise DataError(
            f"{path.name} has {rows} rows, but nothing says which item each describes "
            f"(the log's ids look like '{other}'): {remedy}"
        )
    longest = int(np.char.str_len(log_ids).max())
    largest = int(np.sort(log_ids[np.char.str_len(log_ids) == longest])[-1])
    if largest >= rows:
        raise DataError(
            f"{path.name} has {rows} rows but the items of {log_name} are numbered up to "
            f"{largest}. "
            f"Row r of an array must describe item r: {remedy}"
        )
    return np.arange(rows).astype(np.str_)


def _present(values: np.ndarray, file: str, label: Callable[[int], str]) -> np.ndarray:
    """Returns which rows (n,) of values (n, F) are present.

    A row of NaN is missing, a row partly NaN or with an infinity is an error.
    """
    present = np.empty(len(values), dtype=bool)
    # in blocks: the masks of a wide array would be as large as itself
    for start in range(0, len(values), 8192):
        block = values[start : start + 8192]
        nan = np.isnan(block).sum(axis=1)
        infinite = np.flatnonzero(np.isinf(block).any(axis=1))
        if infinite.size:
            where = f"{file}, {label(start + int(infinite[0]))},"
            raise DataError(f"{where} holds infinity or a number beyond float32: fix it, {MISSING}")
        partly = np.flatnonzero((nan > 0) & (nan < values.shape[1]))
        if partly.size:
            row = int(partly[0])
            where = f"{file}, {label(start + row)},"
            raise DataError(
                f"{where} holds NaN in {int(nan[row])} of {values.shape[1]} columns: fix it, "
                f"{MISSING}"
            )
        present[start : start + 8192] = nan == 0
    return present


def reduce_width(
    values: np.ndarray, present: np.ndarray, width: int, seed: int, fitted: np.ndarray | None = None
) -> tuple[np.ndarray, FeatureProjection | None]:
    """Projects features (n, F) onto their `width` directions of largest variance (PCA).

    (n, width) float32, and the map.

    PCA rather than truncated SVD: the mean of a feature is the same for all items, yet an uncentred
    SVD spends its first direction on it. The projection is fitted on present rows only (at most
    50,000, drawn with `seed`), of which `fitted` may exclude some. Absent rows become zero and stay
    absent. It runs on one thread: on one kind of processor the same features give the same bits,
    and so the same data.

    Args:
        values: (n, F)
        present: (n,) bool
        width: at least 1; F or more leaves the values unchanged, and there is no map.
        fitted: (n,) bool, optional; rows to fit on; all by default.

    Raises:
        DataError: if there are fewer rows to fit on than `width`.

    Source: Halko, Martinsson and Tropp 2011, as in scikit-learn's PCA.
    """
    if width < 1:
        raise DataError(
            f"features cannot be reduced to {width} columns: choose --feature-dim of at least 1"
        )
    values = np.asarray(values, dtype=np.float32)
    if width >= values.shape[1]:
        return values, None
    rows = np.flatnonzero(present if fitted is None else present & fitted)
    if rows.size < width:
        raise DataError(
            f"features present for {rows.size} items "
            f"{'' if fitted is None else 'in training '}only cannot be reduced to "
            f"{width} columns: choose --feature-dim of at most {max(rows.size, 1)}"
        )
    # first: it loads a BLAS of its own, which the limit has to find
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    if rows.size > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
    # A sum's last bits depend on the number of threads, and the data's hash on the bits.
    with threadpool_limits(1):
        pca = PCA(n_components=width, random_state=seed).fit(values[rows])
        reduction = FeatureProjection(pca.mean_, pca.components_)
        return reduction.apply(values, present), reduction
