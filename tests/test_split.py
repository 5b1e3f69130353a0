"""The seven splits against slow loops over users, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.preprocess import split as splitting
from dualgnn_dgl.preprocess.filters import Pairs

PER_USER = ("random", "mmrec", "leave-one-out", "time-user")


def pairs_of(rows: list[tuple[int, int, int]]) -> Pairs:
    """Pairs from distinct (user, item, time), sorted as `Pairs` promises."""
    table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)
    return Pairs(table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), table[:, 2])


@st.composite
def logs(draw: st.DrawFn) -> Pairs:
    """Some users with 1 to 30 pairs each, times that often tie."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=7))
    latest = draw(st.sampled_from([0, 3, 1000]))
    return pairs_of(
        [
            (user, item, draw(st.integers(0, latest)))
            for user, size in enumerate(sizes)
            for item in range(size)
        ]
    )


def slow(
    pairs: Pairs, method: str, seed: int, ratios: tuple[int, int, int] = (8, 1, 1)
) -> list[int]:
    """The rules as written in `split.describe`, one user after the other."""
    shuffled = np.random.default_rng(seed).permutation(len(pairs))
    place_of = {int(row): place for place, row in enumerate(shuffled)}  # orders equal times
    labels = [0] * len(pairs)
    if method == "time-global":
        rows = sorted(range(len(pairs)), key=lambda row: (pairs.time[row], place_of[row]))
        for place, row in enumerate(rows):
            train, valid = (
                len(rows) * ratios[0] // sum(ratios),
                len(rows) * (ratios[0] + ratios[1]) // sum(ratios),
            )
            labels[row] = 0 if place < train else 1 if place < valid else 2
        return labels
    by_time = method in ("time-user", "leave-one-out")
    for user in set(pairs.user.tolist()):
        rows = [row for row in range(len(pairs)) if pairs.user[row] == user]
        rows.sort(key=lambda row: (pairs.time[row], place_of[row]) if by_time else shuffled[row])
        n = len(rows)
        if n < 3:
            continue
        if method == "leave-one-out" or (method == "mmrec" and n < 10):
            valid, test = 1, 1
        elif method == "mmrec":
            valid, test = int(0.2 * n) // 2, int(0.2 * n) - int(0.2 * n) // 2
        else:
            test = min(max(1, int(n * ratios[2] / sum(ratios) + 0.5)), n - 2)
            valid = min(max(1, int(n * ratios[1] / sum(ratios) + 0.5)), n - 1 - test)
        for row in rows[n - test :]:
            labels[row] = 2
        for row in rows[n - test - valid : n - test]:
            labels[row] = 1
    return labels


@pytest.mark.parametrize("method", [*PER_USER, "time-global"])
@settings(max_examples=40, deadline=None)
@given(pairs=logs(), seed=st.integers(0, 99))
def test_every_rule_equals_its_slow_twin(method: str, pairs: Pairs, seed: int) -> None:
    labels = splitting.assign(pairs, method, np.random.default_rng(seed))
    assert labels.tolist() == slow(pairs, method, seed)


