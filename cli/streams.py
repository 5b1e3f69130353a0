"""Writes to stdout and stderr; no other module does.

Results go to stdout (text or one JSON object), everything else to stderr. Control characters in
quoted files and names are removed. A stderr that is full, closed or no longer read is dropped
silently, so that progress never ends the work. A stdout that is no longer read is dropped silently,
too. A full or closed stdout is an error at the end, in `finish`, after all files have been written.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

from dualgnn_dgl.errors import clean, clean_lines, json_text, shorten

if TYPE_CHECKING:
    from rich.console import Console

CHUNK = 4096  # bytes that a ready pipe accepts in one write
BLOCKED = 1.0  # longest wait for a reader while a command ends, in seconds

_kept: list[str] = []  # places of saved results, on which stdout only reports
_leaving = False


class Stream(io.RawIOBase):
    """A standard file that remembers a failure in `lost` instead of raising it.

    Later output goes to /dev/null.
    """

    mode = "wb"

    def __init__(self, number: int, lost: OSError | None = None) -> None:
        self.name = {1: "<stdout>", 2: "<stderr>"}.get(number, str(number))
        self._number, self._closed_before = number, lost
        self.lost: OSError | None = None

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return self.lost is None and os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Writes all of the data, or drops what cannot be written."""
        whole = memoryview(data).cast("B")
        self.lost = self.lost or (self._closed_before if len(whole) else None)
        sent = 0
        try:
            while sent < len(whole) and self.lost is None:
                if not writable(self._number, 0.5):
                    if _leaving and not writable(self._number, BLOCKED):
                        self.lost = TimeoutError(errno.ETIMEDOUT, "its reader does not read")
                    continue
                try:
                    sent += os.write(self._number, whole[sent : sent + CHUNK])
                except BlockingIOError:  # Another process made it non-blocking and writes as well.
                    time.sleep(0.01)
        except OSError as error:
            self.lost = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._number)  # Libraries may write to the number itself.
            os.close(null)
        return len(whole)


def writable(number: int, seconds: float) -> bool:
    """Returns whether `CHUNK` bytes can be written now or within some seconds."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def take() -> None:
    """Replaces sys.stdout and sys.stderr by streams that cannot fail.

    Only the process of a command may call it.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        found = getattr(sys, name)
        lost = OSError(errno.EBADF, "it is closed") if found is None else None
        if found is not None:
            found.flush()
        text = io.TextIOWrapper(
            Stream(number, lost),  # type: ignore[type-var]
            encoding=getattr(found, "encoding", None) or "utf-8",
            errors="backslashreplace",
            line_buffering=number == 2 or (found is not None and found.isatty()),
            write_through=number == 2,
        )
        setattr(sys, name, text)


def finish(status: int) -> int:
    """Flushes both streams and returns the exit status.

    A result that was meant for stdout and could not be written there is an error. For a result
    saved in files only the summary is lost, which is not an error.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return status
    stream = getattr(sys.stdout, "buffer", None)
    lost = stream.lost if isinstance(stream, Stream) else None
    if lost is None or lost.errno == errno.EPIPE or status:
        return status
    if _kept:
        note(
            f"stdout cannot be written ({lost.strerror}), the summary is lost: find the result in "
            f"{', '.join(_kept)}"
        )
        return 0
    note(
        f"Error: stdout cannot be written ({lost.strerror}), the result is lost: redirect it to a "
        f"file on a disk with free space"
    )
    return 1


def kept(*places: str) -> None:
    """Records where the result is saved, so that stdout only reports on it."""
    _kept.extend(places)


def urgent(text: str) -> None:
    """Writes a line to stderr from a signal handler, without waiting for a reader.

    It uses no stream that may be in use. From now on no writer waits longer than `BLOCKED` for a
    reader that does not read. An empty text does only that.
    """
    global _leaving
    _leaving = True
    if not text:
        return
    show_cursor = "\x1b[?25h" if terminal() else ""  # A progress bar hides the cursor.
    line = f"{show_cursor}\n{shorten(clean(text))}\n".encode(errors="backslashreplace")
    try:
        if writable(2, 0):
            os.write(2, line)
    except OSError:
        pass


def terminal() -> bool:
    """Returns whether stderr is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (OSError, ValueError):
        return False


def console() -> Console:
    """Returns a console on stderr for progress bars, which shows names without markup."""
    from rich.console import Console

    return Console(file=sys.stderr, stderr=True, markup=False, highlight=False, emoji=False)


def note(text: str) -> None:
    """Writes one line about the progress to stderr."""
    _write(sys.stderr, shorten(clean(text)) + "\n")


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Writes a warning in one line, without its place in the code.

    torch's warnings about its own sparse tensors are left out.
    """
    if not str(message).startswith(
        ("Sparse CSR tensor support is in beta", "Sparse invariant checks")
    ):
        note(f"warning: {message}")


class LastResort(logging.Handler):
    """Shows the messages that the library logs where no handler has been set up."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        note(f"warning: {record.getMessage()}")


def print_text(text: str, *, end: str = "\n") -> None:
    """Writes text of a result to stdout; its line breaks and spaces stay."""
    _write(sys.stdout, clean_lines(text) + end)


def result(value: dict[str, Any]) -> None:
    """Writes the one JSON object of `--json` to stdout; it reads back as the same value."""
    import json

    text = json_text(value)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    _write(sys.stdout, text + "\n")


def _write(stream: Any, text: str) -> None:
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:
        # This happens only in programs that did not call `take`; stderr is dropped there, too.
        if stream is not sys.stderr or (isinstance(error, ValueError) and not stream.closed):
            raise
