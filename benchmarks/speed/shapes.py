"""Data sets on which the speed of training is measured.

Public pairs are used where they are available; other shapes are drawn. Features are drawn with a
falling spectrum (direction j has standard deviation ∝ j^-½, up to 512 directions), like those of
trained networks. They are independent of the pairs, so recall on them is no measure of features.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.lib.paths import Folders
from benchmarks.lib.prepared import prepare
from dualgnn_dgl import data, preprocess
from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.readers.features import reduce_width
from dualgnn_dgl.readers.reader import read

REDUCED = 256
NEIGHBOURS = 40  # the number that the model reads; 200 for 10⁶ users would be 10⁸ unused edges
BABY = {"visual": 4096, "textual": 384}
MOVIELENS = (55_485, 5_986, 1_239_508, {"visual": 2048, "acoustic": 128, "textual": 100})


def prepared(name: str, folders: Folders) -> Path:
    """Returns the prepared folder of a shape, made once.

    Args:
        name: 'baby', 'tiktok', 'movielens', 'gowalla', 'scale-N' (10^N pairs) or 'NAME-256'.
        folders: Raw data and cache.
    """
    if name == "tiktok":
        return prepare(name, "given", folders)
    folder = folders.cache / "data" / f"train-{name}"
    if not (folder / data.MANIFEST).is_file():
        data.save(_make(name, folders), folder, options={"made for": "bench_train.py"}, force=True)
    return folder


def _make(name: str, folders: Folders) -> Dataset:
    if name.endswith(f"-{REDUCED}"):
        whole = data.load(prepared(name.removesuffix(f"-{REDUCED}"), folders))
        reduced = {
            key: Modality(reduce_width(m.values, m.present, REDUCED, seed=0)[0], m.present)
            for key, m in whole.modalities.items()
        }
        return dataclasses.replace(whole, modalities=reduced)
    if name == "baby":
        whole = data.load(prepare("baby", "given", folders))
        return dataclasses.replace(whole, modalities=features(whole.num_items, BABY))
    if name == "gowalla":
        raw = read(folders.root / "gowalla")
        return preprocess.prepare(
            raw, preprocess.Options(split="given", k_core=0, cooc_top=NEIGHBOURS)
        ).dataset
    if name == "movielens":
        users, items, count, widths = MOVIELENS
    else:
        count = 10 ** int(name.removeprefix("scale-"))
        users, items, widths = count // 10, count // 100, {"visual": 128, "textual": 384}
    train = long_tail(users, items, count)
    none = Interactions(np.empty(0), np.empty(0), users, items)
    lists = co_occurrence(train, k=NEIGHBOURS)
    return Dataset(
        train,
        none,
        none,
        features(items, widths),
        np.arange(users),
        np.arange(items),
        co_occurrence=lists,
    )


def long_tail(users: int, items: int, count: int, seed: int = 0) -> Interactions:
    """Draws `count` distinct pairs with a long tail.

    Popularity ∝ (rank + 10)^-0.7; activity is log-normal with σ = 1 (as in bench_preprocess.py).
    """
    rng = np.random.default_rng(seed)
    activity = np.cumsum(rng.lognormal(size=users))
    popularity = np.cumsum(rng.permutation((np.arange(items) + 10.0) ** -0.7))
    keys = np.empty(0, np.int64)
    while len(keys) < count:
        draws = int(1.2 * (count - len(keys))) + 1000
        user = np.searchsorted(activity, rng.random(draws) * activity[-1], "right")
        item = np.searchsorted(popularity, rng.random(draws) * popularity[-1], "right")
        keys = np.union1d(keys, user * np.int64(items) + item)
    keys = np.sort(rng.choice(keys, size=count, replace=False, shuffle=False))
    return Interactions(keys // items, keys % items, users, items)


def features(items: int, widths: dict[str, int], seed: int = 1) -> dict[str, Modality]:
    """Draws one modality per name, (I, F), all rows present, with the falling spectrum above."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, width in widths.items():
        rank = min(512, width)
        latent = (
            rng.standard_normal((items, rank), dtype=np.float32)
            * np.arange(1, rank + 1, dtype=np.float32) ** -0.5
        )
        values = latent @ rng.standard_normal((rank, width), dtype=np.float32)
        made[name] = Modality(values / values.std(), np.ones(items, bool))
    return made
