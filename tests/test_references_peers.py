"""The models that DualGNN is compared with against their slow twins in `reference/`, and their
known faults as tests.

Fault numbers (M3, G1, R10, …) are those of the survey of released code: M of MMGCN, G of GRCN, R of
the best known port.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small
import torch
from reference import grcn as slow_grcn
from reference import itemknn as slow_itemknn
from reference import mmgcn as slow_mmgcn
from reference import vbpr as slow_vbpr
from reference.common import Setting

from dualgnn_dgl.errors import RunError
from dualgnn_dgl.evaluation import Evaluator, top_k
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import create, model_class
from dualgnn_dgl.models.itemknn import nearest
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.newcomers import Newcomers
from dualgnn_dgl.training import TrainConfig, fit

ALL = ("visual", "acoustic", "textual")
TWINS = {"vbpr": slow_vbpr, "mmgcn": slow_mmgcn, "grcn": slow_grcn}
SWITCHES = {
    "vbpr": [
        {},
        {"bias": True},
        {"features": "raw", "bias": True},
        {"penalty": "norm", "l2": 0.2, "bias": True},
        {"l2": 0.0},
    ],
    "mmgcn": [
        {},
        {"combine": "sum"},
        {"layers": 1},
        {"layers": 2, "combine": "sum"},
        {"project_above": 4},
    ],
    "grcn": [
        {},
        {"routing": 0},
        {"layers": 0},
        {"layers": 3, "routing": 1},
        {"edge_weight": "max"},
        {"edge_weight": "mean"},
        {"prune": False},
        {"fusion": "mean"},
        {"fusion": "id", "l2": 0.7},
    ],
}


def make(name, data=None, dtype=torch.float64, seed=1, **switches):
    data = data or small.dataset()
    config = model_class(name).Config(**{"width": 6, **switches})
    model = create(name, heterograph(data), data.modalities, config, seed)
    with torch.no_grad():
        for label, parameter in model.named_parameters():
            if "bias" in label or "confidence" in label:  # far from their quiet start
                parameter.add_(
                    0.3
                    * torch.randn(
                        parameter.shape, generator=torch.Generator().manual_seed(len(label))
                    )
                )
    return model.to(dtype)


def check(name, data, dtype=torch.float64, kind=None, **switches):
    """Tables, loss and every gradient, of another class than the model's if `kind` is given."""
    model, twin = make(kind or name, data, dtype, **switches), TWINS[name]
    named = {
        label: p.detach().double().clone().requires_grad_(p.requires_grad)
        for label, p in model.named_parameters()
    }
    parts = data.modalities.values()
    setting = Setting(
        small.pairs_of(data.train),
        data.num_users,
        data.num_items,
        [torch.from_numpy(np.array(m.values)).double() for m in parts],
        [m.present.tolist() for m in parts],
    )
    batch = small.batch(data)
    triples = list(zip(*(column.tolist() for column in batch), strict=True))
    tolerance = 1e-6 if dtype == torch.float64 else 2e-4
    for one, other in zip(model.embed(), twin.embed(named, setting, model.config), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)
    loss, expected = model.loss(*batch), twin.loss(named, setting, triples, model.config)
    torch.testing.assert_close(loss.double(), expected, rtol=tolerance, atol=tolerance)
    loss.backward()
    expected.backward()
    for label, parameter in model.named_parameters():
        assert (parameter.grad is None) == (named[label].grad is None), label
        if parameter.grad is not None:
            torch.testing.assert_close(
                parameter.grad.double(),
                named[label].grad,
                rtol=tolerance,
                atol=tolerance / 10,
                msg=label,
            )


CASES = [(name, switches) for name, cases in SWITCHES.items() for switches in cases]


@pytest.mark.parametrize(("name", "switches"), CASES, ids=lambda value: str(value))
def test_equals_its_equations(name, switches):
    check(name, small.dataset(), **switches)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", TWINS)
def test_with_one_and_two_modalities(name, count):
    check(name, small.dataset(modalities=ALL[3 - count :]))


@pytest.mark.parametrize("name", TWINS)
def test_in_float32_with_the_kernels_that_training_uses(name):
    check(name, small.dataset(), torch.float32)


@pytest.mark.parametrize("name", TWINS)
def test_where_a_modality_is_there_for_nobody(name):
    data = small.dataset()
    silent = dataclasses.replace(
        data.modalities["acoustic"], present=np.zeros(data.num_items, bool)
    )
    check(name, dataclasses.replace(data, modalities={**data.modalities, "acoustic": silent}))


MASKED = [
    *CASES[:3],
    ("vbpr", {"features": "raw"}),
    ("mmgcn", {}),
    ("mmgcn", {"project_above": 4}),
    ("grcn", {}),
]


