"""Ranking, metrics and intervals against slow twins, hand-worked values and two independent
libraries.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from small import interactions

from dualgnn_dgl.data import Interactions
from dualgnn_dgl.errors import ConfigError, DataError, RunError
from dualgnn_dgl.evaluation import (
    METRICS,
    Evaluator,
    bootstrap,
    intervals,
    metrics_per_user,
    ranking,
    shortlist,
    top_k,
)
from dualgnn_dgl.evaluation.metrics import coverage, hit_matrix
from dualgnn_dgl.evaluation.ranking import Ranker

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    ),
]
TIKTOK = Path(__file__).resolve().parents[2] / "shared" / "data" / "tiktok" / "tiktok.inter"


def whole_tables(
    draw: np.random.Generator, users: int, items: int, width: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tables of small whole numbers: their products are exact in float32 whatever the order of
    summing, and ties abound.
    """
    user, item = (
        torch.tensor(draw.integers(-2, 3, (count, width)), dtype=torch.float32)
        for count in (users, items)
    )
    return user, item


def random_pairs(draw: np.random.Generator, users: int, items: int, share: float) -> Interactions:
    user, item = np.nonzero(draw.random((users, items)) < share)
    return Interactions(user, item, users, items)


def slow_top_k(user, item, k, seen):
    """Sort every user's unseen items by score, then by index, in plain Python."""
    hidden = (
        set() if seen is None else set(zip(seen.user.tolist(), seen.item.tolist(), strict=True))
    )
    lists = []
    for u, row in enumerate(user.tolist()):
        scores = {
            i: sum(a * b for a, b in zip(row, other, strict=True))
            for i, other in enumerate(item.tolist())
            if (u, i) not in hidden
        }
        best = sorted(scores, key=lambda i: (-scores[i], i))[:k]
        lists.append(
            (
                best + [-1] * (k - len(best)),
                [scores[i] for i in best] + [-math.inf] * (k - len(best)),
            )
        )
    return [pair[0] for pair in lists], [pair[1] for pair in lists]


def slow_metrics(ranked: list[int], held: set[int], k: int) -> dict[str, float]:
    """The definitions, for one user, with sets."""
    hits = [item in held for item in ranked[:k]]
    best = sum(1 / math.log2(j + 2) for j in range(min(len(held), k)))
    return {
        "recall": sum(hits) / len(held),
        "precision": sum(hits) / k,
        "ndcg": sum(1 / math.log2(j + 2) for j, hit in enumerate(hits) if hit) / best,
        "hit": float(any(hits)),
        "map": sum(sum(hits[: j + 1]) / (j + 1) for j, hit in enumerate(hits) if hit)
        / min(len(held), k),
        "mrr": next((1 / (j + 1) for j, hit in enumerate(hits) if hit), 0.0),
    }


# -------------------- ranking


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 11),
    block=st.sampled_from([None, 1, 20, 100]),
    share=st.floats(0, 1),
)
def test_top_k_equals_sorting(device, seed, k, block, share) -> None:
    draw = np.random.default_rng(seed)
    user, item = whole_tables(draw, users=35, items=11, width=2)
    seen = random_pairs(draw, 35, 11, share)
    items, scores = top_k(user.to(device), item.to(device), k, seen, block=block)
    expected_items, expected_scores = slow_top_k(user, item, k, seen)
    assert items.tolist() == expected_items
    assert scores.tolist() == expected_scores
    assert items.dtype == torch.int64 and scores.dtype == torch.float32


@pytest.mark.parametrize("k", [1, 4, 9])
def test_ties_take_the_smaller_index_also_at_the_cut_off(k) -> None:
    items, _ = top_k(torch.ones(3, 2), torch.ones(9, 2), k)
    assert items.tolist() == [list(range(k))] * 3


