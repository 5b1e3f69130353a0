"""Closed lists of names, each listed once: the values that library and command line accept.

This file imports no library, so that `dualgnn VERB --help` shows the lists quickly. Names of
functions are not listed here. They are the keys of one table each, in files that are as quick to
import: `evaluation.accuracy.METRICS`, `modality.imputers.IMPUTERS` and `models.MODELS`.
"""

from __future__ import annotations

from collections.abc import Iterable

SPLITS = ("train", "valid", "test")
HELD_OUT = ("test", "valid")  # splits that can be measured on
# The pairs that ranked lists leave out: all pairs before the measured split, or training pairs
# only.
MASKS = ("all", "train")
# The ways to split a log.
SPLIT_RULES = (
    "random",
    "mmrec",
    "leave-one-out",
    "time-user",
    "time-global",
    "cold-items",
    "given",
)
# Options of `preprocess` that say how a log is read; later commands read their logs alike.
LOG_OPTIONS = ("user_col", "item_col", "rating_col", "time_col", "separator", "layout")
LAYOUTS = ("table", "rows", "lists")  # how the lines of a text log are written
CO_MEASURES = ("count", "cosine", "jaccard")  # of user co-occurrence

PATTERNS = ("random", "rare", "one-modality", "whole-modality")  # of missing modalities
STAGES = ("train+test", "test-only")  # when modalities go missing


def strategies(imputers: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the ways in which a model handles missing modalities.

    They are the mask, each of the imputers, and training without the incomplete items.

    >>> strategies(["zero", "mean"])
    ('mask', 'zero', 'mean', 'drop-items')
    """
    return ("mask", *imputers, "drop-items")
