"""Processes that are killed at a chosen system call, for tests of what lies on the disk
afterwards.
"""

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
    """Makes this process end at its `number`-th call that touches the disk, from 1, before or
    `after` the call is made.
    """
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
    """Run `action` in a forked process that is gone at its `number`-th call that touches the disk,
    from 1.

    Args:
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
    """Kill `action` at each of its calls in turn, before and after the call, each time from a
    prepared state.

    Returns:
        How often it was killed.
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
