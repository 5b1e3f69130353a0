"""Parses JSON and TOML strictly.

It raises `ValueError` for content that standard parsers accept and that no file of this library
has: NaN, infinity and overflowing numbers, integers outside 64 bits, repeated keys, half of a
surrogate pair, dates, and deep nesting. `files.read_json` and `options.read_toml` add the file's
name; schema.py checks types and ranges.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import Any

LARGEST = 2**63 - 1  # the largest integer that torch and NumPy hold
DEEPEST = 64  # levels of nesting; this library's files have fewer than ten
LONGEST_TOML = 2**14  # bytes; tomllib's time grows with the square of a dotted key's length


def parse_json(text: str) -> Any:
    """Parses JSON strictly; raises `ValueError` as the module describes."""
    try:
        value = json.loads(
            text,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_finite,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            # File names may contain bytes that are not UTF-8.
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise ValueError("it holds half of a surrogate pair, which is no character") from None
    return value


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parses TOML strictly; raises `ValueError` as the module describes, and above 16 KiB."""
    if len(content) > LONGEST_TOML:
        raise ValueError(f"it has more than {LONGEST_TOML:,} bytes")
    try:
        value = tomllib.loads(content.decode(), parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise ValueError("it holds an integer outside the range of 64 bits") from None
        raise
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Raises `ValueError` for deep nesting, a large integer or a date.

    It works level by level, without recursion.
    """
    level = [value]
    for _ in range(DEEPEST):
        for node in level:
            if isinstance(node, int) and abs(node) > LARGEST:
                raise ValueError(f"{hex(node):.24} is outside the range of 64-bit integers")
            if not isinstance(node, dict | list | str | int | float | None):
                raise ValueError(f"{str(node):.24} is a date or time, which no option takes")
        nested = [node for node in level if isinstance(node, dict | list)]
        level = [
            child
            for node in nested
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _integer(text: str) -> int:
    # int() refuses several thousand digits, and is slow for fewer.
    if len(text) > 20:
        raise ValueError(f"{text:.24}… is outside the range of 64-bit integers")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text:.24} is not a finite number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in found if keys.count(key) > 1)!r:.80} is given twice"
        )
    return found
