"""Converts columns to numbers: ids to codes, ratings, splits.

Arrow kernels over whole batches, no loop over rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dualgnn_dgl.errors import DataError

LONGEST_ID = 256
# Words that programs write for a missing value, and the notation of a rounded number.
NULLS = pa.array(
    ["NULL", "null", "NaN", "nan", "NAN", "None", "<NA>", "N/A", "n/a", "NA", r"\N"],
    pa.large_string(),
)
ROUNDED = r"^[0-9]([.,][0-9]+)?[eE][+][0-9]{2,3}$"
DOTTED = r"^[0-9]+([.]0)?$"
# What the slow reading takes for a number; narrow enough that Arrow's cast cannot fail on it.
NUMBER = r"^-?([0-9]{1,200}[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$"
SPLIT_WORDS = {
    "0": 0,
    "1": 1,
    "2": 2,
    "train": 0,
    "training": 0,
    "valid": 1,
    "val": 1,
    "validation": 1,
    "dev": 1,
    "test": 2,
}


def as_text(column: pa.Array, where: str, start: int = 0) -> pa.Array:
    """Returns ids of any kind as text, null as "".

    7 and 7.0 (a column that once held NaN) are "7", text stays as it is.

    Raises:
        DataError: for fractional numbers, booleans, lists and other things that are no ids.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        values = doubles(column)
        broken = np.flatnonzero(
            ~(np.isnan(values) | ((values == np.round(values)) & (np.abs(values) < 2**53)))
        )
        if broken.size:
            place = f"{where}, row {start + 1 + int(broken[0])},"
            raise DataError(
                f"{place} holds the number {values[broken[0]]}, ids are text or whole numbers: "
                f"write them as such"
            )
        column = pa.array(np.nan_to_num(values).astype(np.int64), mask=np.isnan(values))
    elif not any(
        test(kind)
        for test in (
            pa.types.is_integer,
            pa.types.is_string,
            pa.types.is_large_string,
            _is_view,
            pa.types.is_null,
            _is_binary,
        )
    ):
        raise DataError(f"{where} holds {kind}, ids are text or whole numbers: write them as such")
    try:
        return pc.fill_null(column.cast(pa.large_string()), "")
    except pa.ArrowInvalid:
        raise DataError(
            f"{where} holds bytes that are not text in UTF-8: write the ids as text"
        ) from None


