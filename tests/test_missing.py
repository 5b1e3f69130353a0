"""DualGNN where features are missing: absent rows have no effect, neighbours impute."""

from __future__ import annotations

import pytest
import small
import torch

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


SWITCHES = [{"missing": "neighbours"}, {"missing": "mask"}, {"user_fusion": "max"}]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_an_absent_row_changes_no_bit_and_gets_no_gradient(switches):
    """Junk in the model's own buffers changes neither tables nor loss."""
    data, batch = small.dataset(), small.batch(small.dataset(), size=100)
    model = dualgnn(data, **switches)
    clean, loss = bits(model.embed()), model.loss(*batch).detach()
    present = model.features.present
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


def test_attention_covers_the_modalities_of_a_users_items():
    """User by user; a user whose items have no modality at all attends to all of them."""
    data = small.dataset()
    watched = [set() for _ in range(data.num_users)]
    for u, i in small.pairs_of(data.train):
        watched[u].add(i)
    alpha = dualgnn(data).user_attention()
    for u in range(data.num_users):
        has = [
            any(modality.present[i] for i in watched[u]) for modality in data.modalities.values()
        ]
        assert (alpha[u] > 0).tolist() == (has if any(has) else [True] * len(has))
    assert alpha[small.BLIND_USER, 0] == 0
    torch.testing.assert_close(alpha.sum(1), torch.ones(data.num_users))


def test_tables_move_with_the_model_and_copies_are_equal():
    import copy

    data = small.dataset()
    model = dualgnn(data)
    first = bits(model.embed())
    assert bits(copy.deepcopy(model).embed()) == first
    double = model.double()
    assert double.embed()[0].dtype == torch.float64 and torch.isfinite(
        double.loss(*small.batch(data))
    )
