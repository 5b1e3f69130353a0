"""Ctrl-C, SIGTERM and SIGHUP: ends a command in order, with exit status 128 + number, from its
first line to its last.

This file is imported before everything else of the command line, so that the handlers stand before
click, torch or dgl are imported; it therefore imports next to nothing itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` takes longer to import than the rest of this file
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
POLL = 0.02  # seconds between two looks whether an import has ended
IMPORT = 1.0  # seconds that an import is waited for
LONGEST = 8.0  # seconds after which a command that was interrupted and has not ended is left
# seconds in which a second SIGHUP is the same hang-up: the shell's, after the terminal's
ECHO = 1.0


class Leave(SystemExit):
    """Ends the command through all its `finally` blocks."""


class Stop:
    """Ends the command inside the `with` block when a signal comes.

    The first signal raises `raises` at the next moment that is safe: never within an import, which
    would leave modules half made. With `ask` set it calls `ask` instead, which lets the work end by
    itself and says in a few words what happens now. A second signal meets the system's own
    handling, which needs no Python: the process ends at once.

    Attributes
    ----------
    tell : given the words for the person, from within the handler; an empty text when the work is
        interrupted.
    signal : number of the signal that came, else 0.
    raises : exception that interrupts the work; for a command that handles it, `KeyboardInterrupt`.
    """

    current: Stop | None = None

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
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
        """Exit status of a command that the signal ended."""
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
        # whatever an interrupted library made of the interruption, the signal is what ended the
        # command
        if self._raised or (self.signal and kind is None):
            raise SystemExit(self.status) from None

    def _come(self, number: int, frame: FrameType | None) -> None:
        """The handler of `SIGNALS`."""
        if self.signal:  # SIGHUP again: the others have the system's handling by now
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
        """Raises, or looks again a little later; also the handler of the timer that this takes."""
        waited = time.monotonic() - self._when
        if self._raised or (_importing(frame) and waited > IMPORT):
            # files come to their names whole or not at all: nothing is half written
            os._exit(self.status)
        if _importing(frame):
            signal.setitimer(signal.ITIMER_REAL, POLL)
            return
        self._raised = True
        signal.setitimer(signal.ITIMER_REAL, max(LONGEST - waited, POLL))
        raise self.raises(self.status)

    def again(self) -> None:
        """Interrupts once more: the exception was raised where Python drops it, as in `__del__`."""
        if self._raised:
            self._raised = False
            signal.setitimer(signal.ITIMER_REAL, POLL)


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is under way."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Sets the handler of every signal that is not ignored, and returns those before.

    None outside the main thread.

    A signal that was ignored at the start stays so: `nohup` means it, and a shell starts background
    commands without Ctrl-C.
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
    """Has a signal end the process at once: nothing is open for writing."""
    _handle(_leave_at_once)


def current() -> Stop:
    """What stops the command that runs now."""
    return Stop.current or Stop()


def dropped(unraisable: Any) -> None:
    """For `sys.unraisablehook`: an interruption that Python dropped is repeated; anything else is
    shown as usual.
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
    """Whether this process is `dualgnn` or `python -m dualgnn_dgl.cli.main`, and not another
    program that imports it.
    """
    folder, name = os.path.split(sys.argv[0] if getattr(sys, "argv", None) else "")
    return name == "dualgnn" or (name == "main.py" and os.path.basename(folder) == "cli")


def leave(status: int) -> NoReturn:
    """Ends the process after what was registered with `atexit`, without the interpreter's own
    shutdown.

    Python takes its handlers away at the start of that shutdown, and a signal in it would end the
    process otherwise.
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
    """Opens 0, 1 and 2 on /dev/null where they are closed, else a data file could be opened as one
    of them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number, which is this one
            while os.open(os.devnull, os.O_RDWR) < number:
                pass


if is_program():
    open_standard_files()
    at_once()
