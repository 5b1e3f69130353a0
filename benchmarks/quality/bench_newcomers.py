"""Measures quality and speed of the vectors of users and videos that came after training.

    python -m benchmarks.quality.bench_newcomers --root SHARED/data --parts users,items,update,speed

users   A share of the users is removed from the data. A model is trained without them, and each is
        folded in from their training history. The recall@20 of these users is compared with that
        in a model trained with them.
items   `--split cold-items`: recall@20 on the held-out videos, ranked among all videos without a
        training pair, against VBPR and against the mean cosine between a video's features and those
        of the history.
update  A day of log (a twentieth of users, items and other pairs) is added by `update`, with and
        without three further epochs of training, against a model trained again on everything.
speed   A synthetic log of 100,000 videos: milliseconds per new user, users per minute in a batch,
        milliseconds per new video, in wall time and in CPU time of the one thread.

TikTok is used as published. MovieLens-1M and MicroLens-50k are reduced to a random sample of users
(800 and 15,000, seed 0, then the 5-core), so that one core of a laptop trains every model in
minutes. Options are the defaults except for those in `TRAIN`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from benchmarks.lib.machine import machine
from benchmarks.lib.paths import RESULTS, Folders, add_folders
from benchmarks.lib.prepared import prepare
from dualgnn_dgl import data, models, training
from dualgnn_dgl.core.options import Options, build, keys
from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.data.raw import RawInput, RawLog, RawModality
from dualgnn_dgl.evaluation import Evaluator, bootstrap
from dualgnn_dgl.evaluation.intervals import percentiles, resampled_means
from dualgnn_dgl.graphs import heterographs
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.runs import growth, newcomers
from dualgnn_dgl.training import cold_items

RESULT = RESULTS / "newcomers.json"
# source in prepared.py → share of newcomers
SHARES = {"tiktok": 0.2, "microlens-15k": 0.2, "movielens-800": 0.1}
TRAIN = {
    "lightgcn": {
        "layers": 2,
        "l2": 1e-3,
        "lr": 3e-3,
        "epochs": 150,
        "patience": 6,
        "eval_every": 3,
    },
    "dualgnn": {"lr": 1e-3, "batch_size": 4096, "epochs": 50, "patience": 5},
    "dualgnn_plus": {"lr": 1e-3, "epochs": 50, "patience": 5},
    "vbpr": {"lr": 3e-3, "epochs": 150, "patience": 6, "eval_every": 3},
}


def usual(name: str) -> str:
    """Returns the split of the parts that hold out no videos."""
    return "given" if name == "tiktok" else "random"


def train(name: str, dataset: Dataset, quick: bool) -> tuple[models.Recommender, training.Fit]:
    """Trains a model with the options of `TRAIN`."""
    values = TRAIN[name] | ({"epochs": 2} if quick else {})
    kind = models.model_class(name)
    config, options = (
        build(part, {key: value for key, value in values.items() if key in keys(part)})
        for part in (kind.Config, training.TrainConfig)
    )
    trained = training.train_model(name, dataset, config, options)
    return trained.model, trained.fit


def taken(pairs: Interactions, users: np.ndarray) -> Interactions:
    """Returns the pairs of the given users only, numbered by their place there."""
    new = np.full(pairs.num_users, -1)
    new[users] = np.arange(len(users))
    rows = new[pairs.user] >= 0
    return Interactions(new[pairs.user[rows]], pairs.item[rows], len(users), pairs.num_items)


def users(name: str, model: str, folders: Folders, quick: bool) -> dict:
    """Measures users folded in against the same users trained in."""
    dataset = data.load(prepare(name, usual(name), folders))
    degree = np.bincount(dataset.train.user, minlength=dataset.num_users)
    able = np.intersect1d(np.flatnonzero(degree), dataset.test.user)
    draw = np.random.default_rng(1)
    new = np.sort(draw.choice(able, int(SHARES[name] * dataset.num_users), replace=False))
    rest = np.setdiff1d(np.arange(dataset.num_users), new)
    parts = {split: taken(getattr(dataset, split), rest) for split in data.SPLITS}
    without = replace(
        dataset,
        **parts,
        user_ids=dataset.user_ids[rest],
        co_occurrence=co_occurrence(parts["train"]),
    )
    history, valid, test = (taken(getattr(dataset, split), new) for split in data.SPLITS)
    measure = Evaluator(test, [history, valid], ks=(20,))

    door = newcomers.Newcomers(train(model, without, quick)[0], without)
    folded = measure(door.place(history), door.item)
    fit = train(model, dataset, quick)[1]
    trained = measure(fit.user[torch.from_numpy(new)], fit.item)
    a, b = (found.per_user["recall@20"] for found in (folded, trained))
    # (1000, 2), the same users for both
    means = resampled_means(np.stack([a, b], axis=1), draw, 1000)
    low, high = map(float, percentiles(means[:, 0] / means[:, 1]))
    popular = (
        torch.from_numpy(np.bincount(parts["train"].item, minlength=dataset.num_items))
        .float()
        .unsqueeze(1)
    )
    return {
        "newcomers": len(new),
        "folded": folded.means["recall@20"],
        "trained": trained.means["recall@20"],
        "ratio": a.mean() / b.mean(),
        "ratio interval": [low, high],
        "ratio ndcg": folded.means["ndcg@20"] / trained.means["ndcg@20"],
        "most popular": measure(torch.ones(len(new), 1), popular).means["recall@20"],
    }


def items(name: str, model: str, folders: Folders, quick: bool) -> dict:
    """Measures held-out videos, placed by their modalities."""
    dataset = data.load(prepare(name, "cold-items", folders))
    measure = cold_items.ColdItems(
        dataset.train, dataset.modalities, dataset.test, [dataset.train, dataset.valid], [20]
    )
    if model == "content":
        parts = [
            functional.normalize(torch.from_numpy(modality.values))
            for modality in dataset.modalities.values()
        ]
        unit = torch.cat(parts, dim=1)  # (I, ΣF)
        watched = dataset.train.csr()
        mean = watched @ unit.numpy() / np.maximum(np.diff(watched.indptr), 1)[:, None]  # (U, ΣF)
        found = measure.evaluator(
            torch.from_numpy(mean.astype(np.float32)), unit[torch.from_numpy(measure.items)]
        )
    else:
        found = measure(train(model, dataset, quick)[0])
    low, high = bootstrap(found.per_user, seed=0)["recall@20"]
    figures = {
        "videos": len(measure.items),
        "users": len(found.users),
        "recall": found.means["recall@20"],
    }
    figures["interval"] = [low, high]
    return figures | {"ndcg": found.means["ndcg@20"]}


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
    took["trained anew"] = time.process_time() - started
    found["trained anew"] = measure(fit.user, fit.item).means
    figures = {"pairs": added.pairs, "new users": added.users, "new videos": added.items}
    for way, means in found.items():
        figures |= {f"{way}: recall": means["recall@20"], f"{way}: CPU s": took[way]}
    return figures


def config_of(model: str) -> Options:
    """Returns the model's own options in `TRAIN`."""
    kind = models.model_class(model).Config
    return build(kind, {key: value for key, value in TRAIN[model].items() if key in keys(kind)})