def test_minus_zero_ties_with_zero() -> None:
    scores = torch.tensor([[-0.0, 0.0, -0.0, 0.0, -1.0, 0.0]])
    for k in range(1, 6):
        assert ranking.select(scores, k)[0].tolist() == [[0, 1, 2, 3, 5][:k]]


def test_ties_in_a_long_row_of_distinct_floats() -> None:
    draw = torch.Generator().manual_seed(5)
    item = torch.randn(3001, 1, generator=draw)
    item[[2900, 7, 1503]] = item.abs().max() + 1  # three best ones, equal
    for k in (1, 2, 3, 5):
        assert top_k(torch.ones(1, 1), item, k)[0][0, :3].tolist() == [7, 1503, 2900][:k]


def test_masked_items_never_return_when_all_scores_are_negative() -> None:
    """The authors' code masks with 1e-5, which is above every negative score (spec.md 8, A13)."""
    user, item = torch.ones(2, 1), -torch.arange(1.0, 7.0)[:, None] * 1e3
    seen = interactions([(0, 0), (0, 2), (1, 5)], 2, 6)
    items, scores = top_k(user, item, 3, seen)
    assert items.tolist() == [[1, 3, 4], [0, 1, 2]]
    assert scores.tolist() == [[-2000.0, -4000.0, -5000.0], [-1000.0, -2000.0, -3000.0]]


def test_fewer_candidates_than_k_are_filled() -> None:
    seen = interactions([(0, i) for i in (0, 1, 3, 4)] + [(1, i) for i in range(5)], 3, 5)
    items, scores = top_k(torch.ones(3, 1), torch.arange(5.0)[:, None], 3, seen)
    assert items.tolist() == [[2, -1, -1], [-1, -1, -1], [4, 3, 2]]
    assert scores.tolist() == [[2.0, -math.inf, -math.inf], [-math.inf] * 3, [4.0, 3.0, 2.0]]


def test_relabelling_items_permutes_the_lists() -> None:
    draw = np.random.default_rng(1)
    user, item = torch.randn(5, 8, dtype=torch.float64), torch.randn(23, 8, dtype=torch.float64)
    seen = random_pairs(draw, 5, 23, 0.3)
    order = draw.permutation(23)  # new item n is old item order[n]
    moved = Interactions(seen.user, np.argsort(order)[seen.item], 5, 23)
    assert np.array_equal(
        order[top_k(user, item[order], 6, moved)[0]], top_k(user, item, 6, seen)[0]
    )


def test_chosen_users_in_their_order() -> None:
    draw = np.random.default_rng(2)
    user, item = whole_tables(draw, 9, 14)
    seen = random_pairs(draw, 9, 14, 0.4)
    chosen = np.array([8, 0, 3, 3])
    everyone, some = (
        top_k(user, item, 5, seen),
        top_k(user, item, 5, seen.csr(), users=chosen, block=3),
    )
    assert torch.equal(some[0], everyone[0][chosen]) and torch.equal(some[1], everyone[1][chosen])
    assert top_k(user, item, 5, seen, users=np.array([], dtype=np.int64))[0].shape == (0, 5)
    with pytest.raises(DataError, match=r"-1…4.*rows 0…8"):
        top_k(user, item, 5, users=np.array([4, -1]))


