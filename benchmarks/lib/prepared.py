"""Prepares the benchmarks' real data sets, once per split, in the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.lib.paths import Folders

if TYPE_CHECKING:
    from dualgnn_dgl.data.raw import RawInput


@dataclass(frozen=True)
class Source:
    """Files of a data set and how they are prepared.

    Attributes:
        folder: Folder below the root.
        log: File of interactions in it, or '' for the whole folder.
        features: Feature files in it.
        users: Number of users in the sample, all if None.
        width: Number of columns to which wider features are reduced, or None.
    """

    folder: str
    log: str = ""
    features: tuple[str, ...] = ()
    users: int | None = None
    width: int | None = None


# Posters have 1,280 columns and plots 384. Both are reduced to 128, so that a dense graph of a
# million pairs is learned in an hour.
MOVIELENS = Source(
    "movielens-1m",
    "ratings.parquet",
    ("poster_effnetlite0.parquet", "text_minilm.parquet"),
    width=128,
)
SOURCES = {
    "tiktok": Source("tiktok"),
    "baby": Source("amazon-baby"),
    "microlens": Source("microlens-50k"),
    # A sample that one core of a laptop searches in minutes per model.
    "microlens-15k": Source("microlens-50k", users=15_000),
    "movielens-1m": MOVIELENS,
    "movielens-800": replace(MOVIELENS, users=800),
}


def prepare(name: str, split: str, folders: Folders) -> Path:
    """Prepares a source with a split, once, and returns its folder.

    The 5-core is used unless the split is given.
    """
    from dualgnn_dgl import data, preprocess
    from dualgnn_dgl.readers.reader import read

    source = SOURCES[name]
    folder = folders.cache / "data" / f"{name}-{split}"
    if not (folder / data.MANIFEST).is_file():
        place = folders.root / source.folder
        raw = read(place / source.log, features=[place / feature for feature in source.features])
        if source.users is not None:
            raw = sample(raw, source.users)
        options = preprocess.Options(split=split, feature_dim=source.width)
        prepared = preprocess.prepare(raw, options)
        kept = {"split": split, "feature_dim": source.width}
        data.save(prepared.dataset, folder, options=kept, report=prepared.report, force=True)
    return folder


def sample(raw: RawInput, users: int) -> RawInput:
    """Returns the pairs of a random sample of users, drawn with seed 0.

    Features stay whole, titles are left out.
    """
    log = raw.log
    kept = np.random.default_rng(0).choice(len(log.user_ids), users, replace=False)
    rows = np.isin(log.user, kept)
    time, rating = (None if column is None else column[rows] for column in (log.time, log.rating))
    cut = replace(
        log,
        user=log.user[rows],
        item=log.item[rows],
        time=time,
        rating=rating,
        rows_read=int(rows.sum()),
        dropped={},
    )
    return replace(raw, log=cut, titles={})
