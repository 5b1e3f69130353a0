"""Measures an update with a day of log, for bench_newcomers.py."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.lib.paths import Folders
from benchmarks.lib.prepared import prepare
from benchmarks.quality.newcomers_models import TRAIN, config_of, train, usual
from dualgnn_dgl import data, training
from dualgnn_dgl.core.options import build, keys
from dualgnn_dgl.data import Dataset, Interactions
from dualgnn_dgl.data.raw import RawInput, RawLog, RawModality
from dualgnn_dgl.evaluation import Evaluator
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.runs import growth


def updates(name: str, model: str, folders: Folders, quick: bool) -> dict:
    """Measures an update with a day of log against training again.

    A twentieth of the users, a twentieth of the items and a twentieth of the other training pairs
    are new on that day.
    """
    whole = data.load(prepare(name, usual(name), folders))
    draw = np.random.default_rng(2)
    fresh_user, fresh_item = (
        draw.random(size) < 0.05 for size in (whole.num_users, whole.num_items)
    )
    late = (
        fresh_user[whole.train.user]
        | fresh_item[whole.train.item]
        | (draw.random(len(whole.train)) < 0.05)
    )
    left = ~late
    user_ids, item_ids = np.unique(whole.train.user[left]), np.unique(whole.train.item[left])
    new_user, new_item = np.full(whole.num_users, -1), np.full(whole.num_items, -1)
    new_user[user_ids], new_item[item_ids] = np.arange(len(user_ids)), np.arange(len(item_ids))

    def early(pairs: Interactions, rows: np.ndarray) -> Interactions:
        rows = rows & (new_user[pairs.user] >= 0) & (new_item[pairs.item] >= 0)
        return Interactions(
            new_user[pairs.user[rows]], new_item[pairs.item[rows]], len(user_ids), len(item_ids)
        )

    parts = early(whole.train, left), early(whole.valid, np.ones(len(whole.valid), bool))
    nothing = Interactions(np.empty(0, int), np.empty(0, int), len(user_ids), len(item_ids))
    some = {key: modality.take(item_ids) for key, modality in whole.modalities.items()}
    names = whole.user_ids[user_ids], whole.item_ids[item_ids]
    before = Dataset(*parts, nothing, some, *names, co_occurrence=co_occurrence(parts[0]))

    log = RawLog(
        whole.train.user[late],
        whole.train.item[late],
        whole.user_ids,
        whole.item_ids,
        rows_read=int(late.sum()),
    )
    raw = {
        key: RawModality(whole.item_ids, m.values, m.present) for key, m in whole.modalities.items()
    }
    larger, added = growth.extend(before, RawInput(log, raw))
    users_, items_ = (
        np.array(
            [
                {key: place for place, key in enumerate(known.tolist())}.get(key, -1)
                for key in ids.tolist()
            ]
        )
        for known, ids in ((larger.user_ids, whole.user_ids), (larger.item_ids, whole.item_ids))
    )

    def later(pairs: Interactions) -> Interactions:
        rows = (users_[pairs.user] >= 0) & (items_[pairs.item] >= 0)
        return Interactions(
            users_[pairs.user[rows]], items_[pairs.item[rows]], larger.num_users, larger.num_items
        )

    measure = Evaluator(later(whole.test), [larger.train, later(whole.valid)], ks=(20,))
    took = {}
    old = train(model, before, quick)[0]
    started = time.process_time()
    grown = growth.grow(old, before, larger, model, config_of(model))
    user, item = (table.detach() for table in grown.embed())
    took["updated"] = time.process_time() - started
    found = {"updated": measure(user, item).means}
    values = TRAIN[model] | {"epochs": 3, "eval_every": 1}
    options = build(
        training.TrainConfig,
        {key: value for key, value in values.items() if key in keys(training.TrainConfig)},
    )
    started = time.process_time()
    fit = training.fit(grown, larger.train, larger.valid, options, modalities=larger.modalities)
    took["updated, 3 epochs"] = took["updated"] + time.process_time() - started
    found["updated, 3 epochs"] = measure(fit.user, fit.item).means
    started = time.process_time()
    fit = train(model, larger, quick)[1]
    took["trained again"] = time.process_time() - started
    found["trained again"] = measure(fit.user, fit.item).means
    figures = {"pairs": added.pairs, "new users": added.users, "new videos": added.items}
    for way, means in found.items():
        figures |= {f"{way}: recall": means["recall@20"], f"{way}: CPU s": took[way]}
    return figures
