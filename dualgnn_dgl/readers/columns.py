"""Finds the columns of users, items, ratings, times and splits.

By the name given, or by names that people use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from dualgnn_dgl.errors import DataError, unknown
from dualgnn_dgl.readers.opened import OpenedFile

# Column names that are found by themselves, without case, spaces, dashes and underscores. For
# rating, time, split and title the earlier name wins; two columns that could be the user (or the
# item) are an error.
NAMES = {
    "user": (
        *(
            "user",
            "userid",
            "uid",
            "userno",
            "viewer",
            "viewerid",
            "reviewerid",
            "customerid",
            "memberid",
            "visitorid",
        ),
        *("accountid", "watcher", "watcherid", "personid"),
    ),
    "item": (
        *(
            "item",
            "itemid",
            "iid",
            "itemno",
            "video",
            "videoid",
            "vid",
            "microvideo",
            "microvideoid",
            "photo",
            "photoid",
        ),
        *(
            "movie",
            "movieid",
            "clip",
            "clipid",
            "asin",
            "parentasin",
            "product",
            "productid",
            "newsid",
            "songid",
            "trackid",
        ),
        *("bookid", "artistid", "businessid", "articleid", "noteid", "postid"),
    ),
    "rating": ("rating", "ratings", "score", "stars", "overall"),
    "time": (
        "timestamp",
        "timems",
        "datetime",
        "time",
        "ts",
        "unixreviewtime",
        "date",
        "watchedat",
        "createdat",
    ),
    "split": ("xlabel", "split"),
    "title": (
        "title",
        "titles",
        "itemtitle",
        "videotitle",
        "movietitle",
        "name",
        "itemname",
        "caption",
    ),
}
OPTIONS = {role: f"--{role}-col" for role in ("user", "item", "rating", "time", "split")}


@dataclass(frozen=True)
class Columns:
    """Lists the columns and the separator that the user named.

    None means: found by common names; "" (rating, time, split) means: not read. `layout` is
    "table", "rows" or "lists" where the user named it. No row is dropped for an unreadable value in
    an `unused` role.
    """

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    split: str | None = None
    separator: str | None = None
    layout: str | None = None
    unused: tuple[str, ...] = ()
    positive: tuple[str, ...] | None = None  # see `positives`


def plain(name: str) -> str:
    """Returns a column's name as it is compared: no RecBole type, case or punctuation.

    >>> plain("user_id:token"), plain("User-ID")
    ('userid', 'userid')
    """
    return re.sub(r"[\W_]", "", name.split(":")[0]).lower()


def known_roles(names: Sequence[str]) -> set[str]:
    """Returns the roles that columns of these names can play.

    >>> sorted(known_roles(["User-ID", "movie", "note"]))
    ['item', 'user']
    """
    short = {plain(name) for name in names}
    return {role for role, common in NAMES.items() if short & set(common)}


def listed(columns: Sequence[str]) -> str:
    """Returns the first columns by name, for a message.

    Long names are cut: a file that is not a table can have one of a million letters.

    >>> listed(["user", "x" * 60])
    'user, xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'
    """
    return ", ".join(name if len(name) <= 40 else f"{name[:40]}…" for name in columns[:20])


def candidates(table: OpenedFile, role: str, wanted: str | None = None) -> list[str]:
    """Returns the columns that can play a role, the best first.

    That is the one wanted (in another case, if need be), or those with common names.
    """
    if wanted:
        exact = [name for name in table.columns if name == wanted]
        return exact or [
            name for name in table.columns if name.split(":")[0].lower() == wanted.lower()
        ]
    known = [(plain(name), name) for name in table.columns]
    return [name for wanted in NAMES[role] for short, name in known if short == wanted]


def find_column(table: OpenedFile, role: str, wanted: str | None = None) -> str | None:
    """Returns the column that plays a role, by the name given or a common one.

    None if there is none.

    Raises:
        DataError: if the wanted column is not there, if two could be the user or the item, or if
            the name occurs twice.
    """
    found = candidates(table, role, wanted)
    if wanted and not found:
        raise DataError(f"{table.name}: {unknown('column', wanted, table.columns[:200])}")
    if not wanted and role in ("user", "item") and len(set(found)) > 1:
        raise DataError(
            f"{table.name} has {len(found)} columns that could be the {role} "
            f"({', '.join(found)}): choose with {OPTIONS[role]}"
        )
    if found and table.columns.count(found[0]) > 1:
        raise DataError(f"{table.name} has the column {found[0]} twice: rename one")
    return found[0] if found else None


def need_column(table: OpenedFile, role: str, wanted: str | None = None) -> str:
    """Returns the column as `find_column` does, and refuses a table without it."""
    found = find_column(table, role, wanted)
    if found is None:
        hint = ""
        if table.headless():
            hint = (
                " (its first line seems to be data: add a header such as "
                "user,item,rating,timestamp, or choose --layout rows)"
            )
        raise DataError(
            f"{table.name} has the columns {listed(table.columns)}; none is known to be the "
            f"{role}{hint}: "
            f"name it with {OPTIONS[role]}"
        )
    return found


def shown(value: pa.Scalar) -> str:
    """Returns a value as text, also one that Python has no type for (a year beyond 9999)."""
    try:
        return str(value.as_py() if value.is_valid else "")
    except (ValueError, OverflowError, pa.ArrowException):
        return str(value)
