"""Reads item tables and lists: ids, their order for aligned arrays, and titles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.columns import find_column, listed, plain
from dualgnn_dgl.readers.formats import open_items
from dualgnn_dgl.readers.opened import OpenedFile
from dualgnn_dgl.readers.values import as_text, blank, encode, text_array, undotted


@dataclass(frozen=True, eq=False)
class ItemList:
    """Lists items in the order of a file.

    Attributes:
        ids: (n,) text, each once.
        titles: (n,) in the same order, or None.
        file: its name, for messages.
        notes: remarks for the report.
    """

    ids: np.ndarray
    titles: list[str] | None
    file: str
    notes: tuple[str, ...] = ()


def id_column(table: OpenedFile, wanted: str | None = None) -> str | None:
    """Returns the column of item ids.

    That is the one wanted (if the table has it), a common item name, `id`, or the only name that
    ends in "id".
    """
    if wanted and wanted in table.columns:
        return wanted
    found = find_column(table, "item")
    if found is None:
        ending = [name for name in table.columns if plain(name).endswith("id")]
        exact = [name for name in ending if plain(name) == "id"]
        found = (exact or ending)[0] if len(exact or ending) == 1 else None
    return found


def read_items(path: Path, item_col: str | None = None) -> ItemList:
    """Reads an item table (ids, perhaps titles) or a list with one id a line.

    Raises:
        DataError: if the file is not readable, has no column of ids, or names an item twice or not
            at all.
    """
    table = open_items(path)
    id_name = id_column(table, item_col)
    if id_name is None:
        raise DataError(
            f"{path.name} has the columns {listed(table.columns)}; none is known to hold item "
            f"ids: rename it to item_id"
        )
    title_name = find_column(table, "title")
    names = [id_name] + ([title_name] if title_name and title_name != id_name else [])
    notes: list[str] = []
    ids, titles, start = [], [], 0
    for batch in table.batches(names, notes):
        codes, texts = encode(batch[0], f"{path.name}, {id_name}", start)
        ids.append(texts.take(pa.array(codes)))
        start += len(codes)
        if len(names) > 1:
            titles += [
                text.strip() for text in as_text(batch[1], f"{path.name}, {title_name}").to_pylist()
            ]
    if not ids or not start:
        raise DataError(f"{path} lists no items: give one item a row")
    return ItemList(
        unique_ids(pa.concat_arrays(ids), path.name), titles or None, path.name, tuple(notes)
    )


def unique_ids(texts: pa.Array, file: str) -> np.ndarray:
    """Returns ids (n,) as NumPy text, after the check that each occurs once."""
    empty = np.flatnonzero(blank(texts))
    if empty.size:
        raise DataError(
            f"{file}, row {int(empty[0]) + 1}, has no item id: name the item, or take the row out"
        )
    coded = texts.dictionary_encode()
    if len(coded.dictionary) < len(texts):
        codes = coded.indices.to_numpy(zero_copy_only=False)
        # the first row that brings no new id
        again = int(np.argmax(np.diff(np.maximum.accumulate(codes), prepend=-1) == 0))
        first = int(np.argmax(codes == codes[again]))
        raise DataError(
            f"{file} lists item '{texts[again].as_py()}' twice, in rows {first + 1} and "
            f"{again + 1}: give each item once"
        )
    return text_array(undotted(texts))
