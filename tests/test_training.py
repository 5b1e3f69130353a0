"""The trainer: the best epoch comes back whole, stopping counts, repeats to the bit, and never sees
test data.
"""

from __future__ import annotations

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import small
import torch

from dualgnn_dgl.core.options import build, keys
from dualgnn_dgl.core.progress import Progress
from dualgnn_dgl.data import Dataset, Interactions
from dualgnn_dgl.errors import ConfigError, DataError, RunError
from dualgnn_dgl.evaluation import Evaluator
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.training import TrainConfig, divergence, fit, loop


def make(name="bprmf", data=None, seed=0, **switches):
    data = data or small.dataset()
    return create(
        name,
        heterograph(data),
        data.modalities,
        model_class(name).Config(**{"width": 6, **switches}),
        seed,
    )


def nothing(data) -> Interactions:
    return small.interactions([], data.num_users, data.num_items)


def same_tables(one, two) -> bool:
    return torch.equal(one.user, two.user) and torch.equal(one.item, two.item)


@pytest.fixture
def scripted(monkeypatch):
    """Replace the evaluator by one that reads its values off a list, and tell what it was made
    with.
    """

    def install(values):
        made, left = [], iter(values)

        class Scripted:
            def __init__(self, *arguments, **keywords):
                made.append((arguments, keywords))
                self.name = f"recall@{keywords['ks'][0]}"

            def __call__(self, user, item):
                return SimpleNamespace(means={self.name: next(left)})

        monkeypatch.setattr(loop, "Evaluator", Scripted)
        return made

    return install


def test_fit_has_no_door_for_test_data():
    parameters = inspect.signature(fit).parameters
    assert list(parameters) == [
        "model",
        "train",
        "valid",
        "config",
        "report",
        "hook",
        "modalities",
    ]
    assert not any(
        p.kind is p.VAR_KEYWORD or p.kind is p.VAR_POSITIONAL for p in parameters.values()
    )
    assert not any(
        "Dataset" in str(p.annotation) or Dataset is p.annotation for p in parameters.values()
    )


def test_only_training_pairs_are_masked_while_validating(scripted):
    """A14: the released code masks test positives while it validates."""
    made = scripted([0.1, 0.2])
    data = small.dataset()
    fit(make(), data.train, data.valid, TrainConfig(epochs=2))
    ((truth, seen), _), *more = made
    assert truth is data.valid and list(seen) == [data.train] and not more


@pytest.mark.parametrize(
    ("values", "patience", "epochs_run", "best"),
    [
        # an equal value is no better one; the earlier epoch stays
        ([0.1, 0.3, 0.2, 0.3, 0.1, 0.9], 3, 5, 2),
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6, 0.6, 0.99], 2, 7, 5),  # a better one starts the count anew
        ([0.1, 0.2, 0.3, 0.4], 1, 4, 4),
        ([0.0, 0.0, 0.0, 0.5], 2, 3, 1),
        ([0.4, 0.3], 1, 2, 1),
    ],
)
def test_early_stopping_counts_validations_without_a_better_one(
    scripted, values, patience, epochs_run, best
):
    scripted(values)
    data = small.dataset()
    done = fit(make(), data.train, data.valid, TrainConfig(epochs=len(values), patience=patience))
    assert len(done.history) == epochs_run and done.best_epoch == best
    assert done.best_value == values[best - 1] and not done.interrupted
    assert [row["recall@19"] for row in done.history] == values[:epochs_run]


def test_values_are_compared_unrounded(scripted):
    """R12: the port rounds to four decimals, so that small gains count as none."""
    scripted([0.50001, 0.50002, 0.50003])
    data = small.dataset()
    assert fit(make(), data.train, data.valid, TrainConfig(epochs=3, patience=1)).best_epoch == 3