def test_inputs_stay_as_they_are_and_need_no_gradient() -> None:
    user, item = torch.randn(4, 3, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    before = user.detach().clone(), item.detach().clone()
    _, scores = top_k(user, item, 2, interactions([(0, 1)], 4, 6))
    assert not scores.requires_grad
    assert torch.equal(user, before[0]) and torch.equal(item, before[1])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_rank_alike(kind) -> None:
    user, item = whole_tables(np.random.default_rng(3), 4, 9)
    assert torch.equal(top_k(user.to(kind), item.to(kind), 4)[0], top_k(user, item, 4)[0])


@pytest.mark.parametrize(("k", "words"), [(8, "length 8.*holds 7 items"), (0, "length 0")])
def test_impossible_lengths(k, words) -> None:
    with pytest.raises(ConfigError, match=words):
        top_k(torch.ones(2, 3), torch.ones(7, 3), k)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_unfinite_tables_are_refused(bad) -> None:
    item = torch.ones(7, 3)
    item[4, 1] = bad
    with pytest.raises(RunError, match="item table holds NaN or infinity in row 4"):
        top_k(torch.ones(2, 3), item, 2)
    with pytest.raises(RunError, match="user table"):
        top_k(item, torch.ones(2, 3), 2)


def test_overflow_is_refused() -> None:
    """1e20 · −1e20 is −inf in float32, which would look like a masked item."""
    with pytest.raises(RunError, match="too large"):
        top_k(torch.full((2, 3), 1e20), torch.full((7, 3), -1e20), 2)
    assert top_k(torch.full((2, 3), 1e20), torch.full((7, 3), 1e-20), 2)[0].tolist() == [
        [0, 1],
        [0, 1],
    ]


def test_tables_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"\(2, 3\) and \(7, 4\)"):
        top_k(torch.ones(2, 3), torch.ones(7, 4), 2)
    with pytest.raises(DataError, match=r"2 users and 7 items.*\(3, 7\)"):
        top_k(torch.ones(2, 3), torch.ones(7, 3), 2, interactions([(0, 0)], 3, 7))


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("x"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_blocks_shrink_when_memory_runs_out(monkeypatch, error) -> None:
    user, item = whole_tables(np.random.default_rng(4), 77, 10)
    expected, sizes, select = top_k(user, item, 4), [], ranking.select

    def limited(scores, k):
        sizes.append(len(scores))
        if len(scores) > 20:
            raise error
        return select(scores, k)

    monkeypatch.setattr(ranking, "select", limited)
    found = top_k(user, item, 4)
    assert sizes == [77, 48, 32, 16, 16, 16, 16, 13]  # halved, then kept
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_no_memory_for_the_smallest_block_and_other_errors(monkeypatch) -> None:
    def failing(error):
        def select(scores, k):
            raise error

        return select

    monkeypatch.setattr(ranking, "select", failing(MemoryError()))
    with pytest.raises(MemoryError, match="10 items"):
        top_k(torch.ones(3, 2), torch.ones(10, 2), 4)
    monkeypatch.setattr(ranking, "select", failing(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        top_k(torch.ones(3, 2), torch.ones(10, 2), 4)


def test_block_and_company_change_no_bit() -> None:
    """A user's list alone, in a small block and among all is one and the same, down to the last bit
    of its scores.
    """
    draw = torch.Generator().manual_seed(8)
    user, item = torch.randn(333, 65, generator=draw), torch.randn(101, 65, generator=draw)
    expected = top_k(user, item, 100)
    for block in (1, 7, 50, 332, 10_000):
        found = top_k(user, item, 100, block=block)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1]), block
    for u in (0, 7, 332):
        alone = top_k(user, item, 100, users=np.array([u]))
        assert torch.equal(alone[0][0], expected[0][u]) and torch.equal(alone[1][0], expected[1][u])


@pytest.mark.parametrize(("users", "items"), [(1, 5), (3, 23), (7, 101), (64, 7)])
def test_equal_item_vectors_tie_whatever_their_place(users, items) -> None:
    draw = torch.Generator().manual_seed(9)
    user, item = (
        torch.randn(users, 65, generator=draw),
        torch.randn(1, 65, generator=draw).expand(items, 65),
    )
    assert top_k(user, item, items)[0].tolist() == [list(range(items))] * users


# -------------------- metrics


def test_hand_worked_values() -> None:
    """User 0 sees 4, 3, 2, 1, 0 (3 masked): list 4 2 1; held out 2, 1, 0.

    User 2: list 4 3 2; held out 4.
    """
    truth = interactions([(0, 2), (0, 1), (0, 0), (2, 4)], 3, 5)
    seen = interactions([(0, 3), (1, 1)], 3, 5)
    found = Evaluator(truth, [seen], ks=(3, 1))(torch.ones(3, 1), torch.arange(5.0)[:, None])
    assert found.ks == (1, 3) and found.users.tolist() == [0, 2]
    dcg, idcg = 1 / math.log2(3) + 1 / 2, 1 + 1 / math.log2(3) + 1 / 2
    expected = {
        "recall@1": [0, 1], "precision@1": [0, 1], "ndcg@1": [0, 1], "hit@1": [0, 1], "map@1": [0, 1], "mrr@1": [0, 1],
        "recall@3": [2 / 3, 1], "precision@3": [2 / 3, 1 / 3], "ndcg@3": [dcg / idcg, 1], "hit@3": [1, 1],
        "map@3": [(1 / 2 + 2 / 3) / 3, 1], "mrr@3": [1 / 2, 1],
    }  # fmt: skip
    assert list(found.per_user) == list(expected) == list(found.means)
    for name, values in expected.items():
        np.testing.assert_allclose(found.per_user[name], values, atol=1e-12, err_msg=name)
        assert found.means[name] == pytest.approx(sum(values) / 2)
    assert found.coverage == {"coverage@1": 1 / 5, "coverage@3": 4 / 5}


def test_ndcg_is_not_divided_by_the_hits() -> None:
    """One hit of four held-out items on place 1.

    IDCG counts the four, not the one hit (spec.md 8, A15).
    """
    truth = interactions([(0, i) for i in (0, 1, 2, 3)], 1, 9)
    item = torch.tensor([9.0, 0, 0, 0, 8, 7, 6, 5, 4])[:, None]
    found = Evaluator(truth, ks=(5,))(torch.ones(1, 1), item)
    assert found.means["ndcg@5"] == pytest.approx(1 / sum(1 / math.log2(j) for j in (2, 3, 4, 5)))
    assert found.means["ndcg@5"] < 0.4  # the fault gives 1.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    block=st.sampled_from([None, 1, 3, 1000]),
    held=st.floats(0.05, 0.9),
)
def test_metrics_equal_sets(seed, block, held) -> None:
    draw = np.random.default_rng(seed)
    user, item = whole_tables(draw, 21, 13)
    parts = draw.random((21, 13))
    truth = Interactions(*np.nonzero(parts < held * 0.6), 21, 13)
    train, valid = (
        Interactions(*np.nonzero((parts >= low) & (parts < low + 0.2)), 21, 13)
        for low in (held * 0.6, held * 0.6 + 0.2)
    )
    assume(len(truth))
    found = Evaluator(truth, [train, valid], ks=(2, 5, 13))(user, item, block=block)
    seen = interactions(
        list(
            zip(
                *(
                    np.concatenate([getattr(p, s) for p in (train, valid)])
                    for s in ("user", "item")
                ),
                strict=True,
            )
        ),
        21,
        13,
    )
    lists, _ = slow_top_k(user, item, 13, seen)
    for k in (2, 5, 13):
        rows = [
            slow_metrics(lists[u], set(truth.item[truth.user == u].tolist()), k)
            for u in found.users
        ]
        for name in rows[0]:
            np.testing.assert_allclose(
                found.per_user[f"{name}@{k}"],
                [row[name] for row in rows],
                atol=1e-12,
                err_msg=f"{name}@{k}",
            )
        shown = {i for u in found.users for i in lists[u][:k] if i >= 0}
        assert found.coverage[f"coverage@{k}"] == len(shown) / 13


