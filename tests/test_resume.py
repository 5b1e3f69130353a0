"""A training that was put down and taken up again ends, bit for bit, like one that never was.

For every model.
"""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import small
import torch

from dualgnn_dgl.core.options import keys
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.runs.working import Checkpoints
from dualgnn_dgl.training import Fit, TrainConfig, fit
from dualgnn_dgl.training.state import Snapshot

CONFIG = TrainConfig(epochs=4, lr=0.02, batch_size=13, seed=5, patience=3, metric="ndcg@19")
TRAINED = [(name, {}) for name in MODELS if model_class(name).trainable]


def make(name="bprmf", data=None, **switches):
    data = data or small.dataset()
    kind = model_class(name)
    narrow = {key: 6 for key in ("width", "hidden") if key in keys(kind.Config)}
    return create(
        name, heterograph(data), data.modalities, kind.Config(**{**narrow, **switches}), 3
    )


class Box:
    """A hook in memory: keeps what comes at the given moments, and stops after one of them."""

    def __init__(self, moments=(), stop_at=None, start=None):
        self.moments, self.stop_at, self.start, self.stop = set(moments), stop_at, start, False
        self.count, self.kept = 0, {}

    def due(self, epochs=None, *, last=False):
        self.count += 1
        self.stop = self.count == self.stop_at
        return self.stop or self.count in self.moments

    def keep(self, snapshot):
        self.kept[self.count] = copy.deepcopy(snapshot)


def history(done: Fit) -> list[dict]:
    return [
        {key: value for key, value in row.items() if "seconds" not in key} for row in done.history
    ]


def same(one: Fit, two: Fit) -> bool:
    attentions = (
        one.attention is None
        if two.attention is None
        else torch.equal(one.attention, two.attention)
    )
    states = one.state.keys() == two.state.keys() and all(
        torch.equal(one.state[key], two.state[key]) for key in one.state
    )
    tables = torch.equal(one.user, two.user) and torch.equal(one.item, two.item)
    best = (one.best_epoch, one.best_value) == (two.best_epoch, two.best_value)
    return attentions and states and tables and best and history(one) == history(two)


@pytest.mark.parametrize(("name", "switches"), TRAINED)
def test_resumed_at_any_moment_is_the_same_to_the_bit(name, switches):
    """Put down after each kind of moment.

    The first batch, within an epoch, its last batch, its end, near the end.
    """
    data = small.dataset()
    steps = math.ceil(len(data.train) / CONFIG.batch_size)
    every = range(1, (steps + 1) * CONFIG.epochs + 1)
    whole = fit(make(name, data, **switches), data.train, data.valid, CONFIG)
    box = Box(every)
    assert same(
        whole, fit(make(name, data, **switches), data.train, data.valid, CONFIG, hook=box)
    ), "keeping changes nothing"
    last = max(box.kept)
    moments = {
        1,
        2,
        steps,
        steps + 1,
        steps + 3,
        2 * steps + 1,
        2 * steps + 2,
        last - 1,
        last,
    } & set(box.kept)
    for moment in sorted(moments):
        torch.manual_seed(moment)  # whatever the new process begins with
        kept = box.kept[moment]
        done = fit(
            make(name, data, **switches), data.train, data.valid, CONFIG, hook=Box(start=kept)
        )
        assert same(whole, done), (
            f"put down in epoch {kept.info['epoch']} after {kept.info['step']} batches"
        )


@pytest.mark.parametrize("changes", [{"fanout": 2}, {"share_propagation": 2}], ids=str)
def test_resumed_with_blocks_or_shared_propagations_too(changes):
    data, config = small.dataset(), dataclasses.replace(CONFIG, **changes)
    whole, box = fit(make("lightgcn", data), data.train, data.valid, config), Box(range(1, 12))
    assert same(whole, fit(make("lightgcn", data), data.train, data.valid, config, hook=box))
    for kept in box.kept.values():
        assert same(
            whole,
            fit(make("lightgcn", data), data.train, data.valid, config, hook=Box(start=kept)),
        )


def test_stopped_again_and_again(tmp_path):
    """Through real files, stopped after every second batch: the chain of pieces is the whole."""
    data = small.dataset()
    whole = fit(make("dualgnn", data), data.train, data.valid, CONFIG)
    pieces, interrupted = 0, True
    while interrupted:
        with Checkpoints(tmp_path / "run", minutes=1e9) as hook:
            found = hook.newest()
            hook.start = found.snapshot if found else None
            asked = Box(stop_at=2)

            def due(epochs=None, *, last=False, asked=asked, hook=hook):
                hook.stop = asked.due()
                return hook.stop

            hook.due = due
            try:
                done = fit(make("dualgnn", data), data.train, data.valid, CONFIG, hook=hook)
                interrupted = done.interrupted
            except KeyboardInterrupt:
                interrupted = True
        pieces += 1
        assert pieces < 100
    assert pieces > 8 and same(whole, done)


