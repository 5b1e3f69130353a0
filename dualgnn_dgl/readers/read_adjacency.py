"""Logs with one user a line: LightGCN adjacency lists ("user item item …") and MicroLens pairs
("user<TAB>item item …").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from dualgnn_dgl.data.raw import RawLog
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.read_stream import BLOCK, open_stream
from dualgnn_dgl.readers.read_values import encode, unify

BLANKS = np.frombuffer(b" \t\r\n", dtype=np.uint8)


def tokens(path: Path) -> tuple[pa.Array, np.ndarray]:
    """Every word of a text file, and the line it stands in (from 0).

    Returns
    -------
    words : (n,) Arrow text
    line : (n,) int64, ascending

    Notes
    -----
    No word is handled by itself: word borders are where the bytes change between blank and not
    blank, and the words without the blanks between them are an Arrow text array's buffer already.
    """
    try:
        with open_stream(path) as stream:
            # of shape (bytes,)
            text = np.frombuffer(b"".join(iter(lambda: stream.read(BLOCK), b"")), dtype=np.uint8)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read ({' '.join(str(error).split())[:120]}): make it anew"
        ) from None
    if bool((text == 0).any()):
        raise DataError(
            f"{path} is not a text file (a NUL byte at position {int(np.argmin(text))}): is it "
            f"binary, or text in UTF-16?"
        )
    if text[:3].tobytes() == b"\xef\xbb\xbf":  # a byte order mark
        text = text[3:]
    solid = ~np.isin(text, BLANKS)
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
        raise DataError(
            f"{path} is not text in UTF-8: convert it (iconv -f LATIN1 -t UTF-8 old > new), or is "
            f"it a binary file?"
        ) from None


def read_lists(
    parts: Sequence[tuple[Path, int | None]],
    ordered: bool,
    kind: str,
    progress: Callable[[str], None] | None,
) -> RawLog:
    """Read files whose lines are a user and the items of that user.

    Parameters
    ----------
    parts : the files, each with the split it holds (0 train, 1 valid, 2 test) or None
    ordered : the items stand in time order: the time of a row is its position within the user's
        items
    """
    users, items, split = [], [], []
    for path, part in parts:
        if progress:
            progress(f"reading {path.name}")
        words, line = tokens(path)
        # (lines,) the word that begins a line is its user
        first = np.flatnonzero(np.diff(line, prepend=-1))
        is_item = np.ones(len(line), dtype=bool)
        is_item[first] = False
        # (E,) the word that is the row's user
        owner = np.repeat(first, np.diff(first, append=len(line)))[is_item]
        users.append(encode(words.take(pa.array(owner)), f"{path.name}, users"))
        items.append(encode(words.filter(pa.array(is_item)), f"{path.name}, items"))
        split.append(np.full(int(is_item.sum()), -1 if part is None else part, dtype=np.int8))
    total = sum(len(part) for part in split)
    names = ", ".join(path.name for path, _ in parts)
    if not total:
        raise DataError(
            f"{names} holds no interactions: each line must be a user and that user's items, "
            f"separated by blanks"
        )
    user, user_ids = unify(users)
    item, item_ids = unify(items)
    return RawLog(
        user=user,
        item=item,
        user_ids=user_ids,
        item_ids=item_ids,
        time=position_within(user) if ordered else None,
        split=None if parts[0][1] is None else np.concatenate(split),
        rows_read=total,
        files=tuple(str(path) for path, _ in parts),
        kind=kind,
    )


def position_within(codes: np.ndarray) -> np.ndarray:
    """How many earlier rows have the same code; (E,) int64.

    >>> position_within(np.array([4, 4, 2, 4])).tolist()
    [0, 1, 0, 2]
    """
    order = np.argsort(codes, kind="stable")
    begins = np.flatnonzero(np.diff(codes[order], prepend=-1))  # (groups,)
    sizes = np.diff(begins, append=len(codes))
    position = np.empty(len(codes), dtype=np.int64)
    position[order] = np.arange(len(codes)) - np.repeat(begins, sizes)
    return position
