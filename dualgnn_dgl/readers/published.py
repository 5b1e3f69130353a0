"""Compares the size of a log with those published for public data sets.

A set is recognised by the name of its folder or file. Common names count
only if at least one size agrees. A log that is not recognised is not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Known:
    """Describes one published version of a public data set.

    Attributes:
        title: for people.
        names: folder or file names (lower case, '-' for '_' and blanks) that mean this set and no
            other.
        loose: names that mean it only if a number agrees too.
        figures: 'users', 'items', 'interactions', 'train', 'valid', 'test' as published.
        source: the publication.
    """

    title: str
    names: tuple[str, ...]
    loose: tuple[str, ...]
    figures: Mapping[str, int]
    source: str


def _sizes(users: int, items: int, interactions: int, *splits: int) -> dict[str, int]:
    """Returns sizes by name; two splits are train and test, three train, valid and test."""
    names = ("train", "test") if len(splits) == 2 else ("train", "valid", "test")
    return {"users": users, "items": items, "interactions": interactions} | dict(
        zip(names, splits, strict=False)
    )


_MMREC = "MMRec's files (LGMRec logs)"
_LATTICE = "LATTICE/MMSSL files (MMSSL README)"
_LIGHTGCN = "LightGCN, table 2"
KNOWN = (
    Known(
        "Amazon Baby",
        ("amazon-baby",),
        ("baby",),
        _sizes(19445, 7050, 160792, 118551, 20559, 21682),
        _MMREC,
    ),
    Known("Amazon Baby", ("amazon-baby",), ("baby",), _sizes(19445, 7050, 139110), _LATTICE),
    Known(
        "Amazon Sports",
        ("amazon-sports",),
        ("sports",),
        _sizes(35598, 18357, 296337, 218409, 37899, 40029),
        _MMREC,
    ),
    Known("Amazon Sports", ("amazon-sports",), ("sports",), _sizes(35598, 18357, 256308), _LATTICE),
    Known(
        "Amazon Clothing",
        ("amazon-clothing",),
        ("clothing",),
        _sizes(39387, 23033, 278677, 197338, 40150, 41189),
        _MMREC,
    ),
    Known(
        "Amazon Electronics",
        ("amazon-elec",),
        ("elec",),
        _sizes(192403, 63001, 1689188),
        "MMRec evaluation README",
    ),
    Known(
        "TikTok",
        (),
        ("tiktok",),
        _sizes(9308, 6710, 68722, 59541, 3051, 6130),
        "MMSSL's file; its README says 9,319 users",
    ),
    Known("TikTok (MMGCN)", (), ("tiktok",), _sizes(36656, 76085, 726065), "MMGCN README"),
    Known(
        "MicroLens-50k",
        ("microlens-50k", "microlens-50k-pairs"),
        (),
        _sizes(50000, 19220, 359708),
        "MicroLens",
    ),
    Known("MovieLens-1M", ("movielens-1m", "ml-1m"), (), _sizes(6040, 3706, 1000209), "GroupLens"),
    Known("MovieLens (MMGCN)", (), ("movielens",), _sizes(55485, 5986, 1239508), "MMGCN README"),
    Known(
        "MovieLens latest 2016",
        ("movielens-latest-small", "ml-latest-small"),
        (),
        _sizes(671, 9066, 100004),
        "GroupLens",
    ),
    Known(
        "MovieLens latest 2018",
        ("movielens-latest-small", "ml-latest-small"),
        (),
        _sizes(610, 9724, 100836),
        "GroupLens",
    ),
    Known("Gowalla", ("gowalla",), (), _sizes(29858, 40981, 1027370, 810128, 217242), _LIGHTGCN),
    Known(
        "Amazon-Book (KGAT)",
        ("amazon-book",),
        (),
        _sizes(70679, 24915, 846434, 652514, 193920),
        "the released KGAT files",
    ),
    Known(
        "Amazon-Book (LightGCN)",
        ("amazon-book",),
        (),
        _sizes(52643, 91599, 2984108, 2380730, 603378),
        _LIGHTGCN,
    ),
)


def compare(
    names: Iterable[str], found: Mapping[str, int], prepared: Mapping[str, int]
) -> dict[str, Any] | None:
    """Compares the sizes of a log with those published for a set of that name.

    Args:
        names: of the input folder and files, without suffix.
        found: sizes of the log as read: distinct pairs, before any filter.
        prepared: the same after all steps.

    Returns:
        None if no set is recognised, else `{"set", "source", "met", "figures": {name: {"published",
        "found", "prepared", "met"}}}`. A number is met if the log or the prepared data has exactly
        that size (a set published after its own 5-core is met by the prepared data).
    """
    called = {name.lower().replace("_", "-").replace(" ", "-") for name in names}

    def agreeing(known: Known) -> int:
        return sum(
            value in (found.get(name), prepared.get(name)) for name, value in known.figures.items()
        )

    candidates = [
        known
        for known in KNOWN
        if called & set(known.names) or (called & set(known.loose) and agreeing(known))
    ]
    if not candidates:
        return None
    known = max(candidates, key=agreeing)
    figures = {
        name: {
            "published": value,
            "found": found.get(name),
            "prepared": prepared.get(name),
            "met": value in (found.get(name), prepared.get(name)),
        }
        for name, value in known.figures.items()
    }
    return {
        "set": known.title,
        "source": known.source,
        "met": all(figure["met"] for figure in figures.values()),
        "figures": figures,
    }
