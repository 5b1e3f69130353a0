"""Feature tables keyed by item id: a column of lists, or columns of numbers, in Parquet or text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.opened import Table
from dualgnn_dgl.readers.read_columns import listed, plain
from dualgnn_dgl.readers.read_items import id_column, unique_ids
from dualgnn_dgl.readers.read_table import (
    batches,
    csv_options,
    decoded,
    explained,
    open_table,
    text_stream,
)
from dualgnn_dgl.readers.read_values import doubles, encode, numbers

INDEX_COLUMNS = ("", "unnamed0", "indexlevel0")  # what pandas writes beside the columns
# What stands for "no number" in text.
EMPTY = ["", "nan", "NaN", "NAN", "-nan", "null", "NULL", "None", "NA", "N/A", "n/a", "<NA>"]


def read_feature_table(path: Path, item_col: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read a table with a column of item ids and either one column of lists of numbers or columns
    of numbers.

    Returns
    -------
    ids : (n,) text, each once
    values : (n, F) float32
        NaN where the table is empty; infinite where float32 cannot hold a number.

    Raises
    ------
    DataError
        if there are no ids, no features, other things than numbers, lists of several lengths, or an
        item twice.
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
        for name, kind in column_kinds(table).items()
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
        name
        for name, kind in kinds.items()
        if not lists and table.separator is None and not is_number(kind)
    ]
    if wrong:
        raise DataError(
            f"{path.name}: the column {wrong[0]} holds {kinds[wrong[0]]}, features are numbers: "
            f"take it out or convert it"
        )
    names = lists or list(kinds)
    read = (
        _read_parquet(path, id_name, names)
        if table.separator is None
        else _read_text(table, id_name, names)
    )
    if not len(read):
        raise DataError(f"{path} holds no rows: give one row per item")
    where = f"{path.name}, column {id_name},"
    codes, texts = encode(
        decoded(read.column(id_name).combine_chunks(), where), f"{path.name}, {id_name}"
    )
    ids = unique_ids(texts.take(pa.array(codes)), path.name)
    with np.errstate(over="ignore"):
        return ids, _from_lists(read.column(names[0]), ids, path.name) if lists else _from_columns(
            read, names
        )


def column_kinds(table: Table) -> dict[str, pa.DataType]:
    """Column -> type; for text, as its first rows look."""
    with explained(table.path, table):
        if table.separator is None:
            with open_regular(table.path) as handle:
                schema = pq.read_schema(handle)
        else:
            options = csv_options(table, {}, null_values=EMPTY)
            with pa_csv.open_csv(text_stream(table), *options) as reader:
                schema = reader.schema
    kinds = {field.name: field.type for field in schema}
    if len(kinds) < len(schema):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataError(f"{table.name} has the column {twice} twice: rename one")
    return kinds


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds features: numbers, or nothing at all; not booleans."""
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds a list of numbers a row."""
    listed = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return listed and is_number(kind.value_type)


def _read_parquet(path: Path, id_name: str, names: list[str]) -> pa.Table:
    with explained(path), open_regular(path) as handle:
        return pq.read_table(handle, columns=[id_name, *names])


def _read_text(table: Table, id_name: str, names: list[str]) -> pa.Table:
    """The table with ids as text and features as float64.

    The error for a word among the numbers says where it stands.
    """
    kinds = {id_name: pa.large_string()} | {name: pa.float64() for name in names}
    try:
        return pa_csv.read_csv(text_stream(table), *csv_options(table, kinds, null_values=EMPTY))
    except pa.ArrowInvalid as error:
        with explained(table.path, table):
            if "conversion error" not in str(error) or "UTF8" in str(error):
                raise
        row = 0
        for batch in batches(table, [id_name, *names]):
            for name, column in zip(names, batch[1:], strict=True):
                filled = pc.invert(pc.is_in(column, pa.array(EMPTY, pa.large_string()))).to_numpy(
                    zero_copy_only=False
                )
                bad = np.flatnonzero(np.isnan(numbers(column)) & filled)
                for place in bad[:1]:
                    raise DataError(
                        f"{table.name}, row {row + int(place) + 1}: the column {name} holds "
                        f"'{column[int(place)].as_py()[:40]}', "
                        "features are numbers: mend it, or leave it empty along with its whole row"
                    ) from None
            row += len(batch[0])
        raise DataError(
            f"{table.name} holds something that is not a number "
            f"({' '.join(str(error).split())[:120]}): mend it"
        ) from None


def _from_columns(read: pa.Table, names: list[str]) -> np.ndarray:
    """Columns of numbers as (n, F) float32, null as NaN."""
    values = np.empty((len(read), len(names)), dtype=np.float32)
    for position, name in enumerate(names):
        values[:, position] = np.concatenate([doubles(chunk) for chunk in read.column(name).chunks])
    return values


def _from_lists(column: pa.ChunkedArray, ids: np.ndarray, file: str) -> np.ndarray:
    """A column of lists as (n, F) float32; a row of NaN where the list is null or empty."""
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
