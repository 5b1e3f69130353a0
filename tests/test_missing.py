"""DualGNN's ways with a missing modality.

An absent row does nothing; borrowing, dropped edges, dropout, a learned vector.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small
import torch

from dualgnn_dgl.data import Modality
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import create, model_class
from dualgnn_dgl.models.dualgnn import DualGNN


def dualgnn(data=None, seed=0, **switches) -> DualGNN:
    data = data or small.dataset()
    config = model_class("dualgnn").Config(**{"width": 6, "hidden": 9, **switches})
    return create("dualgnn", heterograph(data), data.modalities, config, seed)


def bits(tables) -> list[bytes]:
    return [table.detach().numpy().tobytes() for table in tables]


def absent(data, m: int) -> torch.Tensor:
    return torch.from_numpy(~list(data.modalities.values())[m].present)


SWITCHES = [
    {"missing": "learned"},
    {"missing": "neighbours"},
    {"drop_edges": True},
    {"borrow": True},
    {"item_fusion": "rescaled"},
    {"modality_dropout": 0.5},
    {
        "missing": "learned",
        "drop_edges": True,
        "borrow": True,
        "modality_dropout": 0.5,
        "item_fusion": "rescaled",
    },
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_an_absent_row_changes_no_bit_and_gets_no_gradient(switches):
    """Junk in the model's own buffers is not felt by tables or loss.

    Rows that dropout hides get no gradient either.
    """
    data, batch = small.dataset(), small.batch(small.dataset(), size=100)
    model = dualgnn(data, **switches)
    model.new_epoch(torch.Generator().manual_seed(1))
    clean, loss = bits(model.embed()), model.loss(*batch).detach()
    present = model.features.present if model.left is None else model.left.present
    for m in range(3):
        model.features[m][absent(data, m)] = 1e3 * torch.randn(
            int(absent(data, m).sum()), model.features[m].shape[1]
        )
        model.features[m].requires_grad_()
    assert bits(model.embed()) == clean
    again = model.loss(*batch)
    assert torch.equal(again, loss)
    again.backward()
    for m in range(3):
        gradient = model.features[m].grad.abs().sum(1)
        assert (gradient[~present[:, m]] == 0).all() and (gradient[present[:, m]] > 0).any()


def test_attention_on_what_ones_videos_lack_comes_from_neighbours_alone():
    """The paper's claim, user by user.

    Α_{u,m} > 0 where u's videos have m, or (borrow) a co-occurring user's videos do.
    """
    data = small.dataset()
    lists, watched = data.co_occurrence, [set() for _ in range(data.num_users)]
    for u, i in small.pairs_of(data.train):
        watched[u].add(i)
    plain, borrowing = dualgnn(data, cooc_k=3), dualgnn(data, cooc_k=3, borrow=True)
    alpha, lent = plain.user_attention(), borrowing.user_attention()
    borrowed = 0
    for u in range(data.num_users):
        near = lists.neighbour[lists.indptr[u] : lists.indptr[u + 1]][:3].tolist()
        has = [
            any(modality.present[i] for i in watched[u]) for modality in data.modalities.values()
        ]
        supplied = [
            any(modality.present[i] for w in near for i in watched[w])
            for modality in data.modalities.values()
        ]
        if not any(has):
            assert (alpha[u] > 0).all(), "who has nothing hears everything"
            continue
        assert (alpha[u] > 0).tolist() == has
        assert (lent[u] > 0).tolist() == [
            own or other for own, other in zip(has, supplied, strict=True)
        ]
        borrowed += sum(other and not own for own, other in zip(has, supplied, strict=True))
    assert borrowed > 0 and alpha[small.BLIND_USER, 0] == 0 < lent[small.BLIND_USER, 0]
    torch.testing.assert_close(lent.sum(1), torch.ones(data.num_users))


def test_without_neighbours_nothing_is_borrowed():
    """The blind user alone: nobody shares a video with him, so he has no attention on what he has
    not seen.
    """
    data = small.dataset()
    own = {i for u, i in small.pairs_of(data.train) if u == small.BLIND_USER}
    pairs = [(u, i) for u, i in small.pairs_of(data.train) if u == small.BLIND_USER or i not in own]
    empty = small.interactions([], data.num_users, data.num_items)
    train = small.interactions(pairs, data.num_users, data.num_items)
    alone = dataclasses.replace(
        data, train=train, valid=empty, test=empty, co_occurrence=small.shared_items(train)
    )
    attention = dualgnn(alone, borrow=True).user_attention()
    assert attention[small.BLIND_USER, 0] == 0 and (attention[small.BLIND_USER, 1:] > 0).all()


def test_what_is_borrowed_is_the_neighbours_taste():
    """The blind user's vector moves with the neighbours' preference in that modality, and no longer
    with his own.
    """
    data = small.dataset()
    blind, lists = small.BLIND_USER, data.co_occurrence
    model = dualgnn(data, borrow=True, cooc_k=2, layers=0)
    near = lists.neighbour[lists.indptr[blind] : lists.indptr[blind + 1]][:2].tolist()
    omega, view = model.co_occurrence.dense(), model.single_modal(0)[0]
    has = [w for w in near if model.observed[w, 0]]
    assert has
    expected = sum(omega[blind, w] * view[w] for w in has) / sum(omega[blind, w] for w in has)
    torch.testing.assert_close(model.mask.lend(0, view)[blind], expected)
    own, theirs = model.fused(model.mask)[0][blind].detach().clone(), None
    with torch.no_grad():
        model.preference[0][blind] = torch.randn(6)
    assert torch.equal(model.fused(model.mask)[0][blind], own)
    with torch.no_grad():
        model.preference[0][has[0]] = torch.randn(6)
    theirs = model.fused(model.mask)[0][blind]
    assert not torch.allclose(theirs, own)


def test_dropped_edges_neither_send_nor_receive():
    data = small.dataset()
    model = dualgnn(data, drop_edges=True, layers=3, missing="mask")
    for m, modality in enumerate(data.modalities.values()):
        assert (model.single_modal(m)[1][~torch.from_numpy(modality.present)] == 0).all()
        kept = [(u, i) for u, i in small.pairs_of(data.train) if modality.present[i]]
        dense = model.mask.to_user[m].dense()
        assert {tuple(pair) for pair in dense.nonzero().tolist()} == set(kept)
        for u, i in kept:
            degrees = sum(v == u for v, _ in kept) * sum(j == i for _, j in kept)
            assert float(dense[u, i]) == pytest.approx(degrees**-0.5)
    whole = small.dataset(holes=False)
    one, two = dualgnn(whole, drop_edges=True), dualgnn(whole)
    for table, other in zip(one.embed(), two.embed(), strict=True):
        torch.testing.assert_close(table, other)


def test_a_learned_vector_stands_for_what_is_missing():
    data = small.dataset()
    model = dualgnn(data, missing="learned", layers=0)
    for m in range(3):
        rows = model.single_modal(m)[1][absent(data, m)]
        torch.testing.assert_close(
            rows, torch.nn.functional.normalize(model.absent[m]).expand_as(rows)
        )
    model.loss(*small.batch(data, size=200)).backward()
    assert all(vector.grad.abs().max() > 0 for vector in model.absent)
    assert model.user_attention()[small.BLIND_USER, 0] == 0, "attention stays on what is there"
    whole = small.dataset(holes=False)
    assert (
        bits(dualgnn(whole, missing="learned").embed())[0]
        == bits(dualgnn(whole, missing="learned").embed())[0]
    )


def test_neighbours_stand_in_for_what_is_missing():
    """A video without the modality starts as what its watchers watched besides.

    One that nothing reaches stays zero.
    """
    data = small.dataset()
    model = dualgnn(data, missing="neighbours", layers=0)
    plain = dualgnn(data, layers=0, missing="mask")
    for m in range(3):
        rows, other = model.single_modal(m)[1], plain.single_modal(m)[1]
        gone = absent(data, m)
        assert torch.equal(rows[~gone], other[~gone]) and (other[gone] == 0).all()
        reach = (model.to_item @ (model.to_user @ other)).norm(dim=1) > 0
        assert bool((gone & reach).any())
        torch.testing.assert_close(
            rows[gone & reach].norm(dim=1), torch.ones(int((gone & reach).sum()))
        )
        assert (rows[gone & ~reach] == 0).all()
    whole = small.dataset(holes=False)
    assert bits(dualgnn(whole, missing="neighbours").embed()) == bits(dualgnn(whole).embed())


def test_dropout_is_drawn_anew_each_epoch_from_the_generator_and_touches_the_loss_alone():
    data, batch = small.dataset(), small.batch(small.dataset(), size=100)
    model, twin, plain = (dualgnn(data, modality_dropout=share) for share in (0.5, 0.5, 0.0))
    tables, whole = bits(model.embed()), model.loss(*batch).detach()
    assert torch.equal(whole, plain.loss(*batch)), "before the first epoch nothing is hidden"
    state, source, losses, masks = torch.get_rng_state(), torch.Generator().manual_seed(3), [], []
    for _ in range(3):
        model.new_epoch(source)
        losses.append(model.loss(*batch).detach())
        masks.append(model.left.present.clone())
        assert bits(model.embed()) == tables and (model.features.present | ~masks[-1]).all()
    assert torch.equal(state, torch.get_rng_state())
    assert len({float(loss) for loss in (*losses, whole)}) == 4
    hidden = 1 - sum(mask.sum() for mask in masks) / (3 * model.features.present.sum())
    assert 0.35 < hidden < 0.65
    twin.new_epoch(torch.Generator().manual_seed(3))
    assert torch.equal(twin.loss(*batch), losses[0]) and torch.equal(twin.left.present, masks[0])
    plain.new_epoch(source)
    assert plain.left is None and torch.equal(plain.loss(*batch), whole)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_hidden_features_are_as_if_they_had_never_been_there():
    """The loss under dropout is that of a model whose data set lacks the hidden rows."""
    data, batch = small.dataset(), small.batch(small.dataset(), size=100)
    switches = {"modality_dropout": 0.4, "drop_edges": True, "borrow": True, "missing": "learned"}
    model = dualgnn(data, **switches)
    model.new_epoch(torch.Generator().manual_seed(7))
    left = model.left.present.numpy()
    holed = {
        name: Modality(value.values, left[:, m])
        for m, (name, value) in enumerate(data.modalities.items())
    }
    other = dualgnn(dataclasses.replace(data, modalities=holed), **switches)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.loss(*batch), other.loss(*batch))


def test_rescaling_makes_up_for_the_modalities_an_item_lacks():
    data = small.dataset()
    plain, scaled = (
        dualgnn(data, user_graph=False),
        dualgnn(data, user_graph=False, item_fusion="rescaled"),
    )
    (user, item), (other, larger) = plain.embed(), scaled.embed()
    assert torch.equal(user, other)
    count = torch.from_numpy(
        np.sum([modality.present for modality in data.modalities.values()], axis=0)
    )
    torch.testing.assert_close(larger, item * (3 / count.clamp(min=1)).unsqueeze(1))
    assert (count == 0).any() and torch.isfinite(larger).all()


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"missing": "zero", "modality_dropout": 0.1}, "choose missing=mask"),
        ({"borrow": True, "user_graph": False}, "leave user_graph on"),
    ],
)
def test_switches_that_contradict_each_other(switches, message):
    with pytest.raises(ConfigError, match=message):
        dualgnn(**switches)


def test_everything_new_but_the_neighbours_is_off_by_default():
    config = model_class("dualgnn").Config()
    assert (config.missing, config.drop_edges, config.borrow, config.modality_dropout) == (
        "neighbours",
        False,
        False,
        0.0,
    )
    assert config.item_fusion == "sum"


def test_tables_move_with_the_model_and_copies_are_equal():
    import copy

    data = small.dataset()
    model = dualgnn(data, borrow=True, drop_edges=True, modality_dropout=0.3)
    model.new_epoch(torch.Generator().manual_seed(0))
    first = bits(model.embed())
    assert bits(copy.deepcopy(model).embed()) == first
    double = model.double()
    assert double.embed()[0].dtype == torch.float64 and torch.isfinite(
        double.loss(*small.batch(data))
    )
