"""Comparing models: paired tests, corrections, slices and measures beyond accuracy, against
hand-worked values and libraries.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import auc, ndcg_score
from sklearn.metrics.pairwise import cosine_similarity
from small import dataset, interactions
from statsmodels.stats.multitest import multipletests

from dualgnn_dgl.data import Modality
from dualgnn_dgl.errors import ConfigError, DataError
from dualgnn_dgl.evaluation import Evaluator, beyond_accuracy, bootstrap, holm, p_value, paired
from dualgnn_dgl.evaluation.beyond import diversity, gini, novelty
from dualgnn_dgl.evaluation.intervals import resampled_means
from dualgnn_dgl.evaluation.slices import (
    Mask,
    activity,
    completeness,
    popularity,
    ranges,
    sliced,
    warmth,
)


def two_models(users: int, gain: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A metric of two models for the same users, strongly correlated, the second better by `gain`
    on average.
    """
    draw = np.random.default_rng(seed)
    base = draw.gamma(2.0, 0.05, users)
    return base, base + draw.normal(gain, 0.04, users)


# -------------------- paired tests


def test_hand_worked_difference() -> None:
    base, other = np.array([0.5, 0.0, 1.0, 0.25]), np.array([1.0, 0.5, 0.0, 0.25])
    found = paired(base, {"other": other}, resamples=0)["other"]
    assert (found.mean, found.better, found.worse) == (0.0, 2, 1)
    assert found.low is found.high is found.p_bootstrap is None


def test_wilcoxon_hand_worked() -> None:
    """Five users, all better, no ties: only 2 of the 2⁵ sign patterns are as extreme, p = 1/16."""
    base = np.zeros(8)
    other = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0])
    assert paired(base, {"other": other}, resamples=0)["other"].p_wilcoxon == pytest.approx(1 / 16)


@pytest.mark.parametrize(("gain", "users"), [(0.0, 211), (0.004, 307), (0.02, 53), (-0.006, 401)])
def test_interval_and_p_value_agree_with_scipy(gain, users) -> None:
    base, other = two_models(users, gain, seed=users)
    found = paired(base, {"other": other}, seed=1, resamples=20_000)["other"]
    theirs = stats.bootstrap(
        (other - base,),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.04 * width)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.04 * width)
    # near-normal: the t-test's p
    assert found.p_bootstrap == pytest.approx(stats.ttest_rel(other, base).pvalue, abs=0.02)
    assert found.p_wilcoxon == stats.wilcoxon(other, base).pvalue
    assert found.mean == pytest.approx(np.mean(other - base))


def test_p_values_of_no_difference_are_uniform() -> None:
    """Where nothing is to be found, 5 % of the tests find something.

    300 pairs of models that differ by chance alone.
    """
    values = [two_models(97, 0.0, seed=seed) for seed in range(300)]
    p = [
        paired(base, {"o": other}, seed=n, resamples=300)["o"].p_bootstrap
        for n, (base, other) in enumerate(values)
    ]
    assert 0.025 < np.mean(np.array(p) < 0.05) < 0.08
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("users", [60, 200])
@pytest.mark.parametrize("case", ["one held-out item", "rare hits", "recall of several items"])
def test_p_values_keep_their_level_on_what_metrics_look_like(case, users, monkeypatch) -> None:
    """The quick form of benchmarks/quality/pvalues.py.

    Many zeros and ties, and no difference between the models.
    """
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent))
    script = importlib.import_module("benchmarks.quality.pvalues")
    shares = script.false_positives(script.CASES[case], users, samples=500, resamples=199)
    assert 0.02 <= shares["shifted"] <= 0.08, shares


def test_the_two_sides_of_zero_are_no_test() -> None:
    """Five of sixty users gain: of the resamples nearly none is below zero, yet chance makes such a
    mean one time in fifty.
    """
    differences = np.r_[np.full(5, 0.5), np.zeros(55)]
    resampled = resampled_means(differences[:, None], 0, 20_000)[:, 0]
    one_side = 2 * (1 + (resampled <= 0).sum()) / 20_001
    assert one_side == pytest.approx(2 * (11 / 12) ** 60, abs=0.004)
    expected = stats.binom.sf(9, 60, 5 / 60) + (11 / 12) ** 60
    assert p_value(differences.mean(), resampled).item() == pytest.approx(expected, abs=0.005)
    assert paired(np.zeros(60), {"o": differences}, 0, 20_000)["o"].p_bootstrap == p_value(
        differences.mean(), resampled
    )


