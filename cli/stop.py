"""Ctrl-C and SIGTERM while a command works: the first asks it to end in order, the second ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """While the `with` block runs. `signal` is the number of the one that came, else 0.

    `ask` is called when it comes, and says in a few words what happens now; without it the command ends with exit
    status 128 + number there and then, through all `finally` blocks. A second signal meets the system's own handling,
    which needs no Python: the process is gone at once, whatever it was about.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.ask: Callable[[], str] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            # one that is ignored stays so: a shell starts what it puts in the background without Ctrl-C
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._come) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _come(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if self.ask is None:
            raise SystemExit(128 + number)
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar has hidden it
        os.write(2, f"{show_cursor}\n{self.ask()}; once more leaves at once\n".encode())  # not through a buffer in use
