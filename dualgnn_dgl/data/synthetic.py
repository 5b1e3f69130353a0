"""Makes planted micro-video logs, whose right answer is known.

Every video has, in each modality (what one sees, hears, reads), one latent topic; the topics of the
three modalities are independent of each other. Its features are noisy pictures of those topics, and
a fifth of them is missing, drawn independently per modality. Every user has ONE favourite modality
and likes a few topics of it. Videos are picked by

    log-weight(u, i) = log popularity(i) + boost · [topic of i in u's favourite modality is one that
    u likes]

and nothing else: the topics in the two other modalities do not matter. Popularity
follows Zipf's law, popularity(i) ∝ rank(i)^-exponent, with ranks independent of the topics. So
DualGNN's per-user attention over modalities has one right answer, `Planted.favourite`: only in the
favourite modality do the features of a user's history agree.

Picks are drawn without replacement by the Gumbel-top-k rule (Kool et al., ICML 2019): the n largest
of log-weight + Gumbel noise are a draw of n items in proportion to their weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dualgnn_dgl.core.exchange import replace_folders
from dualgnn_dgl.core.folders import Kind, seal
from dualgnn_dgl.data.raw import RawInput, RawLog, RawModality
from dualgnn_dgl.data.synthetic_words import MODALITIES, PHRASES, TEMPLATES

WIDTHS = {"visual": 96, "acoustic": 48, "textual": 64}
MARKER = "synthetic.json"
FOLDER = Kind(MARKER, re.compile(r"synthetic\.json|(log|items)\.csv|[^.]+\.npy"))

_BLOCK = 512  # users whose (block, I) weights are held at once
# seconds: the log begins on 2024-01-01 and runs half a year
_START, _SPAN = 1_704_067_200, 180 * 86_400


@dataclass(frozen=True, eq=False)
class Planted:
    """Bundles a synthetic raw log with the truth it was made from.

    Attributes:
        raw: the raw input, as a reader would hand it to the pipeline.
        modalities: (M,) names; the numbers in `favourite` and the columns of `topic` point into it.
        favourite: (U,) int64; index of the modality that user `raw.log.user_ids[u]` chooses by.
        liked: (U, L) int64; the topics liked in that modality.
        topic: (n, M) int64; topic of each video in each modality; rows as in
            `raw.modalities[...].ids` (all videos, watched or not).
    """

    raw: RawInput
    modalities: tuple[str, ...]
    favourite: np.ndarray
    liked: np.ndarray
    topic: np.ndarray

    def favourite_of(self) -> dict[str, str]:
        """Returns raw user id → name of the favourite modality."""
        return {
            str(user): self.modalities[m]
            for user, m in zip(self.raw.log.user_ids, self.favourite, strict=True)
        }


def demo(seed: int = 0, users: int = 2000, items: int = 3000) -> RawInput:
    """Makes the built-in demo: a planted log of some thousand users and videos.

    >>> raw = demo(seed=7, users=40, items=60)
    >>> sorted(raw.modalities), len(raw.titles)
    (['acoustic', 'textual', 'visual'], 60)
    """
    return planted(seed, users, items).raw


def planted(
    seed: int = 0,
    users: int = 2000,
    items: int = 3000,
    *,
    missing: float = 0.2,
    exponent: float = 0.7,
    boost: float = 4.0,
    noise: float = 1.0,
    likes: int = 2,
) -> Planted:
    """Makes a planted log and keeps the truth.

    Args:
        seed: same seed and sizes, same log.
        users, items: U and n, numbers of users and of videos.
        missing: share of videos that lack a modality, drawn independently per modality.
        exponent: of Zipf's law for the popularity of videos.
        boost: added to the log-weight of a video whose topic the user likes; 0 makes the choice
            independent of topics.
        noise: length of the noise in a feature row, relative to the topic's own vector.
        likes: L, liked topics a user.
    """
    rng = np.random.default_rng(seed)
    topics = len(PHRASES["visual"])
    topic = rng.integers(topics, size=(items, len(MODALITIES)))
    favourite = rng.integers(len(MODALITIES), size=users)
    liked = np.argsort(rng.random((users, topics)), axis=1)[:, :likes]
    log_popularity = -exponent * np.log(1.0 + rng.permutation(items))
    length = _history_lengths(rng, users, items)
    user, item = _watched(rng, topic, favourite, liked, log_popularity, boost, length)

    item_ids = _ids("v", items)
    modalities = {}
    for m, name in enumerate(MODALITIES):
        present = rng.random(items) >= missing
        values = np.where(
            present[:, None],
            _features(rng, topic[:, m], topics, WIDTHS[name], noise),
            np.float32(0),
        )
        modalities[name] = RawModality(item_ids, values, present, file=f"{name}.npy")
    titles = dict(zip(item_ids.tolist(), _titles(rng, topic), strict=True))
    log, order = _log(rng, user, item, _ids("u", users), item_ids)
    raw = RawInput(log, modalities, titles, name="demo")
    return Planted(raw, MODALITIES, favourite[order], liked[order], topic)


def _ids(letter: str, count: int) -> np.ndarray:
    """Returns (count,) text: the letter and a number, all of one length."""
    digits = len(str(max(count - 1, 1)))
    return np.array([f"{letter}{k:0{digits}d}" for k in range(count)], np.str_)


def _history_lengths(rng: np.random.Generator, users: int, items: int) -> np.ndarray:
    """Returns the number of videos (U,) watched by each user.

    Log-normal with median 30, from 8 to 60, never more than a third of all.
    """
    length = np.rint(np.exp(rng.normal(np.log(30.0), 0.5, users))).astype(np.int64)
    return np.minimum(np.clip(length, 8, 60), max(items // 3, 1))


def _watched(
    rng: np.random.Generator,
    topic: np.ndarray,
    favourite: np.ndarray,
    liked: np.ndarray,
    log_popularity: np.ndarray,
    boost: float,
    length: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws every user's videos; (E,) user and (E,) item, no pair twice."""
    users, items, longest = len(favourite), len(topic), int(length.max())
    # of shape (U, topics)
    likes_topic = np.zeros((users, 1 + int(max(topic.max(), liked.max()))), dtype=bool)
    np.put_along_axis(likes_topic, liked, True, axis=1)
    picks = np.empty((users, longest), dtype=np.int64)  # most wanted first
    for start in range(0, users, _BLOCK):
        block = slice(start, min(start + _BLOCK, users))
        # (block, n): each video's topic in the user's favourite modality
        topic_seen = topic[:, favourite[block]].T
        match = np.take_along_axis(likes_topic[block], topic_seen, axis=1)
        keys = log_popularity + boost * match + rng.gumbel(size=(match.shape[0], items))
        picks[block] = np.argsort(-keys, axis=1)[:, :longest]
    kept = np.arange(longest) < length[:, None]  # (U, longest)
    return np.nonzero(kept)[0], picks[kept]


