"""Reads a log from a pipe: `/dev/stdin`, or `/dev/fd/63` that a shell writes for `<(zcat log)`.

Readers open a log several times and go by its name. So a pipe is copied once into a temporary file
whose suffix says how it is compressed. Only the pipes and sockets that this process
was started with are read; a FIFO named by its own path is refused (`inputs.open_regular`), because
it may never have a writer.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dualgnn_dgl.errors import DataError, DualGNNError

OWN = re.compile(r"/dev/stdin|/(?:dev|proc/self)/fd/(\d{1,9})")
MOST = 1 << 34  # bytes copied
CHUNK = 1 << 20
FIRST_BYTES = (
    (b"\x1f\x8b", ".gz"),
    (b"BZh", ".bz2"),
    (b"\x28\xb5\x2f\xfd", ".zst"),
)


@contextmanager
def as_file(path: str | Path) -> Iterator[Path]:
    """Gives a path that can be opened several times.

    A copy where `path` is this process's own pipe, else `path` itself.

    A file that was redirected (`< log.csv.gz`) is read by its own name and suffix. `-` is
    `/dev/stdin`.

    Raises:
        DataError: if standard input is closed or a terminal, or more than 16 GB come out of the
            pipe. Errors raised inside the block name `path` instead of the copy.
    """
    named = "/dev/stdin" if path == "-" else str(path)
    own = OWN.fullmatch(named)
    if own is None:
        yield Path(path)
        return
    descriptor = int(own[1] or 0)
    found = _file_of(named, descriptor)
    if found is not None:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="dualgnn-") as folder, tempfile.TemporaryFile() as file:
        copy = Path(folder) / _copy(named, descriptor, file)
        try:
            # the file itself has no name, so that nothing of the log is left behind when this
            # process is killed
            copy.symlink_to(f"/proc/self/fd/{file.fileno()}")
            if not copy.exists():  # no /proc here
                copy.unlink()
                file.seek(0)
                with copy.open("xb") as named_file:
                    shutil.copyfileobj(file, named_file)
            yield copy
        except DualGNNError as error:
            raise type(error)(str(error).replace(str(copy), named)) from None


def _file_of(named: str, descriptor: int) -> Path | None:
    """Returns the file or folder behind a descriptor; None for one that has to be copied.

    A pipe or socket has to be, and a file without a name (as of a here-document) or one that has
    been read in part.
    """
    if descriptor == 0 and sys.__stdin__ is None:
        raise DataError("standard input is closed: name the log, or pipe one in")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return Path(named)  # not open: the readers say that it does not exist
    if os.isatty(descriptor):
        raise DataError(
            f"{named} is a terminal: pipe a log in, as in 'zcat log.csv.gz | dualgnn …', or name "
            f"the log"
        )
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return Path(named)  # a device: the readers refuse it
    real = Path(os.path.realpath(named))
    begun = stat.S_ISREG(status.st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) != 0
    try:
        return None if begun or not os.path.samestat(status, real.stat()) else real
    except OSError:
        return None


def _copy(named: str, descriptor: int, file: BinaryIO) -> str:
    """Copies the whole of a pipe and returns the name for the copy, with the suffix that fits."""
    part, start, count = _read(descriptor), b"", 0
    while part:
        count += len(part)
        if count > MOST:
            raise DataError(
                f"{named} gives more than {MOST:,} bytes: write it to a file and name that file"
            )
        start += part[: 4 - len(start)]
        file.write(part)
        part = _read(descriptor)
    file.flush()
    suffix = next((ending for mark, ending in FIRST_BYTES if start.startswith(mark)), "")
    return f"{'stdin' if descriptor == 0 else 'pipe'}{suffix}"


def _read(descriptor: int) -> bytes:
    """Returns the next bytes of a pipe, b"" at its end.

    Another process may have made it one that does not wait.
    """
    while True:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:
            select.select([descriptor], [], [])
