"""Co-occurrence lists against brute force over Python sets and against the dense product R·Rᵀ."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.core.vocabulary import CO_MEASURES
from dualgnn_dgl.data import CoOccurrence, Interactions
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.graphs import cooccurrence
from dualgnn_dgl.graphs.cooccurrence import co_occurrence, sweep


def pairs(chosen: np.ndarray) -> Interactions:
    """Interactions from a (U, I) table of booleans, in scrambled order."""
    user, item = np.nonzero(chosen)
    order = np.random.default_rng(user.size).permutation(user.size)
    return Interactions(user[order], item[order], *chosen.shape)


def log(seed: int, users: int, items: int, density: float) -> Interactions:
    """Random pairs whose items have a long tail."""
    rng = np.random.default_rng(seed)
    odds = np.minimum(density * items * (p := 1 / np.arange(1.0, items + 1)) / p.sum(), 0.95)
    return pairs(rng.random((users, items)) < rng.permutation(odds))


def exact(measure: str, shared: int, mine: int, theirs: int) -> Fraction:
    """The weight as a fraction (the cosine squared), which no rounding can tie or turn round."""
    if measure == "cosine":
        return Fraction(shared * shared, mine * theirs)
    return Fraction(shared, mine + theirs - shared) if measure == "jaccard" else Fraction(shared)


def by_sets(train: Interactions, k: int, measure: str) -> list[list[tuple[int, Fraction]]]:
    """The definition, word for word: every pair of users, Python sets, fractions, one sort."""
    watched: list[set[int]] = [set() for _ in range(train.num_users)]
    for u, i in zip(train.user.tolist(), train.item.tolist(), strict=True):
        watched[u].add(i)
    lists = []
    for u, mine in enumerate(watched):
        row = [
            (w, exact(measure, len(mine & theirs), len(mine), len(theirs)))
            for w, theirs in enumerate(watched)
            if w != u and mine & theirs
        ]
        lists.append(sorted(row, key=lambda entry: (-entry[1], entry[0]))[:k])
    return lists


def by_product(train: Interactions, k: int) -> list[list[tuple[int, int]]]:
    """Counts as the dense product R·Rᵀ, rows sorted as a whole."""
    table = train.csr().toarray().astype(np.int64)
    counts = table @ table.T
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=1, kind="stable")[:, :k]
    return [
        [(int(w), int(counts[u, w])) for w in row if counts[u, w]] for u, row in enumerate(order)
    ]


def rows(lists: CoOccurrence) -> list[list[tuple[int, float]]]:
    """One list of (neighbour, weight) a user."""
    both = list(zip(lists.neighbour.tolist(), lists.weight.tolist(), strict=True))
    return [both[a:b] for a, b in zip(lists.indptr[:-1], lists.indptr[1:], strict=True)]


def check(train: Interactions, k: int, measure: str, **options: int) -> None:
    """Neighbours equal brute force exactly, weights to the last bit but one of float32, whichever
    way they are counted.
    """
    expected = by_sets(train, k, measure)
    # always by tally, never by tally
    for few in (0, 10**9) if measure == "count" else (cooccurrence.FEW,):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cooccurrence, "FEW", few)
            result = co_occurrence(train, k, measure, **options)
        assert result.measure == measure and result.num_users == train.num_users
        assert [[w for w, _ in row] for row in rows(result)] == [
            [w for w, _ in row] for row in expected
        ]
        weights = np.array([float(value) for row in expected for _, value in row])
        np.testing.assert_allclose(
            result.weight, np.sqrt(weights) if measure == "cosine" else weights, rtol=1.2e-7
        )


tables = st.tuples(
    st.integers(1, 17), st.integers(1, 13), st.floats(0, 1), st.integers(0, 2**32 - 1)
).map(lambda drawn: pairs(np.random.default_rng(drawn[3]).random(drawn[:2]) < drawn[2]))


@settings(max_examples=120, deadline=None)
@given(
    train=tables,
    k=st.integers(1, 20),
    measure=st.sampled_from(CO_MEASURES),
    heavy=st.sampled_from([0, 1, 3, 64]),
    span=st.sampled_from([1, 4, 2**16]),
)
def test_equals_python_sets(
    train: Interactions, k: int, measure: str, heavy: int, span: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "HEAVY", heavy)  # none, some or all of the few items here are heavy
        patch.setattr(cooccurrence, "SPAN", span)  # many spans of users, or one
        check(train, k, measure)


@pytest.mark.parametrize("measure", CO_MEASURES)
@pytest.mark.parametrize(
    ("users", "items", "density", "k"),
    [(211, 307, 0.04, 9), (173, 101, 0.3, 40), (257, 83, 0.02, 5)],
)
@pytest.mark.parametrize("span", [29, 2**16])
def test_equals_python_sets_with_a_long_tail(
    measure: str,
    users: int,
    items: int,
    density: float,
    k: int,
    span: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cooccurrence, "SPAN", span)
    check(log(5, users, items, density), k, measure)


@pytest.mark.parametrize(
    ("users", "items", "density", "k"),
    [(701, 409, 0.05, 25), (433, 127, 0.25, 50), (883, 1301, 0.004, 13)],
)
def test_equals_the_dense_product(users: int, items: int, density: float, k: int) -> None:
    train = log(7, users, items, density)
    assert rows(co_occurrence(train, k)) == by_product(train, k)


def test_sparse_logs_are_tallied_dense_ones_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for name in ("by_tally", "by_sweep"):
        real = getattr(cooccurrence, name)
        monkeypatch.setattr(
            cooccurrence,
            name,
            lambda *parts, name=name, real=real: taken.append(name) or real(*parts),
        )
    sparse, dense = log(3, 400, 1500, 0.0004), log(3, 61, 47, 0.4)
    for train in (sparse, dense):
        assert rows(co_occurrence(train, 9)) == by_product(train, 9)
    co_occurrence(sparse, 9, "cosine")
    assert taken == ["by_tally", "by_sweep", "by_sweep"]
    monkeypatch.setattr(cooccurrence, "SPAN", 399)  # more users than 16 bits could number
    co_occurrence(sparse, 9)
    assert taken[-1] == "by_sweep"


@pytest.mark.parametrize("span", [5, 2**16])
def test_heavy_lists_are_left_unread_only_when_nobody_in_them_can_enter(
    span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases at the edge of the bound: the last place is decided by users met only through the most
    watched item.
    """
    monkeypatch.setattr(cooccurrence, "SPAN", span)
    watched = np.zeros((29, 70), bool)
    watched[:, 0] = True  # everybody
    watched[3:9, 1] = True
    watched[20, 1:4] = watched[22, 2:4] = True  # 20 and 22 share three items
    for k in range(1, 29):
        for measure in CO_MEASURES:
            check(pairs(watched), k, measure)