def test_validation_every_few_epochs_and_always_at_the_end(scripted):
    scripted([0.3, 0.1, 0.2])
    data = small.dataset()
    done = fit(make(), data.train, data.valid, TrainConfig(epochs=5, eval_every=2, patience=2))
    assert [row["epoch"] for row in done.history if "recall@19" in row] == [2, 4, 5]
    assert done.best_epoch == 2


# The graph is drawn in each epoch, and must come back with it.
DRAWN = {"dropout": 0.5}


@pytest.mark.parametrize(
    ("name", "switches"), [("bprmf", {}), ("lightgcn", {}), ("dualgnn", {}), ("freedom", DRAWN)]
)
def test_best_epoch_comes_back_whole(scripted, name, switches):
    """Tables, parameters and the model itself are those of epoch 3, as a training of 3 epochs would
    leave them.
    """
    data = small.dataset()
    scripted([0.1, 0.2, 0.9, 0.3, 0.4, 0.1])
    config = {"lr": 0.02, "batch_size": 13, "seed": 4}
    model = make(name, data, **switches)
    done = fit(model, data.train, data.valid, TrainConfig(epochs=6, **config))
    assert done.best_epoch == 3 and len(done.history) == 6
    short = fit(
        make(name, data, **switches), data.train, nothing(data), TrainConfig(epochs=3, **config)
    )
    long = fit(
        make(name, data, **switches), data.train, nothing(data), TrainConfig(epochs=6, **config)
    )
    assert same_tables(done, short) and not same_tables(done, long)
    user, item = model.embed()
    assert torch.equal(user, done.user) and torch.equal(item, done.item)
    fresh = make(name, data, seed=99, **switches)
    fresh.load_state_dict(done.state)
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.embed(), (done.user, done.item), strict=True)
    )
    if name == "dualgnn":
        torch.testing.assert_close(done.attention, fresh.user_attention().detach())
    assert not done.user.requires_grad and not done.item.requires_grad


def test_what_fit_returns_does_not_move_with_the_model():
    data = small.dataset()
    model = make()
    done = fit(model, data.train, data.valid, TrainConfig(epochs=2))
    user, state = done.user.clone(), {key: value.clone() for key, value in done.state.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(done.user, user) and all(
        torch.equal(done.state[key], state[key]) for key in state
    )


def test_best_value_is_what_the_evaluator_finds_for_the_tables():
    data = small.dataset()
    done = fit(make(), data.train, data.valid, TrainConfig(epochs=4, lr=0.05, metric="ndcg@5"))
    assert (
        Evaluator(data.valid, [data.train], ks=(5,))(done.user, done.item).means["ndcg@5"]
        == done.best_value
    )
    assert done.best_value == max(row["ndcg@5"] for row in done.history)


@pytest.mark.parametrize(
    ("name", "switches"),
    [("bprmf", {}), ("lightgcn", {}), ("dualgnn", {}), ("freedom", DRAWN)],
)
def test_same_seed_repeats_to_the_bit(name, switches):
    data = small.dataset()
    runs = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(runs))  # the global state must not matter
        model = make(name, data, seed=1, **switches)
        runs.append(
            fit(
                model,
                data.train,
                data.valid,
                TrainConfig(epochs=3, lr=0.01, batch_size=17, seed=seed),
            )
        )
    assert same_tables(runs[0], runs[1]) and not same_tables(runs[0], runs[2])
    assert [row["loss"] for row in runs[0].history] == [row["loss"] for row in runs[1].history]


def test_global_random_state_is_untouched():
    data = small.dataset()
    model = make()
    before = torch.get_rng_state()
    fit(model, data.train, data.valid, TrainConfig(epochs=2))
    assert torch.equal(before, torch.get_rng_state())


