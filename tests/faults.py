"""Kills processes at a chosen system call, for tests of the files that they leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

CALLS = (
    "mkdir",
    "open",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "fsync",
    "link",
    "symlink",
    "ftruncate",
)
KILLED, FAILED = 137, 99


def die_at(number: int, after: bool) -> None:
    """Ends this process at its `number`-th disk access, from 1, before or `after` the call."""
    left = [number]

    def fatal(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0]:
                return call(*words, **more)
            try:
                if after:
                    call(*words, **more)
            finally:  # also where the call fails
                os._exit(KILLED)

        return counted

    for name in CALLS:
        setattr(os, name, fatal(getattr(os, name)))


def killed_at(number: int, action: Callable[[], Any], *, after: bool = False) -> int:
    """Runs `action` in a forked process that ends at its `number`-th disk access, from 1.

    Args:
        action: The work of the process.
        number: Number of the call.
        after: Whether the call is still made.

    Returns:
        137 if it was killed, 0 if the action ended before, 99 if it raised something.
    """
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        die_at(number, after)
        action()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(FAILED)
    os._exit(0)


def at_every_call(
    action: Callable[[], Any], prepare: Callable[[], Any], check: Callable[[int], Any]
) -> int:
    """Kills `action` at each of its calls in turn, before and after the call.

    Each time it starts from a prepared state.

    Returns:
        The number of kills.
    """
    count = 0
    for after in (False, True):
        number = 1
        while True:
            prepare()
            code = killed_at(number, action, after=after)
            assert code in (0, KILLED), f"call {number}: the action failed"
            check(number)
            if code == 0:
                break
            number, count = number + 1, count + 1
    return count
