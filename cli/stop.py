"""Ends a command in order on Ctrl-C, SIGTERM and SIGHUP, with exit status 128 + number.

This file is imported before the rest of the command line. The handlers are then set before click,
torch or dgl are imported. It therefore imports very little itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # The import of `typing` takes longer than the rest of this file.
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
POLL = 0.02  # seconds between two checks whether an import has ended
IMPORT = 1.0  # longest wait for an import, in seconds
LONGEST = 8.0  # longest time, in seconds, that an interrupted command gets to end
# A second SIGHUP within this many seconds is the same hang-up: the shell sends one after the
# terminal.
ECHO = 1.0


class Leave(SystemExit):
    """Ends the command through all its `finally` blocks."""


class Stop:
    """Ends the command inside the `with` block when a signal comes.

    The first signal raises `raises` at the next safe moment: never within an import, which would
    leave modules half loaded. With `ask` set, it calls `ask` instead, which lets the work end by
    itself and returns a short message. A second signal meets the system's default handling, which
    needs no Python: the process ends at once.

    Attributes:
        signal: number of the signal that came, else 0.
        ask: called instead of raising, if set; returns the message for the user.
        raises: exception that interrupts the work; `KeyboardInterrupt` for a command that handles
            it.
    """

    current: Stop | None = None

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        """Takes the function that shows a message to the user.

        Args:
            tell: called from within the handler; the text is empty when the work is interrupted.
        """
        self.signal = 0
        self.ask: Callable[[], str] | None = None
        self.raises: type[BaseException] = Leave
        self._tell = tell
        self._when = 0.0
        self._raised = False
        self._before: dict[int, Any] = {}
        self._outer: Stop | None = None

    @property
    def status(self) -> int:
        """Returns the exit status of a command that the signal ended."""
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> Stop:
        self._outer, Stop.current = Stop.current, self
        self._before = _handle(self._come)
        if self._before:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        Stop.current = self._outer
        if self.signal:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # The signal ended the command, even if a library turned the interruption into another
        # error.
        if self._raised or (self.signal and kind is None):
            raise SystemExit(self.status) from None

    def _come(self, number: int, frame: FrameType | None) -> None:
        """Handles one of `SIGNALS`."""
        if self.signal:  # Only SIGHUP comes here twice: the others have the default handling now.
            if time.monotonic() - self._when > ECHO:
                os._exit(128 + number)
            return
        self.signal, self._when = number, time.monotonic()
        for each in self._before.keys() - {signal.SIGHUP, signal.SIGALRM}:
            signal.signal(each, signal.SIG_DFL)
        if self.ask is not None:
            self._tell(f"{self.ask()}; once more leaves at once")
        else:
            self._tell("")
            self._interrupt(number, frame)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raises now, or checks again later; also handles the timer that this takes."""
        waited = time.monotonic() - self._when
        if self._raised or (_importing(frame) and waited > IMPORT):
            # Exiting here is safe: files are written whole or not at all.
            os._exit(self.status)
        if _importing(frame):
            signal.setitimer(signal.ITIMER_REAL, POLL)
            return
        self._raised = True
        signal.setitimer(signal.ITIMER_REAL, max(LONGEST - waited, POLL))
        raise self.raises(self.status)

    def again(self) -> None:
        """Interrupts once more, where Python dropped the exception, as in `__del__`."""
        if self._raised:
            self._raised = False
            signal.setitimer(signal.ITIMER_REAL, POLL)


def _importing(frame: FrameType | None) -> bool:
    """Returns whether an import is running."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Sets the handler of every signal that is not ignored, and returns the earlier handlers.

    Outside the main thread it sets and returns none. A signal that was ignored at the start stays
    ignored: `nohup` asks for that, and a shell starts background commands without Ctrl-C.
    """
    try:
        return {
            each: signal.signal(each, handler)
            for each in SIGNALS
            if signal.getsignal(each) != signal.SIG_IGN
        }
    except ValueError:
        return {}


def _leave_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def at_once() -> None:
    """Makes a signal end the process at once, while nothing is open for writing."""
    _handle(_leave_at_once)


def current() -> Stop:
    """Returns the `Stop` of the running command."""
    return Stop.current or Stop()


def dropped(unraisable: Any) -> None:
    """Repeats an interruption that Python dropped; shows anything else as usual.

    It serves as `sys.unraisablehook`.
    """
    stop = Stop.current
    if (
        stop is not None
        and stop.signal
        and isinstance(unraisable.exc_value, (stop.raises, KeyboardInterrupt))
    ):
        stop.again()
    else:
        sys.__unraisablehook__(unraisable)


def is_program() -> bool:
    """Returns whether this process is `dualgnn`, not a program that imports it."""
    folder, name = os.path.split(sys.argv[0] if getattr(sys, "argv", None) else "")
    return name == "dualgnn" or (name == "main.py" and os.path.basename(folder) == "cli")


def leave(status: int) -> NoReturn:
    """Ends the process after its `atexit` functions, without the interpreter's own shutdown.

    Python removes its handlers at the start of that shutdown, so a signal would end the process
    with another status.
    """
    if not is_program():
        sys.exit(status)
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def open_standard_files() -> None:
    """Opens 0, 1 and 2 on /dev/null where they are closed.

    Otherwise a data file could be opened under one of these numbers.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # `os.open` returns the lowest free number, which is this one.
            while os.open(os.devnull, os.O_RDWR) < number:
                pass


if is_program():
    open_standard_files()
    at_once()