def test_p_value_hand_worked() -> None:
    assert p_value(0.1, np.full(999, 0.1)).item() == pytest.approx(1 / 1000)
    assert p_value(0.0, np.zeros(99)).item() == 1.0
    both = p_value(np.array([2.0, -1.0]), np.array([[1.0, 0.0], [4.0, 0.0], [5.0, -3.0]]))
    assert both.tolist() == [3 / 4, 1.0]


def test_one_set_of_draws_serves_all_and_the_seed_decides() -> None:
    base, other = two_models(83, 0.01)
    one = paired(base, {"a": other, "b": other}, seed=3)
    assert one["a"] == one["b"] != paired(base, {"a": other, "b": other}, seed=4)["a"]
    assert 0 < one["a"].p_bootstrap < 1


def test_equal_models_and_constant_gains() -> None:
    base, _ = two_models(31, 0.0)
    found = paired(base, {"same": base, "better": base + 0.125}, seed=0, resamples=200)
    assert (found["same"].p_bootstrap, found["same"].p_wilcoxon, found["same"].low) == (
        1.0,
        1.0,
        0.0,
    )
    assert found["better"].p_bootstrap == pytest.approx(1 / 201)
    assert found["better"].better == 31 and found["better"].p_wilcoxon < 1e-5


def test_what_paired_refuses() -> None:
    with pytest.raises(DataError, match=r"same users everywhere, got \[3, 4\]"):
        paired(np.zeros(3), {"other": np.zeros(4)})
    with pytest.raises(DataError, match="same users"):
        paired(np.zeros(0), {"other": np.zeros(0)})
    with pytest.raises(ConfigError, match="-1 resamples"):
        paired(np.zeros(3), {"other": np.zeros(3)}, resamples=-1)
    assert paired(np.zeros(3), {}) == {}


@pytest.mark.parametrize("count", [1, 5, 12])
def test_holm_equals_statsmodels(count) -> None:
    p_values = np.random.default_rng(count).beta(0.3, 2, count).round(2).tolist()  # rounded: ties
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])


def test_holm_hand_worked() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06]) and holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


# -------------------- beyond accuracy


