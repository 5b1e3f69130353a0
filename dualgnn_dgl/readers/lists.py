"""Logs with one user a line, followed by the items of that user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers import streams
from dualgnn_dgl.readers.damage import encoding_error
from dualgnn_dgl.readers.opened import OpenedFile

BLANKS = b" \t\r\n"


@dataclass(frozen=True)
class OpenedLists(OpenedFile):
    """Represents lists as a table with a row for each pair of user and item.

    Attributes:
        in_order: the items of a line are in time order.
        marks: bytes that divide words.
    """

    columns: tuple[str, ...] = ("user", "item")
    in_order: bool = False
    marks: bytes = BLANKS
    typed = False
    row_per_line = False

    @property
    def ordered(self) -> bool:
        """Returns whether the items of a line are in time order."""
        return self.in_order

    def batches(
        self, columns: Sequence[str], notes: list[str] | None = None
    ) -> Iterator[list[pa.Array]]:
        """Reads users and items in one batch, see `OpenedFile.batches`."""
        words, line = tokens(self.path, self.marks)
        # (lines,) the word that begins a line is its user
        first = np.flatnonzero(np.diff(line, prepend=-1))
        is_item = np.ones(len(line), dtype=bool)
        is_item[first] = False
        # (E,) position of the word that is the row's user
        owner = np.repeat(first, np.diff(first, append=len(line)))[is_item]
        found = {"user": words.take(pa.array(owner)), "item": words.filter(pa.array(is_item))}
        yield [found[name] for name in columns]


def tokens(path: Path, marks: bytes = BLANKS) -> tuple[pa.Array, np.ndarray]:
    """Reads every word of a text file and the line it is in, from 0.

    The work is done on bytes: word borders are where the bytes change between blank and not blank,
    and the words without the blanks between them are an Arrow text array's buffer already.

    Args:
        path: the file.
        marks: bytes that divide words.

    Returns:
        The words (n,) as Arrow text, and their lines (n,) int64, ascending.
    """
    try:
        with streams.open_stream(path) as stream:
            # of shape (bytes,)
            text = np.frombuffer(
                b"".join(iter(lambda: stream.read(streams.BLOCK), b"")), dtype=np.uint8
            )
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read ({' '.join(str(error).split())[:120]}): write it again"
        ) from None
    if bool((text == 0).any()):
        raise DataError(
            f"{path} is not a text file (a NUL byte at position {int(np.argmin(text))}): is it "
            f"binary, or text in UTF-16?"
        )
    if text[:3].tobytes() == b"\xef\xbb\xbf":  # a byte order mark
        text = text[3:]
    solid = ~np.isin(text, np.frombuffer(marks, dtype=np.uint8))
    # start, end, start, end, … of the words
    border = np.flatnonzero(np.diff(solid, prepend=False, append=False))
    start, end = border[0::2], border[1::2]
    line = np.searchsorted(np.flatnonzero(text == ord("\n")), start)
    offsets = np.zeros(len(start) + 1, dtype=np.int64)
    np.cumsum(end - start, out=offsets[1:])
    data = pa.py_buffer(text[solid].tobytes())
    words = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(start), [None, pa.py_buffer(offsets.tobytes()), data]
    )
    try:
        return words.cast(pa.large_string()), line
    except pa.ArrowInvalid:
        raise encoding_error(path) from None


def position_within(codes: np.ndarray) -> np.ndarray:
    """Returns for every row how many earlier rows have the same code; (E,) int64.

    >>> position_within(np.array([4, 4, 2, 4])).tolist()
    [0, 1, 0, 2]
    """
    order = np.argsort(codes, kind="stable")
    begins = np.flatnonzero(np.diff(codes[order], prepend=-1))  # (groups,)
    sizes = np.diff(begins, append=len(codes))
    position = np.empty(len(codes), dtype=np.int64)
    position[order] = np.arange(len(codes)) - np.repeat(begins, sizes)
    return position