def test_loss_in_the_history_is_the_mean_over_pairs():
    """A18: the released log divides a sum of batch means by the batch size.

    Here: the mean over pairs, batches unequal.
    """
    data = small.dataset()
    model = make(l2=0.0)
    seen = []
    loss = model.loss

    def recorded(*batch):
        value = loss(*batch)
        seen.append((float(value.detach()), len(batch[0])))
        return value

    model.loss = recorded
    done = fit(model, data.train, nothing(data), TrainConfig(epochs=2, batch_size=9))
    assert len(seen) == 2 * math.ceil(len(data.train) / 9) and {size for _, size in seen} > {9}
    half = len(seen) // 2
    for epoch, part in enumerate((seen[:half], seen[half:])):
        expected = sum(value * size for value, size in part) / len(data.train)
        assert done.history[epoch]["loss"] == pytest.approx(expected, rel=1e-5)


def test_without_validation_pairs_the_last_epoch_is_kept():
    data = small.dataset()
    model = make()
    done = fit(model, data.train, nothing(data), TrainConfig(epochs=4, patience=1))
    assert done.best_epoch == 4 and done.best_value is None and len(done.history) == 4
    assert torch.equal(model.embed()[0], done.user)
    assert not any("@" in key for row in done.history for key in row)


def test_list_longer_than_the_catalogue_is_cut_to_it():
    data = small.dataset()
    done = fit(make(), data.train, data.valid, TrainConfig(epochs=1, metric="recall@500"))
    assert done.history[0]["recall@19"] == done.best_value == 1.0


def stop_at(epoch: int, step: int = 1):
    """A report that presses Ctrl-C."""

    def report(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (epoch, step):
            raise KeyboardInterrupt

    return report


def test_ctrl_c_returns_the_best_epoch_so_far(scripted):
    data = small.dataset()
    scripted([0.2, 0.6, 0.4])
    config = {"lr": 0.02, "batch_size": 13}
    model = make()
    done = fit(model, data.train, data.valid, TrainConfig(epochs=9, **config), report=stop_at(4, 2))
    assert (
        done.interrupted
        and done.best_epoch == 2
        and done.best_value == 0.6
        and len(done.history) == 3
    )
    assert same_tables(
        done, fit(make(), data.train, nothing(data), TrainConfig(epochs=2, **config))
    )
    assert torch.equal(model.embed()[0], done.user)


def test_ctrl_c_without_any_validation_returns_finite_tables():
    data = small.dataset()
    model = make()
    done = fit(model, data.train, nothing(data), TrainConfig(epochs=9), report=stop_at(3))
    assert done.interrupted and len(done.history) == 2 and torch.isfinite(done.user).all()
    assert torch.equal(model.embed()[0], done.user)


def test_ctrl_c_in_the_first_epoch_goes_through():
    data = small.dataset()
    with pytest.raises(KeyboardInterrupt):
        fit(make(), data.train, data.valid, TrainConfig(epochs=9), report=stop_at(1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_the_epoch(value):
    data = small.dataset()
    model, calls = make(), []
    loss = model.loss

    def broken(*batch):
        calls.append(1)
        return loss(*batch) * (value if len(calls) > 2 else 1)

    model.loss = broken
    with pytest.raises(RunError, match=r"in epoch 3, batch 1: .*--lr") as error:
        fit(model, data.train, nothing(data), TrainConfig(epochs=5))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["valid", "nothing"])
def test_tables_that_are_no_numbers_are_refused(split):
    data = small.dataset()
    model = make()
    model.embed = lambda: (torch.full((small.USERS, 2), torch.nan), torch.zeros(small.ITEMS, 2))
    model.loss = lambda *batch: model.user.square().mean()
    with pytest.raises(RunError, match="not finite after epoch 1"):
        fit(
            model,
            data.train,
            data.valid if split == "valid" else nothing(data),
            TrainConfig(epochs=1),
        )


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_gradient_that_is_no_number_names_epoch_batch_and_parameter_before_it_does_harm(value):
    """The loss stays finite, and what Adam would have made of the gradient never reaches the
    parameters.
    """
    data = small.dataset()
    model, calls = make("lightgcn"), []

    def spoil(gradient):
        calls.append(1)
        return gradient.index_fill(0, torch.tensor([4]), value) if len(calls) == 7 else gradient

    model.item.register_hook(spoil)
    steps = math.ceil(len(data.train) / 13)
    where = (
        f"epoch {6 // steps + 1}, batch {6 % steps + 1}: the loss is 0\\.[0-9]+, the gradient of "
        f"item is not finite: .*--lr"
    )
    with pytest.raises(RunError, match=where):
        fit(model, data.train, data.valid, TrainConfig(epochs=9, batch_size=13))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_gradient_too_large_to_square_is_named():
    """Adam keeps squares: an infinite one would stop the parameter for ever, without a word."""
    data = small.dataset()
    model = make()
    model.loss = lambda *batch: (model.user * 1e25).sum()
    with pytest.raises(RunError, match="batch 1: .*the gradient of user is not finite"):
        fit(model, data.train, data.valid, TrainConfig(epochs=1))


def test_asked_rarely_the_watch_still_names_the_first_bad_batch(monkeypatch):
    """As on CUDA, where the answer is fetched every few batches.

    What came later does not hide what came first.
    """
    data = small.dataset()
    model, calls = make(), []
    begin, loss = divergence.DivergenceMonitor.begin, model.loss

    def rarely(self, done):
        self._every = 64
        begin(self, done)

    def broken(*batch):
        calls.append(1)
        return loss(*batch) * (math.nan if len(calls) == 3 else 1)

    monkeypatch.setattr(divergence.DivergenceMonitor, "begin", rarely)
    model.loss = broken
    with pytest.raises(RunError, match=r"epoch 1, batch 3: the loss is nan"):
        fit(model, data.train, nothing(data), TrainConfig(epochs=5, batch_size=5))
    assert len(calls) == math.ceil(len(data.train) / 5), "found at the end of the epoch"


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).trainable])
def test_deterministic_training_of_every_model_is_exact_also_with_several_threads(name):
    data = small.dataset()
    config = TrainConfig(epochs=2, lr=0.02, batch_size=17, deterministic=True, metric="ndcg@19")
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        runs = []
        for _ in range(3):
            kind = model_class(name)
            narrow = {key: 6 for key in ("width", "hidden") if key in keys(kind.Config)}
            model = create(name, heterograph(data), data.modalities, kind.Config(**narrow), 1)
            runs.append(fit(model, data.train, data.valid, config))
    finally:
        torch.set_num_threads(threads)
    assert same_tables(runs[0], runs[1]) and same_tables(runs[0], runs[2])
    assert torch.are_deterministic_algorithms_enabled() == before


