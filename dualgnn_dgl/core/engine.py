"""Names the graph engine in use without importing it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def engine() -> str:
    """Returns the version of the installed DGL; "none" where the stand-in is used instead."""
    try:
        return version("dgl")
    except PackageNotFoundError:
        return "none"


def described() -> str:
    """Returns the graph engine in words: "DGL 2.1.0", or that the stand-in is used."""
    found = engine()
    return "no DGL, its stand-in is used" if found == "none" else f"DGL {found}"
