"""Paths and names that the benchmarks share."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"
RAW = REPOSITORY.parent / "shared" / "data"  # raw data sets, where --root is not given
METRIC = "recall@20"


def user_cache() -> Path:
    """Returns the folder of the working cache.

    It is `dualgnn-dgl` in the user's cache folder (XDG base directories).
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "dualgnn-dgl"


@dataclass(frozen=True)
class Folders:
    """Folders of one run.

    Attributes:
        root: Raw data sets.
        cache: Prepared data, new trainings and everything else that can be made again.
    """

    root: Path = RAW
    cache: Path = field(default_factory=user_cache)

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Folders:
        """Returns the folders that the options of `add_folders` name."""
        return cls(arguments.root, arguments.cache)


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Adds the options `--root` and `--cache` to a script.

    Args:
        parser: Parser of the script.
    """
    parser.add_argument("--root", type=Path, default=RAW, help="folder of the raw data sets")
    text = (
        "folder for prepared data and new trainings (default: dualgnn-dgl in the user's cache "
        "folder)"
    )
    parser.add_argument(
        "--cache",
        type=lambda text: Path(text).resolve(),
        default=user_cache(),
        metavar="DIR",
        help=text,
    )
