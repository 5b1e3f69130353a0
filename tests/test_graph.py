"""The heterograph against lists worked by hand.

Relations, weights, ranks; nothing but training pairs in it.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import permutations

import numpy as np
import pytest
import small
import torch

from dualgnn_dgl.data import CoOccurrence, Dataset, Modality
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.graphs.heterographs import (
    CO_WEIGHTS,
    heterograph,
    item_item,
    mixed_item_item,
    nearest_items,
    pruned,
    user_item,
    user_user,
)

# users 0…3, items 0…4; item 4 is nobody's, user 3 has watched nothing
#   u0: 0 1 2   u1: 1 2   u2: 2 3
BY_HAND = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (2, 3)]


def by_hand(lists: bool = True, valid=((1, 0),), test=((2, 0), (3, 4))) -> Dataset:
    train = small.interactions(BY_HAND, 4, 5)
    neighbours = CoOccurrence(
        np.array([0, 2, 4, 6, 6]), np.array([1, 2, 0, 2, 0, 1]), np.array([2.0, 1, 2, 1, 1, 1])
    )
    return Dataset(
        train,
        small.interactions(list(valid), 4, 5),
        small.interactions(list(test), 4, 5),
        modalities={},
        user_ids=np.array(["a", "b", "c", "d"]),
        item_ids=np.array(["p", "q", "r", "s", "t"]),
        co_occurrence=neighbours if lists else None,
    )


def edge_table(graph, relation: str, *data: str) -> set[tuple]:
    """{(source, target, data…)} of a relation."""
    source, target = graph.edges(etype=relation)
    columns = [graph.edges[relation].data[name].tolist() for name in data]
    rows = list(zip(source.tolist(), target.tolist(), *columns, strict=True))
    assert len(rows) == len(set(rows)) == graph.num_edges(relation)
    return {(*row[:2], *(round(value, 5) for value in row[2:])) for row in rows}


@pytest.mark.parametrize("lists", [True, False])
def test_small_case_worked_by_hand(lists):
    graph = heterograph(by_hand(lists))
    assert (
        graph.ntypes == ["item", "user"]
        and graph.num_nodes("user") == 4
        and graph.num_nodes("item") == 5
    )
    assert set(graph.canonical_etypes) == {
        ("user", "interacts", "item"),
        ("item", "interacted_by", "user"),
        ("user", "co_occurs", "user"),
    }
    degree_u, degree_i = {0: 3, 1: 2, 2: 2}, {0: 1, 1: 2, 2: 3, 3: 1}
    expected = {(u, i, round(1 / math.sqrt(degree_u[u] * degree_i[i]), 5)) for u, i in BY_HAND}
    assert edge_table(graph, "interacts", "weight") == expected
    assert edge_table(graph, "interacted_by", "weight") == {(i, u, w) for u, i, w in expected}
    # from neighbour to user, shared items, rank: u1 and u2 share item 2 only, as do u0 and u2
    assert edge_table(graph, "co_occurs", "weight", "rank") == {
        (1, 0, 2.0, 0),
        (2, 0, 1.0, 1),
        (0, 1, 2.0, 0),
        (2, 1, 1.0, 1),
        (0, 2, 1.0, 0),
        (1, 2, 1.0, 1),
    }


def test_co_occurrence_edges_are_the_lists():
    data = small.dataset()
    lists = small.shared_items(data.train)
    expected = set()
    for u in range(data.num_users):
        part = slice(lists.indptr[u], lists.indptr[u + 1])
        for rank, (v, w) in enumerate(
            zip(lists.neighbour[part].tolist(), lists.weight[part].tolist(), strict=True)
        ):
            expected.add((v, u, w, rank))
    for given in (data, dataclasses.replace(data, co_occurrence=None)):
        assert edge_table(heterograph(given), "co_occurs", "weight", "rank") == expected


@pytest.mark.parametrize("lists", [True, False])
def test_validation_and_test_pairs_change_nothing(lists):
    """No held-out edge in any relation.

    With all of them, some or none, the graph is the same (spec 13.1).
    """
    data = small.dataset()
    empty = small.interactions([], data.num_users, data.num_items)
    known = set(small.pairs_of(data.train))
    rest = [
        (u, i) for u in range(data.num_users) for i in range(data.num_items) if (u, i) not in known
    ]
    many = small.interactions(rest, data.num_users, data.num_items)
    given = None if not lists else data.co_occurrence
    tables = []
    for valid, test in ((data.valid, data.test), (empty, empty), (many, empty), (empty, many)):
        graph = heterograph(dataclasses.replace(data, valid=valid, test=test, co_occurrence=given))
        tables.append(
            [
                edge_table(graph, relation, "weight")
                for relation in ("interacts", "interacted_by", "co_occurs")
            ]
        )
    assert tables[0] == tables[1] == tables[2] == tables[3]
    assert {edge[:2] for edge in tables[0][0]} == known


def test_the_data_set_is_left_alone_and_read_only_arrays_will_do():
    data = small.dataset()
    for array in (
        data.train.user,
        data.train.item,
        data.co_occurrence.neighbour,
        data.co_occurrence.weight,
    ):
        array.setflags(write=False)
    graph = heterograph(data)
    graph.edges["co_occurs"].data["weight"] += 1
    assert dataclasses.replace(data).hash == data.hash


def test_user_item_is_the_normalised_training_matrix():
    data = small.dataset()
    watched = np.zeros((data.num_users, data.num_items))
    for u, i in small.pairs_of(data.train):
        watched[u, i] = 1
    rows, columns = watched.sum(1), watched.sum(0)
    assert (rows == 0).any() and (columns == 0).any(), "the case must hold lonely users and items"
    expected = np.zeros_like(watched)
    for u, i in small.pairs_of(data.train):
        expected[u, i] = 1 / math.sqrt(rows[u] * columns[i])
    adjacency = user_item(heterograph(data))
    assert adjacency.shape == (small.USERS, small.ITEMS)
    np.testing.assert_allclose(adjacency.dense().numpy(), expected, rtol=1e-5)
    graph = heterograph(data)  # the weight on the edges is the same normalisation
    item, user = graph.edges(etype="interacted_by")
    weight = graph.edges["interacted_by"].data["weight"]
    np.testing.assert_allclose(adjacency.dense()[user, item].numpy(), weight.numpy(), rtol=1e-5)


def slow_user_user(lists: CoOccurrence, k: int, weight: str) -> np.ndarray:
    """Ω, user by user."""
    users = lists.num_users
    omega = np.zeros((users, users))
    for u in range(users):
        part = slice(lists.indptr[u], lists.indptr[u + 1])
        near, strength = (
            lists.neighbour[part][:k].tolist(),
            lists.weight[part][:k].astype(np.float64),
        )
        if not near:
            continue
        value = {
            "softmax": np.exp(strength - strength.max()),
            "mean": np.ones(len(near)),
            "proportional": strength,
        }[weight]
        omega[u, near] = value / value.sum()
    return omega


@pytest.mark.parametrize("weight", CO_WEIGHTS)
@pytest.mark.parametrize("k", [1, 3, 7, 200])
def test_user_user_against_loops(weight, k):
    data = small.dataset()
    omega = user_user(heterograph(data), k, weight).dense().double().numpy()
    np.testing.assert_allclose(
        omega, slow_user_user(data.co_occurrence, k, weight), rtol=1e-5, atol=1e-7
    )
    sums = omega.sum(1)
    alone = np.diff(data.co_occurrence.indptr) == 0
    assert alone[small.LONELY_USER] and not alone.all()
    np.testing.assert_allclose(sums[~alone], 1, rtol=1e-5)
    assert (sums[alone] == 0).all() and (np.diag(omega) == 0).all()
    assert ((omega > 0).sum(1) <= k).all()


def test_softmax_of_large_counts_is_stable():
    """Long histories share hundreds of items.

    Exp(900) must not overflow, the strongest takes nearly all.
    """
    lists = CoOccurrence(
        np.array([0, 2, 3, 4, 4]), np.array([1, 2, 0, 0]), np.array([900.0, 897.0, 900, 897])
    )
    omega = user_user(heterograph(dataclasses.replace(by_hand(), co_occurrence=lists)), 5).dense()
    assert torch.isfinite(omega).all()
    torch.testing.assert_close(
        omega[0, 1:3], torch.tensor([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))])
    )


def test_user_user_without_any_neighbours():
    train = small.interactions([(0, 1), (1, 0)], 3, 2)
    data = Dataset(
        train,
        *(small.interactions([], 3, 2),) * 2,
        {},
        np.array(["a", "b", "c"]),
        np.array(["p", "q"]),
    )
    omega = user_user(heterograph(data), 4)
    assert omega.shape == (3, 3) and omega.num_edges == 0
    assert (omega @ torch.ones(3, 2) == 0).all()


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"k": 0}, "cooc_k is 0"),
        ({"k": 3, "weight": "softmaxx"}, "did you mean 'softmax'"),
    ],
)
def test_wrong_options_are_one_line(keywords, words):
    with pytest.raises(ConfigError, match=words) as error:
        user_user(heterograph(small.dataset()), **keywords)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- items that resemble one another


def slow_item_item(modality: Modality, k: int, weight: str, own: bool) -> np.ndarray:
    """S, item by item: the k nearest by cosine among those present, then D^-½ S D^-½ with D the row
    sums.
    """
    items = len(modality.present)
    graph = np.zeros((items, items))
    for i in np.flatnonzero(modality.present):
        a = modality.values[i].astype(np.float64)
        cosines = {j: a @ modality.values[j] / np.linalg.norm(a) / np.linalg.norm(modality.values[j]) for j in range(items)
                   if modality.present[j] and j != i}  # fmt: skip
        near = sorted(cosines, key=lambda j: -cosines[j])[: k - own]
        for j in near:
            graph[i, j] = 1.0 if weight == "mean" else max(cosines[j], 0)
        if own:
            graph[i, i] = 1.0
    with np.errstate(divide="ignore"):
        scale = np.where(graph.sum(1) > 0, graph.sum(1) ** -0.5, 0)
    return scale[:, None] * graph * scale


@pytest.mark.parametrize("block", [1, 7 * 16, 2**26])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("weight", ["mean", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_item_graph_against_loops(k, weight, own, block, monkeypatch):
    monkeypatch.setattr("dualgnn_dgl.graphs.nearest.BLOCK", block)
    for modality in small.dataset().modalities.values():
        similar = item_item(modality, k, weight=weight, own=own)
        np.testing.assert_allclose(
            similar.dense().numpy(), slow_item_item(modality, k, weight, own), rtol=1e-5, atol=1e-6
        )
        assert (similar.dense()[~torch.from_numpy(modality.present)] == 0).all()
        assert (similar.dense()[:, ~torch.from_numpy(modality.present)] == 0).all()


def test_mixed_item_graph_is_the_mixture_and_its_rows_sum_to_one():
    data = small.dataset()
    parts, shares = list(data.modalities.values()), [0.2, 0.0, 0.8]
    graph = mixed_item_item(parts, shares, 5, own=True).dense().double().numpy()
    each = np.stack([slow_item_item(part, 5, "mean", True) for part in parts])  # (M, I, I)
    there = np.stack([part.present for part in parts]) * np.array(shares)[:, None]  # (M, I)
    there = there / there.sum(0).clip(min=1e-12)
    np.testing.assert_allclose(graph, (there[:, :, None] * each).sum(0), rtol=1e-5, atol=1e-7)
    sums = graph.sum(1)
    assert sums[small.BARE_ITEM] == 0
    np.testing.assert_allclose(np.delete(sums, small.BARE_ITEM), 1, rtol=1e-5)


def test_items_that_are_alike_or_alone():
    """An item stands first among its own neighbours even where others are its very copy.

    One present item has no others.
    """
    copies = Modality(np.ones((6, 3)), np.array([True, True, False, True, True, True]))
    item, neighbour, cosine = nearest_items(copies, 2, own=True)
    assert item[::2].tolist() == neighbour[::2].tolist() == [0, 1, 3, 4, 5]
    torch.testing.assert_close(cosine, torch.ones(10))
    alone = Modality(np.ones((3, 2)), np.array([False, True, False]))
    assert item_item(alone, 4).num_edges == 0
    assert item_item(alone, 4, weight="cosine", own=True).dense().tolist() == [
        [0, 0, 0],
        [0, 1, 0],
        [0, 0, 0],
    ]
    nobody = Modality(np.ones((3, 2)), np.zeros(3, bool))
    assert (
        item_item(nobody, 4, own=True).num_edges
        == mixed_item_item([nobody], [1.0], 4).num_edges
        == 0
    )


def test_item_graph_refuses_what_it_cannot_do():
    modality = small.dataset().modalities["visual"]
    with pytest.raises(ConfigError, match="0 nearest items"):
        item_item(modality, 0)
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        item_item(modality, 3, weight="cosin")


# ---------------------------------------------------------------- a thinned user–item graph


def test_a_thinned_graph_is_a_normalised_part_of_the_whole():
    data = small.dataset()
    graph, pairs = heterograph(data), set(small.pairs_of(data.train))
    for dropout in (0.0, 0.3, 0.9):
        dense = pruned(graph, dropout, torch.Generator().manual_seed(2)).dense()
        kept = [tuple(pair) for pair in dense.nonzero().tolist()]
        assert len(kept) == round(len(pairs) * (1 - dropout)) and set(kept) <= pairs
        ones = (dense > 0).float()
        expected = (
            ones / (ones.sum(1, keepdim=True) * ones.sum(0, keepdim=True)).clamp(min=1).sqrt()
        )
        torch.testing.assert_close(dense, expected)


def test_thinning_keeps_edges_as_often_as_weighted_draws_without_replacement_do():
    """Against drawing one edge after the other, in proportion to 1/√(d_u d_i) among those that are
    left.
    """
    graph, repeats = heterograph(by_hand()), 3000
    source = torch.Generator().manual_seed(0)
    counts = np.zeros((4, 5))
    for _ in range(repeats):
        counts += pruned(graph, 4 / 7, source).dense().numpy() > 0
    degree_u, degree_i = {0: 3, 1: 2, 2: 2}, {0: 1, 1: 2, 2: 3, 3: 1}
    weight = np.array([1 / math.sqrt(degree_u[u] * degree_i[i]) for u, i in BY_HAND])
    expected = np.zeros(len(BY_HAND))
    # exactly: the chance of every ordered draw of three
    for order in permutations(range(len(BY_HAND)), 3):
        left, chance = weight.sum(), 1.0
        for edge in order:
            chance, left = chance * weight[edge] / left, left - weight[edge]
        expected[list(order)] += chance
    found = np.array([counts[pair] for pair in BY_HAND]) / repeats
    assert found.sum() == pytest.approx(3)
    assert (np.abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / repeats)).all(), (
        found,
        expected,
    )
    assert expected.max() - expected.min() > 0.1, "the case must tell weighted draws from even ones"
