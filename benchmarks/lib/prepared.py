"""Real data sets of the benchmarks, each prepared once a split in the cache (a module, not a
script).
"""

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
    """Which files below the root, how many of their users (all if None), and to how many columns
    wider features are reduced.
    """

    folder: str
    log: str = ""
    features: tuple[str, ...] = ()
    users: int | None = None
    width: int | None = None


# posters of 1,280 columns and plots of 384, both to 128, so that a dense graph of a million pairs
# is learned in an hour
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
    # a sample that a laptop's core searches in minutes a model
    "microlens-15k": Source("microlens-50k", users=15_000),
    "movielens-1m": MOVIELENS,
    "movielens-800": replace(MOVIELENS, users=800),
}


def prepare(name: str, split: str, folders: Folders) -> Path:
    """Prepares a source with a split, once, and returns its folder.

    The 5-core is taken where the split is not a given one.
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
    """The pairs of so many users alone, drawn with seed 0 from those of the log.

    Features whole, titles left out.
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