@pytest.fixture(scope="module")
def scored():
    """Scores without ties, held-out pairs and seen pairs for 37 users and 53 items, and our
    evaluation of them.
    """
    draw = np.random.default_rng(11)
    user, item = (
        torch.tensor(draw.normal(size=(count, 6)), dtype=torch.float32) for count in (37, 53)
    )
    parts = draw.random((37, 53))
    truth, seen = (
        Interactions(*np.nonzero(parts < 0.12), 37, 53),
        Interactions(*np.nonzero(parts > 0.7), 37, 53),
    )
    found = Evaluator(truth, [seen], ks=(4, 10))(user, item)
    scores = (user @ item.T).double().numpy()
    scores[seen.user, seen.item] = -1e9
    return scores, truth, found


def test_ndcg_equals_scikit_learn(scored) -> None:
    from sklearn.metrics import ndcg_score

    scores, truth, found = scored
    relevant = truth.csr().toarray()
    for k in (4, 10):
        expected = [
            ndcg_score(relevant[[u]], scores[[u]], k=k, ignore_ties=True) for u in found.users
        ]
        np.testing.assert_allclose(found.per_user[f"ndcg@{k}"], expected, atol=1e-9)


RANX = """
import json, sys, ranx
given = json.load(sys.stdin)
qrels, run = ranx.Qrels(given["qrels"]), ranx.Run(given["run"])
values = ranx.evaluate(qrels, run, given["metrics"], return_mean=False)
json.dump({name: list(map(float, value)) for name, value in values.items()}, sys.stdout)
"""