@pytest.mark.parametrize(("name", "switches"), MASKED)
def test_masked_rows_change_no_bit_and_get_no_gradient(name, switches):
    """Junk in the rows of the model's own feature buffers that the data lacks is not felt."""
    data = small.dataset()
    model = make(name, data, torch.float32, **switches)
    clean = [table.detach().clone() for table in model.embed()]
    for m, modality in enumerate(data.modalities.values()):
        absent = torch.from_numpy(~modality.present)
        model.features[m][absent] = 1e3 * torch.randn(int(absent.sum()), modality.width)
        model.features[m].requires_grad_()
    assert all(torch.equal(one, other) for one, other in zip(clean, model.embed(), strict=True))
    model.loss(*small.batch(data, size=100)).backward()
    for m, modality in enumerate(data.modalities.values()):
        gradient = model.features[m].grad.abs().sum(1).numpy()
        assert (gradient[~modality.present] == 0).all() and (gradient[modality.present] > 0).any()


# ---------------------------------------------------------------- MMGCN


def trained_parameters(model, data) -> tuple[set[str], set[str]]:
    """Names of the parameters that a short training changes, and of all parameters."""
    before = {label: value.clone() for label, value in model.state_dict().items()}
    fit(model, data.train, data.valid, TrainConfig(epochs=2, lr=0.01, batch_size=16))
    after = model.state_dict()
    return {label for label in before if not torch.equal(after[label], before[label])}, set(before)


def test_m3_preferences_and_identities_are_trained():
    """M3, R8: in release and port they never leave their random start."""
    data = small.dataset()
    changed, all_names = trained_parameters(make("mmgcn", data, torch.float32), data)
    assert changed == all_names


def test_m2_combine_and_layers_have_an_effect():
    """M2, R8: the released flag for concatenation is a text, hence always true; the number of
    layers is not read.
    """
    shapes = {}
    for combine in ("concat", "sum"):
        for layers in (1, 2, 3):
            model = make("mmgcn", combine=combine, layers=layers)
            shapes[combine, layers] = [tuple(parameter.shape) for parameter in model.parameters()]
    assert len({str(value) for value in shapes.values()}) == 6


def test_m4_every_modality_is_penalised():
    """M4: the release penalises the visual preference alone."""
    data = small.dataset()
    batch = small.batch(data)
    for m in range(3):
        model = make("mmgcn", data)
        before = model.penalty(*batch)
        with torch.no_grad():
            model.preference[m].mul_(10)
        assert model.penalty(*batch) > 1.01 * before


# ---------------------------------------------------------------- GRCN


def test_g1_routing_moves_users():
    """G1: in release and port, users receive nothing: three steps are none."""
    data = small.dataset()
    still = make("grcn", data, routing=0)
    for m in range(3):
        start = torch.nn.functional.normalize(still.preference[m], dim=1)
        assert torch.allclose(still.routed(m)[0], start)
        moved = (make("grcn", data).routed(m)[0] - start).norm(dim=1)
        watching = [
            u for u in range(data.num_users) if u not in (small.LONELY_USER, small.BLIND_USER)
        ]
        assert moved[small.LONELY_USER] < 1e-12 and (moved[watching] > 0.1).all()


def test_weights_are_normalised_per_target_in_both_directions():
    data = small.dataset()
    model = make("grcn", data)
    for m in range(3):
        to_user, to_item = model.content(m)[1]
        for edges, weight in ((model.edges, to_user), (model.back, to_item)):
            target = edges.ends()[0]
            sums = torch.zeros(edges.shape[0], dtype=torch.float64).index_add(0, target, weight)
            torch.testing.assert_close(
                sums[target.unique()], torch.ones(len(target.unique()), dtype=torch.float64)
            )


def test_pruning_cuts_edges_and_signs_stay_without_it():
    model = make("grcn")
    alphas = [model.content(m)[1][0] for m in range(3)]
    pruned = model.refined(model.edges, alphas, model.item_confidence)
    signed = make("grcn", prune=False).refined(model.edges, alphas, model.item_confidence)
    assert (pruned >= 0).all() and (signed < 0).any() and torch.equal(pruned, signed.relu())


# ---------------------------------------------------------------- VBPR


def test_vbpr_trains_on_the_batch_alone_and_scores_the_same():
    """The loss computes the batch's items only; they must be the rows of the whole table."""
    data = small.dataset()
    model, batch = make("vbpr", data, l2=0.0), small.batch(data)
    user, item = model.embed()
    margin = (user[batch.users] * (item[batch.positives] - item[batch.negatives])).sum(1)
    torch.testing.assert_close(model.loss(*batch), torch.nn.functional.softplus(-margin).mean())


# ---------------------------------------------------------------- ItemKNN


def itemknn(data, **switches):
    return create("itemknn", heterograph(data), {}, model_class("itemknn").Config(**switches))


