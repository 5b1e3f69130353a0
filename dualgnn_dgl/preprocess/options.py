"""Defines the options of preprocessing, and resolves them for a log."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualgnn_dgl.core.vocabulary import CO_MEASURES, SPLIT_RULES
from dualgnn_dgl.data.raw import RawLog
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.modality import IMPUTERS


@dataclass(frozen=True)
class Options:
    """Sets what `prepare` does with a log; None means that the log decides, see `resolve`.

    Attributes:
        min_rating: drop rows rated lower, if set; a row without rating is dropped too.
        k_core: every user and item keeps at least this many pairs; None: 5, or 0 for a log with its
            own split.
        split: one of `vocabulary.SPLIT_RULES`; None: 'given' for a log with its own split, else
            'random'.
        seed: of the shuffles and of the reduction of features.
        feature_dim: reduce wider modalities to this width, if set; fitted on items with training
            pairs, and the map is kept.
        cooc_weight: 'count', 'cosine' or 'jaccard'.
        cooc_top: neighbours kept per user.
        ratios: train, valid, test in whole numbers; for the splits 'random', 'time-user' and
            'time-global'.
        impute: impute missing features with this method, one of `modality.IMPUTERS`; None leaves
            them missing.

    Raises:
        ConfigError: for a value outside its range.
    """

    min_rating: float | None = None
    k_core: int | None = None
    split: str | None = None
    seed: int = 0
    feature_dim: int | None = None
    cooc_weight: str = "count"
    cooc_top: int = 200
    ratios: tuple[int, int, int] = (8, 1, 1)
    impute: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("k_core", 0), ("seed", 0), ("feature_dim", 1), ("cooc_top", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}: give {least} or more")
        if self.split is not None and self.split not in SPLIT_RULES:
            raise ConfigError(unknown("split", self.split, SPLIT_RULES))
        if self.cooc_weight not in CO_MEASURES:
            raise ConfigError(unknown("co-occurrence weight", self.cooc_weight, CO_MEASURES))
        if self.impute is not None and self.impute not in IMPUTERS:
            raise ConfigError(unknown("imputer", self.impute, IMPUTERS))
        if len(self.ratios) != 3 or min(self.ratios) < 0 or self.ratios[0] < 1:
            raise ConfigError(
                f"ratios are {self.ratios}: give three whole numbers for train, valid and test, "
                f"such as (8, 1, 1)"
            )


def resolve(options: Options, log: RawLog) -> Options:
    """Resolves the options that depend on the log.

    A published split stays as it is and is filtered no further.

    >>> import numpy as np
    >>> log = RawLog(np.zeros(1, int), np.zeros(1, int), np.array(["u"]), np.array(["i"]))
    >>> resolved = resolve(Options(), log)
    >>> resolved.k_core, resolved.split
    (5, 'random')
    """
    given = log.split is not None
    return replace(
        options,
        k_core=(0 if given else 5) if options.k_core is None else options.k_core,
        split=("given" if given else "random") if options.split is None else options.split,
    )