def test_metrics_equal_ranx(scored) -> None:
    pytest.importorskip("ranx", reason="ranx (extra 'test') is not installed")
    scores, truth, found = scored
    theirs = {
        "recall": "recall",
        "precision": "precision",
        "ndcg": "ndcg",
        "hit": "hit_rate",
        "mrr": "mrr",
        "map": "map",
    }
    given = {
        "qrels": {
            f"{u:03}": {str(i): 1 for i in truth.item[truth.user == u].tolist()}
            for u in found.users.tolist()
        },
        "run": {
            f"{u:03}": {str(i): float(scores[u, i]) for i in range(53)}
            for u in found.users.tolist()
        },
        "metrics": [f"{name}@{k}" for k in (4, 10) for name in theirs.values()],
    }
    # a process of its own: without numba's compiler, which would take longer than the whole file,
    # and which must be switched off before anything imports numba
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RANX],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    positives = np.bincount(truth.user, minlength=37)[found.users]
    for k in (4, 10):
        for name, other in theirs.items():
            # ranx divides average precision by n, we by min(n, K)
            factor = positives / np.minimum(positives, k) if name == "map" else 1
            expected = np.array(values[f"{other}@{k}"]) * factor
            np.testing.assert_allclose(
                found.per_user[f"{name}@{k}"], expected, atol=1e-9, err_msg=name
            )


def test_an_empty_place_hits_nothing() -> None:
    """−1 of row 1 must not be taken for the last item of row 0."""
    truth = sparse.csr_matrix(np.array([[0, 0, 1], [1, 0, 0]]))
    assert not hit_matrix(np.array([[0, 1], [-1, -1]]), truth).any()
    assert coverage(np.array([[-1, -1]]), 3) == 0


def test_best_and_worst_ranking() -> None:
    truth = interactions([(0, 1), (0, 4), (1, 2)], 2, 6)
    right = torch.tensor(truth.csr().toarray())
    best, worst = (
        Evaluator(truth, ks=(2, 3))(right, torch.eye(6)),
        Evaluator(truth, ks=(2, 3))(-right, torch.eye(6)),
    )
    assert all(best.means[f"{name}@2"] == 1 for name in ("recall", "ndcg", "hit", "map", "mrr"))
    assert best.means["precision@2"] == 0.75
    assert all(worst.means[f"{name}@3"] <= best.means[f"{name}@3"] for name in METRICS)


# -------------------- the contract of a metric, for every name of the table


