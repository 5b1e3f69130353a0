"""The closed lists of names, each once: what the library accepts and the command line offers.

Nothing is imported here, so that `dualgnn VERB --help` shows the lists without loading the library.
Names that stand for a function are not listed here but are the keys of one table, in a file that is
as quick to import: `evaluation.accuracy.METRICS`,
`modality.imputers.IMPUTERS` and `models.MODELS`.
"""

from __future__ import annotations

from collections.abc import Iterable

SPLITS = ("train", "valid", "test")
HELD_OUT = ("test", "valid")  # splits that can be measured on
# which pairs ranked lists leave out: all known before the measured split, or training pairs alone
MASKS = ("all", "train")
# how a log is split
SPLIT_RULES = (
    "random",
    "mmrec",
    "leave-one-out",
    "time-user",
    "time-global",
    "cold-items",
    "given",
)
LAYOUTS = ("table", "rows", "lists")  # how the lines of a text log are written
CO_MEASURES = ("count", "cosine", "jaccard")  # of user co-occurrence

PATTERNS = ("random", "rare", "one-modality", "whole-modality")  # of missing modalities
STAGES = ("train+test", "test-only")  # when modalities go missing


def strategies(imputers: Iterable[str]) -> tuple[str, ...]:
    """How a model meets missing modalities.

    A mask, one of the imputers, or without the incomplete items.

    >>> strategies(["zero", "mean"])
    ('mask', 'zero', 'mean', 'drop-items')
    """
    return ("mask", *imputers, "drop-items")
