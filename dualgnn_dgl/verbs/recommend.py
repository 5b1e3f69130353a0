"""Recommends items to known and new users, in the user's own ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualgnn_dgl.core.devices import pick_device
from dualgnn_dgl.core.ids import Ids
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.data.manifest import read_report
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.evaluation import top_k
from dualgnn_dgl.runs.checkpoint import Run
from dualgnn_dgl.verbs.opening import Device
from dualgnn_dgl.verbs.parquet import check_output, write_lists
from dualgnn_dgl.verbs.ranking import Ranking, UserHistories, build_ranking


@dataclass(frozen=True, eq=False)
class RecommendationResult:
    """Top-K lists as columns of equal length, a row per listed item.

    Attributes:
        user: (R,) user of each row, in the user's own ids.
        rank: (R,) place in the list, from 1.
        item: (R,) item, in the user's own ids.
        score: (R,) inner product of user and item, float32.
        title: (R,) the item's title; None where the data have none.
        users: every requested user, in order. A user for whom no item is left has no row.
        run: the run's name.
        data: data folder; None for data that were given in memory.
        k: list length, shortened where fewer new items were ranked.
        catalogue: number of items that were ranked.
        skipped: new users left out because they watched no item of the data.
    """

    user: np.ndarray
    rank: np.ndarray
    item: np.ndarray
    score: np.ndarray
    title: np.ndarray | None
    users: tuple[str, ...]
    run: str
    data: str | None
    k: int
    catalogue: int
    skipped: tuple[str, ...] = ()

    def lists(self) -> dict[str, list[dict[str, Any]]]:
        """Returns user → list of rows: rank, item, score, and title where the data have titles."""
        found: dict[str, list[dict[str, Any]]] = {user: [] for user in self.users}
        titles = [None] * len(self.user) if self.title is None else self.title.tolist()
        columns = (
            self.user.tolist(),
            self.rank.tolist(),
            self.item.tolist(),
            self.score.tolist(),
            titles,
        )
        for user, rank, item, score, title in zip(*columns, strict=True):
            row = {"rank": rank, "item": item, "score": score}
            found[user].append(row if title is None else row | {"title": title})
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in the form of `--json`."""
        users = [{"user": user, "items": rows} for user, rows in self.lists().items()]
        return {"run": self.run, "data": self.data, "k": self.k, "users": users}


