"""Ways to a batch's gradient: whole graph, shared propagation, sampled blocks, CUDA graph.

All but small blocks agree.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref
from collections.abc import Callable

import pytest
import small
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from dualgnn_dgl.core.options import keys
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.ops import Adjacency, average, normalise
from dualgnn_dgl.ops.learned import Edges
from dualgnn_dgl.training import Fit, TrainConfig, fit
from dualgnn_dgl.training.blocks import Blocks, restricted
from dualgnn_dgl.training.sampling import TripleSampler
from dualgnn_dgl.training.step import Step

CPU = torch.device("cpu")
TRAINED = [name for name in MODELS if model_class(name).trainable]
SWITCHES = [(name, {}) for name in TRAINED] + [
    ("dualgnn", {"missing": "mask"}),
    ("dualgnn", {"user_fusion": "concat"}),
    ("dualgnn", {"user_fusion": "max"}),
]
WHOLE = small.whole_graph_only()
# losses that are means over triples of given tables
TABLES = [name for name in TRAINED if name not in small.overriding("loss")]
GPU = torch.cuda.is_available()


def make(name: str, data=None, **switches) -> Recommender:
    data = data or small.dataset()
    kind = model_class(name)
    narrow = {key: 6 for key in ("width", "hidden") if key in keys(kind.Config)}
    return create(
        name, heterograph(data), data.modalities, kind.Config(**{**narrow, **switches}), 3
    )


def triples(data=None, size: int = 23) -> tuple[Tensor, Tensor, Tensor]:
    data = data or small.dataset()
    return next(TripleSampler(data.train).epoch(size, torch.Generator().manual_seed(1)))


def gradients(model: Recommender) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def plain(model: Recommender, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    model.new_epoch(torch.Generator().manual_seed(7))
    loss = model.loss(*batch)
    loss.backward()
    return loss.detach(), gradients(model)


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


# --- sampled blocks


@pytest.mark.parametrize("kind", ["normalised", "averaged", "weighted", "plain"])
def test_block_of_a_matrix_is_the_block_of_the_dense_one(kind: str) -> None:
    draw = torch.Generator().manual_seed(2)
    dst, src = (
        torch.randint(0, 11, (40,), generator=draw),
        torch.randint(0, 7, (40,), generator=draw),
    )
    matrix = {
        "normalised": lambda: normalise(dst, src, (11, 7)),
        "averaged": lambda: average(dst, src, (11, 7)),
        "weighted": lambda: Adjacency(dst, src, (11, 7), weight=torch.rand(40, generator=draw)),
        "plain": lambda: Adjacency(dst, src, (11, 7)),
    }[kind]()
    rows, columns = torch.tensor([0, 3, 4, 10]), torch.tensor([1, 2, 6])
    block, whole = matrix.block(rows, columns), matrix.dense()
    part = whole[rows][:, columns]
    if kind in ("normalised", "averaged"):  # what a row lost, the rest of it makes up for
        entries = Adjacency(dst, src, (11, 7)).dense()[rows]
        part = part * (entries.sum(1) / entries[:, columns].sum(1).clamp(min=1)).unsqueeze(1)
    torch.testing.assert_close(block.dense(), part)
    torch.testing.assert_close(block.T.dense(), part.T)
    x = torch.randn(3, 5, requires_grad=True)
    (block @ x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * part.T @ (part @ x.detach()))
    none = matrix.block(torch.tensor([], dtype=torch.int64), columns)
    assert none.shape == (0, 3) and (none @ torch.ones(3, 2)).shape == (0, 2)


def test_neighbours_are_all_or_a_fair_draw() -> None:
    dst = torch.tensor([0] * 3 + [2] * 8)
    src = torch.tensor([5, 1, 4, *range(8)])
    matrix, draw = Adjacency(dst, src, (3, 9)), torch.Generator().manual_seed(0)
    assert sorted(matrix.neighbours(torch.tensor([0]), 3, draw).tolist()) == [1, 4, 5]
    assert matrix.neighbours(torch.tensor([1]), 3, draw).tolist() == []
    drawn = torch.cat([matrix.neighbours(torch.tensor([2]), 3, draw) for _ in range(2_000)])
    assert len(drawn) == 6_000
    counts = torch.bincount(drawn, minlength=9)
    # 4.5 standard deviations of 26
    assert counts[8] == 0 and bool((counts[:8] - 750).abs().max() < 120)


@pytest.mark.parametrize(("name", "switches"), [case for case in SWITCHES if case[0] not in WHOLE])
def test_a_block_that_reaches_everything_gives_the_loss_of_the_whole_graph(
    name: str, switches: dict
) -> None:
    data, batch = small.dataset(), triples()
    # its penalty is a mean over all users' attention: in a block, over the block's
    if name == "dualgnn":
        switches = switches | {"l2": 0.0}
    model = make(name, data, **switches)
    loss, expected = plain(model, batch)
    model.new_epoch(torch.Generator().manual_seed(7))
    blocks = Blocks(
        model, data.num_users, data.num_items, 100, 20, torch.Generator().manual_seed(0)
    )
    found = blocks.loss(*batch)
    found.backward()
    # its softmax counts the items that it draws from: those of the block
    if name == "dualgnn_plus":
        assert len(blocks.draw(batch[0], torch.cat(batch[1:]))[1]) == data.num_items
    torch.testing.assert_close(found.detach(), loss, rtol=1e-5, atol=1e-6)
    agree(gradients(model), expected)


def test_a_small_block_is_small_and_trains_its_own_rows_only() -> None:
    data, batch = small.dataset(users=60, items=90), triples(small.dataset(users=60, items=90), 2)
    model = make("lightgcn", data)
    blocks = Blocks(model, 60, 90, 2, 1, torch.Generator().manual_seed(0))
    users, items = blocks.draw(batch[0], torch.cat(batch[1:]))
    assert set(batch[0].tolist()) <= set(users.tolist()) and len(users) < 12 and len(items) < 12
    assert torch.equal(users, users.unique()) and torch.equal(items, items.unique())
    blocks.generator.manual_seed(0)
    blocks.loss(*batch).backward()
    touched = model.user.grad.abs().sum(1).nonzero().flatten()
    assert 0 < len(touched) and set(touched.tolist()) <= set(users.tolist())


def test_wide_maps_are_no_tables() -> None:
    """A linear map with as many rows as there are items keeps them all."""
    data = small.dataset(modalities=("visual",))
    model = make("dualgnn", data, hidden=data.num_items, width=data.num_users)
    some = {"user": torch.arange(4), "item": torch.arange(5)}
    part = restricted(model, some)
    assert part.encoders[0][0].weight.shape == (data.num_items, 5) and part.preference[0].shape == (
        4,
        data.num_users,
    )
    assert len(part.embed()[0]) == 4 and len(model.embed()[0]) == data.num_users


def test_blocks_refuse_what_they_cannot_do() -> None:
    data = small.dataset()
    draw = torch.Generator()
    with pytest.raises(ConfigError, match="learns weights"):
        Blocks(make("grcn", data), data.num_users, data.num_items, 3, 2, draw)
    assert any(isinstance(module, Edges) for module in make("grcn", data).modules())
    with pytest.raises(ConfigError, match="no graph to draw from"):
        Blocks(make("vbpr", data), data.num_users, data.num_items, 3, 2, draw)
    with pytest.raises(ConfigError, match="one of them"):
        Step(
            make("lightgcn", data),
            CPU,
            share=2,
            blocks=Blocks(make("lightgcn", data), 13, 19, 3, 2, draw),
        )


# --- several batches a propagation


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("share", [2, 5])
def test_batches_that_share_a_propagation_have_the_gradient_of_one_batch(
    name: str, share: int
) -> None:
    batch, model = triples(), make(name)
    loss, expected = plain(model, batch)
    found = Step(model, CPU, share=share)(batch)
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-6)
    agree(gradients(model), expected)


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in TABLES])
def test_losses_of_more_than_tables_do_not_share(name: str) -> None:
    with pytest.raises(ConfigError, match="leave it at 1"):
        Step(make(name), CPU, share=2)


# --- through training


def trained(data, **options) -> Fit:
    config = TrainConfig(epochs=3, lr=0.02, batch_size=13, seed=5, metric="ndcg@19", **options)
    return fit(make("lightgcn", data), data.train, data.valid, config)


def test_training_with_shared_propagations_takes_the_steps_of_larger_batches() -> None:
    data = small.dataset()
    shared = trained(data, share_propagation=3)
    large = fit(
        make("lightgcn", data),
        data.train,
        data.valid,
        TrainConfig(epochs=3, lr=0.02, batch_size=39, seed=5, metric="ndcg@19"),
    )
    torch.testing.assert_close(shared.user, large.user, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(shared.user, trained(data).user, rtol=1e-3)


def test_training_with_blocks_learns_and_repeats() -> None:
    data = small.dataset()
    one, two = (trained(data, fanout=2, hops=2) for _ in range(2))
    assert torch.equal(one.user, two.user) and one.history[-1]["loss"] < one.history[0]["loss"]
    assert not torch.equal(one.user, trained(data).user)


# --- CUDA graphs


def stand_in(seen: list) -> Callable:
    """`torch.cuda.make_graphed_callables` for the CPU.

    The forward pass always runs over the sample tensors, as a replay does.
    """

    def graphed(module: nn.Module, samples: tuple[Tensor, ...], **_: object) -> Callable:
        assert module.training and not any(part.requires_grad for part in samples)

        def replay(*arguments: Tensor) -> Tensor:
            for static, new in zip(samples, arguments, strict=True):
                assert static.shape == new.shape and static.data_ptr() != new.data_ptr()
                static.copy_(new)
            seen.append(len(samples[0]))
            return module(*samples)

        return replay

    return graphed


def captured(model: Recommender) -> Step:
    """As on CUDA, where `capture` is asked for on a CUDA device."""
    step = Step(model, CPU)
    step.capture = model.static_step
    return step


@pytest.mark.parametrize("name", TRAINED)
def test_a_recorded_step_is_replayed_for_full_batches_only(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", stand_in(seen))
    data = small.dataset()
    recorded, eager = make(name, data), make(name, data)
    step, other = captured(recorded), Step(eager, CPU)
    sizes = []
    for batch in TripleSampler(data.train).epoch(13, torch.Generator().manual_seed(1)):
        sizes.append(len(batch[0]))
        assert torch.equal(step(batch), other(batch))
        agree(gradients(recorded), gradients(eager))
    # it draws something in each epoch
    if name in small.overriding("new_epoch") and not recorded.static_step:
        assert not seen
    else:
        assert (
            recorded.static_step
            and sizes[-1] < 13
            and seen == [size for size in sizes if size == 13]
        )


def test_models_that_draw_each_epoch_are_not_recorded() -> None:
    assert not make("freedom").static_step and not make("bm3").static_step
    assert make("freedom", dropout=0.0).static_step and make("dualgnn").static_step


def test_what_cannot_be_recorded_runs_plainly_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            # as torch does when it closes it
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    model, batch = make("lightgcn"), triples()
    loss, expected = plain(model, batch)
    step = captured(model)
    with pytest.warns(
        UserWarning,
        match="cannot be captured \\(operation not permitted when stream is capturing\\)$",
    ):
        assert torch.equal(step(batch), loss)
    agree(gradients(model), expected)
    assert not step.capture and torch.equal(step(batch), loss)


def test_no_garbage_is_collected_while_a_step_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier training's recording is freed before, not meanwhile.

    Freeing it would end the new one.
    """
    earlier = captured(make("lightgcn"))
    earlier.own = earlier  # type: ignore[attr-defined]
    gone = weakref.ref(earlier)
    del earlier

    def refuse(*_: object, **__: object) -> None:
        assert gone() is None and not gc.isenabled()
        raise RuntimeError("refused")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    with pytest.warns(UserWarning, match="refused"):
        captured(make("lightgcn"))(triples())
    assert gc.isenabled()