def test_every_metric_has_a_slow_twin() -> None:
    assert set(METRICS) == set(slow_metrics([0], {0}, 1)), (
        "write the definition of a new metric into slow_metrics"
    )


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), users=st.integers(1, 9), k=st.integers(1, 7))
def test_the_contract_of_a_metric(name, seed, users, k) -> None:
    """A number from 0 to 1 a user, of the first K places alone, and no smaller where a hit moves up
    within them.
    """
    draw = np.random.default_rng(seed)
    hits = draw.random((users, 7)) < 0.3
    positives = hits.sum(axis=1) + draw.integers(1, 5, users)

    def values(places: np.ndarray) -> np.ndarray:
        before = places.copy()
        found = metrics_per_user(places, positives, [k])[f"{name}@{k}"]
        np.testing.assert_array_equal(places, before)
        return found

    found = values(hits)
    assert found.shape == (users,) and found.dtype == np.float64
    assert np.isfinite(found).all() and (found >= 0).all() and (found <= 1).all()
    np.testing.assert_array_equal(metrics_per_user(hits, positives, [k, 7])[f"{name}@{k}"], found)
    shuffled = draw.permutation(users)
    np.testing.assert_array_equal(
        metrics_per_user(hits[shuffled], positives[shuffled], [k])[f"{name}@{k}"], found[shuffled]
    )
    later = hits.copy()
    later[:, k:] = ~later[:, k:]
    np.testing.assert_array_equal(values(later), found)
    for place in range(1, k):
        up = hits[:, place] & ~hits[:, place - 1]
        moved = np.where(up[:, None], _swapped(hits, place), hits)
        assert (values(moved) >= found - 1e-12).all()


def _swapped(hits: np.ndarray, place: int) -> np.ndarray:
    """The lists (B, K) with each one's item at `place` moved one place up."""
    order = np.arange(hits.shape[1])
    order[[place - 1, place]] = order[[place, place - 1]]
    return hits[:, order]


def test_one_user_and_blocks_larger_than_the_data() -> None:
    found = Evaluator(interactions([(0, 2)], 1, 4), ks=(2,))(
        torch.ones(1, 1), torch.arange(4.0)[:, None], block=20_000
    )
    expected = {
        "recall@2": 1,
        "precision@2": 0.5,
        "ndcg@2": pytest.approx(1 / math.log2(3)),
        "hit@2": 1,
        "map@2": 0.5,
        "mrr@2": 0.5,
    }
    assert {name: found.means[name] for name in expected} == expected


def test_masking_validation_pairs_or_not() -> None:
    """Under the published protocol validation items compete with the test item.

    Here one of them takes its place.
    """
    train, valid, test = (
        interactions([(0, 4)], 2, 5),
        interactions([(0, 3)], 2, 5),
        interactions([(0, 2)], 2, 5),
    )
    tables = torch.ones(2, 1), torch.arange(5.0)[:, None]
    assert Evaluator(test, [train, valid], ks=(1,))(*tables).means["recall@1"] == 1
    assert Evaluator(test, [train], ks=(1,))(*tables).means["recall@1"] == 0


def test_overlap_is_refused_with_its_count() -> None:
    truth = interactions([(0, 1), (1, 2), (2, 3)], 3, 5)
    train, valid = interactions([(0, 1), (0, 2)], 3, 5), interactions([(2, 3), (0, 1)], 3, 5)
    with pytest.raises(DataError, match="^2 held-out pairs are also masked"):
        Evaluator(truth, [train, valid], ks=(2,))


def test_evaluator_refuses_what_does_not_fit() -> None:
    truth = interactions([(0, 1)], 3, 5)
    with pytest.raises(DataError, match="no user has a held-out item"):
        Evaluator(interactions([], 3, 5), ks=(2,))
    with pytest.raises(DataError, match=r"\(3, 5\).*\(3, 6\)"):
        Evaluator(truth, [interactions([], 3, 6)], ks=(2,))
    with pytest.raises(ConfigError, match="length 6.*holds 5 items"):
        Evaluator(truth, ks=(2, 6))
    for ks in ((), (0, 3), (-1,)):
        with pytest.raises(ConfigError, match="ask for 1 or more"):
            Evaluator(truth, ks=ks)
    with pytest.raises(DataError, match="4 users and 5 items, the data 3 and 5"):
        Evaluator(truth, ks=(2,))(torch.ones(4, 2), torch.ones(5, 2))