def random_lists(seed: int, users: int = 37, items: int = 23, k: int = 6) -> np.ndarray:
    """Lists of distinct items, some filled up with −1."""
    draw = np.random.default_rng(seed)
    lists = np.stack([draw.permutation(items)[:k] for _ in range(users)])
    for row, left in enumerate(draw.integers(0, k + 1, users // 3)):
        lists[row, left:] = -1
    return lists


@pytest.mark.parametrize("seed", range(4))
def test_gini_equals_its_two_other_definitions(seed) -> None:
    lists = random_lists(seed, k=3 + seed)
    often = np.bincount(lists[lists >= 0], minlength=23).astype(float)
    # half the relative mean difference
    apart = np.abs(often[:, None] - often[None]).mean() / (2 * often.mean())
    share = np.concatenate([[0], np.sort(often).cumsum() / often.sum()])
    area = 1 - 2 * auc(np.linspace(0, 1, 24), share)  # scikit-learn's area under the Lorenz curve
    assert gini(lists, 23) == pytest.approx(apart) and gini(lists, 23) == pytest.approx(area)


def test_gini_extremes() -> None:
    assert gini(np.array([[2], [2], [2]]), 8) == 1 - 1 / 8
    assert gini(np.arange(8)[None], 8) == 0
    assert gini(np.full((3, 2), -1), 8) == 0


@pytest.mark.parametrize("seed", range(3))
def test_novelty_equals_the_definition(seed) -> None:
    lists, watched = random_lists(seed), np.random.default_rng(seed).integers(0, 9, 23)
    found = novelty(lists, watched, 41)
    for row, value in zip(lists, found, strict=True):
        bits = [np.log2(41 / max(watched[i], 1)) for i in row if i >= 0]
        assert value == pytest.approx(np.mean(bits)) if bits else np.isnan(value)


@pytest.mark.parametrize("seed", range(3))
def test_diversity_equals_scikit_learn_and_leaves_out_what_is_missing(seed, monkeypatch) -> None:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(23, 5)).astype(np.float32)
    present, imputed = draw.random(23) < 0.8, np.zeros(23, bool)
    imputed[np.flatnonzero(present)[:3]] = True
    values[np.flatnonzero(present)[4]] = 0  # present, but without a direction
    modality, lists = Modality(values, present, imputed), random_lists(seed)
    usable = present & ~imputed & values.any(axis=1)
    found = diversity(lists, modality)
    for row, value in zip(lists, found, strict=True):
        kept = [i for i in row if i >= 0 and usable[i]]
        if len(kept) < 2:
            assert np.isnan(value)
            continue
        distance = 1 - cosine_similarity(values[kept].astype(np.float64))
        assert value == pytest.approx(distance[~np.eye(len(kept), dtype=bool)].mean())
    monkeypatch.setattr("dualgnn_dgl.evaluation.beyond._BUDGET", 8 * 5 * 4)  # four users a block
    np.testing.assert_array_equal(diversity(lists, modality), found)
    garbage = values.copy()
    garbage[~present] = 1e9
    np.testing.assert_array_equal(diversity(lists, Modality(garbage, present, imputed)), found)


def test_beyond_names_and_means() -> None:
    data, lists = dataset(items=23), random_lists(5)
    found = beyond_accuracy(lists, [2, 5], data.train, data.modalities)
    assert list(found.whole) == ["coverage@2", "gini@2", "coverage@5", "gini@5"]
    assert list(found.per_user) == [
        f"{name}@{k}"
        for k in (2, 5)
        for name in ("novelty", "diversity visual", "diversity acoustic", "diversity textual")
    ]
    assert found.means["novelty@2"] == np.nanmean(found.per_user["novelty@2"])
    nobody = {"visual": Modality(np.zeros((23, 2)), np.zeros(23, bool))}
    assert np.isnan(beyond_accuracy(lists, [2], data.train, nobody).means["diversity visual@2"])
    with pytest.raises(DataError, match="no lists"):
        beyond_accuracy(lists[:0], [2], data.train, {})


# -------------------- slices


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 6))
def test_ranges_part_everything_and_never_the_equal(values, parts) -> None:
    found = ranges(np.array(values), parts)
    assert len(found) <= parts + 1 and all(low <= high for low, high in found)
    assert all(before[1] < after[0] for before, after in zip(found, found[1:], strict=False))
    assert all(sum(low <= value <= high for low, high in found) == 1 for value in values)
    assert all(any(low <= value <= high for value in values) for low, high in found)
    assert ((0, 0) in found) == (0 in values)


def test_ranges_hand_worked() -> None:
    assert ranges(np.arange(1, 9), 4) == [(1, 2), (3, 4), (5, 6), (7, 8)]
    assert ranges(np.array([0, 0]), 4) == [(0, 0)] and ranges(np.array([7] * 5), 4) == [(7, 7)]


def measured(seed: int = 3):
    """An evaluator on a small log with several held-out items a user, lists for it, and its
    parts.
    """
    draw = np.random.default_rng(seed)
    label = draw.choice(3, (31, 17), p=[0.6, 0.2, 0.2])
    label[:, 5] = np.where(label[:, 5] == 1, 0, label[:, 5])  # item 5: held out, never trained on
    train, test = (
        interactions(list(zip(*np.nonzero(label == n), strict=True)), 31, 17) for n in (1, 2)
    )
    evaluator = Evaluator(test, [train], ks=(2, 6))
    user, item = (torch.tensor(draw.normal(size=(n, 3)), dtype=torch.float32) for n in (31, 17))
    return train, test, evaluator, evaluator.rank(user, item), evaluator(user, item)


