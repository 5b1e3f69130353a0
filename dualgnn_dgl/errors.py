"""The errors this library raises on purpose.

Every message is one line that names the problem, the file, option or row concerned, and the remedy.
The command line turns each of them into that line and exit status 1; anything else is a bug.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

LONGEST = 1200  # characters of a message, however much of a file, an id or a path it quotes
_REMEDY = 500  # of these, characters kept at the end, where the remedy is
_ESCAPE = re.compile(r"(\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
_JOINERS = "\u200c\u200d"  # hold emoji and some scripts together


class DualGNNError(Exception):
    r"""Base of the family: catch this to catch every error a user's input can cause.

    What a message quotes of files neither breaks its line nor disturbs a terminal.

    >>> DataError("the title is 'a\n\x1b[31mb'")
    DataError("the title is 'a b'")
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shorten(clean(message)))


class DataError(DualGNNError):
    """A raw log, a feature file or a prepared data folder is not usable."""


class ConfigError(DualGNNError):
    """An option, a configuration key or a combination of them is not usable."""


class RunError(DualGNNError):
    """A run folder is missing, damaged, occupied, or does not belong to the data."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns the message for a name that is not in a closed list; it names the nearest one.

    >>> unknown("model", "dualgn", ["dualgnn", "lightgcn"])
    "unknown model 'dualgn'; did you mean 'dualgnn'? Known: dualgnn, lightgcn"
    """
    names, name = [str(candidate) for candidate in known], f"{name:.120}"
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"unknown {kind} '{name}'{hint} Known: {', '.join(names)}"


class _Harmless(dict[int, str]):
    """Replacement of each character for `str.translate`.

    The table grows with each new character.
    """

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        kind = unicodedata.category(letter)
        if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
            self[code] = f"\\x{code - 0xDC00:02x}"
        elif kind == "Cs":
            self[code] = f"\\u{code:04x}"
        elif kind in ("Zl", "Zp") or letter == "\t":
            self[code] = " "
        else:
            self[code] = "" if kind in ("Cc", "Cf") and letter not in _JOINERS + "\n" else letter
        return self[code]


_HARMLESS = _Harmless()


def clean(text: str) -> str:
    r"""Returns text that cannot disturb a terminal.

    It is one line, without escape sequences and without control or direction characters. A byte of
    a file name that is not UTF-8 is shown as its number.

    >>> clean("\x1b[31mred\x07\n tail\u202e")
    'red tail'
    >>> print(clean("caf\udce9.csv"))
    caf\xe9.csv
    """
    return re.sub(r"\s+", " ", _ESCAPE.sub("", str(text))).translate(_HARMLESS)


def clean_lines(text: str) -> str:
    r"""Cleans text of several lines like `clean`, but keeps line breaks and spaces.

    >>> clean_lines("rank  item\n   1  \x1b[2Ja\x85b")
    'rank  item\n   1  ab'
    """
    return _ESCAPE.sub("", str(text)).translate(_HARMLESS)


def shorten(text: str, longest: int = LONGEST) -> str:
    """Shortens a message to at most `longest` characters by leaving out its middle.

    >>> shorten("the id 'xxxxxxxxxxxxxxxxxxxxxxx' is unknown: check it", 30)
    "the id 'xxxxxxx … wn: check it"
    """
    if len(text) <= longest:
        return text
    tail = min(_REMEDY, longest * 2 // 5)
    return f"{text[: longest - tail - 3].rstrip()} … {text[-tail:].lstrip()}"


def json_text(value: Any, indent: int | None = None) -> str:
    r"""Returns JSON that can be shown and stored anywhere, and reads back as the same value.

    Control, direction and separator characters and lone surrogates (the bytes of file names that
    are not UTF-8) are written as escapes, all other characters as they are.

    >>> json_text({"title": "é\x9b31m\u202e", "path": "caf\udce9"})
    '{"title": "é\\u009b31m\\u202e", "path": "caf\\udce9"}'
    """
    return _escaped(
        json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False), wide=False
    )


def toml_text(value: str) -> str:
    r"""Returns a TOML string with the same escapes.

    >>> toml_text("a\x7fb\U000e0001")
    '"a\\u007fb\\U000E0001"'
    """
    return _escaped(json.dumps(value, ensure_ascii=False), wide=True)


def _escaped(text: str, wide: bool) -> str:
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(letter if _plain(letter) else _escape(letter, wide) for letter in text)


def _plain(letter: str) -> bool:
    return (
        letter == "\n"
        or letter in _JOINERS
        or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


def _escape(letter: str, wide: bool) -> str:
    if ord(letter) < 0x10000:
        return f"\\u{ord(letter):04x}"
    return f"\\U{ord(letter):08X}" if wide else json.dumps(letter)[1:-1]