def test_cosine_and_jaccard_ties_are_ties() -> None:
    """1/√(1·1), 2/√(1·4)… user 0 shares c of c² items with each.

    Cosines equal as numbers, whatever the rounding.
    """
    chosen = np.zeros((6, 60), bool)
    chosen[0, :7] = True
    start = 7
    for user, shared in ((5, 1), (4, 2), (3, 3), (2, 5), (1, 6)):
        chosen[user, :shared] = True
        chosen[user, start : start + shared * shared - shared] = True
        start += 1
    result = co_occurrence(pairs(chosen), 5, "cosine")
    assert [w for w, _ in rows(result)[0]] == [1, 2, 3, 4, 5]
    assert len({weight for _, weight in rows(result)[0]}) == 1
    check(pairs(chosen), 3, "cosine")
    twice = np.zeros((4, 9), bool)  # Jaccard 1/3 = 2/6 = 3/9
    twice[0, :3], twice[3, :1], twice[2, :2], twice[1] = True, True, True, True
    twice[2, 4:7] = True
    assert [w for w, _ in rows(co_occurrence(pairs(twice), 4, "jaccard"))[0]] == [1, 2, 3]


def test_keys_of_close_fractions_stay_apart_and_of_equal_ones_meet() -> None:
    """The claim of `_key`: right up to 165,000 training items a user for the cosine."""
    most = 165_000
    key, cosine, jaccard = sweep._key, CO_MEASURES.index("cosine"), CO_MEASURES.index("jaccard")
    assert key(cosine, most - 1, most, most) > key(cosine, most - 2, most, most - 2)
    rng = np.random.default_rng(11)
    for shared, gap in zip(
        rng.integers(most // 2, most - 3, 2000).tolist(),
        rng.integers(-2, 3, 2000).tolist(),
        strict=True,
    ):
        theirs = int(rng.integers(shared, most))
        close = max(round((shared + gap) ** 2 * theirs / shared**2), shared + gap)
        a, b = Fraction(shared**2, theirs), Fraction((shared + gap) ** 2, close)
        x, y = key(cosine, shared, most, theirs), key(cosine, shared + gap, most, close)
        assert (a > b) == (x > y) and (a == b) == (x == y)
        a, b = exact("jaccard", shared, most, theirs), exact("jaccard", shared + gap, most, close)
        x, y = key(jaccard, shared, most, theirs), key(jaccard, shared + gap, most, close)
        assert (a > b) == (x > y) and (a == b) == (x == y)


def test_at_the_cut_off_the_smaller_index_stays() -> None:
    everybody = pairs(np.ones((31, 2), bool))
    assert [[w for w, _ in row] for row in rows(co_occurrence(everybody, 4))] == [
        [w for w in range(6) if w != u][:4] for u in range(31)
    ]


@pytest.mark.parametrize("measure", CO_MEASURES)
def test_block_size_and_order_of_pairs_change_nothing(measure: str) -> None:
    train = log(13, 307, 199, 0.06)
    order = np.random.default_rng(2).permutation(len(train))
    shuffled = Interactions(train.user[order], train.item[order], train.num_users, train.num_items)
    whole = co_occurrence(train, 17, measure)
    for other in (
        co_occurrence(train, 17, measure, memory=1),
        co_occurrence(train, 17, measure, memory=9000),
        co_occurrence(shuffled, 17, measure),
    ):
        assert (other.indptr == whole.indptr).all()
        assert (other.neighbour == whole.neighbour).all() and (other.weight == whole.weight).all()


def test_a_small_budget_makes_small_blocks() -> None:
    limit, visits = np.full(97, 10), np.ones(97, np.int64)
    for room in (1, 35, 10**9):
        blocks = cooccurrence._blocks(limit, visits, room)
        assert [u for first, last in blocks for u in range(first, last)] == list(range(97))
        assert all(last - first == 1 or 10 * (last - first) <= room for first, last in blocks)
    assert len(blocks) >= cooccurrence.BLOCKS // 2


@pytest.mark.parametrize("measure", CO_MEASURES)
def test_relabelling_users_relabels_the_lists(measure: str) -> None:
    """Whole lists, so that only the order within equal weights may differ.

    And that follows the new index.
    """
    train = log(17, 149, 211, 0.03)
    new = np.random.default_rng(3).permutation(train.num_users)
    before = rows(co_occurrence(train, 149, measure))
    renamed = Interactions(new[train.user], train.item, train.num_users, train.num_items)
    after = rows(co_occurrence(renamed, 149, measure))
    for u, row in enumerate(before):
        assert (
            sorted(((int(new[w]), value) for w, value in row), key=lambda e: (-e[1], e[0]))
            == after[new[u]]
        )


def test_relabelling_items_changes_nothing() -> None:
    train = log(19, 131, 239, 0.04)
    new = np.random.default_rng(4).permutation(train.num_items)
    renamed = Interactions(train.user, new[train.item], train.num_users, train.num_items)
    assert rows(co_occurrence(renamed, 11)) == rows(co_occurrence(train, 11))


@pytest.mark.parametrize("measure", CO_MEASURES)
def test_edges_of_the_input(measure: str) -> None:
    nothing = Interactions(np.empty(0), np.empty(0), 5, 3)
    assert rows(co_occurrence(nothing, 4, measure)) == [[]] * 5
    assert co_occurrence(Interactions(np.empty(0), np.empty(0), 0, 0), 4, measure).num_users == 0
    alone = Interactions(np.zeros(3), np.arange(3), 1, 3)
    assert rows(co_occurrence(alone, 4, measure)) == [[]]
    apart = pairs(np.eye(7, 9, dtype=bool))  # nobody shares anything
    assert rows(co_occurrence(apart, 2, measure)) == [[]] * 7
    # user 1 watched nothing, 3 shares nothing
    some = pairs(np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]], bool))
    assert [[w for w, _ in row] for row in rows(co_occurrence(some, 10**12, measure))] == [
        [2],
        [],
        [0],
        [],
    ]


