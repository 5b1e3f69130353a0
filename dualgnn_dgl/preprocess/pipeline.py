"""Turns a raw log and raw features into a `Dataset`: a list of steps over one draft.

Reading files belongs to `readers`, writing the folder to `data.save`. A new step is a function of
the draft and its line in `STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dualgnn_dgl.data import SPLITS, Dataset, Interactions
from dualgnn_dgl.data.raw import RawInput
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.modality import impute
from dualgnn_dgl.preprocess import split as splitting
from dualgnn_dgl.preprocess.align import align, align_titles, reduce
from dualgnn_dgl.preprocess.draft import Draft, Say
from dualgnn_dgl.preprocess.filters import Pairs, distinct, id_order, k_core, ranks, renumber
from dualgnn_dgl.preprocess.options import Options, resolve
from dualgnn_dgl.preprocess.report import Counts, Figures, describe


@dataclass(frozen=True, eq=False)
class Prepared:
    """Holds a prepared data set and its report (a JSON object, see `report.describe`)."""

    dataset: Dataset
    report: dict[str, Any]


def check_columns(draft: Draft) -> None:
    """Refuses, before the long work, a log that lacks what the options need."""
    log, options = draft.raw.log, draft.options
    if not log.user.size:
        files = ", ".join(log.files) or "the log"
        raise DataError(
            f"{files} holds no usable interaction among {log.rows_read:,} rows read: check the file"
        )
    if options.min_rating is not None and log.rating is None:
        raise ConfigError(
            "--min-rating needs ratings: name the column with --rating-col, or leave --min-rating "
            "out"
        )
    if options.min_rating is None and log.rating is not None:
        known = log.rating[~np.isnan(log.rating)]
        if known.size and set(np.unique(known).tolist()) == {0.0, 1.0}:
            raise ConfigError(
                "the ratings are 0 and 1, so some rows may be no views: choose --min-rating 1 to "
                "keep the ones, or --rating-col '' to keep all rows"
            )
    splitting.check(Pairs(log.user, log.item, log.time, log.split), draft.rule)
    if (
        draft.rule == "time-global"
        and log.time is not None
        and splitting.only_positions(log.user, log.time)
    ):
        raise ConfigError(
            "--split time-global needs times, this log has only the order within each user: "
            "choose --split time-user or leave-one-out"
        )


def filter_rows(draft: Draft) -> None:
    """Leaves out rows with a low rating and takes each pair once."""
    draft.say("filtering rows")
    log, options = draft.raw.log, draft.options
    draft.users, draft.items = id_order(log.user_ids), id_order(log.item_ids)
    user, item = ranks(draft.users)[log.user], ranks(draft.items)[log.item]  # (E,) int32
    num_items = draft.items.size
    # times and split are carried along only where a later step looks at them
    time = log.time if options.split in ("leave-one-out", "time-user", "time-global") else None
    split, everything = log.split, None
    if options.min_rating is not None and log.rating is not None:
        everything, _ = distinct(user, item, num_items, split=split)
        good: np.ndarray = log.rating >= options.min_rating  # False for NaN
        draft.dropped[f"rating below {options.min_rating:g}"] = int((~good).sum())
        user, item = user[good], item[good]
        time, split = (values[good] if values is not None else None for values in (time, split))
    draft.pairs, reasons = distinct(user, item, num_items, time, split)
    draft.dropped.update(reasons)
    if not len(draft.pairs):
        raise DataError(
            f"no interactions left: all {len(log.user):,} are rated below {options.min_rating:g}: "
            f"choose a lower --min-rating"
        )
    draft.found = Counts.of(draft.pairs if everything is None else everything)


def keep_core(draft: Draft) -> None:
    """Keeps the k-core."""
    pairs, k = draft.pairs, draft.options.k_core or 0
    if k > 1:
        rows = k_core(pairs.user, pairs.item, k)
        if not rows.size:
            users, items = (
                np.count_nonzero(np.bincount(pairs.user)),
                np.count_nonzero(np.bincount(pairs.item)),
            )
            raise DataError(
                f"no interactions left after the {k}-core: {len(pairs):,} pairs of {users:,} "
                f"users and {items:,} items hold no "
                f"part where every user and item has {k}: choose a smaller --k-core (0 keeps "
                f"everything)"
            )
        draft.keep(rows, f"{k}-core")
    draft.renumber()


def split_pairs(draft: Draft) -> None:
    """Splits the pairs, and leaves out users without a training pair."""
    draft.say("splitting")
    draft.labels = splitting.assign(
        draft.pairs, draft.rule, np.random.default_rng(draft.options.seed), draft.options.ratios
    )
    draft.ties = splitting.count_ties(draft.pairs, draft.labels, draft.rule)
    # of shape (U,)
    trained = (
        np.bincount(draft.pairs.user[draft.labels == splitting.TRAIN], minlength=draft.users.size)
        > 0
    )
    keep = trained[draft.pairs.user]
    if not keep.any():
        raise DataError(
            f"none of the {len(draft.pairs):,} pairs left is for training: check the split "
            f"column, or choose another --split"
        )
    draft.keep(keep, "user without training pair")
    draft.labels = draft.labels[keep]
    # items keep their numbers, also without a pair
    users, old = renumber(draft.pairs.user, draft.users.size)
    draft.pairs, draft.users = replace(draft.pairs, user=users), draft.users[old]
    kept, lost = len(draft.pairs), sum(draft.dropped.values())
    if draft.raw.log.rows_read != kept + lost:
        raise DataError(
            f"{draft.raw.log.rows_read} rows read are not {kept} kept and {lost} dropped: report "
            f"this fault"
        )
    draft.splits = {
        name: Interactions(
            draft.pairs.user[chosen], draft.pairs.item[chosen], draft.users.size, draft.items.size
        )
        for label, name in enumerate(SPLITS)
        for chosen in [draft.labels == label]
    }


def align_features(draft: Draft) -> None:
    """Brings the features of each modality into the order of the items, and reduces wide ones."""
    trained = np.bincount(draft.splits["train"].item, minlength=draft.items.size) > 0  # (I,)
    for name, raw in sorted(draft.raw.modalities.items()):
        draft.say(f"aligning {name} features")
        draft.modalities[name], reduction = reduce(
            align(name, raw, draft.item_ids), trained, draft.options
        )
        draft.raw_widths[name] = int(raw.values.shape[1])
        if reduction is not None:
            draft.projections[name] = reduction


def count_co_occurrence(draft: Draft) -> None:
    """Counts the lists that the user graph is made of, from training pairs only."""
    if draft.compare:
        from dualgnn_dgl.graphs.cooccurrence import co_occurrence

        step = "counting co-occurrence of users"
        draft.say(step)
        options = draft.options
        draft.lists = co_occurrence(
            draft.splits["train"],
            k=options.cooc_top,
            measure=options.cooc_weight,
            progress=lambda share: draft.say(step, share),
        )


def assemble(draft: Draft) -> None:
    """Makes the data set, which checks and hashes its content."""
    draft.say("checking and hashing")
    draft.dataset = Dataset(
        **draft.splits,
        modalities=draft.modalities,
        user_ids=np.asarray(draft.raw.log.user_ids, np.str_)[draft.users],
        item_ids=draft.item_ids,
        titles=align_titles(draft.raw.titles, draft.item_ids),
        co_occurrence=draft.lists,
        projections=draft.projections,
    )


def impute_features(draft: Draft) -> None:
    """Imputes missing features where the options ask for it."""
    if draft.options.impute is not None:
        draft.say(f"imputing missing features: {draft.options.impute}")
        draft.dataset = impute(draft.dataset, draft.options.impute)


STEPS: tuple[Callable[[Draft], None], ...] = (
    check_columns,
    filter_rows,
    keep_core,
    split_pairs,
    align_features,
    count_co_occurrence,
    assemble,
    impute_features,
)


def prepare(
    raw: RawInput,
    options: Options | None = None,
    *,
    co_occurrence: bool = True,
    progress: Say | None = None,
) -> Prepared:
    """Turns a raw log and raw features into a prepared data set with its report.

    Internal numbers follow the order of the ids (by number where all are numbers), so they do not
    depend on the order of the rows, and items 0…I-1 keep their numbers unless the k-core removes
    some. Every user has at least one training pair; users without any are left out with their pairs
    (as in MMRec's published protocol).

    Args:
        raw: what `reader.read` or `synthetic.demo` gave.
        options: see `Options`.
        co_occurrence: leave the user co-occurrence lists and the item graph's numbers out if False
            (for a mere check).
        progress: called with a few words at the start of each step, and in a long one with the
            share done.

    Raises:
        ConfigError: if the options ask for a rating, time or split that the log does not carry.
        DataError: if nothing is left, or features belong to other items.
    """
    say: Say = progress or (lambda text, share=None: None)
    draft = Draft(
        raw, resolve(options or Options(), raw.log), say, co_occurrence, dict(raw.log.dropped)
    )
    for step in STEPS:
        step(draft)
    if draft.modalities and draft.compare:
        draft.say("comparing items that the same users watch")
    words = splitting.describe(draft.rule, raw.log.time is not None, draft.options.ratios)
    figures = Figures(
        raw.log.rows_read,
        draft.dropped,
        draft.found,
        draft.raw_widths,
        words,
        asdict(draft.options),
        draft.ties,
    )
    return Prepared(draft.dataset, describe(raw, draft.dataset, figures, resemblance=draft.compare))
