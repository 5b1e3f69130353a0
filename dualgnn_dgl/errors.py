"""The errors this library raises on purpose.

Every message is one line that says *what* is wrong, *which* file, option or row it is, and *what to do*.
The command line turns each of them into that line and exit status 1; anything else is a bug.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

_ESCAPE = re.compile(r"(\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
_JOINERS = "\u200c\u200d"  # hold emoji and some scripts together


class DualGNNError(Exception):
    r"""Base of the family: catch this to catch every error a user's input can cause.

    What a message quotes of files neither breaks its line nor disturbs a terminal.

    >>> DataError("the title is 'a\n\x1b[31mb'")
    DataError("the title is 'a b'")
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(clean(message))


class DataError(DualGNNError):
    """A raw log, a feature file or a prepared data folder is not usable."""


class ConfigError(DualGNNError):
    """An option, a configuration key or a combination of them is not usable."""


class RunError(DualGNNError):
    """A run folder is missing, damaged, occupied, or does not belong to the data."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for a name that is not in a closed list; names the nearest one.

    >>> unknown("model", "dualgn", ["dualgnn", "lightgcn"])
    "unknown model 'dualgn'; did you mean 'dualgnn'? Known: dualgnn, lightgcn"
    """
    names = [str(candidate) for candidate in known]
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"unknown {kind} '{name}'{hint} Known: {', '.join(names)}"


def clean(text: str) -> str:
    r"""Text that cannot disturb a terminal: no escape sequences, no control or direction characters, one line.

    >>> clean("\x1b[31mred\x07\n tail\u202e")
    'red tail'
    """
    text = re.sub(r"\s+", " ", _ESCAPE.sub("", str(text)))
    return "".join(letter for letter in text if letter in _JOINERS or unicodedata.category(letter) not in ("Cc", "Cf", "Cs"))
