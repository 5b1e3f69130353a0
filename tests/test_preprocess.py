"""From rows to a data set: what is kept, what is dropped and why, and that the order of the rows
says nothing.
"""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.core.vocabulary import SPLIT_RULES
from dualgnn_dgl.data import SPLITS
from dualgnn_dgl.data.raw import RawInput, RawLog, RawModality
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.preprocess import Options, align, prepare
from dualgnn_dgl.preprocess.filters import id_order, k_core
from dualgnn_dgl.preprocess.report import NEVER, QUARTERS, coverage
from dualgnn_dgl.readers.published import KNOWN, compare


def log_of(
    rows: list[tuple], *, timed: bool = True, rated: bool = True, split: bool = False
) -> RawLog:
    """A log from rows (user id, item id, time, rating, split), codes by first appearance as a
    reader gives them.
    """
    users = list(dict.fromkeys(row[0] for row in rows))
    items = list(dict.fromkeys(row[1] for row in rows))
    return RawLog(
        np.array([users.index(row[0]) for row in rows], np.int32),
        np.array([items.index(row[1]) for row in rows], np.int32),
        np.array(users, np.str_),
        np.array(items, np.str_),
        rating=np.array([row[3] for row in rows], np.float64) if rated else None,
        time=np.array([row[2] for row in rows], np.int64) if timed else None,
        split=np.array([row[4] for row in rows], np.int8) if split else None,
        rows_read=len(rows),
        kind="test",
    )


def random_rows(seed: int, count: int = 400, users: int = 23, items: int = 17) -> list[tuple]:
    """Rows with repeated pairs."""
    rng = np.random.default_rng(seed)
    columns = (
        rng.integers(users, size=count),
        rng.integers(items, size=count),
        rng.integers(90, size=count),
    )
    rows = zip(
        *(column.tolist() for column in columns),
        (rng.integers(1, 11, size=count) / 2).tolist(),
        strict=True,
    )
    return [
        (f"u{user}", str(item), time, rating, int(split))
        for (user, item, time, rating), split in zip(
            rows, rng.choice(3, count, p=(0.8, 0.1, 0.1)), strict=True
        )
    ]


def named(dataset, split: str) -> set[tuple[str, str]]:
    """The pairs of a split in the user's own ids."""
    part = getattr(dataset, split)
    return set(
        zip(dataset.user_ids[part.user].tolist(), dataset.item_ids[part.item].tolist(), strict=True)
    )


