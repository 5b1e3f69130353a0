"""Opens input files: regular files only.

A FIFO without a writer, a terminal or a device would make a reader wait without end. `open_regular`
refuses them before it opens anything, and checks again afterwards, because the name may point to
another file by then. Readers take the open file instead of its name, because Arrow cannot open a
name that is not UTF-8.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any

from dualgnn_dgl.errors import DataError, DualGNNError

SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)
# O_NONBLOCK: a path that became a FIFO after the check must not wait for a writer. Windows lacks
# both flags.
FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def special(path: str | Path) -> str:
    """Returns in words why a path cannot be read as a file, '' if it can.

    The words are 'a pipe', 'a socket', and so on. Files, folders and missing names give ''.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError:  # a NUL in the name
        return ""
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a loop of links"
        return (
            "a link that leads nowhere"
            if error.errno == errno.ENOENT and os.path.islink(path)
            else ""
        )
    return _kind(mode)


def refuse_special(path: str | Path, what: type[DualGNNError] = DataError) -> None:
    """Raises `what` for a pipe, a socket, a device, and a circular or broken link.

    The path is not opened.
    """
    kind = special(path)
    if kind:
        raise _refused(path, kind, what)


def open_regular(path: str | Path, what: type[DualGNNError] = DataError) -> io.BufferedReader:
    """Opens a regular file for reading.

    Args:
        path: The file; links are followed.
        what: The error to raise for anything that is not a file.

    Raises:
        DualGNNError: As `what`, for a pipe, a socket, a device, and a circular or broken link.
        OSError: FileNotFoundError, IsADirectoryError, PermissionError and the like, as the built-in
            `open` does.
    """
    refuse_special(path, what)
    descriptor = os.open(path, FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise _refused(path, _kind(mode), what)
        return io.BufferedReader(_File(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


class _File(io.FileIO):
    """A file that raises where the kernel answers "nothing to read now".

    Some files of the kernel give this answer, and the standard class returns an empty read for it.
    """

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        if count is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return count

    def readall(self) -> bytes:
        content = super().readall()
        if content is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return content


def _kind(mode: int) -> str:
    return next(
        (name for test, name in SPECIAL if test(mode)),
        "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "no file",
    )


def _refused(path: str | Path, kind: str, what: type[DualGNNError]) -> DualGNNError:
    return what(
        f"{path} is {kind}, which is not read: write the content to a file and name that file"
    )
