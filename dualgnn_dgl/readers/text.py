"""Reads text tables: one row a line, fields divided by a separator.

Text is read as text, column by column, and nothing is inferred from a sample; `values` turns it
into numbers.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import streams
from dualgnn_dgl.readers.damage import explained, once
from dualgnn_dgl.readers.heads import LATIN, Head
from dualgnn_dgl.readers.opened import OpenedFile, suffix
from dualgnn_dgl.readers.quotes import check_quotes
from dualgnn_dgl.readers.values import numbers

UNIT = "\x1f"  # replaces a separator of several characters, which Arrow cannot split at
# Text that means "no number".
EMPTY = ["", "nan", "NaN", "NAN", "-nan", "null", "NULL", "None", "NA", "N/A", "n/a", "<NA>"]


@dataclass(frozen=True)
class OpenedText(OpenedFile):
    """Represents a text file of rows and columns.

    Attributes:
        separator: divides the fields of a line.
        header: the first line names the columns.
        encoding: of the text.
        blank: blank lines before the first row.
    """

    kind: str = "CSV or TSV"
    separator: str = ","
    header: bool = True
    encoding: str = "utf-8"
    blank: int = 0
    typed = False

    def batches(
        self, columns: Sequence[str], notes: list[str] | None = None
    ) -> Iterator[list[pa.Array]]:
        """Reads the named columns as large strings, see `OpenedFile.batches`.

        Raises:
            DataError: if the file is damaged, binary or in another encoding, or a line has too few
                or too many fields.
        """
        with self._explained():
            kinds = {name: pa.large_string() for name in columns}
            with pa_csv.open_csv(self._stream(), *self._options(kinds)) as reader:
                rows = 0
                for batch in reader:
                    rows += batch.num_rows
                    yield [batch.column(name) for name in columns]
        if self.quote:
            note = check_quotes(self, rows, columns)
            if note and notes is not None:
                notes.append(note)

    def types(self) -> dict[str, pa.DataType]:
        """Returns the type of every column, as its first rows suggest."""
        with self._explained():
            options = self._options({}, null_values=EMPTY)
            with pa_csv.open_csv(self._stream(), *options) as reader:
                return once(self.name, reader.schema)

    def read(self, id_name: str, names: Sequence[str]) -> pa.Table:
        """Reads ids as text and features as float64, see `OpenedFile.read`."""
        kinds = {id_name: pa.large_string()} | {name: pa.float64() for name in names}
        try:
            return pa_csv.read_csv(self._stream(), *self._options(kinds, null_values=EMPTY))
        except pa.ArrowInvalid as error:
            with self._explained():
                if "conversion error" not in str(error) or "UTF8" in str(error):
                    raise
            raise self._not_a_number(id_name, names, error) from None

    def headless(self) -> bool:
        """Returns whether all names of columns are numbers."""
        return all(re.fullmatch(r"[-+.\d]+", name) for name in self.columns)

    @property
    def quote(self) -> str | bool:
        """Returns the quotation mark, or False.

        RecBole's and MovieLens' files do not quote; a title may begin with a mark there.
        """
        return (
            '"' if self.separator in (",", ";") or suffix(self.path) in (".csv", ".tsv") else False
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns an error of Arrow into one line, with the place of a line of another width."""
        with explained(self.path, "readable table"):
            try:
                yield
            except pa.ArrowInvalid as error:
                if re.search(r"Expected \d+ columns", str(error)):
                    raise self._ragged(" ".join(str(error).split())[:160]) from None
                raise

    def _options(self, kinds: dict[str, pa.DataType], **convert: Any) -> tuple[Any, Any, Any]:
        """Returns Arrow's read, parse and convert options for the columns `kinds`."""
        return (
            pa_csv.ReadOptions(
                block_size=streams.BLOCK,
                column_names=list(self.columns),
                skip_rows=self.blank + self.header,
                encoding=self.encoding,
            ),
            pa_csv.ParseOptions(
                delimiter=UNIT if len(self.separator) > 1 else self.separator,
                quote_char=self.quote,
                newlines_in_values=bool(self.quote),
            ),
            pa_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), **convert),
        )

    def _stream(self) -> Any:
        """Returns the stream that Arrow reads the table from."""
        stream = streams.open_stream(self.path)
        if len(self.separator) == 1:
            return stream
        return pa.PythonFile(_OneCharacter(stream, self.separator), mode="r")

    def _ragged(self, said: str) -> DataError:
        """Returns the error that names the line with too few or too many fields.

        It reads the file a second time, slowly, and only after a failure.
        """
        width = len(self.columns)
        with io.BufferedReader(streams.open_stream(self.path)) as stream:
            lines = (line.decode(self.encoding, "replace") for line in stream)
            if len(self.separator) > 1:
                rows: Iterator[tuple[int, list[str]]] = (
                    (n, line.split(self.separator))
                    for n, line in enumerate(lines, 1)
                    if line.strip()
                )
            else:
                quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
                reader = csv.reader(lines, delimiter=self.separator, quoting=quoting)
                rows = ((reader.line_num, row) for row in reader if row)
            try:
                number, fields = next(
                    ((n, len(row)) for n, row in rows if len(row) != width), (0, 0)
                )
            except csv.Error:
                number, fields = 0, 0
        if not number:
            return DataError(
                f"{self.path} has a row of another width ({said}): fix it, or name the separator "
                f"with --separator"
            )
        return DataError(
            f"{self.name}, line {number}, has {fields} fields, but the table has {width} columns: "
            "fix the line, or name the separator with --separator"
        )

    def _not_a_number(self, id_name: str, names: Sequence[str], error: Exception) -> DataError:
        """Returns the error that names the first word among the numbers."""
        row = 0
        for batch in self.batches([id_name, *names]):
            for name, column in zip(names, batch[1:], strict=True):
                given = pc.invert(pc.is_in(column, pa.array(EMPTY, pa.large_string()))).to_numpy(
                    zero_copy_only=False
                )
                bad = np.flatnonzero(np.isnan(numbers(column)) & given)
                if bad.size:
                    place = int(bad[0])
                    return DataError(
                        f"{self.name}, row {row + place + 1}: the column {name} holds "
                        f"'{column[place].as_py()[:40]}', features are numbers: fix it, or leave "
                        "it empty along with its whole row"
                    )
            row += len(batch[0])
        return DataError(
            f"{self.name} contains something that is not a number "
            f"({' '.join(str(error).split())[:120]}): fix it"
        )