def test_rank_and_measure_are_the_call() -> None:
    _, _, evaluator, lists, found = measured()
    again = evaluator.measure(lists)
    assert again.means == found.means and again.coverage == found.coverage
    assert evaluator.measure(lists, items=np.ones(17, bool)).means == found.means
    with pytest.raises(DataError, match="among the chosen"):
        evaluator.measure(lists, items=np.zeros(17, bool))


def test_items_slice_equals_scikit_learn() -> None:
    """The held-out items of a slice as the only relevant ones, the same lists.

    Measured by another library.
    """
    train, test, evaluator, lists, _ = measured()
    counts = np.bincount(train.item, minlength=17)
    parts = list(sliced(evaluator, lists, popularity(train, test)))
    assert parts[0][0] == (0, 0), "item 5 is cold"
    seen_in = np.zeros(len(test), int)
    for (low, high), found in parts:
        inside = (low <= counts[test.item]) & (counts[test.item] <= high)
        seen_in += inside
        assert found.users.tolist() == sorted(set(test.user[inside].tolist()))
        for u, recall, gain in zip(
            found.users, found.per_user["recall@6"], found.per_user["ndcg@6"], strict=True
        ):
            relevant = np.zeros(17)
            relevant[test.item[inside & (test.user == u)]] = 1
            ranked = [i for i in lists[evaluator.users.tolist().index(u)].tolist() if i >= 0]
            scores = np.full(17, -1.0)
            scores[ranked] = np.arange(len(ranked), 0, -1)
            assert recall == pytest.approx(relevant[ranked].sum() / relevant.sum())
            if len(ranked) == 6:
                assert gain == pytest.approx(ndcg_score([relevant], [scores], k=6))
    assert (seen_in == 1).all(), "every held-out pair is in one slice"


def test_users_slices_part_the_users_and_average_to_the_whole() -> None:
    train, _, evaluator, lists, found = measured()
    parts = list(sliced(evaluator, lists, activity(train, evaluator.users, parts=3)))
    pairs = np.bincount(train.user, minlength=31)
    assert sorted(np.concatenate([part.users for _, part in parts])) == found.users.tolist()
    for (low, high), part in parts:
        assert ((low <= pairs[part.users]) & (pairs[part.users] <= high)).all()
    whole = sum(part.means["ndcg@6"] * len(part.users) for _, part in parts) / len(found.users)
    assert whole == pytest.approx(found.means["ndcg@6"])


def test_warm_cold_complete_and_incomplete_are_the_same_slices_by_other_masks() -> None:
    train, test, evaluator, lists, found = measured()
    cold = np.bincount(train.item, minlength=17) == 0
    own = np.random.default_rng(0).random(17) < 0.5
    visual = Modality(np.ones((17, 2)), np.ones(17, bool), ~own)
    masks = (
        warmth(train) | completeness([visual], 17) | {"nothing": Mask("item", np.zeros(17, bool))}
    )
    parts = dict(sliced(evaluator, lists, masks))
    assert list(parts) == ["warm", "cold", "complete", "incomplete"], (
        "a group without a held-out pair is left out"
    )
    for name, chosen in (("warm", ~cold), ("cold", cold), ("complete", own), ("incomplete", ~own)):
        expected = evaluator.measure(lists, items=chosen)
        assert (
            parts[name].means == expected.means
            and parts[name].users.tolist() == expected.users.tolist()
        )
        assert set(parts[name].users) == set(test.user[chosen[test.item]])
    some = np.arange(31) % 3 == 0
    both = evaluator.measure(lists, users=some, items=own)
    assert set(both.users) == set(np.flatnonzero(some)) & set(parts["complete"].users)
    users = evaluator.measure(lists, users=some)
    np.testing.assert_array_equal(
        users.per_user["ndcg@6"], found.per_user["ndcg@6"][some[found.users]]
    )


def test_bootstrap_draws_what_it_always_drew() -> None:
    """Published intervals stay as they are: the draws behind them are pinned."""
    found = bootstrap({"a": np.arange(7.0), "b": np.arange(7.0) ** 2}, seed=5, resamples=50)
    assert found["a"] == pytest.approx((1.589285714285715, 4.871428571428571), abs=1e-12)
    assert found["b"] == pytest.approx((3.6428571428571455, 26.46071428571428), abs=1e-12)