rows_strategy = st.lists(
    st.tuples(
        st.sampled_from(["7", "12", "007", "ä", "u 1", "zz"]),
        st.sampled_from(["0", "1", "2", "10", "33"]),
        st.integers(0, 5),
        st.sampled_from([1.0, 2.5, 4.0, float("nan")]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=rows_strategy,
    seed=st.integers(0, 9),
    method=st.sampled_from(SPLIT_RULES),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_the_rows_does_not_matter(rows, seed, method, order) -> None:
    shuffled = rows.copy()
    order.shuffle(shuffled)
    options = Options(k_core=2, split=method, seed=seed)
    outcomes = []
    for these in (rows, shuffled):
        try:
            prepared = prepare(RawInput(log_of(these, split=True)), options, co_occurrence=False)
            outcomes.append((prepared.dataset.hash, json.dumps(prepared.report)))
        except (DataError, ConfigError) as error:
            outcomes.append((type(error), ""))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=60, deadline=None)
@given(
    rows=rows_strategy,
    k=st.integers(0, 4),
    least=st.sampled_from([None, 2.5]),
    method=st.sampled_from(SPLIT_RULES),
)
def test_splits_partition_the_core_and_the_counts_add_up(rows, k, least, method) -> None:
    try:
        prepared = prepare(
            RawInput(log_of(rows, split=True)),
            Options(k_core=k, split=method, min_rating=least),
            co_occurrence=False,
        )
    except (DataError, ConfigError) as error:
        assert "\n" not in str(error)
        return
    dataset, report = prepared.dataset, prepared.report
    pairs = {row[:2] for row in rows if least is None or row[3] >= least}
    while True:  # the k-core by its definition
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        core = {(user, item) for user, item in pairs if users[user] >= k and items[item] >= k}
        if core == pairs:
            break
        pairs = core
    splits = [named(dataset, split) for split in SPLITS]
    cold = {user for user, _ in pairs} - {user for user, _ in splits[0]}
    assert set().union(*splits) == {pair for pair in pairs if pair[0] not in cold}
    assert sum(map(len, splits)) == report["interactions"] == report["rows"]["kept"]
    assert (
        report["rows"]["read"]
        == len(rows)
        == report["rows"]["kept"] + sum(report["rows"]["dropped"].values())
    )
    assert set(dataset.user_ids.tolist()) == {user for user, _ in splits[0]}
    assert set(dataset.item_ids.tolist()) == {item for _, item in pairs}


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 6)), max_size=50),
    k=st.integers(0, 5),
)
def test_k_core_is_the_largest_fixed_point(pairs, k) -> None:
    rows = sorted(pairs)
    user, item = (np.array([row[side] for row in rows], np.int32) for side in (0, 1))
    kept = k_core(user, item, k)
    for codes in (user[kept], item[kept]):
        assert not codes.size or np.bincount(codes)[np.unique(codes)].min() >= k
    again = k_core(user[kept], item[kept], k)
    assert again.size == kept.size
    left = set(rows)  # remove one bad pair at a time: the order of removal must not matter
    while True:
        bad = [
            r
            for r in left
            if sum(o[0] == r[0] for o in left) < k or sum(o[1] == r[1] for o in left) < k
        ]
        if not bad:
            break
        left.remove(bad[0])
    assert {rows[row] for row in kept} == left


def test_reasons_are_counted() -> None:
    rows = [
        ("a", "x", 5, 3.0, 0),
        ("a", "x", 4, 5.0, 0),
        ("a", "y", 1, 1.0, 0),
        ("b", "x", 2, 4.0, 0),
        ("b", "y", 3, 4.0, 1),
    ]
    rows += [("c", "z", 9, float("nan"), 0), ("b", "y", 9, 4.0, 2), ("d", "x", 1, 5.0, 2)]
    log = replace(log_of(rows, split=True), rows_read=10, dropped={"empty id": 2})
    report = prepare(RawInput(log), Options(min_rating=2), co_occurrence=False).report
    assert report["rows"] == {
        "read": 10,
        "kept": 3,
        "dropped": {
            "empty id": 2,
            "rating below 2": 2,
            "repeated pair": 1,
            "pair already in an earlier split": 1,
            "user without training pair": 1,
        },
    }
    assert report["options"]["split"] == "given" and report["options"]["k_core"] == 0
    with pytest.raises(DataError, match="report this fault"):
        prepare(RawInput(replace(log, rows_read=11)), co_occurrence=False)


def test_a_pair_seen_in_training_is_never_evaluated() -> None:
    rows = [("a", "x", 0, 0, 2), ("a", "x", 0, 0, 0), ("a", "y", 0, 0, 1), ("a", "y", 0, 0, 2)]
    dataset = prepare(RawInput(log_of(rows, split=True)), co_occurrence=False).dataset
    assert [named(dataset, split) for split in SPLITS] == [{("a", "x")}, {("a", "y")}, set()]


def test_the_earliest_time_of_a_repeated_pair_counts() -> None:
    rows = [("a", "x", 90, 0, 0), ("a", "y", 20, 0, 0), ("a", "z", 30, 0, 0), ("a", "x", 10, 0, 0)]
    dataset = prepare(
        RawInput(log_of(rows)), Options(k_core=0, split="leave-one-out"), co_occurrence=False
    ).dataset
    assert [named(dataset, split) for split in SPLITS] == [{("a", "x")}, {("a", "y")}, {("a", "z")}]