@pytest.mark.parametrize("ratios", [(8, 1, 1), (3, 1, 2)])
@settings(max_examples=40, deadline=None)
@given(pairs=logs(), seed=st.integers(0, 99))
def test_cold_items_are_held_out_whole(
    ratios: tuple[int, int, int], pairs: Pairs, seed: int
) -> None:
    labels = splitting.assign(pairs, "cold-items", np.random.default_rng(seed), ratios)
    order = np.random.default_rng(seed).permutation(pairs.item.max() + 1).tolist()
    cuts = [len(order) * sum(ratios[:part]) // sum(ratios) for part in (1, 2)]
    for row, item in enumerate(pairs.item.tolist()):
        place = order.index(item)
        assert labels[row] == (0 if place < cuts[0] else 1 if place < cuts[1] else 2)


@pytest.mark.parametrize("method", PER_USER)
@settings(max_examples=40, deadline=None)
@given(pairs=logs(), seed=st.integers(0, 99))
def test_users_with_three_pairs_have_all_three_splits_and_others_only_train(
    method: str, pairs: Pairs, seed: int
) -> None:
    labels = splitting.assign(pairs, method, np.random.default_rng(seed))
    for user, size in enumerate(np.bincount(pairs.user)):
        assert set(labels[pairs.user == user].tolist()) == ({0, 1, 2} if size >= 3 else {0})


@pytest.mark.parametrize("ratios", [(1, 5, 5), (3, 1, 0), (7, 1, 2)])
def test_other_ratios(ratios: tuple[int, int, int]) -> None:
    pairs = pairs_of([(user, item, 0) for user in range(31) for item in range(user + 1)])
    labels = splitting.assign(pairs, "random", np.random.default_rng(3), ratios)
    counts = np.array([np.bincount(labels[pairs.user == user], minlength=3) for user in range(31)])
    assert (counts[:, 0] >= 1).all()
    np.testing.assert_allclose(counts[30] / 31, np.array(ratios) / sum(ratios), atol=0.03)
    assert (counts[2:, 2] > 0).all() == (ratios[2] > 0)


def test_published_rule_by_hand() -> None:
    """spec: fewer than 10 pairs give 1 and 1; n pairs the last int(0.2 n), halved, the odd one to
    test.
    """
    sizes = [1, 2, 3, 9, 10, 14, 15, 27]
    pairs = pairs_of([(user, item, 0) for user, size in enumerate(sizes) for item in range(size)])
    labels = splitting.assign(pairs, "mmrec", np.random.default_rng(5))
    counts = [
        np.bincount(labels[pairs.user == user], minlength=3).tolist() for user in range(len(sizes))
    ]
    assert counts == [
        [1, 0, 0],
        [2, 0, 0],
        [1, 1, 1],
        [7, 1, 1],
        [8, 1, 1],
        [12, 1, 1],
        [12, 1, 2],
        [22, 2, 3],
    ]


def test_latest_pairs_are_held_out() -> None:
    times = [50, 10, 40, 30, 20]
    pairs = pairs_of([(0, item, time) for item, time in enumerate(times)])
    for method in ("leave-one-out", "time-user"):
        assert splitting.assign(pairs, method, np.random.default_rng(0)).tolist() == [2, 0, 1, 0, 0]


def test_leave_one_out_without_times_follows_the_seed() -> None:
    pairs = pairs_of([(user, item, 0) for user in range(6) for item in range(11)])
    pairs = Pairs(pairs.user, pairs.item)
    one, same, other = (
        splitting.assign(pairs, "leave-one-out", np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert one.tolist() == same.tolist() != other.tolist()
    assert "no times" in splitting.describe("leave-one-out", False, (8, 1, 1))


def test_global_time_never_trains_on_the_future() -> None:
    generator = np.random.default_rng(7)
    pairs = pairs_of(
        [(user, item, int(generator.integers(500))) for user in range(9) for item in range(13)]
    )
    labels = splitting.assign(pairs, "time-global", generator)
    latest = [pairs.time[labels == label].max() for label in (0, 1)]
    earliest = [pairs.time[labels == label].min() for label in (1, 2)]
    assert latest[0] <= earliest[0] and latest[1] <= earliest[1]
    assert np.bincount(labels).tolist() == [93, 12, 12]


def test_given_labels_are_kept() -> None:
    split = np.array([2, 0, 1], np.int8)
    pairs = Pairs(np.array([0, 0, 1], np.int32), np.array([0, 1, 0], np.int32), split=split)
    assert splitting.assign(pairs, "given", np.random.default_rng(0)).tolist() == split.tolist()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("time-user", "--split time-user needs times: name the column with --time-col"),
        ("time-global", "--split time-global needs times"),
        ("given", "--split given needs a split in the log"),
        ("tme-user", "did you mean 'time-user'?"),
    ],
)
def test_what_a_log_cannot_give_is_refused_in_one_line(method: str, words: str) -> None:
    pairs = Pairs(np.array([0, 0], np.int32), np.array([0, 1], np.int32))
    with pytest.raises(ConfigError) as caught:
        splitting.assign(pairs, method, np.random.default_rng(0))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["leave-one-out", "time-user", "time-global"])
