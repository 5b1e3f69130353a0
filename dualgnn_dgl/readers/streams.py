"""Opens files as streams of bytes, and expands compressed ones within limits.

Archives of several members (zip, tar, .npz) are not read at all (`arrays.refuse_foreign`); .gz,
.bz2 and .zst contain one stream.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.errors import DataError

COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}  # suffix -> Arrow's codec
BLOCK = 1 << 24  # bytes of text read at once: bounds the memory, and the longest line
# Logs shrink to a tenth or, written very regularly, to a fiftieth. A file beyond both limits was
# made to exhaust memory.
MOST_TIMES, MOST_BYTES = 250, 1 << 30


def open_stream(path: Path) -> pa.NativeFile:
    """Opens a stream of the bytes of a file, expanded if its suffix says it is compressed.

    Raises:
        DataError: later, while it is read: if it expands to more than a gigabyte and 250 times its
            size.
    """
    file = open_regular(path)
    codec = COMPRESSED.get(path.suffix.lower())
    if codec is None:
        return pa.PythonFile(file, mode="r")
    stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)
    return pa.PythonFile(_Bounded(stream, file, path), mode="r")


def read_fully(stream: pa.NativeFile, size: int) -> bytes:
    """Reads `size` bytes, or fewer where the stream ends.

    A single read may give fewer before the end, too.
    """
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Bounded:
    """Counts the bytes that come out of a stream."""

    closed = False

    def __init__(self, stream: pa.NativeFile, file: Any, path: Path) -> None:
        self.stream, self.path, self.count = stream, path, 0
        self.most = max(MOST_BYTES, MOST_TIMES * os.fstat(file.fileno()).st_size)

    def read(self, size: int) -> bytes:
        """Reads at most `size` bytes."""
        chunk: bytes = self.stream.read(size)
        self.count += len(chunk)
        if self.count > self.most:
            raise DataError(
                f"{self.path} expands to more than {MOST_TIMES} times its size: it is no log. If "
                f"it is, expand it yourself first"
            )
        return chunk

    def close(self) -> None:
        self.stream.close()
