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
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from benchmarks.lib.machine import machine
from benchmarks.lib.paths import RESULTS, Folders, add_folders
from benchmarks.lib.prepared import prepare
from benchmarks.quality.newcomers_models import train, usual
from benchmarks.quality.newcomers_speed import speed
from benchmarks.quality.newcomers_update import updates
from dualgnn_dgl import data
from dualgnn_dgl.data import Interactions
from dualgnn_dgl.evaluation import Evaluator, bootstrap
from dualgnn_dgl.evaluation.intervals import percentiles, resampled_means
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.runs import newcomers
from dualgnn_dgl.training import cold_items

RESULT = RESULTS / "newcomers.json"
# source in prepared.py → share of newcomers
SHARES = {"tiktok": 0.2, "microlens-15k": 0.2, "movielens-800": 0.1}


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