def test_numbers_keep_their_order_and_text_its_own() -> None:
    assert id_order(np.array(["10", "2", "1" + "0" * 30, "0"])).tolist() == [3, 1, 0, 2]
    assert id_order(np.array(["b", "a", "10", "9"])).tolist() == [2, 3, 1, 0]
    rows = [("1", str(item), 0, 0, item % 3) for item in (10, 2, 0, 1, 11, 9, 8, 7, 6, 5, 4, 3)]
    dataset = prepare(RawInput(log_of(rows, split=True)), co_occurrence=False).dataset
    assert dataset.item_ids.tolist() == [str(item) for item in range(12)]


def test_users_without_training_pair_leave_and_items_stay() -> None:
    rows = [
        ("a", "x", 0, 0, 0),
        ("b", "y", 0, 0, 1),
        ("b", "z", 0, 0, 2),
        ("c", "x", 0, 0, 0),
        ("c", "y", 0, 0, 2),
    ]
    prepared = prepare(RawInput(log_of(rows, split=True)), co_occurrence=False)
    assert prepared.dataset.user_ids.tolist() == ["a", "c"]
    assert prepared.dataset.item_ids.tolist() == ["x", "y", "z"]
    assert prepared.report["rows"]["dropped"] == {"user without training pair": 2}


@pytest.mark.parametrize(
    "method", ["random", "mmrec", "leave-one-out", "time-user", "time-global", "cold-items"]
)
def test_the_seed_decides_the_shuffle_and_nothing_else(method: str) -> None:
    log = log_of(random_rows(3))
    for time in (log.time, np.random.default_rng(0).permutation(len(log.user))):
        raw = RawInput(replace(log, time=time))
        runs = [
            prepare(raw, Options(split=method, seed=seed), co_occurrence=False)
            for seed in (1, 1, 2)
        ]
        hashes = [run.dataset.hash for run in runs]
        assert hashes[0] == hashes[1]
        chance = method in ("random", "mmrec", "cold-items") or runs[0].report["ties"]["pairs"]
        assert (hashes[0] == hashes[2]) == (not chance)


def test_defaults_follow_the_log() -> None:
    rows = random_rows(4)
    plain = prepare(RawInput(log_of(rows)), co_occurrence=False).report["options"]
    carried = prepare(RawInput(log_of(rows, split=True)), co_occurrence=False).report["options"]
    assert (plain["k_core"], plain["split"]) == (5, "random")
    assert (carried["k_core"], carried["split"]) == (0, "given")


def test_features_follow_their_items() -> None:
    rows = [("a", "v3", 0, 0, 0), ("a", "v1", 0, 0, 1), ("b", "v7", 0, 0, 0), ("b", "v1", 0, 0, 2)]
    ids = np.array(["v7", "unused", "v3"])
    values = np.array([[7, 70], [8, 80], [3, 30]], np.float16)
    raw = RawInput(
        log_of(rows, split=True),
        {"visual": RawModality(ids, values, np.array([True, True, False]))},
        {"v1": "t" * 400},
    )
    prepared = prepare(raw, co_occurrence=False)
    dataset = prepared.dataset
    assert dataset.item_ids.tolist() == ["v1", "v3", "v7"]
    assert dataset.modalities["visual"].present.tolist() == [False, False, True]
    assert dataset.modalities["visual"].values.tolist() == [[0, 0], [0, 0], [7, 70]]
    assert values.tolist() == [[7, 70], [8, 80], [3, 30]]
    assert [len(title) for title in dataset.titles] == [300, 0, 0]
    said = prepared.report["modalities"]["visual"]
    assert (said["width"], said["present"], prepared.report["titles"]) == (2, 1, 1)
    assert said["by_popularity"][NEVER] == {
        "items": 1,
        "fewest_pairs": 0,
        "most_pairs": 0,
        "coverage": 0.0,
    }