def speed(model: str, quick: bool) -> dict:
    """Milliseconds and users a minute on a synthetic log.

    Nothing is trained, which changes no time.
    """
    count, num_items, per_user = (2_000, 5_000, 10) if quick else (100_000, 100_000, 10)
    draw = np.random.default_rng(0)
    # The cube makes some videos popular with thousands of users.
    popular = np.floor(num_items * draw.random(count * per_user) ** 3).astype(np.int64)
    keys_ = np.unique(np.repeat(np.arange(count), per_user) * num_items + popular)
    pairs = Interactions(keys_ // num_items, keys_ % num_items, count, num_items)
    nothing = Interactions(np.empty(0, int), np.empty(0, int), count, num_items)
    features = {
        name: Modality(
            draw.normal(size=(num_items, width)).astype(np.float32), draw.random(num_items) < 0.8
        )
        for name, width in (("visual", 128), ("textual", 64))
    }
    ids = [np.arange(size).astype(str) for size in (count, num_items)]
    dataset = Dataset(pairs, nothing, nothing, features, *ids, co_occurrence=co_occurrence(pairs))
    started = time.perf_counter()
    door = newcomers.Newcomers(
        models.create(model, heterographs.heterograph(dataset), features), dataset
    )
    opened = time.perf_counter() - started
    histories = [
        np.floor(num_items * draw.random(10) ** 3).astype(int).astype(str).tolist()
        for _ in range(10_000)
    ]
    video = {name: modality.take(np.array([7])) for name, modality in features.items()}
    door.recommend(histories[:1], 20)
    door.items(video)
    few = 5 if quick else 50
    user_ms = [milliseconds(door.recommend, [history], 20) for history in histories[:few]]
    batch = histories[: 200 if quick else 10_000]
    batch_ms = milliseconds(door.recommend, batch, 20)
    videos = [
        {
            name: Modality(draw.normal(size=(1, m.width)), np.ones(1, bool))
            for name, m in features.items()
        }
        for _ in range(few)
    ]
    video_ms = [milliseconds(door.items, video) for video in videos]
    figures = {"users": count, "videos": num_items, "interactions": len(pairs), "opening s": opened}
    for label, times in (("user", user_ms), ("video", video_ms)):
        for clock, values in zip(("CPU", "wall"), zip(*times, strict=True), strict=True):
            figures[f"ms a {label}, median {clock}"] = float(np.median(values))
            figures[f"ms a {label}, slowest {clock}"] = max(values)
    rates = {
        clock: 60e3 * len(batch) / ms for clock, ms in zip(("CPU", "wall"), batch_ms, strict=True)
    }
    return figures | {f"users a minute, {clock}": rate for clock, rate in rates.items()}


def milliseconds(function: Callable[..., object], *given: object) -> tuple[float, float]:
    """Returns CPU and wall time of one call; on a busy machine only CPU time is meaningful."""
    wall, cpu = time.perf_counter(), time.process_time()
    function(*given)
    return 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--parts", default="users,items,update,speed")
    parser.add_argument("--data", default=",".join(SHARES))
    parser.add_argument("--models", default="lightgcn,dualgnn,dualgnn_plus")
    parser.add_argument(
        "--quick", action="store_true", help="two epochs, small sizes: does it run?"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.models.split(",")
    cells, folders = [], Folders.of(arguments)
    for part in arguments.parts.split(","):
        also = ["content", "vbpr"] if part == "items" else []
        sets = arguments.data.split(",") if part != "speed" else [""]
        cells += [(part, name, model) for name in sets for model in [*also, *names]]
    for part, name, model in cells:
        if part == "speed":
            figures = speed(model, arguments.quick)
        else:
            figures = {"users": users, "items": items, "update": updates}[part](
                name, model, folders, arguments.quick
            )
        figures = json.loads(json.dumps(figures, default=float))
        shown = {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in figures.items()
        }
        print(part, name, model, shown, flush=True)
        if not arguments.quick:  # read again each time: parts may run side by side
            known = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
            known[" ".join(filter(None, (part, name, model)))] = figures | {"machine": machine(1)}
            RESULT.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