def test_types_and_progress() -> None:
    heard: list[float] = []
    train = log(23, 89, 71, 0.1)
    result = co_occurrence(train, 6, progress=heard.append)
    assert (result.neighbour.dtype, result.weight.dtype, result.indptr.dtype) == (
        np.int64,
        np.float32,
        np.int64,
    )
    assert heard == sorted(heard) and heard[0] > 0 and heard[-1] == 1.0 and len(heard) > 10


def test_more_than_65535_shared_items_are_counted() -> None:
    """Past 16 bits; users 0 and 2 share 70,001 items, 0 and 1 all but six of them."""
    item = np.arange(70_001)
    user = np.repeat([0, 1, 2], [70_001, 69_995, 70_001])
    train = Interactions(user, np.concatenate([item, item[6:], item]), 3, 70_001)
    assert rows(co_occurrence(train, 2)) == [
        [(2, 70_001.0), (1, 69_995.0)],
        [(0, 69_995.0), (2, 69_995.0)],
        [(0, 70_001.0), (1, 69_995.0)],
    ]


def test_mistakes_are_one_line() -> None:
    train = log(29, 11, 7, 0.5)
    with pytest.raises(
        ConfigError, match="unknown co-occurrence measure 'cosin'; did you mean 'cosine'"
    ):
        co_occurrence(train, 5, "cosin")
    with pytest.raises(ConfigError, match="cannot be 0 long"):
        co_occurrence(train, 0)
    with pytest.raises(ConfigError, match="working space"):
        co_occurrence(train, 5, memory=0)
