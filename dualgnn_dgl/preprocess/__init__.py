"""Raw log and features → `Dataset`: filter, dedupe, k-core, renumber, split, align features, co-occurrence, filling.

`prepare` is the whole step; reading files is `preprocess.reader`, writing the folder is `data.save`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from dualgnn_dgl.data import SPLITS, CoOccurrence, Dataset, Interactions, Modality
from dualgnn_dgl.errors import ConfigError, DataError, unknown
from dualgnn_dgl.modality import IMPUTERS, impute
from dualgnn_dgl.preprocess import split as splitting
from dualgnn_dgl.preprocess.filters import Pairs, distinct, id_order, k_core, ranks, renumber
from dualgnn_dgl.preprocess.report import Counts, Figures, describe
from dualgnn_dgl.preprocess.tables import RawInput, RawLog, RawModality
from dualgnn_dgl.reduction import Reduction
from dualgnn_dgl.vocabulary import CO_MEASURES, SPLIT_RULES

TITLE_LENGTH = 300  # titles are for people to read; a stray essay must not widen the whole column


class Say(Protocol):
    """Hears which step is under way, and for a long one, again and again, the share of it that is done."""

    def __call__(self, text: str, share: float | None = None, /) -> None: ...


@dataclass(frozen=True)
class Options:
    """What `prepare` does with a log. None means: decided by the log, see `resolve`.

    Parameters
    ----------
    min_rating : drop rows rated lower, if set; a row without rating is dropped too.
    k_core : every user and item keeps at least this many pairs; None: 5, or 0 for a log with its own split.
    split : one of `vocabulary.SPLIT_RULES`; None: 'given' for a log with its own split, else 'random'.
    seed : of the shuffles and of the reduction of features.
    feature_dim : reduce wider modalities to this width, if set; fitted on items with training pairs, and the map is kept.
    cooc_weight : 'count', 'cosine' or 'jaccard'.
    cooc_top : neighbours kept per user.
    ratios : train, valid, test in whole numbers; for the splits 'random', 'time-user' and 'time-global'.
    impute : fill missing features with this imputer, one of `modality.IMPUTERS`; None leaves them missing.

    Raises
    ------
    ConfigError
        for a value outside its range.
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
            raise ConfigError(f"ratios are {self.ratios}: give three whole numbers for train, valid and test, such as (8, 1, 1)")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared data set and what to say about it (a JSON object, see `report.describe`)."""

    dataset: Dataset
    report: dict[str, Any]


def resolve(options: Options, log: RawLog) -> Options:
    """Fill in the options that depend on the log: a published split stays as it is and is filtered no further.

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


