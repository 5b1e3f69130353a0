"""Converts times to whole numbers in the same order, exactly.

Integers of every width, dates, decimals, fractions, text of all these.

Times beyond 64 bits are marked and counted by the reader, never wrapped or rounded. Batches are
read one by one; each gives whole numbers if it can, else fractions, and `join_times` brings all of
a log to one form.
"""

from __future__ import annotations

import decimal
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.values import NUMBER, doubles, filled, is_text

DATE = r"^[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}([ T]|$)"
FINER = r"[.,][0-9]{10}"  # fractions of a second beyond nanoseconds
PLAIN = r"^-?([0-9]{1,19}([.][0-9]{0,18})?|[.][0-9]{1,18})$"  # fits DECIMAL with any digits
PLACES = 18
DECIMAL = pa.decimal128(38, PLACES)
# A decimal number with 18 places: (high · 2^64 + low) · 10^-18, as Arrow lays it out in memory.
WIDE = np.dtype([("low", "<u8"), ("high", "<i8")])
LEAST, LARGEST = -(2**63), 2**63 - 1
EXACT = decimal.Context(prec=1 << 25)  # no line has more digits
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
Times = tuple[np.ndarray, np.ndarray, np.ndarray]


def times(column: pa.Array, dates: bool) -> Times:
    """Times (n,), int64, or float64 or `WIDE` if any is fractional.

    Masks (n,) of the unreadable and of those beyond 64 bits.

    Args:
        column: one batch.
        dates: the text is ISO dates, which become microseconds since 1970; a time without a zone
            counts as UTC.
    """
    kind = column.type
    if pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type):
        return _from_integers(column)
    if pa.types.is_floating(kind):
        return _from_doubles(doubles(column))
    if pa.types.is_decimal(kind):
        return _from_decimals(column)
    if is_text(kind):
        text = column.cast(pa.large_string())
        return _from_dates(pc.replace_substring(text, "/", "-")) if dates else _from_text(text)
    nothing = np.zeros(len(column), dtype=np.int64)
    return nothing, np.ones(len(column), dtype=bool), np.zeros(len(column), dtype=bool)


def holds_dates(column: pa.Array) -> bool | None:
    """Returns whether the text looks like ISO dates more often than like numbers.

    None if it never looks like either.
    """
    if not is_text(column.type):
        return False
    text = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    dates, others = (
        pc.sum(pc.match_substring_regex(text, pattern)).as_py() or 0 for pattern in (DATE, NUMBER)
    )
    return dates > others if dates or others else None


def clock(column: pa.Array, dates: bool | None) -> str | None:
    """Returns the unit of times, to compare it between the files of a log.

    None where nothing says it.
    """
    kind = column.type
    if pa.types.is_timestamp(kind):
        return UNITS[kind.unit]
    if pa.types.is_date(kind):
        return "days" if pa.types.is_date32(kind) else "milliseconds"
    if dates is None or pa.types.is_null(kind):
        return None
    return "microseconds" if dates else "plain numbers"


def join_times(parts: Sequence[np.ndarray], where: str = "the log") -> np.ndarray:
    """Joins the times of all batches as (E,) int64 in the same order; equal times stay equal.

    Fractions become microseconds. If two of them differ by less, or do not fit, every time becomes
    its rank among all: only the order counts.

    Raises:
        DataError: if the types of the batches cannot be compared exactly.
    """
    if all(part.dtype == np.int64 for part in parts):
        return np.concatenate(parts)
    floating = any(part.dtype == np.float64 for part in parts)
    if floating and any(part.dtype == WIDE for part in parts):
        raise DataError(
            f"{where} gives times as floats and as decimals, which do not compare exactly: write "
            f"one of them"
        )
    if not floating:
        return _shortest(
            np.concatenate(
                [
                    part if part.dtype == WIDE else _wide(pa.array(part).cast(DECIMAL))
                    for part in parts
                ]
            )
        )
    values = np.concatenate(
        [part if part.dtype == np.float64 else _as_doubles(part, where) for part in parts]
    )
    different, place = np.unique(values, return_inverse=True)
    if np.abs(different).max() < LARGEST // 10**6:
        micro = np.round(different * 1e6).astype(np.int64)
        if bool((np.diff(micro) > 0).all()):
            return micro[place]
    return place.astype(np.int64, copy=False)


def _from_integers(column: pa.Array) -> Times:
    values, missing = filled(column)
    beyond = np.zeros(len(values), dtype=bool)
    if values.dtype == np.uint64:
        beyond = values > LARGEST
        values = np.where(beyond, np.uint64(0), values)
    return values.astype(np.int64, copy=False), missing, beyond


def _from_doubles(values: np.ndarray) -> Times:
    """Converts to whole numbers where all are; whole doubles below 2^63 are int64 exactly."""
    unread = ~np.isfinite(values)
    values = np.where(unread, 0.0, values)
    if not bool((values == np.floor(values)).all()):
        return values, unread, np.zeros(len(values), dtype=bool)
    beyond = (values < -(2.0**63)) | (values >= 2.0**63)
    return np.where(beyond, 0.0, values).astype(np.int64), unread, beyond


def _from_decimals(column: pa.Array) -> Times:
    missing = column.is_null().to_numpy(zero_copy_only=False)
    try:
        exact, beyond = column.cast(DECIMAL), np.zeros(len(column), dtype=bool)
    except pa.ArrowInvalid:  # a digit too many somewhere
        exact, beyond = _one_by_one(column.to_pylist())
    return _shortened(exact, missing, beyond)


