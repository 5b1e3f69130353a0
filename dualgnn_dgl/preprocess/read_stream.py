"""Files as streams of bytes, compressed ones expanded as they are read, and no further than any honest log expands.

Archives of several members (zip, tar, .npz) are not read at all (`files.refuse_foreign`); .gz, .bz2 and .zst hold one stream.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from dualgnn_dgl.errors import DataError

COMPRESSED = (".gz", ".bz2", ".zst")
BLOCK = 1 << 24  # bytes of text read at once: bounds the memory, and the longest line
# Logs shrink to a tenth or, written very regularly, to a fiftieth. A file beyond both limits was made to fill memory.
MOST_TIMES, MOST_BYTES = 250, 1 << 30


def open_stream(path: Path) -> pa.NativeFile:
    """A readable stream of the bytes of a file, expanded if its suffix says that it is compressed.

    Raises
    ------
    DataError
        later, while it is read: if it expands to more than a gigabyte and 250 times its size.
    """
    stream = pa.input_stream(str(path), compression="detect")
    if path.suffix.lower() not in COMPRESSED:
        return stream
    return pa.PythonFile(_Bounded(stream, path), mode="r")


class _Bounded:
    """A byte stream that counts what comes out of it."""

    closed = False

    def __init__(self, stream: pa.NativeFile, path: Path) -> None:
        self.stream, self.path, self.count = stream, path, 0
        self.most = max(MOST_BYTES, MOST_TIMES * path.stat().st_size)

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        chunk: bytes = self.stream.read(size)
        self.count += len(chunk)
        if self.count > self.most:
            raise DataError(
                f"{self.path} expands to more than {MOST_TIMES} times its size: it is no log. If it is, expand it yourself first"
            )
        return chunk

    def close(self) -> None:
        self.stream.close()
