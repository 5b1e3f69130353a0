"""The planted log: its shape, its holes, and that the favourite modality is really in the data."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from dualgnn_dgl.data.synthetic import MODALITIES, WIDTHS, Planted, demo, planted, write_raw
from dualgnn_dgl.data.synthetic_words import PHRASES
from dualgnn_dgl.errors import RunError

USERS, ITEMS = 310, 470


@pytest.fixture(scope="module")
def small() -> Planted:
    return planted(seed=3, users=USERS, items=ITEMS)


@pytest.fixture(scope="module")
def full() -> Planted:
    return planted()


def rows_of_items(truth: Planted) -> np.ndarray:
    """(E,) row in the feature arrays of each watched video."""
    ids = truth.raw.modalities["visual"].ids
    row = {name: r for r, name in enumerate(ids.tolist())}
    return np.array([row[name] for name in truth.raw.log.item_ids.tolist()])[truth.raw.log.item]


def test_shapes_and_types(small: Planted) -> None:
    raw, log = small.raw, small.raw.log
    assert set(raw.modalities) == set(MODALITIES) and len(set(WIDTHS.values())) == 3
    for name, modality in raw.modalities.items():
        assert (
            modality.values.shape == (ITEMS, WIDTHS[name]) and modality.values.dtype == np.float32
        )
        assert modality.present.shape == (ITEMS,) and modality.present.dtype == bool
        assert np.isfinite(modality.values).all() and not modality.values[~modality.present].any()
    assert log.user.dtype == log.item.dtype == log.time.dtype == np.int64
    assert log.user.shape == log.item.shape == log.time.shape == (log.rows_read,)
    assert (
        small.favourite.shape == (USERS,)
        and small.liked.shape == (USERS, 2)
        and small.topic.shape == (ITEMS, 3)
    )
    assert set(raw.titles) == set(raw.modalities["visual"].ids.tolist())


def test_rows_are_in_time_order_and_no_pair_stands_twice(small: Planted) -> None:
    log = small.raw.log
    assert (np.diff(log.time) >= 0).all()
    assert len(np.unique(log.user * len(log.item_ids) + log.item)) == log.rows_read
    _, first = np.unique(log.user, return_index=True)
    assert (np.diff(first) > 0).all(), "users are numbered in order of first appearance"


def test_history_lengths(full: Planted) -> None:
    length = np.bincount(full.raw.log.user)
    assert len(length) == 2000 and length.min() >= 8 and length.max() <= 60
    assert 60_000 <= full.raw.log.rows_read <= 100_000


def test_a_fifth_of_each_modality_is_missing_independently(full: Planted) -> None:
    present = np.stack([full.raw.modalities[name].present for name in MODALITIES], axis=1)  # (n, M)
    assert np.abs((~present).mean(axis=0) - 0.2).max() < 0.03
    assert np.abs(np.corrcoef(present.T) - np.eye(3)).max() < 0.08


def test_popularity_has_a_long_tail(full: Planted) -> None:
    count = np.sort(np.bincount(full.raw.log.item, minlength=3000))[::-1]
    assert count[:300].sum() > 0.3 * count.sum()
    assert np.median(count) < 0.75 * count.mean()
    ranks = np.arange(20, 1000)  # the slope of the body is the exponent that was planted
    slope = np.polyfit(np.log(ranks), np.log(count[ranks]), 1)[0]
    assert -0.8 < slope < -0.6
    flat = planted(users=500, items=700, exponent=0.0)
    even = np.sort(np.bincount(flat.raw.log.item))[::-1]
    assert even[:70].sum() < 0.2 * even.sum()


def test_five_core_keeps_nearly_everything(full: Planted) -> None:
    user, item = full.raw.log.user, full.raw.log.item
    kept = np.ones(len(user), dtype=bool)
    for _ in range(50):
        enough = (np.bincount(user[kept], minlength=2000)[user] >= 5) & (
            np.bincount(item[kept], minlength=3000)[item] >= 5
        )
        kept &= enough
    assert kept.mean() > 0.98
    assert len(np.unique(user[kept])) == 2000 and len(np.unique(item[kept])) > 2850


def test_same_seed_same_log() -> None:
    one, two, other = (demo(seed, users=90, items=130) for seed in (5, 5, 6))
    for name in ("user", "item", "time", "user_ids", "item_ids"):
        assert np.array_equal(getattr(one.log, name), getattr(two.log, name))
    for name in MODALITIES:
        assert np.array_equal(one.modalities[name].values, two.modalities[name].values)
    assert one.titles == two.titles and one.titles != other.titles
    assert not np.array_equal(one.log.item, other.log.item)


def test_numpy_global_random_state_is_untouched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    demo(users=30, items=50)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def agreement(truth: Planted) -> np.ndarray:
    """(U, M) mean cosine between the features of two different videos of a user's history, in each
    modality.
    """
    item, user, users = rows_of_items(truth), truth.raw.log.user, len(truth.raw.log.user_ids)
    table = np.empty((users, 3))
    for m, name in enumerate(truth.modalities):
        modality = truth.raw.modalities[name]
        seen = modality.present[item]
        unit = modality.values[item[seen]]
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        total = np.zeros((users, unit.shape[1]))
        np.add.at(total, user[seen], unit)
        count = np.bincount(user[seen], minlength=users)
        table[:, m] = ((total**2).sum(axis=1) - count) / (count * (count - 1))
    return table


def test_histories_agree_in_the_favourite_modality_and_in_no_other(full: Planted) -> None:
    table = agreement(full)
    own = table[np.arange(len(table)), full.favourite]
    others = (table.sum(axis=1) - own) / 2
    assert own.mean() > 0.15 and own.mean() > 3 * others.mean()
    assert (table.argmax(axis=1) == full.favourite).mean() > 0.97


def test_without_boost_there_is_nothing_to_find() -> None:
    truth = planted(users=400, items=600, boost=0.0)
    assert abs((agreement(truth).argmax(axis=1) == truth.favourite).mean() - 1 / 3) < 0.1


def test_the_choice_follows_the_liked_topics(full: Planted) -> None:
    user, item = full.raw.log.user, rows_of_items(full)
    matches = (full.topic[item, full.favourite[user]][:, None] == full.liked[user]).any(axis=1)
    assert 0.8 < matches.mean() < 0.97
    other = (full.favourite[user] + 1) % 3
    assert ((full.topic[item, other][:, None] == full.liked[user]).any(axis=1)).mean() < 0.25


def test_users_of_one_taste_share_more_videos(full: Planted) -> None:
    seen = np.zeros((2000, 3000), dtype=np.float32)
    seen[full.raw.log.user, rows_of_items(full)] = 1
    shared = seen @ seen.T
    np.fill_diagonal(shared, np.nan)
    alike = (full.favourite[:, None] == full.favourite) & (
        np.sort(full.liked, 1)[:, None] == np.sort(full.liked, 1)
    ).all(axis=2)
    assert np.nanmean(shared[alike]) > 3 * np.nanmean(shared[~alike])


def test_titles_name_the_topics(small: Planted) -> None:
    for row, title in enumerate(small.raw.titles.values()):
        assert 15 < len(title) < 90 and title[0] == title[0].upper()
        for m, name in enumerate(MODALITIES):
            assert any(
                phrase.lower() in title.lower() for phrase in PHRASES[name][small.topic[row, m]]
            )
    assert len(set(small.raw.titles.values())) > 0.95 * ITEMS


def test_the_words_differ_between_topics() -> None:
    words = [phrase for name in MODALITIES for options in PHRASES[name] for phrase in options]
    assert len(words) == len(set(words))
    assert {len(PHRASES[name]) for name in MODALITIES} == {12}


def test_favourite_by_raw_id(small: Planted) -> None:
    by_id = small.favourite_of()
    assert len(by_id) == USERS
    user = small.raw.log.user_ids[17]
    assert by_id[str(user)] == MODALITIES[small.favourite[17]]


def test_write_raw_gives_files_a_user_could_have(small: Planted, tmp_path) -> None:
    folder = tmp_path / "raw"
    write_raw(small.raw, folder)
    with (folder / "log.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == small.raw.log.rows_read and list(rows[0]) == ["user", "video", "timestamp"]
    last, log = rows[-1], small.raw.log
    assert last == {
        "user": log.user_ids[log.user[-1]],
        "video": log.item_ids[log.item[-1]],
        "timestamp": str(log.time[-1]),
    }
    with (folder / "items.csv").open(newline="") as handle:
        items = list(csv.DictReader(handle))
    assert [item["id"] for item in items] == small.raw.modalities["visual"].ids.tolist()
    assert all(item["title"] == small.raw.titles[item["id"]] for item in items)
    for name, modality in small.raw.modalities.items():
        values = np.load(folder / f"{name}.npy", allow_pickle=False)
        assert np.array_equal(np.isnan(values).all(axis=1), ~modality.present)
        assert np.array_equal(values[modality.present], modality.values[modality.present])


def test_write_raw_refuses_a_folder_of_others(small: Planted, tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(RunError, match="not ours"):
        write_raw(small.raw, tmp_path, force=True)
    write_raw(small.raw, tmp_path / "raw")
    with pytest.raises(RunError, match="--force"):
        write_raw(small.raw, tmp_path / "raw")
    write_raw(small.raw, tmp_path / "raw", force=True)


def test_the_written_files_are_read_back_as_the_same_data_set(small: Planted, tmp_path) -> None:
    from dualgnn_dgl.preprocess import Options, prepare
    from dualgnn_dgl.readers.reader import read

    write_raw(small.raw, tmp_path / "raw")
    again = read(tmp_path / "raw")
    assert prepare(again, Options()).dataset.hash == prepare(small.raw, Options()).dataset.hash