@dataclass(frozen=True)
class WrittenLists:
    """The lists of all users in a Parquet file.

    Attributes:
        file: the file: user, rank, item and score, a row per listed item.
        run: the run's name.
        data: data folder; None for data that were given in memory.
        k: list length, shortened where fewer new items were ranked.
        users: number of users.
        rows: number of rows.
        skipped: new users left out because they watched no item of the data.
    """

    file: str
    run: str
    data: str | None
    k: int
    users: int
    rows: int
    skipped: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in the form of `--json`."""
        return {name: value for name, value in vars(self).items() if name != "skipped"}


def recommend(
    run: str | Path | Run,
    data: str | Path | Dataset | None = None,
    *,
    users: str | Sequence[str] | None = None,
    histories: UserHistories | None = None,
    skip_unknown: bool = False,
    log_options: Mapping[str, str | None] | None = None,
    new_items: Sequence[str | Path] = (),
    only_new: bool = False,
    k: int = 10,
    include_seen: bool = False,
    device: Device | None = None,
) -> RecommendationResult:
    """Ranks items for users of the data, or for new users known by their histories.

    Args:
        run: run folder, or a run already loaded.
        data: the data it was trained on, as a folder or loaded; None for the folder that the run
            names.
        users: ids of users; None for all of them, or for all new ones where `histories` is given.
        histories: new users: a log in a form that `prepare` reads, user → items, or one list of
            items a user.
        skip_unknown: leaves out items of the histories that the data lack, instead of refusing
            them.
        log_options: how to read a log of histories, by `vocabulary.LOG_OPTIONS`; None for the way
            in which the data's own log was read. Rows below its lowest rating do not count.
        new_items: feature files of new items, each named after its modality; they join the ranking.
        only_new: ranks the new items alone.
        k: list length.
        include_seen: also ranks items that the user has watched (train and valid).
        device: 'cpu', 'cuda', 'cuda:1', a number as in `devices.pick_device`, or None for CUDA if
            available.

    Raises:
        DualGNNError: if run, data or options are not usable, or an id is unknown.
    """
    wanted = (users,) if isinstance(users, str) else users
    if wanted is not None and (histories is not None or not len(wanted)):
        raise ConfigError("name at least one user, or give histories of new users instead")
    place, found = (
        pick_device(device),
        build_ranking(run, data, histories, skip_unknown, new_items, only_new, log_options),
    )
    k = found.length(k)
    names = (
        found.user_ids.tolist()
        if wanted is None
        else list(dict.fromkeys(str(user) for user in wanted))
    )
    chosen = None if wanted is None else _places(names, found)
    tables, seen = found.tables(place), None if include_seen else found.seen
    items, scores = (tensor.cpu().numpy() for tensor in top_k(*tables, k, seen, chosen))
    row, column = np.nonzero(items >= 0)
    listed = items[row, column]
    return RecommendationResult(
        user=np.array(names, np.str_)[row],
        rank=column + 1,
        item=found.item_ids[listed],
        score=scores[row, column],
        title=None if found.titles is None else found.titles[listed],
        users=tuple(names),
        run=found.opened.name,
        data=found.opened.folder,
        k=k,
        catalogue=len(found.item_ids),
        skipped=found.skipped,
    )


def write_recommendations(
    file: str | Path,
    run: str | Path | Run,
    data: str | Path | Dataset | None = None,
    *,
    histories: UserHistories | None = None,
    skip_unknown: bool = False,
    log_options: Mapping[str, str | None] | None = None,
    new_items: Sequence[str | Path] = (),
    only_new: bool = False,
    k: int = 10,
    include_seen: bool = False,
    device: Device | None = None,
    force: bool = False,
) -> WrittenLists:
    """Writes the lists of all users, or of all new users, to a Parquet file.

    Some thousand users are ranked and written at a time, which bounds the memory.

    Args:
        file: a file that ends in .parquet.
        run, data, histories, skip_unknown, log_options, new_items, only_new, k, include_seen,
            device: as in `recommend`.
        force: replaces the file.

    Raises:
        DualGNNError: if run, data or options are not usable, or an id is unknown.
    """
    check_output(file, "--all", force)
    place, found = (
        pick_device(device),
        build_ranking(run, data, histories, skip_unknown, new_items, only_new, log_options),
    )
    k = found.length(k)
    seen = None if include_seen else found.seen
    rows = write_lists(file, found.tables(place), k, seen, found.user_ids, found.item_ids)
    return WrittenLists(
        str(file),
        found.opened.name,
        found.opened.folder,
        k,
        len(found.user_ids),
        rows,
        found.skipped,
    )


def _places(users: list[str], found: Ranking) -> np.ndarray:
    """Returns the rows (B,) of the users.

    The error for an unknown user says if preprocessing dropped users, and how to recommend to them.
    """
    try:
        return Ids(found.user_ids, "user", found.opened.where).places(users)
    except DataError as error:
        cores = [reason for reason in _left_out(found.opened.folder) if reason.endswith("-core")]
        if not cores:
            raise
        way = "give the videos of such a user with --history"
        raise DataError(
            f"{error} (preprocess left out users outside the {cores[0]}; {way})"
        ) from None


def _left_out(folder: str | None) -> dict[str, int]:
    """Returns the number of rows that preprocessing dropped, by reason.

    Without a valid report it is empty.
    """
    if folder is None:
        return {}
    try:
        return dict(read_report(folder)["rows"]["dropped"])
    except (DataError, OSError, KeyError, TypeError, ValueError):
        return {}
