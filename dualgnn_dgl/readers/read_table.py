"""Text tables and Parquet files, opened and read in batches: what every other reader stands on.

Text is read as text, column by column, and nothing is inferred from a sample; `read_values` turns
it into numbers.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dualgnn_dgl.core.arrays import refuse_foreign
from dualgnn_dgl.core.inputs import open_regular, refuse_special
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.opened import Table, stem, suffix
from dualgnn_dgl.readers.read_quotes import check_quotes
from dualgnn_dgl.readers.read_stream import BLOCK, open_stream, read_fully

ROWS = 1 << 19  # rows of Parquet read at once
# bytes read of a file to see what it is; more where its first line is longer, up to BLOCK
HEAD = 1 << 16
TEXT = (".csv", ".tsv", ".txt", ".inter", ".item", ".dat", ".data", ".tab", "")
# Separators to look for in the first line, by suffix; the first one found there wins.
SEPARATORS = {
    ".csv": (",", "\t", ";", "|"),
    ".dat": ("::", "\t", ",", ";", "|", " "),
    ".data": ("\t", "::", ",", ";", "|", " "),
}
OTHER_SEPARATORS = ("\t", "::", ",", ";", "|", " ")
UNIT = "\x1f"  # stands for a separator of several characters, which Arrow cannot split at


def head(path: Path) -> list[str]:
    """The first lines of a text file (at most some hundred), without their ends.

    Raises
    ------
    DataError
        if the file is missing, empty, binary or not text in UTF-8 (or, for `.dat` and `.data`,
        Latin-1), or if its first line is longer than a block.
    """
    refuse_special(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: check the path")
    if path.is_dir():
        raise DataError(f"{path} is a folder, a file is needed here")
    start, ended = _start(path)
    if not start.strip():
        raise DataError(f"{path} is empty: give a file with a header and rows")
    if start[:4] == b"PAR1":
        raise DataError(
            f"{path} is a Parquet file by another name: rename it to {stem(path)}.parquet"
        )
    if b"\0" in start:
        raise DataError(
            f"{path} is not a text table (a NUL byte at position {start.index(0)}): is it binary, "
            f"or text in UTF-16?"
        )
    if start.startswith(codecs.BOM_UTF8):
        start = start[3:]
    text = codecs.getincrementaldecoder("utf-8")(
        "replace" if suffix(path) in (".dat", ".data") else "strict"
    )
    try:
        lines = text.decode(start).splitlines()
    except UnicodeDecodeError:
        raise _encoding_error(path) from None
    lines = [line for line in (lines if ended else lines[:-1]) if line.strip()]
    if not lines and not ended:
        raise DataError(
            f"{path} has a first line longer than {BLOCK >> 20} MB: is it a table, and one row a "
            f"line?"
        )
    if not lines:
        raise DataError(f"{path} is empty: give a file with a header and rows")
    return lines[:256]


def _start(path: Path) -> tuple[bytes, bool]:
    """The first bytes of a text file, which hold its first line that is not blank, and whether that
    is all of it.
    """
    with explained(path), open_stream(path) as stream:
        start = read_fully(stream, HEAD)
        wanted = HEAD
        while len(start) == wanted < BLOCK and not _has_line(start) and b"\0" not in start:
            more = read_fully(stream, min(3 * wanted, BLOCK - wanted))
            start, wanted = start + more, min(4 * wanted, BLOCK)
        return start, len(start) < wanted or not stream.read(1)


def blank_lines(path: Path) -> int:
    """Count the blank lines that a text file begins with.

    Arrow counts them when it leaves out the header.
    """
    start = _start(path)[0].removeprefix(codecs.BOM_UTF8)
    return len(re.findall(rb"\r\n|\r|\n", start[: len(start) - len(start.lstrip())]))


def _has_line(start: bytes) -> bool:
    """Whether a line that is not blank ends within these bytes."""
    filled = start.lstrip()
    return b"\n" in filled or b"\r" in filled


def split_line(line: str, separator: str) -> list[str]:
    """The fields of one line; quotes count where the separator is one character."""
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [""])
    except csv.Error:  # a field longer than any name or id
        return line.split(separator)


def sniff_separator(path: Path, line: str) -> str:
    """The separator of a text table: the first of those usual for the suffix that the first line
    holds.
    """
    found = [
        separator
        for separator in SEPARATORS.get(suffix(path), OTHER_SEPARATORS)
        if separator in line
    ]
    return found[0] if found else ","


def open_table(
    path: Path, separator: str | None = None, names: Sequence[str] | None = None
) -> Table:
    """Look at a table's head: its columns and its separator.

    Parameters
    ----------
    names : of the columns, for a file without a header; cut to the number of fields of the first
        line.
    """
    refuse_foreign(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: check the path")
    if suffix(path) == ".parquet":
        with explained(path), open_regular(path) as handle:
            columns = tuple(pq.ParquetFile(handle).schema_arrow.names)
        return Table(path, columns)
    if suffix(path) not in TEXT:
        raise DataError(
            f"{path} has the suffix {suffix(path)}, which no reader knows: "
            f"give a .parquet file or text ({' '.join(filter(None, TEXT))})"
        )
    first = head(path)[0]
    separator = separator or sniff_separator(path, first)
    fields = [field.strip() for field in split_line(first, separator)]
    encoding = _encoding(path) if suffix(path) in (".dat", ".data") else "utf-8"
    if names is None:
        return Table(path, tuple(fields), separator, True, encoding, blank_lines(path))
    if len(fields) > len(names):
        names = [*names, *(f"column {i}" for i in range(len(names), len(fields)))]
    return Table(path, tuple(names[: len(fields)]), separator, False, encoding, blank_lines(path))


def batches(
    table: Table, columns: Sequence[str], notes: list[str] | None = None
) -> Iterator[list[pa.Array]]:
    """Read the named columns batch by batch, in file order.

    Text as large strings, Parquet in its own types.

    The first two columns hold ids. What is odd about a text file, though not wrong, is added to
    `notes`.

    Raises
    ------
    DataError
        if the file is damaged, binary or in another encoding, or a line has too few or too many
        fields.
    """
    if table.separator is None:
        with explained(table.path), open_regular(table.path) as handle:
            for batch in pq.ParquetFile(handle).iter_batches(ROWS, columns=list(columns)):
                found = [
                    (name, batch.column(batch.schema.get_field_index(name))) for name in columns
                ]
                yield [decoded(column, f"{table.name}, column {name},") for name, column in found]
        return
    with explained(table.path, table):
        kinds = {name: pa.large_string() for name in columns}
        with pa_csv.open_csv(text_stream(table), *csv_options(table, kinds)) as reader:
            rows = 0
            for batch in reader:
                rows += batch.num_rows
                yield [batch.column(name) for name in columns]
    if _quote(table):
        note = check_quotes(table, rows, columns)
        if note and notes is not None:
            notes.append(note)


def decoded(column: pa.Array, where: str) -> pa.Array:
    """A column of Parquet, a dictionary-encoded one (a pandas category) as its values.

    Text is checked, Parquet does not.
    """
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where} is damaged or no text in UTF-8 ({' '.join(str(error).split())[:80]}): write "
            f"it anew"
        ) from None
    return column


def csv_options(
    table: Table, kinds: dict[str, pa.DataType], **convert: Any
) -> tuple[Any, Any, Any]:
    """Arrow's read, parse and convert options for the columns `kinds` of a text table."""
    several = len(table.separator or "") > 1
    quote = _quote(table)
    return (
        pa_csv.ReadOptions(
            block_size=BLOCK,
            column_names=list(table.columns),
            skip_rows=table.blank + table.header,
            encoding=table.encoding,
        ),
        pa_csv.ParseOptions(
            delimiter=UNIT if several else table.separator,
            quote_char=quote,
            newlines_in_values=bool(quote),
        ),
        pa_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), **convert),
    )


