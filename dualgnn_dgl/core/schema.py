"""Schemas of the JSON files that are read: types and ranges.

Each kind of file has one schema, beside its writer. A schema is a function of a value and its place
in the document; it raises `Mismatch` where the value does not fit. `record` refuses unknown keys
unless `extra` allows them. JSON distinguishes `true` and 1, and so do the schemas.

    RUN = record({"epochs": whole(), "device": DEVICE}, EXTENSION)
    check(RUN, value, "runs/a/run.json", RunError, "train again")
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from dualgnn_dgl.core.strict import LARGEST
from dualgnn_dgl.errors import DataError, DualGNNError, clean

Schema = Callable[[Any, str], None]


class Mismatch(ValueError):
    """A value that does not fit its schema."""


def check(
    schema: Schema,
    value: Any,
    path: object,
    what: type[DualGNNError] = DataError,
    remedy: str = "make it again",
) -> None:
    """Raises `what` unless `value` fits `schema`.

    The message is one line: the path, the place and the value, the expected content, and the
    remedy.
    """
    try:
        schema(value, "")
    except Mismatch as error:
        raise what(f"{path}: {error}: {remedy}") from None


def fail(value: Any, place: str, expected: str) -> NoReturn:
    """Raises `Mismatch` for `value` at `place`."""
    shown = (
        json.dumps(value, default=str)[:60]
        if not isinstance(value, dict | list)
        else "a list or object"
    )
    raise Mismatch(clean(f"{place[-200:] or 'the content'} is {shown}, expected {expected}"))


def whole(low: int = 0, high: int = LARGEST) -> Schema:
    """Returns the schema of an integer from `low` to `high`."""

    def fits(value: Any, place: str) -> None:
        if type(value) is not int or not low <= value <= high:
            fail(
                value,
                place,
                f"an integer from {low} to {high}"
                if high < LARGEST
                else f"an integer of at least {low}",
            )

    return fits


def number(low: float = -math.inf, high: float = math.inf) -> Schema:
    """Returns the schema of a finite number from `low` to `high`."""

    def fits(value: Any, place: str) -> None:
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            fail(
                value,
                place,
                "a finite number" + (f" from {low:g} to {high:g}" if low > -math.inf else ""),
            )

    return fits


def text(pattern: str = r"[^\0]*", expected: str = "a text", longest: int = 4096) -> Schema:
    """Returns the schema of a text that matches the whole `pattern`.

    Args:
        pattern: Regular expression.
        expected: Description of the pattern, for messages.
        longest: Largest number of characters.
    """
    matcher = re.compile(pattern, re.DOTALL)

    def fits(value: Any, place: str) -> None:
        if type(value) is not str or len(value) > longest or matcher.fullmatch(value) is None:
            fail(value, place, f"{expected} of at most {longest} characters")

    return fits


def one_of(*choices: Any) -> Schema:
    """Returns the schema of one of the given values, type included."""

    def fits(value: Any, place: str) -> None:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            fail(value, place, " or ".join(json.dumps(choice) for choice in choices))

    return fits


def maybe(schema: Schema) -> Schema:
    """Returns the schema of null, or of a value of `schema`."""
    return lambda value, place: None if value is None else schema(value, place)


def list_of(schema: Schema, low: int = 0, high: int = LARGEST) -> Schema:
    """Returns the schema of a list of `low` to `high` entries, each of `schema`."""

    def fits(value: Any, place: str) -> None:
        if type(value) is not list or not low <= len(value) <= high:
            fail(
                value,
                place,
                f"a list of {low}"
                + ("" if low == high else " or more" if high == LARGEST else f" to {high}"),
            )
        for index, entry in enumerate(value):
            schema(entry, f"{place}[{index}]")

    return fits


def dict_of(key: Schema, schema: Schema) -> Schema:
    """Returns the schema of an object with keys of `key` and values of `schema`."""

    def fits(value: Any, place: str) -> None:
        if type(value) is not dict:
            fail(value, place, "an object")
        for name, entry in value.items():
            key(name, f"a key of {place or 'the content'}")
            schema(entry, f"{place}.{name}".lstrip("."))

    return fits


def record(
    required: Mapping[str, Schema],
    optional: Mapping[str, Schema] | None = None,
    extra: Schema | None = None,
) -> Schema:
    """Returns the schema of an object with given keys.

    Args:
        required: Schemas of the keys that must be there.
        optional: Schemas of the keys that may be there.
        extra: Schema of all other keys; None refuses them.
    """
    known = {**required, **(optional or {})}

    def fits(value: Any, place: str) -> None:
        if type(value) is not dict:
            fail(value, place, "an object")
        if missing := required.keys() - value.keys():
            raise Mismatch(f"{place or 'the content'} lacks the key {min(missing)}")
        for name, entry in value.items():
            schema = known.get(name, extra)
            if schema is None:
                raise Mismatch(clean(f"{place or 'the content'} has the unknown key {name!r:.80}"))
            schema(entry, f"{place}.{name}".lstrip("."))

    return fits


def scalar(value: Any, place: str) -> None:
    """Allows null, `true`, `false`, a finite number or a text."""
    if value is not None and type(value) is not bool:
        (TEXT if type(value) is str else number())(value, place)


def plain(value: Any, place: str) -> None:
    """Allows scalars, and lists and objects of them: for notes that no code reads."""
    part = (
        list_of(plain)
        if type(value) is list
        else dict_of(TEXT, plain)
        if type(value) is dict
        else scalar
    )
    part(value, place)


TEXT, FLAG, NAME = text(), one_of(True, False), text(r"\w[\w .+=:@-]*", "a name", 200)
HEX64, DEVICE = (
    text(r"[0-9a-f]{64}", "64 hexadecimal digits", 64),
    text(r"cpu|cuda(:\d{1,3})?", "cpu or cuda:N"),
)
# Rounding may lift a perfect metric above 1.
VERSIONS, METRIC = dict_of(NAME, TEXT), number(0, 1 + 1e-6)
# Options of a model or of training; `options.build` checks each of them.
SETTINGS = dict_of(NAME, scalar)
# Digests that a manifest may have.
EXTENSION: Mapping[str, Schema] = {"files": dict_of(TEXT, HEX64), "self": HEX64}
