"""Times new users and new videos on a synthetic log, for bench_newcomers.py."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from dualgnn_dgl import models
from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.graphs import heterographs
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.runs import newcomers


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
