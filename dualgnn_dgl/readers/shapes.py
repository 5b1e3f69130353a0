"""Decides from first lines without a header: rows, or lists of items by user?

`1 102 3` may be user 1 with the items 102 and 3, or a rating. The number of words a line, users
that begin several lines and the ranges of the columns decide; where they do not, the reader asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.heads import Head

TIME = re.compile(r"[0-9]{9,19}(\.[0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
RATED = re.compile(r"[^:]+:[0-9]+(\.[0-9]+)?")
BEST = 10  # the highest common rating
Words = list[list[str]]  # the words of each line


@dataclass(frozen=True)
class Shape:
    """Represents what lines without a header are, and the evidence.

    Attributes:
        lists: lines are a user and items.
        rows: lines are rows.
        why: the evidence, as a phrase.
    """

    lists: bool = False
    rows: bool = False
    why: str = ""


def bare_shape(heads: Sequence[Head]) -> Shape:
    """Returns the shape of lines of words divided by blanks or tabs.

    Args:
        heads: the files of one log, such as train.txt and test.txt.

    Raises:
        DataError: if rows and lists both remain, or the words are `item:rating`.
    """
    parts = [[line.split() for line in head.lines] for head in heads]
    lines = [words for part in parts for words in part]
    _refuse_rated(heads[0], lines)
    widths = {len(words) for words in lines}
    if len(widths) > 1:
        _refuse_counts(heads[0], parts)
        return Shape(lists=True, why="its lines have different numbers of words")
    (width,) = widths
    if width <= 2:
        return Shape(lists=True, why="every line is a user and an item")
    if _repeats(parts):
        if width > 4:
            raise _question(heads[0], "the same user begins several lines")
        return Shape(rows=True, why=f"the same user begins several lines, all of {width} words")
    if len(lines) < 3 or width > 4:
        return Shape(lists=True, why="every user begins one line")
    if all(TIME.fullmatch(words[-1]) for words in lines):
        return Shape(rows=True, why="every line ends in a time")
    if _like_ratings(lines):
        raise _question(heads[0], "the third word could be a rating")
    return Shape(lists=True, why="every user begins one line, and no word looks like a rating")


def tabbed_shape(heads: Sequence[Head]) -> Shape:
    """Returns the shape of lines with one tab: a user and items, or a user and one item.

    Raises:
        DataError: if rows and lists both remain.
    """
    split = [[line.split("\t") for line in head.lines] for head in heads]
    if any(len(fields) != 2 or not fields[0].strip() for part in split for fields in part):
        return Shape()
    mark = "," if is_comma_list(heads[0]) else None
    parts = [[fields[1].split(mark) for fields in part] for part in split]
    lines = [words for part in parts for words in part]
    _refuse_rated(heads[0], [["", *words] for words in lines])
    widths = {len(words) for words in lines}
    if widths == {1}:
        return Shape()
    between = "commas" if mark else "blanks"
    if _repeats(split):
        if len(widths) > 1:
            raise _question(heads[0], f"the same user begins several lines, with {between}")
        return Shape(rows=True, why="the same user begins several lines, all of as many words")
    fixed = len(widths) == 1 and len(lines) > 2 and mark is None
    if fixed and any(
        len(set(column)) == 1 and not NUMBER.fullmatch(column[0])
        for column in zip(*lines, strict=True)
    ):
        return Shape(rows=True, why="all lines share a word after the tab, so ids contain blanks")
    return Shape(lists=True, why=f"every user begins one line, a tab and items between {between}")


def is_comma_list(head: Head) -> bool:
    """Returns whether what follows the tab of a line is a list with commas."""
    items = [line.split("\t")[-1].strip() for line in head.lines]
    return any("," in text for text in items) and not any(" " in text for text in items)


def row_columns(head: Head) -> tuple[str, ...]:
    """Returns names for the columns of rows without a header: a third column of times is one."""
    rows = [head.fields(line) for line in head.lines]
    timed = all(len(row) == 3 and TIME.fullmatch(row[2].strip()) for row in rows)
    return ("user", "item", "timestamp") if timed else ("user", "item", "rating", "timestamp")


def _repeats(parts: Sequence[Words]) -> bool:
    """Returns whether a user begins several lines of one file."""
    return any(len({words[0] for words in part}) < len(part) for part in parts)


def _like_ratings(lines: Words) -> bool:
    """Returns whether the third words are small numbers, and the second are not."""
    second, third = ([words[place] for words in lines] for place in (1, 2))
    if not all(NUMBER.fullmatch(word) and 0 <= float(word) <= BEST for word in third):
        return False
    return not all(NUMBER.fullmatch(word) and float(word) <= BEST for word in second)


def _refuse_rated(head: Head, lines: Words) -> None:
    """Refuses lists of `item:rating`."""
    items = [word for words in lines for word in words[1:]]
    if items and all(RATED.fullmatch(word) for word in items):
        raise DataError(
            f"{head.path.name}: words such as '{items[0][:40]}' seem to be item:rating, which is "
            "not read: write a table with the columns user, item and rating"
        )


def _refuse_counts(head: Head, parts: Sequence[Words]) -> None:
    """Refuses a first line with sizes, above rows of one width."""
    for first, *rest in parts:
        if (
            len({len(words) for words in rest}) == 1
            and len(rest[0]) > 2
            and _repeats([rest])
            and all(NUMBER.fullmatch(word) for word in first)
        ):
            raise DataError(
                f"{head.path.name}: the first line ({' '.join(first)[:40]}) has another width than "
                "the rows below, so it seems to give sizes: remove it"
            )


def _question(head: Head, why: str) -> DataError:
    return DataError(
        f"{head.path.name}: is each line a row of user, item, rating and time, or a user and that "
        f"user's items ({why})? Choose with --layout rows or --layout lists"
    )


def choose(layout: str | None, find: Callable[[], Shape]) -> Shape:
    """Returns the shape that the user named, else the one found."""
    if layout is None:
        return find()
    return Shape(layout == "lists", layout == "rows", f"--layout {layout}")
