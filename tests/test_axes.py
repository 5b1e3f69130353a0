"""Tables and graphs say whether their rows are users or items.

Data with as many of both trains, updates and samples blocks.
"""

from __future__ import annotations

import numpy as np
import pytest
import small
import torch
from test_step import SWITCHES, WHOLE, make
from test_update import day, log

from dualgnn_dgl import training
from dualgnn_dgl.data.raw import RawInput
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.models.base import axis_of
from dualgnn_dgl.ops.learned import Edges
from dualgnn_dgl.runs import growth
from dualgnn_dgl.training.blocks import Blocks, adjacencies

SIDE = 19  # users, and as many items
SIZES = {"user": 31, "item": 43}  # no width below is one of these
BOTH_WAYS = [
    *SWITCHES,
    *((name, {}) for name in MODELS if name not in {case[0] for case in SWITCHES}),
]


def square(**more) -> small.Dataset:
    return small.dataset(users=SIDE, items=SIDE, **more)


@pytest.mark.parametrize(("name", "switches"), BOTH_WAYS)
def test_every_table_is_marked_and_nothing_else(name: str, switches: dict) -> None:
    """Where no other size is that of the users or the items, the number of rows says what the marks
    must say.
    """
    model = make(name, small.dataset(users=SIZES["user"], items=SIZES["item"]), **switches)
    parts = dict(model.named_parameters()) | dict(model.named_buffers())
    # parts of a graph
    inside = {f"{place}." for place, module in model.named_modules() if hasattr(module, "edges")}
    for key, tensor in parts.items():
        if any(key.startswith(place) for place in inside) or tensor.ndim == 0:
            continue
        expected = {size: axis for axis, size in SIZES.items()}.get(len(tensor))
        assert axis_of(model, key) == expected, f"{key} {tuple(tensor.shape)}"
    for adjacency in adjacencies(model):
        assert adjacency.axes is not None and adjacency.shape == tuple(
            SIZES[axis] for axis in adjacency.axes
        )
        assert adjacency.T.axes == adjacency.axes[::-1]
    assert adjacencies(model) or name in small.whole_graph_only() or not model.trainable


@pytest.mark.parametrize(("name", "switches"), [case for case in SWITCHES if case[0] not in WHOLE])
def test_blocks_of_square_data_give_the_loss_of_the_whole_graph(name: str, switches: dict) -> None:
    data = square()
    # its penalty is a mean over all users' attention: in a block, over the block's
    if name == "dualgnn":
        switches = switches | {"l2": 0.0}
    model, batch = make(name, data, **switches), small.batch(data)
    model.new_epoch(torch.Generator().manual_seed(7))
    expected = model.loss(*batch)
    model.new_epoch(torch.Generator().manual_seed(7))  # the same masks again
    found = Blocks(model, SIDE, SIDE, 100, 20, torch.Generator().manual_seed(0)).loss(*batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_and_grows_on_square_data(name: str) -> None:
    """As many new users as new items come in, too."""
    data = square()
    model = create(name, heterograph(data), data.modalities)
    sampled = bool(adjacencies(model)) and not any(
        isinstance(module, Edges) for module in model.modules()
    )
    if model.trainable:
        train = training.TrainConfig(epochs=1, fanout=3 if sampled else 0)
        fit = training.fit(model, data.train, data.valid, train, modalities=data.modalities)
        assert (fit.user.shape[0], fit.item.shape[0]) == (SIDE, SIDE)
    for raw in (day(), RawInput(log([("ana", "new1")]))):
        larger, added = growth.extend(data, raw)
        assert added.users == added.items
        grown = growth.grow(model, data, larger, name, model_class(name).Config())
        user, item = grown.embed()
        assert (user.shape[0], item.shape[0]) == (SIDE + added.users, SIDE + added.items)
        learned = grown.state_dict()
        for key, old in model.state_dict().items() if model.trainable else ():
            assert torch.equal(learned[key][: len(old)] if old.ndim else learned[key], old), key


def test_nothing_learned_means_nothing_kept() -> None:
    """The counts of a model that is not trained are those of the larger data."""
    data = small.dataset()
    larger, _ = growth.extend(data, day())
    model = create("mostpop", heterograph(data), {})
    grown = growth.grow(model, data, larger, "mostpop", model_class("mostpop").Config())
    counts = np.bincount(larger.train.item, minlength=larger.num_items)
    assert grown.embed()[1].flatten().tolist() == counts.tolist()
