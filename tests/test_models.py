"""The contract that every name in `MODELS` keeps, and the faults of other implementations, each as
a test here.

Fault numbers (A10, R1, …) are those of the survey of the released code (A) and of its best known
port (R).
"""

from __future__ import annotations

import copy
import dataclasses
import re

import numpy as np
import pytest
import small
import torch

from dualgnn_dgl import models
from dualgnn_dgl.core.options import Options, build, keys, option
from dualgnn_dgl.data import Dataset, Modality
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.evaluation import Evaluator
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.models.base import Recommender, masked_softmax, unit_rows, weighted_sum
from dualgnn_dgl.models.losses import bpr, pick, sampled_softmax
from dualgnn_dgl.models.mgcn import info_nce
from dualgnn_dgl.training import TrainConfig, fit

NAMES = list(MODELS)
TRAINED = [name for name in NAMES if model_class(name).trainable]
ALL = ("visual", "acoustic", "textual")


def make(name, data=None, seed=0, **switches) -> Recommender:
    data = data or small.dataset()
    config = model_class(name).Config(**switches) if switches else None
    return create(name, heterograph(data), data.modalities, config, seed)


def dualgnn(data=None, seed=0, **switches):
    return make("dualgnn", data, seed, **{"width": 6, "hidden": 9, **switches})


def bits(tables) -> list[bytes]:
    return [table.detach().to_dense().numpy().tobytes() for table in tables]


def dense(model) -> list[torch.Tensor]:
    """The model's tables, sparse ones made dense."""
    return [table.to_dense() for table in model.embed()]


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_shapes_and_finite_values(name, count):
    data = small.dataset(modalities=ALL[:count])
    model = make(name, data)
    user, item = model.embed()
    assert (
        user.shape[0] == data.num_users
        and item.shape[0] == data.num_items
        and user.shape[1] == item.shape[1]
    )
    assert user.dtype == item.dtype == torch.float32
    assert all(torch.isfinite(table).all() for table in dense(model))
    loss = model.loss(*small.batch(data))
    assert loss.shape == () and torch.isfinite(loss)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_backward_reaches_every_parameter(name, count):
    data = small.dataset(modalities=ALL[:count])
    model = make(name, data)
    model.loss(*small.batch(data)).backward()
    parameters = dict(model.named_parameters())
    assert parameters
    for label, parameter in parameters.items():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), label
        assert parameter.grad.abs().max() > 0, label


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a11_no_parameter_lives_by_the_penalty_alone(name, count):
    """A11: the released code trains an item-fusion table that only its penalty touches."""
    data = small.dataset(modalities=ALL[:count])
    model = make(name, data, l2=0.0)
    model.loss(*small.batch(data, size=200)).backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, label


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_tables_and_the_seed_matters(name):
    data = small.dataset()
    one, same, other = (make(name, data, seed) for seed in (3, 3, 4))
    assert bits(one.embed()) == bits(same.embed())
    assert name not in TRAINED or bits(one.embed()) != bits(other.embed())