@pytest.mark.parametrize("similarity", ["cosine", "conditional"])
@pytest.mark.parametrize("activity", [0.0, 1.0, 0.7])
@pytest.mark.parametrize(("k", "shrink"), [(1, 0.0), (3, 0.3), (100, 10.0)])
def test_itemknn_equals_its_equations(similarity, activity, k, shrink):
    data = small.dataset()
    config = model_class("itemknn").Config(
        k=k, shrink=shrink, similarity=similarity, activity=activity
    )
    user, item = create("itemknn", heterograph(data), {}, config).embed()
    assert (
        user.is_sparse and item.is_sparse and item.coalesce().values().numel() <= k * data.num_items
    )
    expected = slow_itemknn.scores(
        small.pairs_of(data.train), data.num_users, data.num_items, config
    )
    torch.testing.assert_close(
        user.to_dense() @ item.to_dense().T, torch.tensor(expected), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("room", [1, 30, 10**6])
def test_itemknn_does_not_depend_on_the_block(room):
    data = small.dataset()
    config = model_class("itemknn").Config(k=4, shrink=1.0)
    one, other = nearest(data.train.csr(), config), nearest(data.train.csr(), config, room=room)
    assert (one != other).nnz == 0 and one.shape == (data.num_items, data.num_items)


def test_itemknn_finds_the_checkerboard():
    data = small.checkerboard()
    done = fit(itemknn(data), data.train, data.valid)
    assert (
        Evaluator(data.test, [data.train], ks=(1,))(done.user, done.item).means["recall@1"] == 1.0
    )


@pytest.mark.parametrize("block", [None, 16])
def test_sparse_tables_rank_like_dense_ones(block):
    """Ties, what was seen, a choice of users, blocks: all as with the same tables made dense."""
    data = small.checkerboard(users=37)
    user, item = itemknn(data, k=5).embed()
    users = np.array([31, 2, 2, 17])
    for chosen in (None, users):
        items, scores = top_k(user, item, 7, data.train, chosen, block=block)
        expected = top_k(user.to_dense(), item.to_dense(), 7, data.train, chosen)
        assert torch.equal(items, expected[0])
        torch.testing.assert_close(scores, expected[1])
    one = Evaluator(data.test, [data.train], ks=(3,))(user, item, block)
    other = Evaluator(data.test, [data.train], ks=(3,))(user.to_dense(), item.to_dense())
    assert one.means == other.means


def test_run_folder_holds_sparse_tables(tmp_path):
    data = small.dataset()
    model = itemknn(data, k=3)
    done, train = fit(model, data.train, data.valid), TrainConfig()
    known = {
        "model": "itemknn",
        "config": model_class("itemknn").Config(k=3),
        "train": train,
        "data_path": "data",
    }
    checkpoint.save_run(tmp_path / "run", done, dataset=data, device="cpu", **known)
    run = checkpoint.load_run(tmp_path / "run")
    for one, other in zip((run.user, run.item), model.embed(), strict=True):
        assert one.is_sparse and torch.equal(one.to_dense(), other.to_dense())


@pytest.mark.parametrize("fault", ["outside", "sizes", "mixed", "cut"])
def test_damaged_sparse_tables_are_one_line(tmp_path, fault):
    data = small.dataset()
    done = fit(itemknn(data, k=3), data.train, data.valid)
    if fault == "outside":
        index = done.user.indices().clone()
        index[1, 0] = data.num_items
        done.user = torch.sparse_coo_tensor(
            index, done.user.values(), done.user.shape, is_coalesced=True, check_invariants=False
        )
    elif fault == "sizes":
        done.item = done.item.index_select(1, torch.arange(5)).coalesce()
    elif fault == "mixed":
        done.item = done.item.to_dense()
    else:
        done.user = torch.sparse_coo_tensor(
            done.user.indices()[:, :4],
            done.user.values()[:4],
            (2, data.num_items),
            check_invariants=False,
        )
    known = {
        "model": "itemknn",
        "config": model_class("itemknn").Config(),
        "train": TrainConfig(),
        "data_path": "data",
    }
    checkpoint.save_run(tmp_path / "run", done, dataset=data, device="cpu", **known)
    with pytest.raises(RunError, match="tables.*train again"):
        checkpoint.load_run(tmp_path / "run")


def test_itemknn_places_a_newcomer_like_a_trained_user():
    data = small.dataset()
    model = itemknn(data, k=5)
    door = Newcomers(model, data)
    user = door.place(data.train)
    assert user.is_sparse and torch.equal(user.to_dense(), model.embed()[0].to_dense())
    history = data.item_ids[data.train.item[data.train.user == 3]].tolist()
    assert torch.equal(
        door.recommend([history], k=6)[0], top_k(*model.embed(), 6, data.train, np.array([3]))[0]
    )


def test_nan_in_a_sparse_table_is_found():
    user, item = itemknn(small.dataset()).embed()
    item = item.clone()
    item.values()[3] = float("nan")
    with pytest.raises(RunError, match="item table holds NaN"):
        top_k(user, item, 3)