def test_equal_times_are_ordered_by_chance_not_by_ids(method: str) -> None:
    """With all times equal, every item is held out equally often over the seeds."""
    users, items, seeds = 6, 10, 400
    pairs = pairs_of([(user, item, 7) for user in range(users) for item in range(items)])
    held = np.zeros((users, items))
    for seed in range(seeds):
        held += (splitting.assign(pairs, method, np.random.default_rng(seed)) > 0).reshape(
            users, items
        )
    share = 0.2  # of the pairs, by each of these rules
    spread = np.sqrt(share * (1 - share) / (seeds * users))
    assert np.abs(held.mean(0) / seeds - share).max() < 5 * spread
    spread = np.sqrt(share * (1 - share) / (seeds * items))
    assert np.abs(held.mean(1) / seeds - share).max() < 5 * spread


@pytest.mark.parametrize("method", ["leave-one-out", "time-user", "time-global"])
@settings(max_examples=40, deadline=None)
@given(pairs=logs(), seed=st.integers(0, 99))
def test_without_ties_neither_seed_nor_ids_matter(method: str, pairs: Pairs, seed: int) -> None:
    time = np.random.default_rng(seed).permutation(len(pairs))
    pairs = Pairs(pairs.user, pairs.item, time)
    labels = splitting.assign(pairs, method, np.random.default_rng(seed))
    assert labels.tolist() == slow(pairs, method, seed + 1)
    assert splitting.count_ties(pairs, labels, method) == splitting.Ties()
    # The same log with items and users counted backwards.
    order = np.lexsort((-pairs.item, -pairs.user))
    renamed = Pairs(
        pairs.user.max() - pairs.user[order], pairs.item.max() - pairs.item[order], time[order]
    )
    again = splitting.assign(renamed, method, np.random.default_rng(seed + 1))
    assert again.tolist() == labels[order].tolist()


@pytest.mark.parametrize("method", ["leave-one-out", "time-user", "time-global"])
@settings(max_examples=40, deadline=None)
@given(pairs=logs(), seed=st.integers(0, 99))
def test_ties_equal_a_slow_count(method: str, pairs: Pairs, seed: int) -> None:
    labels = splitting.assign(pairs, method, np.random.default_rng(seed))
    groups: dict[tuple[int, int], list[int]] = {}
    for row, (user, time) in enumerate(zip(pairs.user.tolist(), pairs.time.tolist(), strict=True)):
        groups.setdefault((0 if method == "time-global" else user, time), []).append(row)
    cut = [rows for rows in groups.values() if len(set(labels[rows].tolist())) > 1]
    users = {int(pairs.user[row]) for rows in cut for row in rows}
    found = splitting.count_ties(pairs, labels, method)
    assert found == splitting.Ties(len(users), sum(map(len, cut)))


def test_ties_by_hand() -> None:
    # User 0: the test item is certain, 1 and 2 compete for validation. User 1 has no tie.
    times = [(0, 0, 1), (0, 1, 5), (0, 2, 5), (0, 3, 9), (1, 0, 1), (1, 1, 2), (1, 2, 3)]
    pairs = pairs_of(times)
    for seed in range(9):
        labels = splitting.assign(pairs, "leave-one-out", np.random.default_rng(seed))
        assert labels[[0, 3, 4, 5, 6]].tolist() == [0, 2, 0, 1, 2]
        assert sorted(labels[1:3].tolist()) == [0, 1]
        assert splitting.count_ties(pairs, labels, "leave-one-out") == splitting.Ties(1, 2)


def test_positions_are_told_from_times() -> None:
    user = np.array([0, 0, 0, 1, 1])
    assert splitting.only_positions(user, np.array([0, 1, 2, 1, 0]))
    assert not splitting.only_positions(user, np.array([0, 1, 9, 1, 0]))
    assert not splitting.only_positions(user, np.array([0, 1, 2, 2, 1]))
    assert not splitting.only_positions(np.zeros(3, int), np.array([0, 1, 2]))
    assert not splitting.only_positions(user, np.full(5, 7)), "dates of one day"
