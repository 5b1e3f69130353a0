"""Columns become numbers: ids into codes, ratings, times, splits. Arrow kernels over whole batches, no loop over rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dualgnn_dgl.errors import DataError

LONGEST_ID = 256
# What the slow reading takes for a number; narrow enough that Arrow's cast cannot fail on it.
INTEGER = r"^-?([0-9]{1,18}|[0-8][0-9]{18})$"
NUMBER = r"^-?([0-9]{1,200}[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$"
DATE = r"^[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}([ T]|$)"
SPLIT_WORDS = {"0": 0, "1": 1, "2": 2, "train": 0, "training": 0, "valid": 1, "val": 1, "validation": 1, "dev": 1, "test": 2}


def as_text(column: pa.Array, where: str) -> pa.Array:
    """Ids of any kind as text, null as "": 7 and 7.0 (a column that once held NaN) are "7", text stays as it is.

    Raises
    ------
    DataError
        for fractional numbers, booleans, lists and other things that are no ids.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        values = column.to_numpy(zero_copy_only=False)  # null becomes NaN
        broken = np.flatnonzero(~(np.isnan(values) | ((values == np.round(values)) & (np.abs(values) < 2**53))))
        if broken.size:
            raise DataError(f"{where} holds the number {values[broken[0]]}, ids are text or whole numbers: write them as such")
        column = pa.array(np.nan_to_num(values).astype(np.int64), mask=np.isnan(values))
    elif not any(
        test(kind)
        for test in (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, _is_view, pa.types.is_null, _is_binary)
    ):
        raise DataError(f"{where} holds {kind}, ids are text or whole numbers: write them as such")
    try:
        return pc.fill_null(column.cast(pa.large_string()), "")
    except pa.ArrowInvalid:
        raise DataError(f"{where} holds bytes that are not text in UTF-8: write the ids as text") from None


def _is_view(kind: pa.DataType) -> bool:
    return str(kind) == "string_view"  # pa.types.is_string_view came with pyarrow 16


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def encode(column: pa.Array, where: str, start: int = 0) -> tuple[np.ndarray, pa.Array]:
    """Codes (n,) int32 and the texts they point to, in order of first appearance, without surrounding blanks.

    Parameters
    ----------
    where : file and column, for messages
    start : data rows before this batch, for messages

    Raises
    ------
    DataError
        for an id longer than 256 characters or one that holds a NUL character or a line break.
    """
    coded = as_text(column, where).dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    texts = pc.utf8_trim_whitespace(coded.dictionary)
    long = pc.greater(pc.utf8_length(texts), LONGEST_ID).to_numpy(zero_copy_only=False)
    if long.any():
        worst = int(np.flatnonzero(long)[0])
        row, text = start + 1 + int(np.argmax(codes == worst)), texts[worst].as_py()
        raise DataError(
            f"{where}, row {row}: an id of {len(text)} characters ({_shown(text)}), at most {LONGEST_ID} are read: "
            "is the separator right?"
        )
    for mark, remedy in (
        ("\0", "a NUL character: is the file binary?"),
        ("\n", "a line break: does a quotation mark never close?"),
    ):
        held = pc.match_substring(texts, mark).to_numpy(zero_copy_only=False)
        if held.any():
            row = start + 1 + int(np.argmax(codes == np.flatnonzero(held)[0]))
            raise DataError(f"{where}, row {row}: an id holds {remedy}")
    return codes, texts


def _shown(text: str) -> str:
    return repr(text[:24] + "…" if len(text) > 24 else text)


def blank(texts: pa.Array) -> np.ndarray:
    """Which texts (n,) are empty."""
    return pc.equal(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)


def unify(parts: Sequence[tuple[np.ndarray, pa.Array]]) -> tuple[np.ndarray, np.ndarray]:
    """Join the codes of many batches: codes (E,) int64 and the distinct ids (U,) text, in order of first appearance.

    A column of decimals "1.0", "2.0", … throughout (written by a program that had read ids as floats) loses its ".0".
    """
    joined = pa.chunked_array([texts for _, texts in parts], pa.large_string()).dictionary_encode().combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # pyarrow < 15 leaves one chunk in a ChunkedArray
        joined = joined.chunk(0)
    place = joined.indices.to_numpy(zero_copy_only=False).astype(np.int64)  # place in the joined list -> id
    codes, start = np.empty(sum(len(part) for part, _ in parts), dtype=np.int64), 0
    offset = 0
    for part, texts in parts:
        codes[start : start + len(part)] = place[offset : offset + len(texts)][part]
        start, offset = start + len(part), offset + len(texts)
    return codes, text_array(undotted(joined.dictionary))


def undotted(ids: pa.Array) -> pa.Array:
    """Ids without their ".0" if every one has it; the distinct stay distinct."""
    if len(ids) and pc.all(pc.match_substring_regex(ids, r"^[0-9]+[.]0$")).as_py():
        return pc.utf8_slice_codeunits(ids, 0, -2)
    return ids


def text_array(ids: pa.Array) -> np.ndarray:
    """An Arrow array of text as a NumPy one."""
    return np.array(ids.to_pylist(), dtype=np.str_) if len(ids) else np.empty(0, dtype="<U1")