# a generator; sparse tensors
@pytest.mark.parametrize("name", [name for name in TRAINED if name not in ("bm3", "grcn")])
def test_a_step_never_waits_for_its_results(name: str) -> None:
    """Tensors without content: a step that looks at a value (a hidden copy to the host on CUDA)
    cannot be carried out.
    """
    model, batch = make(name), triples()
    model.loss(*batch)  # what is made once may look
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = tuple(mode.from_tensor(part) for part in batch)
        loss = model.loss(*fake)
        assert loss.shape == ()
        with pytest.raises(DataDependentOutputException):
            float(loss.detach())


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no CUDA device here")
@pytest.mark.parametrize("name", TRAINED)
def test_on_cuda_a_recorded_training_agrees_with_the_plain_one(name: str) -> None:
    data = small.dataset()
    config = TrainConfig(epochs=3, lr=0.02, batch_size=13, seed=5, metric="ndcg@19")
    plainly, graphed = (
        fit(
            make(name, data).to("cuda"),
            data.train,
            data.valid,
            dataclasses.replace(config, cuda_graph=on),
        )
        for on in (False, True)
    )
    torch.testing.assert_close(graphed.user, plainly.user, rtol=1e-3, atol=1e-5)
    assert all(math.isfinite(row["loss"]) for row in graphed.history)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no CUDA device here")
def test_on_cuda_the_step_is_recorded() -> None:
    data = small.dataset()
    model = make("dualgnn", data).to("cuda")
    step = Step(model, torch.device("cuda"), capture=True)
    batch = tuple(part.cuda() for part in triples(data))
    step(batch)
    assert step.replayed is not None