def open_text(
    head: Head, names: Sequence[str] | None = None, kind: str = "CSV or TSV", why: str = ""
) -> OpenedText:
    """Opens a text table by its first lines.

    Args:
        head: the first lines.
        names: of the columns, for a file without a header; cut or extended to the number of fields
            of the first line.
        kind: the format in words.
        why: the evidence for it.
    """
    fields = [name.strip() for name in head.fields()]
    if names is not None:
        extra = [f"column {i}" for i in range(len(names), len(fields))]
        columns = [*names, *extra][: len(fields)]
    else:
        columns = fields
    return OpenedText(
        head.path,
        tuple(columns),
        kind,
        why,
        separator=head.separator,
        header=names is None,
        encoding=_encoding(head.path) if suffix(head.path) in LATIN else "utf-8",
        blank=head.blank,
    )


def _encoding(path: Path) -> str:
    """Returns UTF-8 if the whole file is, else Latin-1: MovieLens' .dat files are either."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with explained(path, "readable table"), streams.open_stream(path) as stream:
        try:
            while chunk := stream.read(streams.BLOCK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"


class _OneCharacter:
    """Reads a byte stream and replaces a separator of several characters by `UNIT`."""

    closed = False

    def __init__(self, stream: pa.NativeFile, separator: str) -> None:
        self.stream, self.separator, self.rest = stream, separator.encode(), b""

    def read(self, size: int = -1) -> bytes:
        """Returns at most `size` bytes; an empty result means the end."""
        chunk = self.stream.read(size - len(self.rest) if size and size > len(self.rest) else size)
        data = (self.rest + chunk).replace(self.separator, UNIT.encode())
        # A separator cut in two by the end of the chunk waits for its other half.
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

    def close(self) -> None:
        """Closes the stream."""
        self.stream.close()
