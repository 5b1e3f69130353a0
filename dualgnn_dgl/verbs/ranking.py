"""Builds the tables that `recommend` ranks, of known and new users and items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from dualgnn_dgl.data import Dataset
from dualgnn_dgl.data.manifest import read_options
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.readers.new_items import read_new_items
from dualgnn_dgl.readers.reader import read
from dualgnn_dgl.runs import newcomers
from dualgnn_dgl.runs.checkpoint import Run
from dualgnn_dgl.runs.newcomers import Newcomers
from dualgnn_dgl.verbs.common import log_options as log_options_of
from dualgnn_dgl.verbs.opening import Opened, open_run

# A log of new users, histories by user name, or histories alone, whose users are named "new user 1"
# and so on.
UserHistories = str | Path | Mapping[str, Sequence[str]] | Sequence[Sequence[str]]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The users (U, D) and items (I, D) to rank, and the pairs (U, I) to leave out."""

    opened: Opened
    user: Tensor
    item: Tensor
    seen: sparse.csr_matrix
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None
    skipped: tuple[str, ...] = ()
    only_new: bool = False

    def tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns the user and item tables on the device."""
        return self.user.to(device), self.item.to(device)

    def length(self, k: int) -> int:
        """Returns the list length, at most the number of items that are ranked."""
        return min(k, len(self.item_ids))


def build_ranking(
    run: str | Path | Run,
    data: str | Path | Dataset | None,
    histories: UserHistories | None,
    skip_unknown: bool,
    new_items: Sequence[str | Path],
    only_new: bool,
    log_options: Mapping[str, str | None] | None = None,
) -> Ranking:
    """Returns the new users, or all known ones, and the catalogue with or without the new items.

    New items follow the known ones; with `only_new` they are the whole catalogue.
    """
    if isinstance(new_items, str | Path):
        raise ConfigError(f"new_items is one path, {new_items}: give a list of files")
    if skip_unknown and histories is None:
        raise ConfigError("skip_unknown belongs to histories: give both, or leave it out")
    if only_new and not new_items:
        raise ConfigError("only_new belongs to new_items: give both, or leave it out")
    opened = open_run(run, data)
    dataset = opened.dataset
    skipped: tuple[str, ...] = ()
    user, item = opened.run.user, opened.run.item
    user_ids, item_ids, titles = dataset.user_ids, dataset.item_ids, dataset.titles
    seen = dataset.train.csr() + dataset.valid.csr()
    if histories is None and not new_items:
        return Ranking(opened, user, item, seen, user_ids, item_ids, titles)
    placed = newcomers.place_in(opened.run, dataset, opened.where)
    user, item = placed.user, placed.item
    if histories is not None:
        names, watched, skipped = _histories(
            histories, skip_unknown, placed, _reading(opened, log_options)
        )
        pairs = placed.pairs(watched, skip_unknown=skip_unknown)
        user, seen, user_ids = placed.place(pairs), pairs.csr(), np.array(names, np.str_)
    if new_items:
        ids, features = read_new_items(
            new_items, placed.index.modalities, dataset.item_ids, dataset.projections
        )
        new, none = (
            placed.items(features),
            sparse.csr_matrix((len(user), len(ids)), dtype=np.float32),
        )
        if only_new:
            item, item_ids, titles, seen = new, ids, None, none
        else:
            titles = (
                None if titles is None else np.concatenate([titles, np.full(len(ids), "(new)")])
            )
            item = torch.cat([item, new]).coalesce() if item.is_sparse else torch.cat([item, new])
            item_ids, seen = np.concatenate([item_ids, ids]), sparse.hstack([seen, none], "csr")
    return Ranking(opened, user, item, seen, user_ids, item_ids, titles, skipped, only_new)


def _reading(opened: Opened, given: Mapping[str, str | None] | None) -> dict[str, Any]:
    """Returns how to read a log of histories: as the data's own log, with its lowest rating."""
    options = {} if opened.folder is None else read_options(opened.folder, opened.dataset.hash)
    return log_options_of(options, given or {}) | {"min_rating": options.get("min_rating")}


def _histories(
    histories: UserHistories, skip_unknown: bool, placed: Newcomers, how: Mapping[str, Any]
) -> tuple[list[str], list[list[str]], tuple[str, ...]]:
    """Returns the names of the new users, their histories, and the users that were left out.

    With `skip_unknown`, users of a log or a mapping without any known item are left out; in a plain
    list such a user is an error.
    """
    if isinstance(histories, str | Path):
        names, watched = read_histories(histories, **how)
    elif isinstance(histories, Mapping):
        names, watched = (
            [str(name) for name in histories],
            [_history(items) for items in histories.values()],
        )
    else:
        watched = [_history(items) for items in histories]
        return [f"new user {number}" for number in range(1, len(watched) + 1)], watched, ()
    if not skip_unknown:
        return names, watched, ()
    known = [bool(placed.item_ids.places(items, skip=True).size) for items in watched]
    kept = [n for n, keep in enumerate(known) if keep]
    skipped = tuple(name for name, keep in zip(names, known, strict=True) if not keep)
    return [names[n] for n in kept], [watched[n] for n in kept], skipped


def _history(items: Sequence[str]) -> list[str]:
    if isinstance(items, str):
        raise ConfigError(
            f"a history is the text '{items:.40}': give a list of item ids for each user"
        )
    return [str(item) for item in items]


def read_histories(
    log: str | Path, min_rating: float | None = None, **options: Any
) -> tuple[list[str], list[list[str]]]:
    """Reads the users of a log and their items, in the order of the users' first rows.

    Args:
        log: in a form that `prepare` reads.
        min_rating: lowest rating of the rows that count; a user may have none left. None counts
            every row.
        options: see `vocabulary.LOG_OPTIONS`.
    """
    unused = ("time",) if min_rating is not None else ("rating", "time")
    raw = read(log, **options, unused=unused).log
    user, item = raw.user, raw.item
    if min_rating is not None and raw.rating is not None:
        rows = raw.rating >= min_rating
        user, item = user[rows], item[rows]
    order = np.argsort(user, kind="stable")
    parts = np.split(
        raw.item_ids[item[order]],
        np.cumsum(np.bincount(user, minlength=len(raw.user_ids)))[:-1],
    )
    return raw.user_ids.tolist(), [part.tolist() for part in parts]