def test_features_of_other_items_are_refused() -> None:
    modality = RawModality(
        np.array(["video_1"]), np.ones((1, 3), np.float32), np.array([True]), "visual.npy"
    )
    with pytest.raises(
        DataError,
        match=r"visual.npy: none of its 1 rows belongs .*'video_1', those of the log like '1'",
    ):
        align("visual", modality, np.array(["1", "2"]))
    empty = RawModality(
        np.array([], np.str_), np.ones((0, 3), np.float32), np.array([], bool), "visual.npy"
    )
    with pytest.raises(DataError, match="visual.npy holds no row"):
        align("visual", empty, np.array(["1", "2"]))


def test_coverage_by_popularity() -> None:
    popularity = np.array([0, 9, 8, 7, 6, 5, 4, 3, 2])
    present = np.array([1, 1, 1, 1, 0, 0, 0, 0, 1], bool)
    from dualgnn_dgl.data import Modality

    said = coverage(Modality(np.ones((9, 2), np.float32), present), popularity)["by_popularity"]
    assert [said[group]["coverage"] for group in (*QUARTERS, NEVER)] == [1.0, 0.5, 0.0, 0.5, 1.0]
    assert [said[group]["items"] for group in (*QUARTERS, NEVER)] == [2, 2, 2, 2, 1]
    assert (said[QUARTERS[0]]["fewest_pairs"], said[QUARTERS[0]]["most_pairs"]) == (8, 9)


def test_counts_of_the_report() -> None:
    prepared = prepare(RawInput(log_of(random_rows(8))), co_occurrence=False)
    dataset, report = prepared.dataset, prepared.report
    json.dumps(report, allow_nan=False)
    assert (report["users"], report["items"]) == (dataset.num_users, dataset.num_items)
    assert report["density"] == report["interactions"] / (report["users"] * report["items"])
    for split in SPLITS:
        pairs = named(dataset, split)
        assert report["splits"][split]["interactions"] == len(pairs)
        assert report["splits"][split]["users"] == len({user for user, _ in pairs})
        assert report["splits"][split]["items"] == len({item for _, item in pairs})
    assert report["published"] is None and report["warnings"] == []


@pytest.mark.parametrize("split", ["leave-one-out", "time-user", "time-global"])
def test_equal_times_at_a_cut_are_warned_about(split: str) -> None:
    user, item = (side.ravel() for side in np.divmod(np.arange(7 * 11), 11))
    ids = np.arange(11).astype(str)

    def warnings(time: np.ndarray) -> list[str]:
        log = RawLog(user, item, ids[:7], ids, time=time, rows_read=len(user))
        report = prepare(RawInput(log), Options(k_core=0, split=split)).report
        assert report["ties"].keys() == {"users", "pairs"}
        return [text for text in report["warnings"] if "equal times" in text or "share" in text]

    assert not warnings(np.arange(len(user)))
    (tied,) = warnings(np.zeros(len(user), np.int64))
    assert ("77 pairs of 7 users" if split == "time-global" else "7 of 7 users") in tied
    assert "the seed decides" in tied and "--split random" in tied