def prepare(
    raw: RawInput, options: Options | None = None, *, co_occurrence: bool = True, progress: Say | None = None
) -> Prepared:
    """Turn a raw log and raw features into a prepared data set with its report.

    Internal numbers follow the order of the ids (by number where all are numbers), so they do not depend on the
    order of the rows, and items 0…I-1 keep their numbers unless the k-core removes some. Every user has at
    least one training pair; users without any are left out with their pairs (as in MMRec's published protocol).

    Parameters
    ----------
    raw : what `reader.read` or `synthetic.demo` gave.
    options : see `Options`.
    co_occurrence : leave the user co-occurrence lists and the item graph's figures out if False (for a mere check).
    progress : called with a few words at the start of each step, and in a long one with the share done.

    Raises
    ------
    ConfigError
        if the options ask for a rating, time or split that the log does not carry.
    DataError
        if nothing is left, or features belong to other items.
    """
    log = raw.log
    options = resolve(options or Options(), log)
    k, rule = options.k_core or 0, options.split or "random"  # `resolve` has set both
    say: Say = progress or (lambda text, share=None: None)
    dropped = dict(log.dropped)

    say("filtering rows")
    _check_columns(log, options, rule)
    users, items = id_order(log.user_ids), id_order(log.item_ids)
    pairs, found = _pairs(log, ranks(users), ranks(items), options, dropped)
    pairs = _core(pairs, k, dropped)
    pairs, users = _renumber(pairs, users, "user")
    pairs, items = _renumber(pairs, items, "item")

    say("splitting")
    labels = splitting.assign(pairs, rule, np.random.default_rng(options.seed), options.ratios)
    learnt = np.bincount(pairs.user[labels == splitting.TRAIN], minlength=len(users)) > 0
    keep = learnt[pairs.user]
    if not keep.any():
        raise DataError(
            f"none of the {len(pairs):,} pairs left is for training: check the split column, or choose another --split"
        )
    if not keep.all():
        dropped["user without training pair"] = int((~keep).sum())
        pairs, labels = pairs.take(keep), labels[keep]
        pairs, users = _renumber(pairs, users, "user")
    if log.rows_read != len(pairs) + sum(dropped.values()):
        lost = sum(dropped.values())
        raise DataError(f"{log.rows_read} rows read are not {len(pairs)} kept and {lost} dropped: report this fault")

    user_ids, item_ids = (np.asarray(ids, np.str_)[order] for ids, order in ((log.user_ids, users), (log.item_ids, items)))
    splits = {
        name: Interactions(pairs.user[labels == label], pairs.item[labels == label], len(users), len(items))
        for label, name in enumerate(SPLITS)
    }
    modalities, reductions, raw_widths = {}, {}, {}
    trained = np.bincount(splits["train"].item, minlength=len(items)) > 0  # (I,)
    for name, modality in sorted(raw.modalities.items()):
        say(f"aligning {name} features")
        modalities[name], reduction = _reduce(align(name, modality, item_ids), trained, options)
        raw_widths[name] = int(modality.values.shape[1])
        if reduction is not None:
            reductions[name] = reduction
    lists = None
    if co_occurrence:
        lists = _co_occurrence(splits["train"], options, say)
    say("checking and hashing")
    dataset = Dataset(
        **splits,
        modalities=modalities,
        user_ids=user_ids,
        item_ids=item_ids,
        titles=_titles(raw.titles, item_ids),
        co_occurrence=lists,
        reductions=reductions,
    )
    if options.impute is not None:
        say(f"filling missing features: {options.impute}")
        dataset = impute(dataset, options.impute)
    if modalities and co_occurrence:
        say("comparing items that the same users watch")
    words = splitting.describe(rule, log.time is not None, options.ratios)
    figures = Figures(log.rows_read, dropped, found, raw_widths, words, asdict(options))
    return Prepared(dataset, describe(raw, dataset, figures, resemblance=co_occurrence))


def _check_columns(log: RawLog, options: Options, rule: str) -> None:
    """Say before the long work that the log lacks what the options need."""
    if not log.user.size:
        files = ", ".join(log.files) or "the log"
        raise DataError(f"{files} holds no usable interaction among {log.rows_read:,} rows read: check the file")
    if options.min_rating is not None and log.rating is None:
        raise ConfigError("--min-rating needs ratings: name the column with --rating-col, or leave --min-rating out")
    splitting.check(Pairs(log.user, log.item, log.time, log.split), rule)
    if rule == "time-global" and log.time is not None and splitting.only_positions(log.user, log.time):
        raise ConfigError(
            "--split time-global needs times, this log has only the order within each user: "
            "choose --split time-user or leave-one-out"
        )


def _pairs(
    log: RawLog, user_rank: np.ndarray, item_rank: np.ndarray, options: Options, dropped: dict[str, int]
) -> tuple[Pairs, Counts]:
    """Rows rated well enough, each pair once, and the sizes before the ratings count; adds what it leaves out to `dropped`."""
    user, item = user_rank[log.user], item_rank[log.item]  # (E,) int32
    # times and split are carried along only where a later step looks at them
    time = log.time if options.split in ("leave-one-out", "time-user", "time-global") else None
    split, everything = log.split, None
    if options.min_rating is not None and log.rating is not None:
        everything, _ = distinct(user, item, len(item_rank), split=split)
        good: np.ndarray = log.rating >= options.min_rating  # False for NaN
        dropped[f"rating below {options.min_rating:g}"] = int((~good).sum())
        user, item = user[good], item[good]
        time, split = (values[good] if values is not None else None for values in (time, split))
    pairs, reasons = distinct(user, item, len(item_rank), time, split)
    dropped.update(reasons)
    if not len(pairs):
        raise DataError(
            f"no interactions left: all {len(log.user):,} are rated below {options.min_rating:g}: choose a lower --min-rating"
        )
    return pairs, Counts.of(everything if everything is not None else pairs)