def numbers(column: pa.Array) -> np.ndarray:
    """Numbers (n,) float64; NaN where a value is empty, not a number or not finite."""
    if not _is_text(column.type):
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
            return np.full(len(column), np.nan)
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
        return np.where(np.isfinite(values), values, np.nan)
    values = _cast(column, pa.float64(), NUMBER).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def times(column: pa.Array, dates: bool) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,), int64 or (if any is fractional) float64, and a mask (n,) of those that cannot be read.

    Parameters
    ----------
    dates : the text is ISO dates, which become microseconds since 1970; a time without a zone counts as UTC.
    """
    kind = column.type
    if pa.types.is_temporal(kind) and not pa.types.is_time(kind) and not pa.types.is_duration(kind):
        whole = (column.cast(pa.int32()) if pa.types.is_date32(kind) else column).cast(pa.int64())
        return _filled(whole)
    if pa.types.is_integer(kind):
        return _filled(column.cast(pa.int64(), safe=False))
    if dates and _is_text(kind):
        return _dates(pc.replace_substring(column.cast(pa.large_string()), "/", "-"))
    if _is_text(kind):
        whole = _cast(column, pa.int64(), INTEGER)
        if whole.null_count == 0:
            return _filled(whole)
    values = numbers(column)
    bad = np.isnan(values)
    if _is_text(kind) and bool((values[~bad] == np.round(values[~bad])).all()):
        # whole numbers, some perhaps as "17.0", beside unreadable ones: exact where the text is exact
        exact, missing = _filled(whole)
        bad |= missing & (np.abs(np.nan_to_num(values)) >= 2.0**62)
        return np.where(missing, np.where(bad, 0.0, values).astype(np.int64), exact), bad
    return np.where(bad, 0.0, values), bad


def holds_dates(column: pa.Array) -> bool | None:
    """Whether the text looks like ISO dates more often than like numbers; None if it never looks like either."""
    if not _is_text(column.type):
        return False
    text = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    dates, others = (pc.sum(pc.match_substring_regex(text, pattern)).as_py() or 0 for pattern in (DATE, NUMBER))
    return dates > others if dates or others else None


def join_times(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Times of all batches as (E,) int64. Fractional ones are kept to the microsecond: only the order counts."""
    whole = all(part.dtype == np.int64 or bool((part == np.round(part)).all()) for part in parts)
    largest = max((float(np.abs(part).max()) for part in parts if part.size), default=0.0)
    if whole or largest > 9e12:  # beyond that a float has no microseconds left
        return np.concatenate([part if part.dtype == np.int64 else np.round(part).astype(np.int64) for part in parts])
    return np.concatenate(
        [part * 1_000_000 if part.dtype == np.int64 else np.round(part * 1e6).astype(np.int64) for part in parts]
    )


def splits(column: pa.Array, where: str, start: int = 0) -> np.ndarray:
    """Splits (n,) int8: 0 train, 1 valid, 2 test, from 0/1/2 or words.

    Raises
    ------
    DataError
        for any other value.
    """
    if not _is_text(column.type) and not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        raise DataError(f"{where} holds {column.type}, a split is 0/1/2 or train/valid/test: name the column with --split-col")
    coded = as_text(column, where).dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    words = [str(word).strip().lower().removesuffix(".0") for word in coded.dictionary.to_pylist()]
    wrong = [position for position, word in enumerate(words) if word not in SPLIT_WORDS]
    if wrong:
        row = start + 1 + int(np.argmax(codes == wrong[0]))
        raise DataError(
            f"{where}, row {row}: the split {_shown(words[wrong[0]])} is not one of 0/1/2 or train/valid/test: mend it, "
            "or name another column with --split-col ('' for none)"
        )
    return np.array([SPLIT_WORDS[word] for word in words], dtype=np.int8)[codes]


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_view(kind)


def _cast(column: pa.Array, kind: pa.DataType, pattern: str) -> pa.Array:
    """Text to numbers, null where the text does not match; the whole column at once where all of it does."""
    column = column.cast(pa.large_string())
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        text = pc.utf8_trim_whitespace(column)
        good = pc.fill_null(pc.match_substring_regex(text, pattern), False)
        return pc.if_else(good, text, pa.scalar(None, pa.large_string())).cast(kind)


def _dates(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """ISO dates to microseconds; the slow reading only where some value is no date or zones are mixed."""
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return _filled(text.cast(kind).cast(pa.int64()))
        except pa.ArrowInvalid:
            continue
    parsed = pd.to_datetime(pd.Series(text.to_pandas()).str.strip(), errors="coerce", utc=True, format="ISO8601")
    bad = parsed.isna().to_numpy()
    return np.where(bad, 0, parsed.to_numpy(dtype="datetime64[us]").astype(np.int64)), bad


def _filled(whole: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Integers with 0 for null, and the mask of the nulls."""
    return pc.fill_null(whole, 0).to_numpy(zero_copy_only=False), whole.is_null().to_numpy(zero_copy_only=False)
