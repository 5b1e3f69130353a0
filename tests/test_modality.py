"""Holes and what fills them: nested and seeded holes, imputers against dense twins, homophily
against a loop over pairs.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from reference import imputers as slow

from dualgnn_dgl.data import Dataset, Interactions, Modality, load, save
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.modality import (
    IMPUTERS,
    PATTERNS,
    Imputing,
    drop,
    homophily,
    impute,
    item_graph,
    read_holes,
    write_holes,
)

LEARNT = [name for name in IMPUTERS if name != "zero"]


def planted(users: int = 23, items: int = 31, seed: int = 0) -> Dataset:
    """A log in two halves that share no user, and items nobody watched.

    Features are near their half's own vector.
    """
    draw = np.random.default_rng(seed)
    half = np.arange(items) % 2
    pairs = [
        (u, i)
        for u in range(users)
        for i in range(items - 3)
        if half[i] == u % 2 and draw.random() < 0.4
    ]
    features = {}
    for name, width in (("visual", 6), ("textual", 300)):
        values = draw.normal(size=(2, width))[half] + 0.3 * draw.normal(size=(items, width)) + 1
        features[name] = Modality(values, draw.random(items) < 0.7)
    empty = small.interactions([], users, items)
    ids = np.array([f"u{u}" for u in range(users)]), np.array([f"v{i}" for i in range(items)])
    return Dataset(small.interactions(pairs, users, items), empty, empty, features, *ids)


def lost(data: Dataset, holed: Dataset, name: str) -> set[int]:
    return set(
        np.flatnonzero(data.modalities[name].present & ~holed.modalities[name].present).tolist()
    )


# ---------------------------------------------------------------- holes


@pytest.mark.parametrize("pattern", ["random", "rare"])
@given(seed=st.integers(0, 2**40), one=st.floats(0, 1), two=st.floats(0, 1))
def test_holes_are_exact_nested_and_repeatable(pattern, seed, one, two):
    data, (low, high) = small.dataset(), sorted((one, two))
    few, many = drop(data, low, pattern, seed), drop(data, high, pattern, seed)
    assert few.hash == drop(data, low, pattern, seed).hash
    for name, modality in data.modalities.items():
        assert len(lost(data, few, name)) == round(low * modality.present.sum())
        assert lost(data, few, name) <= lost(data, many, name)
        assert (many.modalities[name].values[~many.modalities[name].present] == 0).all()
        np.testing.assert_array_equal(few.modalities[name].values[few.modalities[name].present],
                                      modality.values[few.modalities[name].present])  # fmt: skip
    assert few.train is data.train and drop(data, 0.0, pattern, seed).hash == data.hash


def test_the_seed_matters_and_modalities_do_not_feel_each_other():
    data = small.dataset(holes=False)
    assert lost(data, drop(data, 0.5, seed=1), "visual") != lost(
        data, drop(data, 0.5, seed=2), "visual"
    )
    assert lost(data, drop(data, 0.5), "visual") != lost(data, drop(data, 0.5), "acoustic")
    alone = dataclasses.replace(data, modalities={"acoustic": data.modalities["acoustic"]})
    assert lost(alone, drop(alone, 0.5), "acoustic") == lost(data, drop(data, 0.5), "acoustic")


def test_one_modality_and_a_whole_one():
    data = small.dataset(holes=False)
    single = drop(data, 0.5, "one-modality", modality="acoustic")
    assert [len(lost(data, single, name)) for name in data.modalities] == [
        0,
        round(0.5 * small.ITEMS),
        0,
    ]
    whole = drop(data, 0.2, "whole-modality", modality="textual")
    assert [modality.present.sum() for modality in whole.modalities.values()] == [
        small.ITEMS,
        small.ITEMS,
        0,
    ]
    assert len(lost(data, drop(data, 0.5, "one-modality"), "visual")) == round(0.5 * small.ITEMS), (
        "the first by default"
    )
    assert drop(data, 0.0, "whole-modality").hash == data.hash


def test_rarer_items_miss_more():
    users, items = 400, 301
    draw = np.random.default_rng(0)
    pairs = [(u, i) for i in range(items) for u in draw.permutation(users)[: 1 + (i % 100)]]
    empty = small.interactions([], users, items)
    data = Dataset(
        small.interactions(pairs, users, items), empty, empty, {"visual": Modality(np.ones((items, 2)), np.ones(items, bool))},
        np.arange(users).astype(str), np.arange(items).astype(str),
    )  # fmt: skip
    popularity = np.bincount(data.train.item, minlength=items)
    gone = {
        pattern: popularity[sorted(lost(data, drop(data, 0.3, pattern), "visual"))].mean()
        for pattern in ("rare", "random")
    }
    assert gone["rare"] < 0.7 * popularity.mean() < gone["random"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(rate=0.5, pattern="randm"), "did you mean 'random'"),
        (dict(rate=1.5), "share from 0 to 1"),
        (dict(rate=float("nan")), "share from 0 to 1"),
        (dict(rate=0.5, modality="visual"), "leave visual out"),
        (dict(rate=0.5, pattern="one-modality", modality="visul"), "did you mean 'visual'"),
    ],
)
def test_what_drop_refuses(words, message):
    with pytest.raises(ConfigError, match=message):
        drop(small.dataset(), **words)


def test_a_data_set_without_modalities_has_no_holes_to_make():
    data = small.dataset(modalities=())
    assert all(drop(data, 0.5, pattern).hash == data.hash for pattern in PATTERNS)


def test_holes_round_trip_through_a_file_in_any_order(tmp_path):
    data = small.dataset()
    holed = drop(data, 0.4, seed=3)
    write_holes(holed, tmp_path / "holes.parquet")
    assert read_holes(tmp_path / "holes.parquet", data).hash == holed.hash
    order = np.random.default_rng(0).permutation(small.ITEMS)
    turned = small.relabel(data, np.arange(small.USERS), order)
    again = read_holes(tmp_path / "holes.parquet", turned)
    for name, modality in holed.modalities.items():
        np.testing.assert_array_equal(again.modalities[name].present, modality.present[order])


def test_files_of_holes_that_do_not_fit_are_refused(tmp_path):
    data = small.dataset()
    write_holes(data, tmp_path / "holes.parquet")
    with pytest.raises(DataError, match="wants visual of 5 items that lack it"):
        read_holes(tmp_path / "holes.parquet", drop(data, 5 / 16, "one-modality"))
    with pytest.raises(DataError, match="lists 19 items, not the 31"):
        read_holes(tmp_path / "holes.parquet", dataclasses.replace(planted(), modalities={}))
    write_holes(dataclasses.replace(data, modalities={}), tmp_path / "bare.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    for name in ("bare", "junk", "absent"):
        with pytest.raises(DataError, match=f"{name}.parquet does not list this data set"):
            read_holes(tmp_path / f"{name}.parquet", data)


# ---------------------------------------------------------------- the item graph and homophily


@pytest.mark.parametrize("k", [1, 3, 20])
def test_item_graph_equals_comparing_sets(k):
    for data in (small.dataset(), planted()):
        graph = item_graph(data.train, k)
        np.testing.assert_array_equal(
            graph.toarray(), slow.item_graph(small.pairs_of(data.train), data.num_items, k)
        )


def test_homophily_equals_a_loop_and_tells_planted_from_shuffled():
    data = planted()
    graph = item_graph(data.train, 5)
    modality = data.modalities["visual"]
    unit = modality.values / np.maximum(
        np.linalg.norm(modality.values, axis=1, keepdims=True), 1e-12
    )
    near = [
        unit[i] @ unit[j]
        for i in range(31)
        for j in range(i)
        if graph[i, j] and modality.own[i] and modality.own[j]
    ]
    every = [
        unit[i] @ unit[j]
        for i in range(31)
        for j in range(i)
        if modality.own[i] and modality.own[j]
    ]
    found = homophily(modality, graph)
    assert found["pairs"] == len(near) and found["neighbours"] == pytest.approx(
        np.mean(near), rel=1e-5
    )
    assert found["random"] == pytest.approx(np.mean(every), abs=0.05)
    assert found["gain"] == pytest.approx(
        (found["neighbours"] - found["random"]) / (1 - found["random"])
    )
    assert found["gain"] > 0.3
    draw = np.random.default_rng(1)
    noise = Modality(draw.normal(size=(31, 40)), modality.present)
    assert abs(homophily(noise, graph)["gain"]) < 0.05
    one = [
        i
        for i in range(31)
        if modality.own[i] and any(graph[i, j] and modality.own[j] for j in range(31))
    ]
    those = [
        np.mean([unit[j] for j in range(31) if graph[i, j] and modality.own[j]], axis=0)
        for i in one
    ]
    mean = unit[modality.own].mean(axis=0)
    x, y = np.array([unit[i] for i in one]) - mean, np.array(those) - mean
    left = min(((x - beta * y) ** 2).sum() for beta in np.linspace(0, 4, 4001))
    assert (
        found["explained"] == pytest.approx(1 - left / (x**2).sum(), abs=1e-4)
        and found["explained"] > 0.3
    )
    assert homophily(noise, graph)["explained"] < 0.1
    assert homophily(modality, graph) == homophily(
        impute(data, "mean").modalities["visual"], graph
    ), "filled rows do not count"


def test_homophily_of_nothing_is_nothing():
    data = planted()
    graph = item_graph(data.train, 5)
    values = data.modalities["visual"].values
    assert homophily(Modality(values, np.zeros(31, bool)), graph) is None
    assert homophily(Modality(values, np.arange(31) == 4), graph) is None
    same = homophily(Modality(np.ones((31, 2)), np.ones(31, bool)), graph)
    assert (
        same["gain"] == 0.0 and same["neighbours"] == pytest.approx(1) and same["explained"] == 0.0
    )


# ---------------------------------------------------------------- imputers


@pytest.mark.parametrize("method", list(IMPUTERS))
@pytest.mark.parametrize(
    "options",
    [
        Imputing(),
        Imputing(k=2, hops=1, alpha=0.5, time=0.7),
        Imputing(k=4, hops=3, alpha=1.0, time=0.0),
    ],
)
def test_imputers_equal_their_dense_twins(method, options):
    for data in (small.dataset(), planted()):
        filled = impute(data, method, options)
        pairs = small.pairs_of(data.train)
        for name, modality in data.modalities.items():
            expected = slow.impute(
                modality.values,
                modality.present,
                pairs,
                method,
                options.k,
                options.hops,
                options.alpha,
                options.time,
            )
            np.testing.assert_allclose(
                filled.modalities[name].values, expected, rtol=2e-4, atol=2e-4
            )


@pytest.mark.parametrize("method", list(IMPUTERS))
def test_what_is_there_stays_and_what_was_filled_says_so(method):
    data = planted()
    filled = impute(data, method)
    for name, before in data.modalities.items():
        after = filled.modalities[name]
        assert after.values[before.present].tobytes() == before.values[before.present].tobytes()
        assert after.present.all() and np.array_equal(after.imputed, ~before.present)
        assert np.array_equal(after.own, before.present) and after.coverage == before.coverage
    assert filled.train is data.train and impute(filled, method) is filled
    assert impute(small.dataset(holes=False), method).hash == small.dataset(holes=False).hash


@pytest.mark.parametrize("method", LEARNT)
def test_filled_rows_are_weighted_means_of_present_ones(method):
    """Within the range of the present rows in every column.

    And twice the features are filled with twice the values.
    """
    data = planted()
    filled = impute(data, method)
    for name, before in data.modalities.items():
        known, new = before.values[before.present], filled.modalities[name].values
        assert (new >= known.min(0) - 1e-4).all() and (new <= known.max(0) + 1e-4).all()
        double = dataclasses.replace(
            data, modalities={name: Modality(2 * before.values, before.present)}
        )
        np.testing.assert_allclose(
            impute(double, method).modalities[name].values, 2 * new, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("method", list(IMPUTERS))
def test_absent_content_and_held_out_pairs_never_enter(method):
    data = small.dataset()
    junk = {
        name: Modality(np.where(m.present[:, None], m.values, np.nan), m.present)
        for name, m in data.modalities.items()
    }
    empty = small.interactions([], small.USERS, small.ITEMS)
    other = dataclasses.replace(data, modalities=junk, valid=empty, test=empty)
    one, two = impute(data, method).modalities, impute(other, method).modalities
    assert all(one[name].values.tobytes() == two[name].values.tobytes() for name in one)


@pytest.mark.parametrize("method", ["neighbour_mean", "multi_hop", "ppr", "heat"])
def test_neighbours_tell_what_the_mean_does_not(method):
    """With features that follow the graph, a filled row is nearer to what was taken away than the
    global mean is.
    """
    data = planted()
    holed = drop(data, 0.3, seed=2)
    for name in data.modalities:
        # the last three were watched by nobody
        rows = sorted(r for r in lost(data, holed, name) if r < 28)
        assert len(rows) > 3
        error = {
            m: np.linalg.norm(
                impute(holed, m).modalities[name].values[rows] - data.modalities[name].values[rows]
            )
            for m in (method, "mean")
        }
        assert error[method] < 0.8 * error["mean"]


def test_items_that_nobody_watched_get_the_mean():
    data = planted()
    present = data.modalities["visual"].present.copy()
    present[29] = False
    modality = Modality(data.modalities["visual"].values, present)
    for method in LEARNT:
        filled = impute(
            dataclasses.replace(data, modalities={"visual": modality}), method
        ).modalities["visual"]
        np.testing.assert_allclose(filled.values[29], modality.values[present].mean(0), rtol=1e-4)


def test_more_hops_reach_further():
    """A chain 0–1–2–3 of items: with one hop item 2 hears nothing and gets the mean, with two it
    hears item 0.
    """
    chain = small.interactions([(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)], 3, 6)
    empty = small.interactions([], 3, 6)
    features = {
        "visual": Modality(
            np.arange(12.0).reshape(6, 2), np.array([True, False, False, False, True, True])
        )
    }
    data = Dataset(
        chain, empty, empty, features, np.array(["a", "b", "c"]), np.arange(6).astype(str)
    )
    mean = features["visual"].values[[0, 4, 5]].mean(0)
    one, two = (
        impute(data, "multi_hop", Imputing(hops=n)).modalities["visual"].values for n in (1, 2)
    )
    np.testing.assert_allclose(one[[1, 2]], [features["visual"].values[0], mean])
    np.testing.assert_allclose(
        two[[1, 2, 3]], [features["visual"].values[0], features["visual"].values[0], mean]
    )


def test_nothing_to_fill_from_and_unknown_names_are_said():
    data = drop(small.dataset(), 1.0, "whole-modality", modality="acoustic")
    for method in LEARNT:
        with pytest.raises(
            DataError,
            match=f"modality acoustic is missing for every item, so {method} has nothing to impute "
            f"from",
        ):
            impute(data, method)
    assert (impute(data, "zero").modalities["acoustic"].values == 0).all()
    with pytest.raises(ConfigError, match="did you mean 'neighbour_mean'"):
        impute(data, "neighbor_mean")
    with pytest.raises(ConfigError, match="alpha is 0"):
        Imputing(alpha=0.0)


def test_a_filled_data_set_is_saved_and_read_with_its_marks(tmp_path):
    filled = impute(small.dataset(), "heat")
    save(filled, tmp_path / "data")
    again = load(tmp_path / "data")
    assert again.hash == filled.hash != small.dataset().hash
    for name, modality in filled.modalities.items():
        np.testing.assert_array_equal(again.modalities[name].imputed, modality.imputed)
    unmarked = {name: Modality(m.values, m.present) for name, m in filled.modalities.items()}
    assert dataclasses.replace(filled, modalities=unmarked).hash != filled.hash, (
        "the marks are part of the content"
    )
    with pytest.raises(DataError, match="an imputed row is present"):
        Modality(np.ones((3, 2)), np.array([True, False, True]), np.array([False, True, False]))


def test_holes_in_a_filled_data_set_take_the_mark_away():
    filled = impute(small.dataset(), "mean")
    holed = drop(filled, 1.0)
    assert not any(m.imputed.any() or m.present.any() for m in holed.modalities.values())


def test_a_hundred_thousand_items_are_filled_in_seconds():
    """No (I, I) matrix can be there: it would take 40 GB."""
    items, users = 100_000, 20_011
    draw = np.random.default_rng(0)
    keys = np.unique(
        draw.integers(users, size=300_000) * items + draw.integers(items, size=300_000)
    )
    train = Interactions(keys // items, keys % items, users, items)
    empty = Interactions(np.empty(0), np.empty(0), users, items)
    modality = Modality(draw.normal(size=(items, 7)).astype(np.float32), draw.random(items) < 0.4)
    data = Dataset(
        train,
        empty,
        empty,
        {"visual": modality},
        np.arange(users).astype(str),
        np.arange(items).astype(str),
    )
    started = time.process_time()
    for method in ("ppr", "heat"):
        assert impute(data, method).modalities["visual"].present.all()
    assert time.process_time() - started < 60
