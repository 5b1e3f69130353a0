"""Training triples: never a watched item as negative, uniform over the rest, every pair once an
epoch.
"""

from __future__ import annotations

import numpy as np
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from dualgnn_dgl.errors import DataError
from dualgnn_dgl.training.sampling import TripleSampler


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def logs(draw):
    users, items = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    cells = draw(st.lists(st.booleans(), min_size=users * items, max_size=users * items))
    pairs = [(c // items, c % items) for c, there in enumerate(cells) if there]
    draw(st.randoms(use_true_random=False)).shuffle(pairs)
    return small.interactions(pairs, users, items)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(logs(), st.integers(1, 9), st.integers(0, 2**32))
def test_one_epoch_of_any_log(train, batch_size, seed):
    """Each usable pair once, in batches of the size asked for, and no negative that its user
    watched.
    """
    watched = set(small.pairs_of(train))
    full = {
        u
        for u in range(train.num_users)
        if sum((u, i) in watched for i in range(train.num_items)) == train.num_items
    }
    usable = sorted(pair for pair in watched if pair[0] not in full)
    if not usable:
        with pytest.raises(DataError, match="nothing to learn from"):
            TripleSampler(train)
        return
    sampler = TripleSampler(train)
    batches = list(sampler.epoch(batch_size, generator(seed)))
    assert len(sampler) == len(usable)
    assert [len(b[0]) for b in batches[:-1]] == [batch_size] * (len(batches) - 1) and 1 <= len(
        batches[-1][0]
    ) <= batch_size
    users, positives, negatives = (torch.cat(column) for column in zip(*batches, strict=True))
    assert users.dtype == positives.dtype == negatives.dtype == torch.int64
    assert sorted(zip(users.tolist(), positives.tolist(), strict=True)) == usable
    assert watched.isdisjoint(zip(users.tolist(), negatives.tolist(), strict=True))
    assert int(negatives.min()) >= 0 and int(negatives.max()) < train.num_items


def slow_negative(train, user: int, rank: int) -> int:
    """The rank-th item that the user has not watched, by counting."""
    watched = {i for u, i in small.pairs_of(train) if u == user}
    return [i for i in range(train.num_items) if i not in watched][rank]


def test_rank_becomes_the_unwatched_item_of_that_rank(monkeypatch):
    """Every user, every rank, against counting.

    The random numbers are replaced by the middle of each rank's share.
    """
    train = small.dataset().train
    sampler = TripleSampler(train)
    watched = small.pairs_of(train)
    users, ranks, shares = [], [], []
    for u in range(train.num_users):
        free = train.num_items - sum(v == u for v, _ in watched)
        for rank in range(free):
            users.append(u)
            ranks.append(rank)
            shares.append((rank + 0.5) / free)
    monkeypatch.setattr(
        torch, "rand", lambda *size, **keywords: torch.tensor(shares, dtype=torch.float64)
    )
    drawn = sampler.negatives(torch.tensor(users), generator())
    assert drawn.tolist() == [slow_negative(train, u, r) for u, r in zip(users, ranks, strict=True)]


@pytest.mark.parametrize("share", [0.0, float(np.nextafter(1.0, 0.0))])
def test_the_ends_of_the_random_numbers(monkeypatch, share):
    train = small.dataset().train
    sampler = TripleSampler(train)
    users = torch.arange(train.num_users)
    monkeypatch.setattr(
        torch, "rand", lambda size, **keywords: torch.full(tuple(size), share, dtype=torch.float64)
    )
    drawn = sampler.negatives(users, generator()).tolist()
    assert drawn == [
        slow_negative(train, u, 0 if share == 0 else -1) for u in range(train.num_users)
    ]


def test_uniform_over_the_unwatched():
    pairs = (
        [(0, i) for i in (0, 1, 5, 9)] + [(1, 3)] + [(2, i) for i in range(11) if i != 7 and i != 4]
    )
    train = small.interactions(pairs, 3, 11)
    sampler = TripleSampler(train)
    for user, free in ((0, 7), (1, 10), (2, 2)):
        drawn = sampler.negatives(torch.full((20_000,), user), generator(user))
        counts = np.bincount(drawn.numpy(), minlength=11)
        counts = counts[[i for i in range(11) if (user, i) not in pairs]]
        assert counts.sum() == 20_000 and len(counts) == free
        assert chisquare(counts).pvalue > 1e-3


def test_negatives_of_a_pair_are_drawn_anew_each_epoch_and_the_order_changes():
    sampler = TripleSampler(small.dataset().train)
    source = generator(5)
    one, two = (
        [torch.cat(c) for c in zip(*sampler.epoch(7, source), strict=True)] for _ in range(2)
    )
    assert not torch.equal(one[0] * 100 + one[1], two[0] * 100 + two[1])
    negatives = [
        dict(zip(zip(u.tolist(), p.tolist(), strict=True), n.tolist(), strict=True))
        for u, p, n in (one, two)
    ]
    assert negatives[0].keys() == negatives[1].keys() and negatives[0] != negatives[1]


def test_same_generator_state_gives_the_same_triples_and_the_global_one_is_untouched():
    train = small.dataset().train
    before = torch.get_rng_state()
    runs = [
        [torch.stack(b) for b in TripleSampler(train).epoch(9, generator(seed))]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_order_of_the_log_does_not_matter():
    train = small.dataset().train
    pairs = small.pairs_of(train)
    turned = small.interactions(pairs[::-1], train.num_users, train.num_items)
    one, two = (
        torch.cat([torch.stack(b) for b in TripleSampler(t).epoch(8, generator(3))], 1)
        for t in (train, turned)
    )
    assert torch.equal(one, two)


def test_users_who_watched_everything_are_left_out():
    train = small.interactions([(0, 0), (0, 1), (0, 2), (1, 1), (2, 2), (2, 0)], 4, 3)
    sampler = TripleSampler(train)
    users = torch.cat([batch[0] for batch in sampler.epoch(2, generator())])
    assert len(sampler) == 3 and 0 not in users.tolist()


@pytest.mark.parametrize("pairs", [[], [(0, 0), (0, 1)]])
def test_nothing_to_learn_from(pairs):
    with pytest.raises(DataError, match="nothing to learn from") as error:
        TripleSampler(small.interactions(pairs, 5, 2))
    assert "\n" not in str(error.value)


def test_tensors_lie_on_the_device_asked_for():
    sampler = TripleSampler(small.dataset().train, torch.device("cpu"))
    assert all(t.device.type == "cpu" for t in next(sampler.epoch(4, generator())))
    assert TripleSampler(small.dataset().train, "meta").user.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda():
    train = small.dataset().train
    watched = set(small.pairs_of(train))
    sampler = TripleSampler(train, "cuda")
    for users, _, negatives in sampler.epoch(6, torch.Generator("cuda").manual_seed(0)):
        assert users.is_cuda and watched.isdisjoint(
            zip(users.tolist(), negatives.tolist(), strict=True)
        )


def test_the_log_is_left_alone():
    train = small.dataset().train
    user, item = train.user.copy(), train.item.copy()
    list(TripleSampler(train).epoch(5, generator()))
    np.testing.assert_array_equal(train.user, user)
    np.testing.assert_array_equal(train.item, item)