def _features(
    rng: np.random.Generator, topic: np.ndarray, topics: int, width: int, noise: float
) -> np.ndarray:
    """Returns (n, F) float32: the topic's random unit vector plus isotropic noise.

    `noise` is the expected length of the noise.
    """
    centre = rng.normal(size=(topics, width))
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    return (
        centre[topic] + rng.normal(scale=noise / np.sqrt(width), size=(len(topic), width))
    ).astype(np.float32)


def _titles(rng: np.random.Generator, topic: np.ndarray) -> list[str]:
    """Returns titles (n,) that name the topics, so that a person can see why a list fits."""
    choice = rng.integers(len(TEMPLATES), size=len(topic))
    # M lists of n tuples
    phrase = [[PHRASES[name][t] for t in topic[:, m]] for m, name in enumerate(MODALITIES)]
    # M arrays (n,)
    variant = [rng.integers([len(options) for options in column]) for column in phrase]
    titles = []
    for i, template in enumerate(choice):
        words = {name: phrase[m][i][variant[m][i]] for m, name in enumerate(MODALITIES)}
        title = TEMPLATES[template].format(**words)
        titles.append(title[0].upper() + title[1:])
    return titles


def _log(
    rng: np.random.Generator,
    user: np.ndarray,
    item: np.ndarray,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
) -> tuple[RawLog, np.ndarray]:
    """Gives the pairs times and sorts them.

    Also the users in order of first appearance, (U,) int64.
    """
    # when a user arrives, as a share of the whole span
    joined = rng.uniform(0.0, 0.5, len(user_ids))
    share = joined[user] + rng.random(len(user)) * (1.0 - joined[user])
    time = _START + np.floor(share * _SPAN).astype(np.int64)
    order = np.argsort(time, kind="stable")
    user, item, time = user[order], item[order], time[order]
    user_code, users_seen = pd.factorize(user)  # codes in order of first appearance
    item_code, items_seen = pd.factorize(item)
    log = RawLog(
        user=user_code.astype(np.int64),
        item=item_code.astype(np.int64),
        user_ids=user_ids[users_seen],
        item_ids=item_ids[items_seen],
        time=time,
        rows_read=len(user),
        kind="built-in demo",
    )
    return log, users_seen


def write_raw(raw: RawInput, folder: str | Path, *, force: bool = False) -> None:
    """Writes a raw input as files that a user could have.

    `log.csv`, `items.csv`, and one array a modality.

    `log.csv` has the columns user, video, timestamp; `items.csv` id, title; row r of
    `<modality>.npy` describes row r of `items.csv`, and is NaN where the modality is missing.

    Raises:
        RunError: if `folder` has files and `force` is not set, or has files that this function did
            not write.
    """
    log = raw.log
    columns = {"user": log.user_ids[log.user], "video": log.item_ids[log.item]}
    if log.time is not None:
        columns["timestamp"] = log.time
    ids = next(iter(raw.modalities.values())).ids if raw.modalities else log.item_ids
    with replace_folders((folder, FOLDER), force=force) as (target,):
        pd.DataFrame(columns).to_csv(target / "log.csv", index=False)
        titles = [raw.titles.get(str(item), "") for item in ids]
        pd.DataFrame({"id": ids, "title": titles}).to_csv(target / "items.csv", index=False)
        for name, modality in raw.modalities.items():
            values = np.where(modality.present[:, None], modality.values, np.float32(np.nan))
            np.save(target / f"{name}.npy", values, allow_pickle=False)
        about = {
            "made_by": "dualgnn_dgl.data.synthetic",
            "rows": log.rows_read,
            "users": len(log.user_ids),
            "items": len(ids),
        }
        seal(target, FOLDER, about)