def _quote(table: Table) -> str | bool:
    """The quotation mark, or False: RecBole's and MovieLens' files do not quote, a title may begin
    with a mark there.
    """
    return '"' if table.separator in (",", ";") or suffix(table.path) in (".csv", ".tsv") else False


class _OneCharacter:
    """A byte stream in which a separator of several characters is replaced by `UNIT`."""

    def __init__(self, stream: pa.NativeFile, separator: str) -> None:
        self.stream, self.separator, self.rest = stream, separator.encode(), b""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; fewer come even before the end, none only at the end."""
        chunk = self.stream.read(size - len(self.rest) if size and size > len(self.rest) else size)
        data = (self.rest + chunk).replace(self.separator, UNIT.encode())
        # a separator cut in two by the end of the chunk waits for its other half
        keep = (
            max(
                (k for k in range(1, len(self.separator)) if data.endswith(self.separator[:k])),
                default=0,
            )
            if chunk
            else 0
        )
        self.rest, ready = data[len(data) - keep :], data[: len(data) - keep]
        return ready if ready or not chunk else self.read(size)

    closed = False

    def close(self) -> None:
        self.stream.close()


def text_stream(table: Table) -> Any:
    """What Arrow reads the table from."""
    separator = table.separator or ""
    stream = open_stream(table.path)
    return (
        pa.PythonFile(_OneCharacter(stream, separator), mode="r") if len(separator) > 1 else stream
    )


def _encoding(path: Path) -> str:
    """UTF-8 if the whole file is, else Latin-1: MovieLens' .dat files are either."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with explained(path), open_stream(path) as stream:
        try:
            while chunk := stream.read(BLOCK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"


@contextmanager
def explained(path: Path, table: Table | None = None) -> Iterator[None]:
    """Turn what Arrow says about a bad file into one line that a person can act on."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        text = " ".join(str(error).split())[:160]
        if table is not None and re.search(r"Expected \d+ columns", text):
            raise _ragged_error(table, text) from None
        if "UTF8" in text or "UTF-8" in text or isinstance(error, UnicodeDecodeError):
            raise _encoding_error(path) from None
        if "straddling" in text:
            raise DataError(
                f"{path} holds a line longer than {BLOCK >> 20} MB, or a quotation mark that "
                f"never closes: is it a table?"
            ) from None
        if "Empty CSV" in text:
            raise DataError(f"{path} is empty: give a file with a header and rows") from None
        kind = "a Parquet file" if suffix(path) == ".parquet" else "a readable table"
        raise DataError(f"{path} is not {kind}, or it is damaged ({text}): make it anew") from None


def _ragged_error(table: Table, said: str) -> DataError:
    """Name the line with too few or too many fields.

    A slow second reading, only on the way to an error.
    """
    width, separator = len(table.columns), table.separator or ","
    with io.BufferedReader(open_stream(table.path)) as stream:
        lines = (line.decode(table.encoding, "replace") for line in stream)
        if len(separator) > 1:
            rows: Iterator[tuple[int, list[str]]] = (
                (n, line.split(separator)) for n, line in enumerate(lines, 1) if line.strip()
            )
        else:
            quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if _quote(table) else csv.QUOTE_NONE
            reader = csv.reader(lines, delimiter=separator, quoting=quoting)
            rows = ((reader.line_num, row) for row in reader if row)
        try:
            number, fields = next(((n, len(row)) for n, row in rows if len(row) != width), (0, 0))
        except csv.Error:
            number, fields = 0, 0
    if not number:
        return DataError(
            f"{table.path} has a row of another width ({said}): mend it, or name the separator "
            f"with --separator"
        )
    return DataError(
        f"{table.name}, line {number}, has {fields} fields, but the table has {width} columns: "
        "mend the line, or name the separator with --separator"
    )


def _encoding_error(path: Path) -> DataError:
    """Name the first line that is not UTF-8; a slow second reading, only on the way to an error."""
    where = ""
    with suppress(OSError), io.BufferedReader(open_stream(path)) as stream:
        for number, line in enumerate(stream, 1):
            if line.decode("utf-8", "replace").encode("utf-8") != line:
                where = f", line {number},"
                break
    return DataError(
        f"{path.name}{where} is not text in UTF-8: convert it (iconv -f LATIN1 -t UTF-8 old > "
        f"new), or is it a binary file?"
    )
