"""Adds a new log to prepared data and a trained model, without training the model again.

`extend` builds the larger data set. Known users and items keep their numbers, and new ones follow.
Old splits stay, new pairs go to training, and co-occurrence is counted again.

`grow` builds the larger model. It keeps its trained parameters. The free rows of new users come
from their nearest co-occurring users or, where a model has a rule of its own, from their history;
the rows of new videos come from similar trained videos. The tables are then those of its own
`embed`, over the new graph and the new popularity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dualgnn_dgl.core.options import Options
from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.data.projection import narrow
from dualgnn_dgl.data.raw import RawInput
from dualgnn_dgl.errors import DataError, RunError, unknown
from dualgnn_dgl.graphs.arrivals import NewItems, TrainingIndex, UserHistories
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import create
from dualgnn_dgl.models.base import LOOK_ALIKES, Recommender, axis_of
from dualgnn_dgl.preprocess import align
from dualgnn_dgl.preprocess.filters import id_order

NEIGHBOURS = 20  # co-occurring users of a new one, weighted by the number of shared videos


@dataclass(frozen=True)
class Added:
    """Counts of an update.

    Every row of the log is new, known or dropped: `rows` = `pairs` + `known_pairs` + the sum of
    `dropped`.

    Attributes:
        rows: rows of the log.
        pairs: new pairs.
        known_pairs: pairs that were known.
        dropped: rows left out, by reason.
        users: new users.
        items: new items.
        filled: known items that got features which they lacked, by modality.
    """

    rows: int
    pairs: int
    known_pairs: int
    dropped: dict[str, int]
    users: int
    items: int
    filled: dict[str, int]


def extend(
    dataset: Dataset, raw: RawInput, *, min_rating: float | None = None, cooc_top: int = 200
) -> tuple[Dataset, Added]:
    """Adds the rows and features of a new log to a data set.

    A pair that is already in any split changes nothing; every other pair goes to training. Existing
    features of items stay as they are. New features may be as wide as the data's, or as wide as
    they were before `preprocess --feature-dim`.

    Args:
        dataset: the data set.
        raw: the new log, with features.
        min_rating: as in `preprocess.Options`; use the value that the data were prepared with.
        cooc_top: likewise.

    Raises:
        DataError: if the log brings nothing new, or features do not fit the data's.
    """
    log = raw.log
    rows, dropped = np.ones(len(log.user), dtype=bool), dict(log.dropped)
    if min_rating is not None and log.rating is not None:
        rows = log.rating >= min_rating
        dropped[f"rating below {min_rating:g}"] = int((~rows).sum())
    user_ids, user = _merge(dataset.user_ids, log.user_ids, log.user[rows])
    item_ids, item = _merge(dataset.item_ids, log.item_ids, log.item[rows])
    counts = len(user_ids), len(item_ids)
    old = {
        split: _counted(getattr(dataset, split), *counts) for split in ("train", "valid", "test")
    }
    keys = np.unique(user * np.int64(counts[1]) + item)
    dropped["repeated pair"] = int(rows.sum()) - len(keys)
    new = keys[~np.isin(keys, np.concatenate([part.keys() for part in old.values()]))]
    if not new.size:
        raise DataError(
            f"none of the {len(log.user):,} rows is new to the data: give a log with new pairs"
        )
    train = old["train"]
    user, item = (
        np.concatenate([train.user, new // counts[1]]),
        np.concatenate([train.item, new % counts[1]]),
    )
    train = Interactions(user, item, *counts)
    modalities, filled = _features(dataset, raw, item_ids)
    titles = dataset.titles
    if titles is not None:
        more = [raw.titles.get(name, "") for name in item_ids[dataset.num_items :].tolist()]
        titles = np.concatenate([titles, np.array(more, dtype=np.str_)])
    measure = dataset.co_occurrence.measure if dataset.co_occurrence is not None else "count"
    lost = sum(dropped.values())
    if log.rows_read != len(keys) + lost:
        raise DataError(
            f"{log.rows_read} rows read are not {len(keys)} pairs and {lost} dropped: report this "
            f"fault"
        )
    larger = Dataset(
        train,
        old["valid"],
        old["test"],
        modalities,
        user_ids,
        item_ids,
        titles,
        co_occurrence(train, k=cooc_top, measure=measure),
        dataset.projections,
    )
    added = Added(
        rows=log.rows_read,
        pairs=len(new),
        known_pairs=len(keys) - len(new),
        dropped={reason: count for reason, count in dropped.items() if count},
        users=larger.num_users - dataset.num_users,
        items=larger.num_items - dataset.num_items,
        filled=filled,
    )
    return larger, added


def _merge(known: np.ndarray, ids: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Appends the new ids among those used to the known ids, in the order of ids.

    Returns:
        All ids, and the codes as places in them.
    """
    used = np.unique(codes)
    place = {name: number for number, name in enumerate(known.tolist())}
    fresh = np.array([name for name in ids[used].tolist() if name not in place], dtype=np.str_)
    fresh = fresh[id_order(fresh)]
    place |= {name: len(known) + number for number, name in enumerate(fresh.tolist())}
    where = np.full(len(ids), -1, dtype=np.int64)
    where[used] = [place[name] for name in ids[used].tolist()]
    return np.concatenate([known, fresh]), where[codes]