def _is_view(kind: pa.DataType) -> bool:
    return str(kind) == "string_view"  # pa.types.is_string_view came with pyarrow 16


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def encode(column: pa.Array, where: str, start: int = 0) -> tuple[np.ndarray, pa.Array]:
    """Returns codes (n,) int32 and their texts, trimmed, in order of first appearance.

    Args:
        where: file and column, for messages
        start: data rows before this batch, for messages

    Raises:
        DataError: for an id longer than 256 characters or one that holds a NUL character or a line
            break.
    """
    coded = as_text(column, where, start).dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    texts = pc.utf8_trim_whitespace(coded.dictionary)
    long = pc.greater(pc.utf8_length(texts), LONGEST_ID).to_numpy(zero_copy_only=False)
    if long.any():
        worst = int(np.flatnonzero(long)[0])
        row, text = start + 1 + int(np.argmax(codes == worst)), texts[worst].as_py()
        raise DataError(
            f"{where}, row {row}: an id of {len(text)} characters ({_shown(text)}), at most "
            f"{LONGEST_ID} are read: "
            "is the separator right?"
        )
    rounded = pc.match_substring_regex(texts, ROUNDED).to_numpy(zero_copy_only=False)
    if rounded.any():
        worst = int(np.flatnonzero(rounded)[0])
        raise DataError(
            f"{where}, row {start + 1 + int(np.argmax(codes == worst))}: the id "
            f"{texts[worst].as_py()} is a number that a spreadsheet rounded: export the ids as text"
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
    """Returns which texts (n,) are empty."""
    return pc.equal(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)


def null_words(texts: pa.Array) -> np.ndarray:
    """Returns which texts (n,) are words that programs write for a missing value."""
    return pc.is_in(texts, NULLS).to_numpy(zero_copy_only=False)


def equal(texts: pa.Array, word: str) -> np.ndarray:
    """Returns which texts (n,) are equal to a word."""
    return pc.equal(texts, word).to_numpy(zero_copy_only=False)


def unify(parts: Sequence[tuple[np.ndarray, pa.Array]]) -> tuple[np.ndarray, np.ndarray]:
    """Joins the codes of many batches.

    Ids that are whole numbers throughout, some with ".0" (written by a program that had read ids as
    floats), lose that ending.

    Returns:
        Codes (E,) int64 and the distinct ids (U,) as text, in order of first appearance.
    """
    joined = (
        pa.chunked_array([texts for _, texts in parts], pa.large_string())
        .dictionary_encode()
        .combine_chunks()
    )
    # place in the joined list -> id
    place = joined.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    codes, start = np.empty(sum(len(part) for part, _ in parts), dtype=np.int64), 0
    offset = 0
    for part, texts in parts:
        codes[start : start + len(part)] = place[offset : offset + len(texts)][part]
        start, offset = start + len(part), offset + len(texts)
    ids = joined.dictionary
    # One file writes 7, another 7.0 (its program had read ids as floats): they are one id.
    if len(ids) and pc.all(pc.match_substring_regex(ids, DOTTED)).as_py():
        merged = pc.replace_substring_regex(ids, r"[.]0$", "").dictionary_encode()
        codes = merged.indices.to_numpy(zero_copy_only=False).astype(np.int64)[codes]
        ids = merged.dictionary
    return codes, text_array(ids)


def undotted(ids: pa.Array) -> pa.Array:
    """Returns ids without their ".0" if every one has it; distinct ids stay distinct."""
    if len(ids) and pc.all(pc.match_substring_regex(ids, r"^[0-9]+[.]0$")).as_py():
        return pc.utf8_slice_codeunits(ids, 0, -2)
    return ids


def text_array(ids: pa.Array) -> np.ndarray:
    """Returns an Arrow array of text as a NumPy one."""
    return np.array(ids.to_pylist(), dtype=np.str_) if len(ids) else np.empty(0, dtype="<U1")


def numbers(column: pa.Array) -> np.ndarray:
    """Returns numbers (n,) float64, the nearest to each value.

    NaN where a value is empty, not a number or not finite.
    """
    values = (
        _cast(column, pa.float64(), NUMBER).to_numpy(zero_copy_only=False)
        if is_text(column.type)
        else doubles(column)
    )
    return np.where(np.isfinite(values), values, np.nan)


def doubles(column: pa.Array) -> np.ndarray:
    """Returns a column of numbers (n,) as float64, the nearest to each value.

    NaN for null and for what is no number.
    """
    kind = column.type
    if pa.types.is_integer(kind):
        values, missing = filled(column)
        return np.where(missing, np.nan, values.astype(np.float64))
    if pa.types.is_floating(kind):
        return column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.full(len(column), np.nan)


def ratings(column: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ratings (n,) float64, and masks of unreadable ones and of those from 2^53 on."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values = numbers(column)
    if is_text(column.type) and bool(np.isnan(values).any()):
        values = numbers(_without_booleans(column))
    unread = np.isnan(values)
    exact = pa.types.is_floating(column.type)
    return (
        values,
        unread,
        np.zeros(len(values), dtype=bool)
        if exact
        else np.abs(np.where(unread, 0.0, values)) >= 2.0**53,
    )


def _without_booleans(column: pa.Array) -> pa.Array:
    """Returns text with 1 and 0 for the words true and false, in any case."""
    if not pc.any(pc.match_substring_regex(column, "^ *(?i:true|false) *$")).as_py():
        return column
    text = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.large_string())))
    for word, number in (("true", "1"), ("false", "0")):
        text = pc.if_else(pc.equal(text, word), number, text)
    return text


def splits(column: pa.Array, where: str, start: int = 0) -> np.ndarray:
    """Returns splits (n,) int8: 0 train, 1 valid, 2 test, from 0/1/2 or words.

    Raises:
        DataError: for any other value.
    """
    if (
        not is_text(column.type)
        and not pa.types.is_integer(column.type)
        and not pa.types.is_floating(column.type)
    ):
        raise DataError(
            f"{where} holds {column.type}, a split is 0/1/2 or train/valid/test: name the column "
            f"with --split-col"
        )
    coded = as_text(column, where, start).dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    words = [str(word).strip().lower().removesuffix(".0") for word in coded.dictionary.to_pylist()]
    wrong = [position for position, word in enumerate(words) if word not in SPLIT_WORDS]
    if wrong:
        row = start + 1 + int(np.argmax(codes == wrong[0]))
        raise DataError(
            f"{where}, row {row}: the split {_shown(words[wrong[0]])} is not one of 0/1/2 or "
            f"train/valid/test: fix it,  "
            "or name another column with --split-col ('' for none)"
        )
    return np.array([SPLIT_WORDS[word] for word in words], dtype=np.int8)[codes]


def is_text(kind: pa.DataType) -> bool:
    """Returns whether a column of this type is text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_view(kind)


def _cast(column: pa.Array, kind: pa.DataType, pattern: str) -> pa.Array:
    """Converts text to numbers, null where the text does not match.

    The whole column at once where all of it does.
    """
    column = column.cast(pa.large_string())
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        text = pc.utf8_trim_whitespace(column)
        good = pc.fill_null(pc.match_substring_regex(text, pattern), False)
        return pc.if_else(good, text, pa.scalar(None, pa.large_string())).cast(kind)


def filled(whole: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns integers (n,) of their own type with 0 for null, and the mask of nulls."""
    missing = whole.is_null().to_numpy(zero_copy_only=False)
    return pc.fill_null(whole, pa.scalar(0, whole.type)).to_numpy(zero_copy_only=False), missing