def test_what_has_no_deterministic_form_is_refused_by_name_and_the_switch_goes_back():
    data = small.dataset()
    model = make()

    def loss(*batch):
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError(
            "frob_cuda does not have a deterministic implementation, but you set it. You can turn "
            "it off."
        )

    model.loss = loss
    with pytest.raises(ConfigError, match="frob_cuda.*train without") as error:
        fit(model, data.train, data.valid, TrainConfig(epochs=1, deterministic=True))
    assert "\n" not in str(error.value) and not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(AssertionError):
        fit(model, data.train, data.valid, TrainConfig(epochs=1))


def test_nothing_to_learn_from_is_one_line():
    data = small.dataset()
    with pytest.raises(DataError, match="nothing to learn from"):
        fit(make(), nothing(data), data.valid, TrainConfig(epochs=1))


def test_progress_tells_epoch_and_step():
    data = small.dataset()
    heard: list[Progress] = []
    done = fit(
        make(), data.train, data.valid, TrainConfig(epochs=3, batch_size=20), report=heard.append
    )
    steps = math.ceil(len(data.train) / 20)
    running, finished = [p for p in heard if not p.finished], [p for p in heard if p.finished]
    assert [(p.epoch, p.step) for p in running] == [
        (e, s) for e in (1, 2, 3) for s in range(1, steps + 1)
    ]
    assert {p.steps for p in heard} == {steps} and [p.epoch for p in finished] == [1, 2, 3]
    assert heard[0].loss is None and heard[0].value is None and heard[0].best is None
    assert (
        running[-1].loss == done.history[1]["loss"]
        and running[-1].value == done.history[1]["recall@19"]
    )
    assert [(p.loss, p.value) for p in finished] == [
        (row["loss"], row["recall@19"]) for row in done.history
    ]
    assert [p.best for p in finished] == [max(p.value for p in finished[: n + 1]) for n in range(3)]