def _counted(pairs: Interactions, users: int, items: int) -> Interactions:
    return Interactions(pairs.user, pairs.item, users, items)


def _features(
    dataset: Dataset, raw: RawInput, item_ids: np.ndarray
) -> tuple[dict[str, Modality], dict[str, int]]:
    """Returns the modalities (I',), and the number of known items with new features by modality."""
    brought = {}
    for name, given in raw.modalities.items():
        if name not in dataset.modalities:
            hint = unknown("modality", name, dataset.modalities)
            raise DataError(f"{given.file or name}: {hint}; name the file after its modality")
        width, map_ = dataset.modalities[name].width, dataset.projections.get(name)
        values = narrow(given.file or name, name, given.values, given.present, width, map_)
        brought[name] = replace(given, values=values)
    modalities, filled = {}, {}
    more = len(item_ids) - dataset.num_items
    for name, old in dataset.modalities.items():
        values = np.concatenate([old.values, np.zeros((more, old.width), np.float32)])
        present, imputed = (
            np.concatenate([part, np.zeros(more, bool)]) for part in (old.present, old.imputed)
        )
        if name in brought:
            given_m = align(name, brought[name], item_ids)
            take = given_m.present & (~present | imputed)
            values[take], present[take], imputed[take] = given_m.values[take], True, False
            filled[name] = int(take[: dataset.num_items].sum())
        modalities[name] = Modality(values, present, imputed)
    return modalities, filled


def grow(
    model: Recommender,
    dataset: Dataset,
    larger: Dataset,
    name: str,
    config: Options,
    modalities: Mapping[str, Modality] | None = None,
) -> Recommender:
    """Builds the trained model over a larger data set, with rows for the newcomers.

    Args:
        model: model trained on `dataset`, on the CPU; it is not changed.
        dataset: data set of the training.
        larger: data set from `extend`.
        name: name of the model.
        config: options of the model.
        modalities: modalities that the larger model is built with, if not the data's own.

    Raises:
        RunError: if a parameter depends on the data in a way that cannot grow.
    """
    modalities = larger.modalities if modalities is None else modalities
    grown = create(name, heterograph(larger), modalities, config)
    if not model.trainable:  # Its state is counted from the data, here from the larger ones.
        return grown.eval()
    sizes = dataset.num_users, dataset.num_items
    more = larger.num_users - sizes[0], larger.num_items - sizes[1]
    measure = dataset.co_occurrence.measure if dataset.co_occurrence is not None else "count"
    index = TrainingIndex(dataset.train, dataset.modalities, measure)
    fresh = larger.train.user >= sizes[0]
    ok = fresh & (larger.train.item < sizes[1])  # pairs of new users with trained items
    pairs = Interactions(larger.train.user[ok] - sizes[0], larger.train.item[ok], more[0], sizes[1])
    histories = UserHistories(pairs, index)
    features = {
        key: modality.take(np.arange(sizes[1], larger.num_items))
        for key, modality in modalities.items()
    }
    videos = NewItems(features, index) if features else None

    def user_rows(key: str, old: Tensor) -> Tensor:
        own = model.newcomer_rows(key, histories)
        if own is not None:
            return own
        near = histories.neighbours(NEIGHBOURS, "proportional")
        rows = near @ old.reshape(len(old), -1)
        alone = ~torch.zeros(more[0]).index_fill(0, near.edges()[0].long(), 1).bool().unsqueeze(1)
        return rows.where(~alone, old.reshape(len(old), -1).mean(0)).reshape(
            more[0], *old.shape[1:]
        )

    def item_rows(old: Tensor) -> Tensor:
        flat = old.reshape(len(old), -1)
        rows = (
            flat.mean(0, keepdim=True).expand(more[1], -1)
            if videos is None
            else videos.resembling(flat, LOOK_ALIKES)
        )
        return rows.reshape(more[1], *old.shape[1:])

    state, wanted = {}, grown.state_dict()
    with torch.no_grad():
        for key, old in model.state_dict().items():
            shape = wanted[key].shape
            axis = axis_of(model, key)
            if old.shape == shape:
                state[key] = old
            elif old.shape[1:] != shape[1:] or axis is None:
                raise RunError(
                    f"{key} of {name} cannot grow from {tuple(old.shape)} to {tuple(shape)}: "
                    f"train on the new data"
                )
            else:
                state[key] = torch.cat(
                    [old, user_rows(key, old) if axis == "user" else item_rows(old)]
                )
        grown.load_state_dict(state)
    return grown.eval()
