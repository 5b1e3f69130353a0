"""Explains damaged files: one line with the place and the remedy for each error of Arrow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import streams


@contextmanager
def explained(path: Path, format_name: str = "Parquet file") -> Iterator[None]:
    """Turns an error of Arrow about a bad file into a `DataError` of one line."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        text = " ".join(str(error).split())[:160]
        if "UTF8" in text or "UTF-8" in text or isinstance(error, UnicodeDecodeError):
            raise encoding_error(path) from None
        if "straddling" in text:
            raise DataError(
                f"{path} contains a line longer than {streams.BLOCK >> 20} MB, or a quotation "
                "mark that never closes: is it a table?"
            ) from None
        if "Empty CSV" in text:
            raise empty(path) from None
        raise DataError(
            f"{path} is not a {format_name}, or it is damaged ({text}): write it again"
        ) from None


def empty(path: Path) -> DataError:
    """Returns the error for a file without content."""
    return DataError(f"{path} is empty: give a file with a header and rows")


def encoding_error(path: Path) -> DataError:
    """Returns the error that names the first line that is not UTF-8.

    It reads the file a second time, slowly, and only after a failure.
    """
    where = ""
    with suppress(OSError), io.BufferedReader(streams.open_stream(path)) as stream:
        for number, line in enumerate(stream, 1):
            if line.decode("utf-8", "replace").encode("utf-8") != line:
                where = f", line {number},"
                break
    return DataError(
        f"{path.name}{where} is not text in UTF-8: convert it (iconv -f LATIN1 -t UTF-8 old > "
        f"new), or is it a binary file?"
    )


def once(name: str, schema: pa.Schema) -> dict[str, pa.DataType]:
    """Returns the types of the columns by name.

    Raises:
        DataError: if a name occurs twice.
    """
    kinds = {field.name: field.type for field in schema}
    if len(kinds) < len(schema):
        twice = next(column for column in schema.names if schema.names.count(column) > 1)
        raise DataError(f"{name} has the column {twice} twice: rename one")
    return kinds
