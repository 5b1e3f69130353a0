"""Reads JSON Lines files as tables: one object a line, its keys the columns.

Numbers keep the text they are written with, so that ids, ratings and times are read exactly as
from CSV.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import streams
from dualgnn_dgl.readers.damage import empty, explained
from dualgnn_dgl.readers.opened import OpenedFile

ROWS = 1 << 16  # rows of a batch
SEEN = 256  # lines from which columns and their types are taken
NUMBER, LIST = pa.float64(), pa.list_(pa.float64())
Record = dict[str, Any]


class _Number(str):
    """Marks text that was a number in the file."""


@dataclass(frozen=True)
class OpenedJsonLines(OpenedFile):
    """Represents a JSON Lines file; a key that an object lacks is empty there."""

    kind: str = "JSON Lines"

    def batches(
        self, columns: Sequence[str], notes: list[str] | None = None
    ) -> Iterator[list[pa.Array]]:
        """Reads the named columns as large strings, see `OpenedFile.batches`.

        Keys that occur first after the first 256 lines are not columns; a remark names one.
        """
        start, known, late = 0, set(self.columns), ""
        for records in self._records():
            yield [self._text(records, name, start) for name in columns]
            start += len(records)
            late = late or next((key for one in records for key in one if key not in known), "")
        if late and notes is not None:
            notes.append(
                f"{self.name}: the key {late[:40]} does not occur in the first {SEEN} lines and "
                "is not read: write it in the first line, as null if need be"
            )

    def types(self) -> dict[str, pa.DataType]:
        """Returns number, list of numbers, text or nothing, as the first values suggest."""
        kinds: dict[str, pa.DataType] = dict.fromkeys(self.columns, pa.null())
        for records in self._records():
            for name in [name for name, kind in kinds.items() if pa.types.is_null(kind)]:
                values = (record[name] for record in records if record.get(name) is not None)
                kinds[name] = _type(next(values, None))
            if not any(pa.types.is_null(kind) for kind in kinds.values()):
                break
        return kinds

    def read(self, id_name: str, names: Sequence[str]) -> pa.Table:
        """Reads ids as text, features as float64 or lists of it, see `OpenedFile.read`."""
        kinds = self.types()
        parts, start = [], 0
        for records in self._records():
            columns = [self._text(records, id_name, start)] + [
                self._lists(records, name, start)
                if kinds[name] == LIST
                else pa.array(self._numbers([one.get(name) for one in records], name, start))
                for name in names
            ]
            parts.append(pa.record_batch(columns, [id_name, *names]))
            start += len(records)
        return pa.Table.from_batches(parts)

    def _records(self) -> Iterator[list[Record]]:
        """Reads objects in batches that are bounded by rows and bytes."""
        batch: list[Record] = []
        size = 0
        for record, length in _objects(self.path):
            batch.append(record)
            size += length
            if len(batch) == ROWS or size >= streams.BLOCK:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _text(self, records: Sequence[Record], name: str, start: int) -> pa.Array:
        values = [record.get(name) for record in records]
        try:
            return pa.array(values, pa.large_string())
        except UnicodeEncodeError:
            raise DataError(
                f"{self.name}, column {name}, contains half of a surrogate pair, which is not a "
                "character: write the text in UTF-8"
            ) from None
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            pass
        for row, value in enumerate(values):
            if isinstance(value, list | dict):
                raise DataError(
                    f"{self.name}, row {start + row + 1}: the column {name} holds a list or an "
                    "object, a number or text is needed: write one row for each value"
                )
        words = [str(value).lower() if isinstance(value, bool) else value for value in values]
        return pa.array(words, pa.large_string())

    def _numbers(self, values: Sequence[Any], name: str, start: int) -> np.ndarray:
        """Returns values (n,) as float64, null as NaN."""
        try:
            if all(value is None or type(value) is _Number for value in values):
                column = pa.array(values, pa.large_string()).cast(pa.float64())
                return column.to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:  # more digits than Arrow reads
            return np.array([np.nan if one is None else float(one) for one in values])
        row = next(
            row for row, one in enumerate(values) if one is not None and type(one) is not _Number
        )
        raise self._no_number(name, start + row, values[row])

    def _lists(self, records: Sequence[Record], name: str, start: int) -> pa.Array:
        values = [record.get(name) for record in records]
        for row, value in enumerate(values):
            if value is not None and not isinstance(value, list):
                raise self._no_number(name, start + row, value)
        lengths = np.array([0 if value is None else len(value) for value in values])
        flat = list(chain.from_iterable(value for value in values if value is not None))
        try:
            numbers = self._numbers(flat, name, start)
        except DataError:
            row, wrong = next(
                (row, one)
                for row, value in enumerate(values)
                for one in value or ()
                if one is not None and type(one) is not _Number
            )
            raise self._no_number(name, start + row, wrong) from None
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers))

    def _no_number(self, name: str, row: int, value: Any) -> DataError:
        return DataError(
            f"{self.name}, row {row + 1}: the column {name} holds {json.dumps(value)[:40]}, "
            "features are numbers or lists of numbers: fix it, or write null"
        )


def open_json_lines(path: Path) -> OpenedJsonLines:
    """Opens a JSON Lines file; the keys of its first lines are the columns.

    Raises:
        DataError: if it is empty or its first lines are not objects.
    """
    columns: dict[str, None] = {}
    line = 0
    for line, (record, _) in enumerate(_objects(path), 1):
        columns |= dict.fromkeys(record)
        if line == SEEN:
            break
    if not line:
        raise empty(path)
    return OpenedJsonLines(path, tuple(columns), why="each of its first lines is a JSON object")


def _objects(path: Path) -> Iterator[tuple[Record, int]]:
    """Reads the object of every line that is not blank, and the line's length in bytes."""
    decode = json.JSONDecoder(
        parse_int=_Number,
        parse_float=_Number,
        parse_constant=_refuse,
        object_pairs_hook=_object,
    ).decode
    with explained(path, "JSON Lines file"), io.BufferedReader(streams.open_stream(path)) as stream:
        lines = iter(lambda: stream.readline(streams.BLOCK + 1), b"")
        for number, line in enumerate(lines, 1):
            if len(line) > streams.BLOCK:
                raise DataError(
                    f"{path.name}, line {number}, is longer than {streams.BLOCK >> 20} MB: write "
                    "one object a line"
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                record = decode(line.decode())
            except UnicodeDecodeError:
                raise
            except (ValueError, RecursionError) as error:
                raise _bad_line(path, number, str(error)) from None
            if type(record) is not dict:
                raise _bad_line(path, number, "it is not an object")
            yield record, len(line)


def _bad_line(path: Path, number: int, why: str) -> DataError:
    return DataError(
        f"{path.name}, line {number}, is not a JSON object ({' '.join(why.split())[:100]}): write "
        'one object a line, such as {"user": 1, "item": 2}'
    )


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key is given twice")
    return record


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON, write null")


def _type(value: Any) -> pa.DataType:
    """Returns the type that the first value of a column suggests."""
    if value is None:
        return pa.null()
    if isinstance(value, list):
        numeric = all(one is None or type(one) is _Number for one in value)
        return LIST if numeric else pa.list_(pa.string())
    if type(value) is _Number:
        return NUMBER
    return pa.bool_() if isinstance(value, bool) else pa.string()