def test_most_popular_on_tiktok() -> None:
    """An independent figure of the real data.

    The 20 most popular items alone reach recall@20 = 0.059 on its test split.
    """
    if not TIKTOK.is_file():
        pytest.skip(f"the TikTok log is not at {TIKTOK.parent}")
    user, item, split = np.loadtxt(TIKTOK, dtype=np.int64, skiprows=1).T
    size = int(user.max()) + 1, int(item.max()) + 1
    train, valid, test = (Interactions(user[split == s], item[split == s], *size) for s in range(3))
    popularity = torch.tensor(np.bincount(train.item, minlength=size[1]), dtype=torch.float32)
    found = Evaluator(test, [train, valid], ks=(20,))(torch.ones(size[0], 1), popularity[:, None])
    assert found.means["recall@20"] == pytest.approx(0.059, abs=0.001)


# -------------------- intervals


def test_bootstrap_equals_drawing_users() -> None:
    draw = np.random.default_rng(6)
    # many users alike, most of them at 0
    recall = np.minimum(draw.integers(0, 4, 300), draw.integers(0, 4, 300)) / 3
    values = {"recall@5": recall, "hit@5": (recall > 0).astype(float)}
    distinct = {"ndcg@5": draw.random(300)}
    found = bootstrap(values, seed=1, resamples=4000) | bootstrap(distinct, seed=1, resamples=4000)
    for name, column in (values | distinct).items():
        means = [column[draw.integers(0, 300, 300)].mean() for _ in range(4000)]
        np.testing.assert_allclose(
            found[name],
            np.quantile(means, [0.025, 0.975]),
            atol=0.3 * column.std() / math.sqrt(300),
        )
        spread = 1.96 * column.std() / math.sqrt(300)
        np.testing.assert_allclose(
            found[name], (column.mean() - spread, column.mean() + spread), atol=0.2 * spread
        )


def test_bootstrap_seed_blocks_and_edges(monkeypatch) -> None:
    values = {"hit@1": np.array([0.0, 1, 1, 0, 1]), "mrr@1": np.array([0.01, 0.52, 1, 0.07, 0.3])}
    once = bootstrap(values, seed=3, resamples=200)
    assert once == bootstrap(values, seed=np.random.default_rng(3), resamples=200)
    assert once != bootstrap(values, seed=4, resamples=200)
    monkeypatch.setattr(intervals, "_BUDGET", 100)
    assert once == bootstrap(values, seed=3, resamples=200)
    assert bootstrap({"hit@1": np.array([1.0])}, seed=0) == {"hit@1": (1.0, 1.0)}
    narrow, wide = (bootstrap(values, 3, 500, level)["mrr@1"] for level in (0.5, 0.99))
    assert wide[0] < narrow[0] <= narrow[1] < wide[1]
    for wrong in ({"resamples": 0}, {"level": 1.0}):
        with pytest.raises(ConfigError):
            bootstrap(values, 0, **wrong)


def test_metrics_per_user_reads_only_k_places() -> None:
    hits = np.array([[False, True, True, True], [True, False, False, False]])
    both, one = (
        metrics_per_user(hits, np.array([3, 1]), (2, 4)),
        metrics_per_user(hits[:, :2], np.array([3, 1]), (2,)),
    )
    for name, values in one.items():
        np.testing.assert_array_equal(both[name], values)


