"""Reads feature tables keyed by item id: a column of lists, or columns of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.columns import listed, plain
from dualgnn_dgl.readers.formats import open_table
from dualgnn_dgl.readers.items import id_column, unique_ids
from dualgnn_dgl.readers.values import doubles, encode

INDEX_COLUMNS = ("", "unnamed0", "indexlevel0")  # what pandas writes beside the columns


def read_feature_table(path: Path, item_col: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reads a table of features: one column of lists, or columns of numbers.

    Returns:
        The ids (n,) as text, each once, and the values (n, F) as float32: NaN where the table is
            empty, infinite where a number is beyond float32.

    Raises:
        DataError: if there are no ids, no features, other things than numbers, lists of several
            lengths, or an item twice.
    """
    table = open_table(path)
    id_name = id_column(table, item_col)
    if id_name is None:
        raise DataError(
            f"{path.name} has the columns {listed(table.columns)}; none is known to hold item "
            f"ids: rename it to item_id"
        )
    kinds = {
        name: kind
        for name, kind in table.types().items()
        if name != id_name and plain(name) not in INDEX_COLUMNS
    }
    lists = [name for name, kind in kinds.items() if is_list(kind)]
    if len(lists) > 1:
        raise DataError(
            f"{path.name} has several columns of lists ({', '.join(lists)}): give one modality a "
            f"file"
        )
    if not kinds:
        raise DataError(f"{path.name} has item ids but no columns of features: add them")
    wrong = [
        name for name, kind in kinds.items() if not lists and table.typed and not is_number(kind)
    ]
    if wrong:
        raise DataError(
            f"{path.name}: the column {wrong[0]} holds {kinds[wrong[0]]}, features are numbers: "
            f"take it out or convert it"
        )
    names = lists or list(kinds)
    read = table.read(id_name, names)
    if not len(read):
        raise DataError(f"{path} holds no rows: give one row per item")
    codes, texts = encode(read.column(id_name).combine_chunks(), f"{path.name}, {id_name}")
    ids = unique_ids(texts.take(pa.array(codes)), path.name)
    with np.errstate(over="ignore"):
        return ids, _from_lists(read.column(names[0]), ids, path.name) if lists else _from_columns(
            read, names
        )


def is_number(kind: pa.DataType) -> bool:
    """Returns whether a column of this type can hold features: numbers or nothing, not booleans."""
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Returns whether a column of this type has a list of numbers in each row."""
    listed = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return listed and is_number(kind.value_type)


def _from_columns(read: pa.Table, names: list[str]) -> np.ndarray:
    """Returns columns of numbers as (n, F) float32, null as NaN."""
    values = np.empty((len(read), len(names)), dtype=np.float32)
    for position, name in enumerate(names):
        values[:, position] = np.concatenate([doubles(chunk) for chunk in read.column(name).chunks])
    return values


def _from_lists(column: pa.ChunkedArray, ids: np.ndarray, file: str) -> np.ndarray:
    """Returns a column of lists as (n, F) float32; a row of NaN where a list is null or empty."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    widths, first, counts = np.unique(lengths[lengths > 0], return_index=True, return_counts=True)
    if not widths.size:
        raise DataError(f"{file} holds no features: the column has empty lists only")
    if widths.size > 1:
        rare = int(np.argmin(counts))
        row = int(np.flatnonzero(lengths > 0)[first[rare]])
        raise DataError(
            f"{file}: item '{ids[row]}' has {widths[rare]} features, others have "
            f"{widths[int(np.argmax(counts))]}: "
            "give all the same number"
        )
    values = np.full((len(ids), int(widths[0])), np.nan, dtype=np.float32)
    start = 0
    # chunk by chunk: the list offsets of a joined column could overflow
    for chunk in column.chunks:
        filled = np.flatnonzero(lengths[start : start + len(chunk)] > 0)
        flat = doubles(chunk.take(pa.array(filled)).flatten())
        values[start + filled] = flat.reshape(len(filled), values.shape[1])
        start += len(chunk)
    return values
