"""Reads Parquet files as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.damage import explained, once
from dualgnn_dgl.readers.opened import OpenedFile

ROWS = 1 << 19  # rows read at once


@dataclass(frozen=True)
class OpenedParquet(OpenedFile):
    """Represents a Parquet file, whose columns keep their own types."""

    kind: str = "Parquet"

    def batches(
        self, columns: Sequence[str], notes: list[str] | None = None
    ) -> Iterator[list[pa.Array]]:
        """Reads the named columns batch by batch, see `OpenedFile.batches`."""
        with explained(self.path), open_regular(self.path) as handle:
            for batch in pq.ParquetFile(handle).iter_batches(ROWS, columns=list(columns)):
                found = [
                    (name, batch.column(batch.schema.get_field_index(name))) for name in columns
                ]
                yield [decoded(column, f"{self.name}, column {name},") for name, column in found]

    def types(self) -> dict[str, pa.DataType]:
        """Returns the type of every column."""
        with explained(self.path), open_regular(self.path) as handle:
            return once(self.name, pq.read_schema(handle))

    def read(self, id_name: str, names: Sequence[str]) -> pa.Table:
        """Reads ids and features, see `OpenedFile.read`."""
        with explained(self.path), open_regular(self.path) as handle:
            read = pq.read_table(handle, columns=[id_name, *names])
        ids = decoded(read.column(id_name).combine_chunks(), f"{self.name}, column {id_name},")
        return read.set_column(read.schema.get_field_index(id_name), id_name, ids)


def open_parquet(path: Path) -> OpenedParquet:
    """Opens a Parquet file.

    Raises:
        DataError: if it is none, or damaged.
    """
    with explained(path), open_regular(path) as handle:
        columns = tuple(pq.ParquetFile(handle).schema_arrow.names)
    return OpenedParquet(path, columns, why="its name or its first bytes say Parquet")


def decoded(column: pa.Array, where: str) -> pa.Array:
    """Returns a column with dictionary codes (a pandas category) replaced by their values.

    Parquet does not check its text, so this does.
    """
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where} is damaged or not text in UTF-8 ({' '.join(str(error).split())[:80]}): "
            "write it again"
        ) from None
    return column