def test_empty_splits_and_empty_modalities_are_warned_about() -> None:
    rows = [("a", "x", 0, 0, 0), ("b", "x", 0, 0, 2)] + [("b", "y", 0, 0, 0)]
    blank = RawModality(np.array(["x"]), np.zeros((1, 2), np.float32), np.array([False]))
    warnings = prepare(
        RawInput(log_of(rows, split=True), {"audio": blank}), co_occurrence=False
    ).report["warnings"]
    assert (
        len(warnings) == 2 and "the valid split is empty" in warnings[0] and "audio" in warnings[1]
    )


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        (Options(k_core=50), {}, "no interactions left after the 50-core"),
        (Options(min_rating=9), {}, "all 400 are rated below 9"),
        (Options(min_rating=3), {"rating": None}, "--min-rating needs ratings"),
        (Options(split="time-user"), {"time": None}, "needs times"),
        (Options(split="given"), {}, "needs a split in the log"),
    ],
)
def test_impossible_wishes_are_refused_in_one_line(options, change, words) -> None:
    log = replace(log_of(random_rows(5)), **change)
    with pytest.raises((DataError, ConfigError)) as caught:
        prepare(RawInput(log), options, co_occurrence=False)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_positions_are_no_times_across_users() -> None:
    rows = [(user, str(item), item, 0, 0) for user in ("a", "b", "c") for item in range(6)]
    with pytest.raises(ConfigError, match="only the order within each user"):
        prepare(RawInput(log_of(rows)), Options(split="time-global", k_core=0), co_occurrence=False)
    latest = prepare(
        RawInput(log_of(rows)), Options(split="leave-one-out", k_core=0), co_occurrence=False
    ).dataset
    assert named(latest, "test") == {("a", "5"), ("b", "5"), ("c", "5")}


def test_a_log_without_rows_or_training_pairs_is_refused() -> None:
    empty = RawLog(
        *(np.array([], np.int32),) * 2,
        *(np.array([], np.str_),) * 2,
        rows_read=3,
        dropped={"empty id": 3},
        files=("x.csv",),
    )
    with pytest.raises(DataError, match="x.csv holds no usable interaction among 3 rows"):
        prepare(RawInput(empty), co_occurrence=False)
    with pytest.raises(DataError, match="none of the 1 pairs left is for training"):
        prepare(RawInput(log_of([("a", "x", 0, 0, 2)], split=True)), co_occurrence=False)


@pytest.mark.parametrize(
    "values",
    [
        {"k_core": -1},
        {"seed": -1},
        {"feature_dim": 0},
        {"cooc_top": 0},
        {"split": "rand"},
        {"cooc_weight": "sum"},
        {"ratios": (0, 1, 1)},
    ],
)
def test_options_out_of_range_are_refused(values) -> None:
    with pytest.raises(ConfigError):
        Options(**values)


def test_published_sets_are_known_by_name_and_figure() -> None:
    baby = {
        "users": 19445,
        "items": 7050,
        "interactions": 160792,
        "train": 118551,
        "valid": 20559,
        "test": 21682,
    }
    met = compare({"amazon-baby"}, baby, baby)
    assert met["met"] and met["figures"]["train"] == {
        "published": 118551,
        "found": 118551,
        "prepared": 118551,
        "met": True,
    }
    off = compare({"Amazon_Baby"}, baby | {"train": 5}, baby | {"train": 7})
    assert not off["met"] and off["figures"]["users"]["met"] and not off["figures"]["train"]["met"]
    # after the publisher's own filter: the prepared data has the published size
    assert compare({"amazon-baby"}, {"users": 9, "items": 9, "interactions": 9}, baby)["met"]
    # a file that merely is called so
    mine = {"users": 12, "items": 13, "interactions": 50}
    assert compare({"baby", "sports", "tiktok", "my-log", ""}, mine, mine) is None
    for known in KNOWN:
        assert sum(known.figures[name] for name in SPLITS if name in known.figures) in (
            0,
            known.figures["interactions"],
        )


def test_memory_stays_a_few_columns() -> None:
    """Ten copies of the two int64 columns are plenty; a dictionary per row would be hundreds."""
    rows, rng = 300_000, np.random.default_rng(2)
    ids = np.arange(4000).astype(np.str_)
    log = RawLog(
        rng.integers(4000, size=rows).astype(np.int32),
        rng.integers(3900, size=rows).astype(np.int32),
        ids,
        ids[:3900],
        rows_read=rows,
    )
    tracemalloc.start()
    prepare(RawInput(log), co_occurrence=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * rows * 2 * 8