def awkward_tables(kind: str) -> tuple[torch.Tensor, torch.Tensor, sparse.csr_matrix | None]:
    """Tables of 3 users and 2,003 items, and the pairs to leave out."""
    draw = torch.Generator().manual_seed(11)
    user, item = torch.randn(3, 37, generator=draw), torch.randn(2003, 37, generator=draw)
    seen = sparse.csr_matrix(np.random.default_rng(3).random((3, 2003)) < 0.3)
    if kind == "ties":
        user, item = user.round(), item.round()
    elif kind == "copies":
        item = item[torch.randint(600, (2003,), generator=draw)]
    elif kind == "scales":
        item *= 10.0 ** torch.randint(-9, 9, (2003, 1), generator=draw)
    elif kind == "few left":
        seen = sparse.csr_matrix(np.arange(2003)[None, :].repeat(3, axis=0) >= 6)
    elif kind == "nothing seen":
        seen = None
    return user, item, seen


@pytest.mark.parametrize("kind", ["plain", "ties", "copies", "scales", "few left", "nothing seen"])
def test_one_user_by_a_shortlist_gives_the_bits_of_a_block(kind: str, monkeypatch) -> None:
    user, item, seen = awkward_tables(kind)
    used = []
    shortlist = ranking.rank_one

    def counted(*words):
        used.append(shortlist(*words))
        return used[-1]

    monkeypatch.setattr(ranking, "rank_one", counted)
    ranker = Ranker(item)
    for k in (1, 10, 50):
        items, scores = top_k(user, item, k, seen)
        assert not used, "several users are ranked in a block"
        for one in range(3):
            for found in (
                ranker.top_k(user, k, seen, np.array([one])),
                top_k(user, item, k, seen, np.array([one])),
            ):
                assert torch.equal(found[0][0], items[one])
                assert torch.equal(found[1][0].view(torch.int32), scores[one].view(torch.int32))
        applied = [found is not None for found in used]
        if kind in ("plain", "nothing seen"):
            assert all(applied)
        if kind == "few left":
            assert any(applied) == (k < 6)
        used.clear()


def test_a_ranker_checks_the_item_table_once_and_the_users_always(monkeypatch) -> None:
    user, item, _ = awkward_tables("plain")
    checked = []
    lengths = ranking.lengths
    monkeypatch.setattr(
        ranking, "lengths", lambda table: (checked.append(len(table)), lengths(table))[1]
    )
    ranker = Ranker(item)
    for _ in range(3):
        ranker.top_k(user, 4)
    assert checked.count(2003) == 1 and checked.count(3) == 3
    user[1, 2] = torch.nan
    with pytest.raises(RunError, match="user table holds NaN or infinity in row 1"):
        ranker.top_k(user, 4)
    item[7, 0], one = torch.inf, torch.ones(1, 37)
    for broken in (Ranker(item), Ranker(item.to_sparse().coalesce())):
        for _ in range(2):
            with pytest.raises(RunError, match="item table holds NaN or infinity in row 7"):
                broken.top_k(one.to_sparse().coalesce() if broken.item.is_sparse else one, 4)
    with pytest.raises(RunError, match="too large to multiply"):
        Ranker(torch.full((2003, 37), 1e30)).top_k(torch.full((1, 37), 1e30), 4)


def test_no_shortlist_where_products_of_parts_may_round_differently(monkeypatch) -> None:
    user, item, _ = awkward_tables("plain")
    rows = torch.zeros(16, 37)
    rows[0] = user[0]
    reach = float(user[0].norm() * item.norm(dim=1).max())
    padded = torch.nn.functional.pad(item, (0, 0, 0, 13))
    assert shortlist.rank_one(rows, padded, 2003, 10, reach, None) is not None
    assert shortlist.rank_one(rows, padded, 2003, 300, reach, None) is None, "a long list"
    assert shortlist.rank_one(rows, padded, 2003, 10, 1e9, None) is None, "a bound too wide"
    monkeypatch.setattr(shortlist, "rounds_alike", lambda width: False)
    assert shortlist.rank_one(rows, padded, 2003, 10, reach, None) is None