def test_stop_returns_the_best_so_far_and_goes_through_before_the_first_epoch_is_over():
    data = small.dataset()
    with pytest.raises(KeyboardInterrupt):
        fit(make(), data.train, data.valid, CONFIG, hook=Box(stop_at=2))
    steps = math.ceil(len(data.train) / CONFIG.batch_size)
    done = fit(make(), data.train, data.valid, CONFIG, hook=Box(stop_at=steps + 3))
    assert done.interrupted and len(done.history) == 1 and done.best_epoch == 1


def test_more_epochs_and_more_patience_go_on():
    data = small.dataset()
    long = TrainConfig(epochs=7, lr=0.02, batch_size=13, seed=5, patience=7, metric="ndcg@19")
    steps = math.ceil(len(data.train) / CONFIG.batch_size)
    short = TrainConfig(epochs=3, lr=0.02, batch_size=13, seed=5, patience=2, metric="ndcg@19")
    box = Box([3 * (steps + 1)])
    fit(make(), data.train, data.valid, short, hook=box)
    (kept,) = box.kept.values()
    assert kept.info["epoch"] == 4 and kept.info["step"] == 0
    done = fit(make(), data.train, data.valid, long, hook=Box(start=kept))
    assert same(done, fit(make(), data.train, data.valid, long)) and len(done.history) > 3


def test_stopping_by_patience_is_remembered(monkeypatch):
    """The count of validations without a better one goes on where it stood."""
    data = small.dataset()
    eager = TrainConfig(epochs=60, lr=0.3, batch_size=13, patience=2, metric="ndcg@19")
    box = Box(range(1, 2000))
    whole = fit(make(), data.train, data.valid, eager, hook=box)
    assert len(whole.history) < 60
    for moment in sorted(box.kept)[-4:]:
        assert same(
            whole, fit(make(), data.train, data.valid, eager, hook=Box(start=box.kept[moment]))
        )


def test_a_snapshot_of_another_model_is_refused():
    data = small.dataset()
    box = Box([1])
    fit(make("bprmf"), data.train, data.valid, CONFIG, hook=box)
    for other in (make("lightgcn", width=7), make("dualgnn")):
        with pytest.raises(RunError, match="another model") as error:
            fit(other, data.train, data.valid, CONFIG, hook=Box(start=box.kept[1]))
        assert "\n" not in str(error.value)


def test_every_generator_is_kept_also_one_that_the_model_holds():
    data = small.dataset()

    def noisy():
        model = make("bprmf", data)
        loss, model.noise = model.loss, torch.Generator().manual_seed(8)

        def shaken(*batch):
            # its own and torch's
            return loss(*batch) * (1 + torch.rand((), generator=model.noise) + torch.rand(()))

        model.loss = shaken
        return model

    torch.manual_seed(1)
    box = Box([7])
    whole = fit(noisy(), data.train, data.valid, CONFIG, hook=box)
    torch.manual_seed(2)
    assert same(whole, fit(noisy(), data.train, data.valid, CONFIG, hook=Box(start=box.kept[7])))
    assert {"now/batches", "now/graph", "now/model..noise", "now/default"} <= box.kept[
        7
    ].tensors.keys()


def test_numbers_that_are_none_are_never_kept():
    """The parameters go bad behind the watch's back.

    No checkpoint is written of them, and the last good one stays.
    """
    data = small.dataset()
    model, box = make(), Box(range(1, 100))
    keep = box.keep

    def spoil(snapshot: Snapshot) -> None:
        keep(snapshot)
        if box.count == 2:
            with torch.no_grad():
                model.item[3, 2] = torch.nan

    box.keep = spoil
    # does not see items
    model.loss = lambda users, positives, negatives: model.user.square().mean()
    with pytest.raises(RunError, match=r"epoch 1 within 3 batches: item is not finite"):
        fit(model, data.train, data.valid, CONFIG, hook=box)
    assert sorted(box.kept) == [1, 2]
    assert all(
        bool(tensor.isfinite().all())
        for kept in box.kept.values()
        for tensor in kept.tensors.values()
    )
