"""The stand-in for DGL gives the same graphs and weights as DGL, and names what it lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dualgnn_dgl import _standin
from dualgnn_dgl._dgl import AVAILABLE, dgl
from dualgnn_dgl.errors import DualGNNError
from dualgnn_dgl.models import MODELS

HERE = Path(__file__).resolve().parent
SCRIPT = """
import importlib.util, sys
if {without}:
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "dgl" else real(name, *rest)
import hashlib
import small
from dualgnn_dgl import training
from dualgnn_dgl._dgl import AVAILABLE
assert AVAILABLE is not {without}
data = small.dataset()
for name in {names}:
    config = training.TrainConfig(epochs=2, batch_size=16)
    state = training.train_model(name, data, train=config).model.state_dict()
    whole = b"".join(key.encode() + value.numpy().tobytes() for key, value in state.items())
    print(name, hashlib.sha256(whole).hexdigest())
assert ("dgl" in sys.modules) is not {without}
"""


def trained(without: bool) -> str:
    script = SCRIPT.format(without=without, names=list(MODELS))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(not AVAILABLE, reason="DGL is not installed")
def test_every_model_has_the_same_weights_without_dgl() -> None:
    assert trained(without=True) == trained(without=False)


@pytest.mark.skipif(not AVAILABLE, reason="DGL is not installed")
def test_graphs_answer_as_those_of_dgl_do() -> None:
    draw = torch.Generator().manual_seed(0)
    watch = torch.randint(7, (30,), generator=draw), torch.randint(11, (30,), generator=draw)
    pairs = {
        ("user", "interacts", "item"): watch,
        ("item", "interacted_by", "user"): watch[::-1],
        ("user", "co_occurs", "user"): (torch.tensor([3, 1]), torch.tensor([0, 6])),
    }
    sizes = {"user": 7, "item": 11}
    theirs, ours = dgl.heterograph(pairs, sizes), _standin.heterograph(pairs, sizes)
    assert ours.ntypes == theirs.ntypes and ours.etypes == theirs.etypes
    assert ours.canonical_etypes == theirs.canonical_etypes
    assert ours.num_nodes() == theirs.num_nodes() and ours.num_edges() == theirs.num_edges()
    for relation in theirs.canonical_etypes:
        for etype in (relation, relation[1]):
            for one, other in zip(theirs.edges(etype=etype), ours.edges(etype=etype), strict=True):
                assert torch.equal(one, other) and one.dtype == other.dtype
            assert theirs.num_edges(etype) == ours.num_edges(etype)
            assert torch.equal(theirs.in_degrees(etype=etype), ours.in_degrees(etype=etype))
            assert torch.equal(theirs.out_degrees(etype=etype), ours.out_degrees(etype=etype))
    for graph in (theirs, ours):
        graph.edges["interacts"].data["weight"] = torch.arange(30.0)
        graph.nodes["user"].data["x"] = torch.arange(7.0)
    assert torch.equal(ours.edges["interacts"].data["weight"], torch.arange(30.0))
    assert torch.equal(ours.nodes["user"].data["x"], theirs.nodes["user"].data["x"])


def test_what_needs_dgl_says_so_in_one_line() -> None:
    graph = _standin.heterograph(
        {("a", "to", "b"): (torch.tensor([0]), torch.tensor([1]))}, {"a": 1, "b": 2}
    )
    for ask in (
        lambda: _standin.sampling,
        lambda: graph.subgraph,
        lambda: _standin.heterograph({("a", "to", "b"): ("csc", 1, 2)}, {"a": 1, "b": 1}),
    ):
        with pytest.raises(DualGNNError, match="needs DGL, which is not installed") as error:
            ask()
        assert "\n" not in str(error.value)
    with pytest.raises(DualGNNError, match="outside 0…0"):
        _standin.heterograph(
            {("a", "to", "b"): (torch.tensor([1]), torch.tensor([0]))}, {"a": 1, "b": 1}
        )
    with pytest.raises(DualGNNError, match="unknown or ambiguous relation"):
        graph.num_edges("from")


def test_the_kernel_of_dgl_is_not_chosen_without_it(monkeypatch) -> None:
    from dualgnn_dgl import ops
    from dualgnn_dgl.ops import dgl_kernel, kernels

    destination = torch.cat([torch.zeros(60, dtype=torch.int64), torch.arange(3)])
    adjacency = ops.normalise(destination, torch.arange(63) % 5, (4, 5))
    matrices = []
    monkeypatch.setitem(
        kernels.KERNELS, "bag", SimpleNamespace(spmm=lambda m, x: matrices.append(m) or x[:4])
    )
    monkeypatch.setattr(dgl_kernel, "available", lambda: False)
    _ = adjacency @ torch.ones(5, 2)
    monkeypatch.setattr(kernels, "SKEW", 0.0)  # every matrix counts as uneven
    assert ops.choose(matrices[0], torch.ones(5, 2)) == "bag"
    monkeypatch.setattr(dgl_kernel, "available", lambda: True)
    assert ops.choose(matrices[0], torch.ones(5, 2)) == "dgl"