@pytest.mark.parametrize("name", NAMES)
def test_creation_leaves_the_global_random_state_alone(name):
    data = small.dataset()
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = make(name, data, seed=5)
    model.new_epoch(torch.Generator().manual_seed(0))
    model.loss(*small.batch(data))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(other, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", NAMES)
def test_embed_is_pure(name):
    """Twice equal, in training and in evaluation mode, before and after a loss.

    No parameter or buffer moves.
    """
    data = small.dataset()
    model = make(name, data)
    before = {
        label: tensor.clone()
        for label, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    first = bits(model.embed())
    loss = model.loss(*small.batch(data))
    if name in TRAINED:
        loss.backward()
    assert bits(model.embed()) == first
    assert bits(model.eval().embed()) == first and bits(model.train().embed()) == first
    for label, tensor in (*model.named_parameters(), *model.named_buffers()):
        assert torch.equal(tensor, before[label]), label


@pytest.mark.parametrize("name", NAMES)
def test_graph_and_features_are_left_alone(name):
    data = small.dataset()
    graph = heterograph(data)
    edges = {r: [end.clone() for end in graph.edges(etype=r)] for r in graph.etypes}
    weights = {r: {k: v.clone() for k, v in graph.edges[r].data.items()} for r in graph.etypes}
    model = create(name, graph, data.modalities)
    loss = model.loss(*small.batch(data))
    if name in TRAINED:
        loss.backward()
        torch.optim.SGD(model.parameters(), lr=1.0).step()
    model.embed()
    for r in graph.etypes:
        assert all(torch.equal(a, b) for a, b in zip(edges[r], graph.edges(etype=r), strict=True))
        assert graph.edges[r].data.keys() == weights[r].keys()
        assert all(torch.equal(weights[r][k], graph.edges[r].data[k]) for k in weights[r])
    assert all(not graph.nodes[kind].data for kind in graph.ntypes), (
        "nothing is parked on the graph"
    )
    assert dataclasses.replace(data).hash == data.hash


@pytest.mark.parametrize("name", NAMES)
def test_r3_the_callers_batch_is_left_alone(name):
    """R3: the port adds the item offset to the caller's batch in place."""
    data = small.dataset()
    batch = small.batch(data)
    before = [column.clone() for column in batch]
    make(name, data).loss(*batch)
    assert all(torch.equal(a, b) for a, b in zip(before, batch, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_relabelling_users_and_items_permutes_the_tables(name):
    data = small.dataset()
    draw = np.random.default_rng(1)
    users, items = draw.permutation(data.num_users), draw.permutation(data.num_items)
    one, two = make(name, data), make(name, small.relabel(data, users, items))
    rows = {data.num_users: users, data.num_items: items}
    state = {
        key: t[rows[t.shape[0]]] if t.ndim and t.shape[0] in rows else t
        for key, t in one.state_dict().items()
    }
    two.load_state_dict(state)
    if name == "itemknn":  # the columns of its tables are items too
        user, item = dense(one)
        renumbered, again = dense(two)
        torch.testing.assert_close(renumbered, user[users][:, items])
        torch.testing.assert_close(again, item[items][:, items])
    else:
        for table, other, order in zip(dense(one), dense(two), (users, items), strict=True):
            torch.testing.assert_close(other, table[order], rtol=1e-5, atol=1e-6)
    batch = small.batch(data)
    new_user, new_item = (torch.from_numpy(np.argsort(order)) for order in (users, items))
    moved = (new_user[batch.users], new_item[batch.positives], new_item[batch.negatives])
    torch.testing.assert_close(one.loss(*batch), two.loss(*moved), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip(name):
    data = small.dataset()
    one, two = make(name, data, 1), make(name, data, 2)
    two.load_state_dict(
        {key: value.clone() for key, value in one.state_dict().items()}, strict=True
    )
    assert bits(one.embed()) == bits(two.embed())
    limit = (
        data.num_users + data.num_items
        if name == "mostpop"
        else sum(p.numel() for p in one.parameters())
    )
    # the one number of a drawn graph
    state = {key: value for key, value in one.state_dict().items() if key != "draw"}
    assert sum(t.numel() for t in state.values()) == limit, (
        "features and adjacencies stay out of it"
    )


@pytest.mark.parametrize("name", NAMES)
def test_deep_copy_is_independent(name):
    model = make(name)
    first = bits(model.embed())
    twin = copy.deepcopy(model)
    assert bits(twin.embed()) == first
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert bits(model.embed()) == first


@pytest.mark.parametrize("name", TRAINED)
def test_loss_falls_and_the_triples_are_read_in_the_right_order(name):
    """Descending on one batch must raise watched over unwatched items of the same users."""
    data = small.dataset()
    model, batch = make(name, data, l2=0.0), small.batch(data, size=60)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = model.loss(*batch)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    user, item = (table.detach() for table in model.embed())
    users, positives, negatives = batch
    margin = (user[users] * (item[positives] - item[negatives])).sum(1)
    # a softmax over negatives that are shared, hence some users' own positives, has a floor above
    # zero
    assert (
        losses[-1] < (0.7 if name == "dualgnn_plus" else 0.6) * losses[0]
        and (margin > 0).float().mean() > 0.9
    )


@pytest.mark.parametrize("name", TRAINED)
def test_checkerboard(name):
    """Users of two parities watch the items of their parity.

    After training, the one left out comes first for everybody.
    """
    data = small.checkerboard()
    model = make(name, data, width=16)
    done = fit(
        model, data.train, data.valid, TrainConfig(epochs=25, lr=0.05, batch_size=350, seed=1)
    )
    assert (
        Evaluator(data.test, [data.train], ks=(1,))(done.user, done.item).means["recall@1"] == 1.0
    )
    if name == "dualgnn":
        assert done.history[-1]["loss"] < done.history[0]["loss"]


@pytest.mark.parametrize("name", NAMES)
def test_a12_three_users_are_enough(name):
    """A12: the released ranking loop returns nothing below 20,000 users."""
    train = small.interactions([(0, 0), (0, 1), (1, 1), (2, 4)], 3, 5)
    test = small.interactions([(0, 2), (1, 0), (2, 1)], 3, 5)
    features = {"visual": Modality(np.eye(5, 4), np.array([True, True, False, True, True]))}
    empty = small.interactions([], 3, 5)
    data = Dataset(
        train, empty, test, features, np.array(["a", "b", "c"]), np.array(["p", "q", "r", "s", "t"])
    )
    done = fit(make(name, data), data.train, data.valid, TrainConfig(epochs=2))
    result = Evaluator(data.test, [data.train], ks=(2,))(done.user, done.item)
    assert result.users.tolist() == [0, 1, 2] and 0 <= result.means["recall@2"] <= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_model_takes_features_or_says_that_it_must(name):
    data = small.dataset(modalities=())
    if model_class(name).uses_modalities and model_class(name).needs_modalities:
        with pytest.raises(ConfigError, match=f"{name} needs item features"):
            make(name, data)
    else:
        assert torch.isfinite(dense(make(name, data))[0]).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", NAMES)
def test_on_cuda_the_tables_are_those_of_the_cpu(name):
    model = make(name)
    on_cpu = [table.detach() for table in dense(model)]
    for table, other in zip(on_cpu, dense(model.to("cuda")), strict=True):
        torch.testing.assert_close(table, other.detach().cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_to_float64_and_back(name):
    model = make(name)
    first = [table.detach().clone() for table in dense(model)]
    for dtype in (torch.float64, torch.float32):
        model = model.to(dtype)
        for table, other in zip(first, dense(model), strict=True):
            assert other.dtype == dtype
            torch.testing.assert_close(table.to(dtype), other.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_search_may_try_is_allowed(name):
    kind, space = model_class(name).Config, model_class(name).SEARCH
    for key, values in space.items():
        assert len(values) > 1
        for value in values:
            build(kind if key in keys(kind) else TrainConfig, {key: value})


# ---------------------------------------------------------------- shared pieces


def test_weighted_sum_and_unit_rows_against_plain_arithmetic():
    draw = torch.Generator().manual_seed(0)
    tables = [
        torch.randn(6, 5, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(3)
    ]
    weight = torch.rand(6, 3, generator=draw, dtype=torch.float64).requires_grad_()
    plain = (weight.unsqueeze(-1) * torch.stack(tables, dim=1)).sum(1)
    torch.testing.assert_close(weighted_sum(weight, tables), plain)
    assert torch.autograd.gradcheck(lambda w, *t: weighted_sum(w, t), (weight, *tables))
    assert torch.autograd.gradcheck(lambda *t: weighted_sum(weight.detach(), t), tables)
    assert torch.autograd.gradcheck(unit_rows, tables[0])
    x = torch.randn(4, 3, generator=draw)
    x[2] = 0
    torch.testing.assert_close(unit_rows(x), torch.nn.functional.normalize(x, dim=1))


@pytest.mark.parametrize("holes", [True, False])
def test_modalities_side_by_side_give_the_same_bits(monkeypatch, holes):
    data = small.dataset(holes=holes)
    found = []
    for wide in (False, True):
        monkeypatch.setattr(
            "dualgnn_dgl.models.dualgnn.one_wide_product", lambda *_, wide=wide: wide
        )
        model = dualgnn(data)
        model.loss(*small.batch(data)).backward()
        found.append(bits([*model.embed(), *(parameter.grad for parameter in model.parameters())]))
    assert found[0] == found[1]


# ---------------------------------------------------------------- missing modalities


def refilled(data, seed: int):
    """The same data whose absent rows were something else before the mask took them away."""
    draw = np.random.default_rng(seed)
    features = {}
    for name, m in data.modalities.items():
        junk = np.where(m.present[:, None], m.values, draw.normal(scale=100, size=m.values.shape))
        junk[~m.present, 0] = np.nan
        features[name] = Modality(junk, m.present)
    return dataclasses.replace(data, modalities=features)


@pytest.mark.parametrize("name", NAMES)
def test_content_of_absent_rows_never_enters(name):
    data = small.dataset()
    assert bits(make(name, data).embed()) == bits(make(name, refilled(data, 3)).embed())


SWITCHES = [
    {},
    {"user_fusion": "concat"},
    {"user_fusion": "max"},
    {"user_fusion": "mean"},
    {"item_encoder": "linear"},
]


@pytest.mark.parametrize("switches", SWITCHES)
def test_masked_rows_change_no_bit_and_get_no_gradient(switches):
    """Not only in the data type: junk written into the model's own feature buffers is not felt
    either.
    """
    data = small.dataset()
    model = dualgnn(data, **switches)
    clean = bits(model.embed())
    for m, modality in enumerate(data.modalities.values()):
        absent = torch.from_numpy(~modality.present)
        model.features[m][absent] = 1e3 * torch.randn(int(absent.sum()), modality.width)
        model.features[m].requires_grad_()
    assert bits(model.embed()) == clean
    model.loss(*small.batch(data, size=100)).backward()
    for m, modality in enumerate(data.modalities.values()):
        gradient = model.features[m].grad.abs().sum(1).numpy()
        assert (gradient[~modality.present] == 0).all() and (gradient[modality.present] > 0).any()


@pytest.mark.parametrize("name", [name for name in TRAINED if model_class(name).uses_modalities])
def test_junk_in_the_rows_of_missing_features_is_not_felt(name):
    """Written into the model's own buffers: same tables, same loss, no gradient there."""
    data = small.dataset()
    one, two, batch = make(name, data), make(name, data), small.batch(data, size=100)
    if not hasattr(two, "features"):
        pytest.skip("it keeps no features")
    for m, modality in enumerate(data.modalities.values()):
        absent = torch.from_numpy(~modality.present)
        two.features[m][absent] = 1e3 * torch.randn(int(absent.sum()), modality.width)
        two.features[m].requires_grad_()
    assert bits(one.embed()) == bits(two.embed())
    loss = two.loss(*batch)
    torch.testing.assert_close(one.loss(*batch), loss, rtol=1e-6, atol=0)
    loss.backward()
    for m, modality in enumerate(data.modalities.values()):
        gradient = two.features[m].grad.abs().sum(1).numpy()
        assert (gradient[~modality.present] == 0).all() and (gradient[modality.present] > 0).any()


def test_masked_items_receive_but_do_not_send():
    """An item without a modality: zero going in; what comes out is its watchers' preference
    alone.
    """
    data = small.dataset()
    model = dualgnn(data, layers=0, missing="mask")
    for m, modality in enumerate(data.modalities.values()):
        item = model.single_modal(m)[1]
        assert (item[~torch.from_numpy(modality.present)] == 0).all()
        torch.testing.assert_close(
            item[torch.from_numpy(modality.present)].norm(dim=1), torch.ones(modality.present.sum())
        )
    _, item = dualgnn(data, layers=1, missing="mask").single_modal(0)
    assert (item[small.BARE_ITEM] != 0).any() and (item[small.LONELY_ITEM] != 0).any()


@pytest.mark.parametrize("missing", ["mask", "neighbours"])
def test_a7_a8_a_missing_modality_is_felt(missing):
    """A7, A8, R6: the released code prepares degraded inputs and then ignores them."""
    data = small.dataset(holes=False)
    present = np.ones(data.num_items, bool)
    present[[0, 3, 8]] = False
    holes = {**data.modalities, "visual": Modality(data.modalities["visual"].values, present)}
    whole, holed = (
        dualgnn(data, missing=missing),
        dualgnn(dataclasses.replace(data, modalities=holes), missing=missing),
    )
    assert whole.state_dict().keys() == holed.state_dict().keys()
    for one, two in zip(whole.embed(), holed.embed(), strict=True):
        assert not torch.allclose(one, two, atol=1e-3)


def test_attention_ignores_what_a_users_videos_do_not_have():
    data = small.dataset()
    attention = dualgnn(data).user_attention()
    assert attention[small.BLIND_USER, 0] == 0 and (attention[small.BLIND_USER, 1:] > 0).all()
    assert (attention[small.LONELY_USER] > 0).all()
    torch.testing.assert_close(attention.sum(1), torch.ones(data.num_users))


@pytest.mark.parametrize("fusion", ["sum", "max"])
def test_a_modality_that_nobody_has_changes_nothing_but_the_items_own_sum(fusion):
    """With a modality without a single present row, users are what they are without it."""
    data = small.dataset(modalities=("visual", "textual"))
    silent = Modality(np.zeros((data.num_items, 3)), np.zeros(data.num_items, bool))
    extended = dataclasses.replace(data, modalities={**data.modalities, "silent": silent})
    one, two = dualgnn(data, user_fusion=fusion), dualgnn(extended, user_fusion=fusion)
    with torch.no_grad():
        two.attention[:, :2] = one.attention
        for m in range(2):
            two.preference[m].copy_(one.preference[m])
            two.encoders[m].load_state_dict(one.encoders[m].state_dict())
    known = [u for u in range(data.num_users) if u != small.LONELY_USER]
    torch.testing.assert_close(one.embed()[0][known], two.embed()[0][known])


# ---------------------------------------------------------------- DualGNN's attention and fusion


def test_a10_the_softmax_is_in_the_forward_pass():
    """A10: the released code takes it once at the start; here adding a number to a user's logits
    changes nothing.
    """
    model = dualgnn(user_graph=False)
    first = [table.detach().clone() for table in model.embed()]
    with torch.no_grad():
        model.attention.add_(torch.linspace(-5, 5, len(model.attention)).unsqueeze(1))
    for table, other in zip(first, model.embed(), strict=True):
        torch.testing.assert_close(table, other)


def test_a10_attention_is_a_distribution_after_training():
    data = small.dataset()
    model = dualgnn(data)
    fit(model, data.train, data.valid, TrainConfig(epochs=15, lr=0.05, batch_size=16))
    assert (model.user_attention().sum(1) - 1).abs().max() < 1e-5
    assert (model.attention.sum(1) - 1).abs().max() > 0.01, "the logits themselves did move"


@pytest.mark.parametrize("m", [0, 1, 2])
@pytest.mark.parametrize("fusion", ["sum", "max"])
def test_r1_with_all_attention_on_one_modality_users_are_exactly_its_users(m, fusion):
    """R1: the port adds the text into the visual table in place, and fuses visual + text where it
    should fuse visual.
    """
    data = small.dataset(holes=False)
    model = dualgnn(data, user_graph=False, user_fusion=fusion)
    views = [[table.detach().clone() for table in model.single_modal(j)] for j in range(3)]
    with torch.no_grad():
        model.attention.fill_(-1e4)
        model.attention[:, m] = 1e4
    user, item = model.embed()
    expected = views[m][0] if fusion == "sum" else views[m][0].clamp(min=0)
    torch.testing.assert_close(user, expected)
    torch.testing.assert_close(item, sum(view[1] for view in views))
    for j in range(3):
        assert bits(model.single_modal(j)) == bits(views[j]), (
            "fusion left the single modalities as they were"
        )


def test_r1_callers_may_change_what_embed_gave_them():
    model = dualgnn()
    first = bits(model.embed())
    with torch.no_grad():
        for table in model.embed():
            table.mul_(-3)
    assert bits(model.embed()) == first


@pytest.mark.parametrize("switches", SWITCHES)
def test_forward_does_not_feel_the_length_of_a_preference(switches):
    data = small.dataset()
    model = dualgnn(data, **switches).double()
    first = [table.detach().clone() for table in model.embed()]
    with torch.no_grad():
        for m, table in enumerate(model.preference):
            table.mul_(torch.linspace(0.01, 40 + m, len(table)).unsqueeze(1))
    for table, other in zip(first, model.embed(), strict=True):
        torch.testing.assert_close(table, other.detach(), rtol=1e-9, atol=1e-9)


def test_order_of_the_modalities_does_not_matter_to_the_sum():
    data = small.dataset()
    turned = dataclasses.replace(data, modalities=dict(reversed(data.modalities.items())))
    one, two = dualgnn(data), dualgnn(turned)
    with torch.no_grad():
        two.attention.copy_(one.attention.flip(1))
        for m in range(3):
            two.preference[m].copy_(one.preference[2 - m])
            two.encoders[m].load_state_dict(one.encoders[2 - m].state_dict())
    for table, other in zip(one.embed(), two.embed(), strict=True):
        torch.testing.assert_close(table, other, rtol=1e-5, atol=1e-6)


def test_users_without_neighbours_keep_their_own_vector():
    """Spec 13.1: û = u."""
    data = small.dataset()
    with_graph, without = dualgnn(data), dualgnn(data, user_graph=False)
    alone = np.diff(data.co_occurrence.indptr) == 0
    one, two = with_graph.embed()[0], without.embed()[0]
    assert alone.any() and torch.equal(one[alone], two[alone])
    assert (one[~alone] - two[~alone]).abs().sum(1).min() > 1e-3
    assert torch.equal(with_graph.embed()[1], without.embed()[1]), (
        "items do not feel the user graph"
    )


# ---------------------------------------------------------------- FREEDOM's graphs


def test_freedom_thins_its_graph_anew_each_epoch_and_ranks_over_the_whole():
    data = small.dataset()
    model, batch = make("freedom", data, dropout=0.5), small.batch(data)
    whole, before = bits(model.embed()), model.loss(*batch)
    source = torch.Generator().manual_seed(1)
    draws = []
    for _ in range(2):
        model.new_epoch(source)
        assert model.thin_to_user.num_edges == round(len(data.train) / 2)
        assert (
            bits(model.embed())
            == bits(model.eval().embed())
            == bits(model.train().embed())
            == whole
        )
        draws.append(model.loss(*batch))
    assert len({loss.item() for loss in (before, *draws)}) == 3
    other = make("freedom", data, dropout=0.5)
    other.new_epoch(torch.Generator().manual_seed(1))
    assert torch.equal(other.loss(*batch), draws[0])
    copied = make("freedom", data, seed=8, dropout=0.5)
    copied.load_state_dict(model.state_dict())
    assert torch.equal(copied.loss(*batch), draws[1]), "the draw is part of the state"
    copied.load_state_dict(make("freedom", data, dropout=0.5).state_dict())
    assert torch.equal(copied.loss(*batch), before), "and so is that none was drawn yet"
    still = make("freedom", data, dropout=0.0)
    first = still.loss(*batch)
    still.new_epoch(source)
    assert torch.equal(still.loss(*batch), first) and "draw" not in still.state_dict()


def test_freedom_feels_features_only_where_both_videos_have_them():
    data = small.dataset(modalities=("visual",))
    model = make("freedom", data, feature_weight=0.5)
    absent = torch.from_numpy(np.flatnonzero(~data.modalities["visual"].present))
    there = torch.from_numpy(np.flatnonzero(data.modalities["visual"].present))
    user = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    missing = absent[:1].expand(4)
    assert (
        model.feature_loss(user, there[:4], missing)
        == 0
        == model.feature_loss(user, missing, there[:4])
    )
    alone = model.feature_loss(user[:2], there[:2], there[2:4])
    mixed = model.feature_loss(
        user, torch.cat([there[:2], absent[:2]]), torch.cat([there[2:4], there[:2]])
    )
    torch.testing.assert_close(alone, mixed)
    assert alone > 0


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("visaul=1,acoustic=1,textual=1", "did you mean 'visual'"),
        ("visual=1", "leaves out acoustic, textual"),
        ("visual=0,acoustic=0,textual=0", "gives all modalities zero"),
        ("visual=x,acoustic=0,textual=0", "gives visual the share 'x'"),
        ("visual=-1,acoustic=0,textual=0", "at least zero"),
        ("visual=nan,acoustic=0,textual=0", "at least zero"),
        ("", "unknown modality ''"),
    ],
)
def test_freedom_says_what_is_wrong_with_weights(weights, words):
    with pytest.raises(ConfigError, match=words) as error:
        make("freedom", weights=weights)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- BM3's dropout and its losses


def test_bm3_draws_its_dropout_from_the_generator_of_the_epoch():
    """The same generator, the same batches.

    The same losses; each batch and each epoch another mask.
    """
    data = small.dataset()
    model, batch, source = make("bm3", data), small.batch(data), torch.Generator().manual_seed(1)
    losses = []
    for _ in range(2):
        model.new_epoch(source)
        losses += [model.loss(*batch).item() for _ in range(2)]
    assert len(set(losses)) == 4
    other, again = make("bm3", data), torch.Generator().manual_seed(1)
    torch.manual_seed(77)
    repeated = []
    for _ in range(2):
        other.new_epoch(again)
        repeated += [other.loss(*batch).item() for _ in range(2)]
    assert repeated == losses
    plain = make("bm3", data, dropout=0.0)
    first = plain.loss(*batch)
    plain.new_epoch(source)
    assert torch.equal(plain.loss(*batch), first)


def test_bm3_needs_no_negatives():
    data = small.dataset()
    one, two, batch = make("bm3", data), make("bm3", data), small.batch(data)
    assert torch.equal(
        one.loss(*batch), two.loss(batch.users, batch.positives, batch.negatives.flip(0))
    )


def test_bm3_asks_nothing_of_a_modality_that_a_video_lacks():
    data = small.dataset(modalities=("visual",))
    absent = torch.from_numpy(np.flatnonzero(~data.modalities["visual"].present))
    users = torch.arange(len(absent))
    with_features, without = (
        make("bm3", data, dropout=0.0, feature_weight=weight) for weight in (2.0, 0.0)
    )
    without.load_state_dict(
        {key: value for key, value in with_features.state_dict().items() if "project" not in key}
    )
    torch.testing.assert_close(
        with_features.loss(users, absent, absent), without.loss(users, absent, absent)
    )


# ---------------------------------------------------------------- MGCN's views


def test_mgcn_leaves_behaviour_alone_where_no_modality_speaks():
    data = small.dataset()
    model = make("mgcn", data)
    (user, item), (user_side, item_side) = model.views()
    assert (item_side[small.BARE_ITEM] == 0).all() and (user_side[small.LONELY_USER] == 0).all()
    assert torch.equal(model.embed()[1][small.BARE_ITEM], item[small.BARE_ITEM])
    speaks = torch.tensor([i for i in range(data.num_items) if i != small.BARE_ITEM])
    assert (item_side[speaks].abs().sum(1) > 0).all()
    for m, modality in enumerate(data.modalities.values()):
        assert (model.modal(m)[1][~torch.from_numpy(modality.present)] == 0).all()


def test_mgcn_contrast_counts_only_who_has_a_side():
    draw = torch.Generator().manual_seed(0)
    side, behaviour = torch.randn(5, 3, generator=draw), torch.randn(5, 3, generator=draw)
    counted = torch.tensor([True, True, False, True, False])
    cosine = (
        torch.nn.functional.cosine_similarity(side.unsqueeze(1), behaviour.unsqueeze(0), dim=2)
        / 0.3
    )
    expected = -cosine.log_softmax(1).diagonal()[counted].mean()
    torch.testing.assert_close(info_nce(side, behaviour, 0.3, counted), expected)
    assert info_nce(side, behaviour, 0.3, torch.zeros(5, dtype=torch.bool)) == 0
    silent = side.where(counted.unsqueeze(1), torch.zeros(())).requires_grad_()
    info_nce(silent, behaviour, 0.3, counted).backward()
    assert torch.isfinite(silent.grad).all() and (silent.grad[~counted] == 0).all()


def test_table_of_models_is_closed_and_lazy():
    for name in NAMES:
        kind = model_class(name)
        assert (
            issubclass(kind, Recommender) and kind.__doc__ and dataclasses.is_dataclass(kind.Config)
        )
        assert kind.Config.__dataclass_params__.frozen
    with pytest.raises(ConfigError, match="did you mean"):
        models.model_class("bprfm")


# ---------------------------------------------------------------- shared pieces


def test_bpr_by_hand_and_far_out():
    margins = torch.tensor([0.0, 2.0, -3.0])
    expected = -sum(np.log(1 / (1 + np.exp(-d))) for d in (0.0, 2.0, -3.0)) / 3
    assert float(bpr(margins)) == pytest.approx(expected, rel=1e-6)
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    bpr(far).backward()
    assert torch.isfinite(far.grad).all()


def slow_sampled_softmax(user, positive, negatives, items, temperature):
    """By the letter: the positive's share in a softmax over itself and the corrected negatives."""
    right = (user * positive).sum(-1, keepdim=True) / temperature
    wrong = user @ negatives.T / temperature + np.log(max(items - 1, 1) / len(negatives))
    return -torch.cat([right, wrong], dim=1).log_softmax(1)[:, 0].mean()


# one chunk, and several with a short last one
@pytest.mark.parametrize(("users", "negatives"), [(1, 1), (7, 3), (5000, 33)])
def test_sampled_softmax_is_its_slow_twin(users, negatives):
    draw = torch.Generator().manual_seed(0)
    shapes = ((users, 17), (users, 17), (negatives, 17))
    inputs = [
        torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]
    found, expected = (loss(*inputs, 400, 0.15) for loss in (sampled_softmax, slow_sampled_softmax))
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(3 * found, inputs),
        torch.autograd.grad(3 * expected, inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_sampled_softmax_far_out_and_in_half_precision():
    user, positive = torch.full((2, 1), 1e4, requires_grad=True), torch.tensor([[1e4], [-1e4]])
    sampled_softmax(user, positive, torch.ones(3, 1), 4, 0.15).backward()
    assert torch.isfinite(user.grad).all()
    draw = torch.Generator().manual_seed(0)
    inputs = [
        unit_rows(torch.randn(rows, 16, generator=draw)).requires_grad_() for rows in (600, 600, 40)
    ]
    expected = torch.autograd.grad(slow_sampled_softmax(*inputs, 400, 0.15), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sampled_softmax(*inputs, 400, 0.15)
    assert loss.dtype == torch.float32
    for one, other in zip(torch.autograd.grad(loss, inputs), expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02


def test_unit_rows():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1e-3, 0.0], [5.0, 5.0]], requires_grad=True)
    y = unit_rows(x, torch.tensor([True, True, True, False]))
    assert torch.allclose(y, torch.tensor([[0.6, 0.8], [0, 0], [-1, 0], [0, 0]]))
    y.sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad[3] == 0).all()


def test_masked_softmax():
    logits = torch.tensor([[1.0, 1.0, 50.0], [0.0, 3.0, 0.0], [1.0, 2.0, 3.0]], requires_grad=True)
    seen = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    value = masked_softmax(logits, seen)
    expected = torch.stack(
        [
            torch.tensor([0.5, 0.5, 0.0]),
            torch.tensor([0.0, 1.0, 0.0]),
            logits[2].detach().softmax(-1),
        ]
    )
    torch.testing.assert_close(value, expected)
    (value * torch.arange(3)).sum().backward()
    assert (
        torch.isfinite(logits.grad).all() and logits.grad[0, 2] == 0 and (logits.grad[1] == 0).all()
    )


def test_the_gradient_of_picked_rows_is_summed_in_a_fixed_order():
    """Indexing adds its gradient from several threads at once.

    `pick` must give the same bits every time.
    """
    draw = torch.Generator().manual_seed(0)
    rows, given = (
        torch.randint(0, 40, (6000,), generator=draw),
        torch.randn(6000, 64, generator=draw),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = []
        for _ in range(6):
            table = torch.zeros(41, 64, requires_grad=True)
            pick(table, rows).backward(given)
            gradients.append(table.grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])
    expected = torch.zeros(41, 64, dtype=torch.float64).index_add(0, rows, given.double())
    torch.testing.assert_close(gradients[0].double(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_training_defaults_are_options_of_training_that_differ_from_its_own(name):
    wanted = model_class(name).TRAIN
    assert build(TrainConfig, wanted) != TrainConfig() or not wanted
    assert all(getattr(TrainConfig(), key) != value for key, value in wanted.items())


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"TRAIN": {"batchsize": 7}},
            "unknown key in Wrong.TRAIN 'batchsize'; did you mean 'batch_size'?",
        ),
        ({"TRAIN": {"lr": -1.0}}, "lr is -1.0"),
        ({"TRAIN": {"layers": 2}}, "unknown key in Wrong.TRAIN 'layers'"),
        (
            {"SEARCH": {"layer": (1, 2)}},
            "unknown key in Wrong.SEARCH 'layer'; did you mean 'layers'?",
        ),
        ({"SEARCH": {"layers": (1, "two")}}, "layers is 'two'"),
        ({"SEARCH": {"lr": (1e-3, -1.0)}}, "lr is -1.0"),
    ],
)
def test_a_mistake_in_a_models_defaults_or_search_space_is_an_error_where_the_class_is_defined(
    attributes, message
):
    with pytest.raises(ConfigError, match=re.escape(message)):
        type("Wrong", (model_class("lightgcn"),), attributes)


def test_an_option_of_a_model_cannot_have_the_name_of_one_of_training():
    @dataclasses.dataclass(frozen=True)
    class Config(Options):
        patience: int = option(3, "of whom?")

    with pytest.raises(
        ConfigError, match=r"Wrong.Config has a key of training, patience: rename it"
    ):
        type("Wrong", (model_class("lightgcn"),), {"Config": Config, "SEARCH": {}})


@pytest.mark.parametrize("name", MODELS)
def test_a_search_contains_the_shipped_defaults(name):
    """Trial 0 is the shipped configuration; rates below and above it are tried, too."""
    kind = model_class(name)
    shipped = (
        dataclasses.asdict(TrainConfig()) | dict(kind.TRAIN) | dataclasses.asdict(kind.Config())
    )
    for key, values in kind.SEARCH.items():
        assert shipped[key] in values, f"{key} is {shipped[key]}, the search tries {values}"
    if "lr" in kind.SEARCH:
        assert min(kind.SEARCH["lr"]) < shipped["lr"] < max(kind.SEARCH["lr"])