def _from_text(text: pa.Array) -> Times:
    """Reads numbers as decimals, which distinguish more than doubles do."""
    try:
        if not pc.any(pc.match_substring(text, "x")).as_py():  # Arrow would take 0x10 for a number
            return _from_integers(text.cast(pa.int64()))
    except pa.ArrowInvalid:
        pass
    text = pc.utf8_trim_whitespace(text)
    plain = pc.fill_null(pc.match_substring_regex(text, PLAIN), False)
    numbers = pc.fill_null(pc.match_substring_regex(text, NUMBER), False)
    nothing = pa.scalar(None, pa.large_string())
    exact, unread = (
        pc.if_else(plain, text, nothing).cast(DECIMAL),
        ~numbers.to_numpy(zero_copy_only=False),
    )
    beyond = np.zeros(len(text), dtype=bool)
    if not pc.all(pc.equal(plain, numbers)).as_py():  # exponents, or more digits
        rest = pc.if_else(pc.and_not(numbers, plain), text, nothing).to_pylist()
        slow, beyond = _one_by_one([None if one is None else decimal.Decimal(one) for one in rest])
        exact = pc.coalesce(exact, slow)
    return _shortened(exact, unread, beyond)


def _one_by_one(numbers: Sequence[decimal.Decimal | None]) -> tuple[pa.Array, np.ndarray]:
    """Returns numbers as `DECIMAL`, null where that is not exact, and the mask (n,) of these."""
    kept = [
        EXACT.normalize(number) if number is not None and _fits(number) else None
        for number in numbers
    ]
    beyond = np.array(
        [number is not None and one is None for number, one in zip(numbers, kept, strict=True)],
        dtype=bool,
    )
    return pa.array(kept, DECIMAL), beyond


def _fits(number: decimal.Decimal) -> bool:
    return (
        LEAST <= number <= LARGEST and -int(EXACT.normalize(number).as_tuple().exponent) <= PLACES
    )


def _shortened(exact: pa.Array, unread: np.ndarray, beyond: np.ndarray) -> Times:
    """Decimals with nulls as int64 if all are whole, else as `WIDE`.

    Those outside int64 are beyond as well.
    """
    outside = pc.or_(
        pc.less(exact, decimal.Decimal(LEAST)), pc.greater(exact, decimal.Decimal(LARGEST))
    )
    outside = pc.fill_null(outside, False)
    beyond = beyond | outside.to_numpy(zero_copy_only=False)
    exact = pc.if_else(
        pc.or_(outside, exact.is_null()), pa.scalar(decimal.Decimal(0), DECIMAL), exact
    )
    try:
        return exact.cast(pa.int64()).to_numpy(zero_copy_only=False), unread, beyond
    except pa.ArrowInvalid:
        return _wide(exact), unread, beyond


def _from_dates(text: pa.Array) -> Times:
    """Converts ISO dates to microseconds.

    The slow way is taken only if a value is finer or not a date, or zones are mixed.
    """
    none = np.zeros(len(text), dtype=bool)
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return _from_integers(text.cast(kind).cast(pa.int64()))
        except pa.ArrowInvalid:
            continue
    finer = pc.fill_null(pc.match_substring_regex(text, FINER), False).to_numpy(
        zero_copy_only=False
    )
    parsed = pd.to_datetime(
        pd.Series(text.to_pandas()).str.strip(), errors="coerce", utc=True, format="ISO8601"
    )
    unread = parsed.isna().to_numpy() | finer
    moments = parsed.dt.tz_localize(None).to_numpy()
    if moments.dtype != "datetime64[ns]":  # coarser, within the years 1 to 9999
        return np.where(unread, 0, moments.astype("datetime64[us]").astype(np.int64)), unread, none
    nano = np.where(unread, 0, moments.astype(np.int64))
    if not bool((nano % 1000).any()):
        return nano // 1000, unread, none
    thousandth = pa.scalar(decimal.Decimal("0.001"), pa.decimal128(4, 3))
    return (
        _wide(pc.multiply(pa.array(nano).cast(pa.decimal128(19, 0)), thousandth).cast(DECIMAL)),
        unread,
        none,
    )


def _wide(exact: pa.Array) -> np.ndarray:
    """Returns a `DECIMAL` array without nulls as (n,) `WIDE`."""
    return np.frombuffer(exact.buffers()[1], dtype=WIDE)[exact.offset : exact.offset + len(exact)]


def _shortest(wide: np.ndarray) -> np.ndarray:
    """Returns microseconds (E,) where all of them are whole and fit 64 bits, else ranks."""
    exact = pa.Decimal128Array.from_buffers(
        DECIMAL, len(wide), [None, pa.py_buffer(np.ascontiguousarray(wide))]
    )
    try:
        micro = _wide(exact.cast(pa.decimal128(38, 6)))
        whole = micro["low"].view(np.int64)
        if bool((micro["high"] == whole >> 63).all()):
            return whole.copy()
    except pa.ArrowInvalid:  # a digit beyond microseconds
        pass
    order = np.lexsort((wide["low"], wide["high"]))
    ascending = wide[order]
    ranks = np.empty(len(wide), dtype=np.int64)
    ranks[order] = np.cumsum(np.concatenate([[False], ascending[1:] != ascending[:-1]]))
    return ranks


def _as_doubles(part: np.ndarray, where: str) -> np.ndarray:
    """Returns whole numbers as doubles, if each is one exactly."""
    values = part.astype(np.float64)
    inside = values < 2.0**63
    wrong = np.flatnonzero(~inside | (np.where(inside, values, 0.0).astype(np.int64) != part))
    if wrong.size:
        raise DataError(
            f"{where} gives times with fractions, and whole ones such as {part[wrong[0]]}, which "
            f"a float cannot hold: "
            "write all of them as whole numbers, or as text"
        )
    return values