def test_every_epoch_is_announced_to_the_model():
    data = small.dataset()
    model, heard = make(), []
    model.new_epoch = lambda generator: heard.append(float(torch.rand((), generator=generator)))
    fit(model, data.train, nothing(data), TrainConfig(epochs=3))
    assert len(set(heard)) == 3


def test_a_model_without_parameters_needs_no_training():
    data = small.dataset()
    model = create("mostpop", heterograph(data), {})
    done = fit(model, data.train, data.valid, TrainConfig(epochs=5))
    assert done.best_epoch == 0 and len(done.history) == 1 and done.history[0]["loss"] is None
    assert (
        done.best_value
        == Evaluator(data.valid, [data.train], ks=(19,))(*model.embed()).means["recall@19"]
    )
    assert fit(model, data.train, nothing(data)).best_value is None


def test_defaults_and_the_data_left_alone():
    data = small.dataset()
    arrays = [data.train.user, data.train.item, data.valid.user, data.valid.item]
    before = [array.copy() for array in arrays]
    done = fit(make(), data.train, data.valid, TrainConfig(epochs=1))
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))
    assert set(done.history[0]) >= {"epoch", "loss", "seconds", "total_seconds", "recall@19"}


def test_training_finds_what_was_planted():
    """Not a stub: on the checkerboard, validation recall rises from chance to one."""
    board = small.checkerboard(users=30, items=26)
    config = TrainConfig(epochs=25, lr=0.05, batch_size=90, metric="recall@1", patience=25)
    done = fit(make("bprmf", board), board.train, board.test, config)
    assert done.best_value == 1.0 and done.history[0]["recall@1"] < 0.5


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).trainable])
def test_bfloat16_products_leave_tables_and_parameters_in_float32(name):
    """The first epoch's loss is nearly that of float32.

    Nothing is kept in half precision, and no number is lost.
    """
    data = small.dataset()
    losses = []
    for precision in ("float32", "bfloat16"):
        model = create(name, heterograph(data), data.modalities, None, 0)
        done = fit(
            model,
            data.train,
            data.valid,
            TrainConfig(epochs=2, lr=1e-3, batch_size=31, precision=precision),
        )
        losses.append(done.history[0]["loss"])
        assert done.user.dtype == done.item.dtype == torch.float32
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_reaches_the_encoder(monkeypatch):
    data, seen = small.dataset(), []
    model = make("dualgnn", data)
    model.encoders[0].register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.dtype)
    )
    fit(
        model,
        data.train,
        nothing(data),
        TrainConfig(epochs=1, batch_size=1000, precision="bfloat16"),
    )
    # the tables are made in float32
    assert seen[0] == torch.bfloat16 and set(seen[1:]) <= {torch.float32}


@pytest.mark.parametrize("name", MODELS)
def test_without_a_configuration_a_model_trains_with_its_own_defaults(name, monkeypatch):
    data, found = small.dataset(), []

    class Idle(loop._Loop):
        def run(self):
            found.append(self.config)

    monkeypatch.setattr(loop, "_Loop", Idle)
    monkeypatch.setattr(loop, "as_it_is", lambda model, train, valid, config: found.append(config))
    fit(create(name, heterograph(data), data.modalities), data.train, data.valid)
    assert found == [build(TrainConfig, model_class(name).TRAIN)]