def _core(pairs: Pairs, k: int, dropped: dict[str, int]) -> Pairs:
    """The k-core; adds what it leaves out to `dropped`."""
    if k <= 1:
        return pairs
    rows = k_core(pairs.user, pairs.item, k)
    if not rows.size:
        users, items = np.count_nonzero(np.bincount(pairs.user)), np.count_nonzero(np.bincount(pairs.item))
        raise DataError(
            f"no interactions left after the {k}-core: {len(pairs):,} pairs of {users:,} users and {items:,} items hold no part "
            f"where everybody has {k}: choose a smaller --k-core (0 keeps everything)"
        )
    if rows.size < len(pairs):
        dropped[f"{k}-core"] = len(pairs) - rows.size
        pairs = pairs.take(rows)
    return pairs


def _renumber(pairs: Pairs, order: np.ndarray, side: str) -> tuple[Pairs, np.ndarray]:
    """Number the users or items that are left 0…n-1; `order` then says which raw id each of them is."""
    codes, old = renumber(getattr(pairs, side), order.size)
    return replace(pairs, **{side: codes}), order[old]


def align(name: str, modality: RawModality, item_ids: np.ndarray) -> Modality:
    """Bring features into the order of `item_ids`; an item without a row is missing.

    Raises
    ------
    DataError
        if no row belongs to any item.
    """
    ids, file = np.asarray(modality.ids, np.str_), modality.file or name
    if not ids.size:
        raise DataError(f"{file} holds no row: give one per item, or leave the file out")
    order = np.argsort(ids, kind="stable")
    spot = np.minimum(np.searchsorted(ids, item_ids, sorter=order), ids.size - 1)
    rows = order[spot]  # (I,) the only row that can be this item's
    found = ids[rows] == item_ids
    if not found.any():
        raise DataError(
            f"{file}: none of its {ids.size:,} rows belongs to one of the {len(item_ids):,} items (its ids look like '{ids[0]}', "
            f"those of the log like '{item_ids[0]}'): key the features by the log's item ids"
        )
    present = found & np.asarray(modality.present, bool)[rows]
    values = np.asarray(modality.values, np.float32)[rows]  # (I, F)
    return Modality(values, present)


def _reduce(modality: Modality, trained: np.ndarray, options: Options) -> tuple[Modality, Reduction | None]:
    """Reduce to `feature_dim` columns where there are more, with the map.

    It is fitted on items with training pairs, `trained` (I,), alone: what is held out whole (`cold-items`, or a split by time)
    is to come as a new video would, whose features had no say in the map.
    """
    if options.feature_dim is None or modality.width <= options.feature_dim or not modality.present[trained].any():
        return modality, None
    from dualgnn_dgl.preprocess.features import reduce_width

    values, reduction = reduce_width(modality.values, modality.present, options.feature_dim, options.seed, trained)
    return Modality(values, modality.present), reduction


def _co_occurrence(train: Interactions, options: Options, say: Say) -> CoOccurrence:
    """The lists that the user graph is made of, from training pairs only."""
    from dualgnn_dgl.cooccurrence import co_occurrence

    step = "counting co-occurrence of users"
    say(step)
    return co_occurrence(train, k=options.cooc_top, measure=options.cooc_weight, progress=lambda share: say(step, share))


def _titles(titles: dict[str, str], item_ids: np.ndarray) -> np.ndarray | None:
    """(I,) text, '' where unknown; None if no item has one."""
    found = [titles.get(item, "")[:TITLE_LENGTH] for item in item_ids.tolist()] if titles else []
    return np.array(found, np.str_) if any(found) else None
