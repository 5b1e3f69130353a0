"""The peers of the training benchmark do the work that our models do.

Else their times would say nothing.
"""

from __future__ import annotations

import importlib
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest
import small
import torch

from dualgnn_dgl import models
from dualgnn_dgl.graphs import heterographs

pytest.importorskip(
    "torch_geometric", reason="torch_geometric is not installed: pip install -e '.[bench]'"
)
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    """Imports the peers from the checkout; the package does not install the benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        return importlib.import_module("benchmarks.speed.peers")


@pytest.mark.parametrize(
    "names", [("visual", "acoustic", "textual"), ("visual", "textual"), ("textual",)], ids=len
)
@pytest.mark.parametrize("holes", [True, False], ids=["holes", "whole"])
@pytest.mark.parametrize("k", [40, 3])
def test_dualgnn_with_message_passing_is_our_dualgnn(
    peers: ModuleType, names: tuple, holes: bool, k: int
) -> None:
    data = small.dataset(modalities=names, holes=holes)
    config = models.model_class("dualgnn").Config(
        width=6, layers=2, hidden=8, cooc_k=k, l2=0.3, missing="mask"
    )
    ours = models.create("dualgnn", heterographs.heterograph(data), data.modalities, config, seed=5)
    theirs = peers.PygDualGNN(
        data.train, data.modalities, data.co_occurrence, width=6, layers=2, hidden=8, k=k, l2=0.3
    )
    theirs.load_state_dict(ours.state_dict())  # strict: the same parameters, none more

    for mine, other in zip(ours.embed(), theirs.embed(), strict=True):
        torch.testing.assert_close(other, mine, rtol=1e-5, atol=1e-6)
    batch = small.batch(data)
    losses = [model.loss(*batch) for model in (ours, theirs)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    for loss in losses:
        loss.backward()
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert gradients[name].grad.abs().max() > 0
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["edges", "csr"])
def test_lightgcn_of_torch_geometric_is_our_lightgcn(peers: ModuleType, form: str) -> None:
    """The propagation is the same; its penalty counts each row of a batch once, ours as often as it
    stands there.
    """
    data = small.dataset(modalities=())
    ours = models.create(
        "lightgcn",
        heterographs.heterograph(data),
        {},
        models.model_class("lightgcn").Config(width=5, l2=0.0),
    )
    theirs = peers.PygLightGCN(data.train, width=5, layers=3, l2=0.0, form=form)
    with torch.no_grad():
        theirs.model.embedding.weight.copy_(torch.cat([ours.user, ours.item]))

    for mine, other in zip(ours.embed(), theirs.embed(), strict=True):
        torch.testing.assert_close(other, mine, rtol=1e-5, atol=1e-6)
    batch = small.batch(data)
    losses = [model.loss(*batch) for model in (ours, theirs)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    for loss in losses:
        loss.backward()
    gradient = torch.cat([ours.user.grad, ours.item.grad])
    torch.testing.assert_close(theirs.model.embedding.weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_peers_loop_trains(peers: ModuleType) -> None:
    data = small.dataset()
    model = peers.PygDualGNN(data.train, data.modalities, data.co_occurrence, width=6, hidden=8)
    batch = small.batch(data)
    before = float(model.loss(*batch).detach())
    numbers = list(islice(peers.train_steps(model, data.train, batch_size=7, lr=0.02), 30))
    steps = -(-len(data.train) // 7)
    assert numbers == [(number % steps + 1, steps) for number in range(30)]
    assert float(model.loss(*batch).detach()) < before - 0.05
