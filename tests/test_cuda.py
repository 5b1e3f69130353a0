"""On CUDA as on the CPU, for every model.

Tables, losses and gradients, whole trainings, what is resumed, and the commands.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import small
import torch
import trial
from test_resume import CONFIG, Box, same
from test_step import TRAINED, gradients, make, triples

from dualgnn_dgl.evaluation import Evaluator
from dualgnn_dgl.models import MODELS
from dualgnn_dgl.training import fit, tables
from dualgnn_dgl.training.step import Step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
MODALITIES = [("visual",), ("visual", "acoustic", "textual")]
LEARNED = [(name, {}) for name in TRAINED] + [
    ("dualgnn", {"missing": "mask"}),
    ("dualgnn", {"user_fusion": "concat"}),
    ("dualgnn_plus", {"cooc_share": 0.3}),
]
STOCHASTIC = (
    "bm3",
)  # its masks are drawn on the device of the tables: another device draws others


def close(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    """The same numbers, up to the order of sums."""
    torch.testing.assert_close(
        found.cpu(), expected, rtol=1e-3, atol=1e-5, msg=lambda text: f"{name}: {text}"
    )


@pytest.mark.parametrize("modalities", MODALITIES, ids=len)
@pytest.mark.parametrize("name", MODELS)
def test_tables_are_those_of_the_cpu(name: str, modalities: tuple[str, ...]) -> None:
    model = make(name, small.dataset(modalities=modalities))
    expected = tables(model)
    for found, table, side in zip(
        tables(copy.deepcopy(model).cuda()), expected, ("user", "item"), strict=True
    ):
        assert found.is_cuda
        close(found, table, side)


@pytest.mark.parametrize("modalities", MODALITIES, ids=len)
@pytest.mark.parametrize(
    ("name", "switches"), [pair for pair in LEARNED if pair[0] not in STOCHASTIC], ids=str
)
def test_losses_and_gradients_are_those_of_the_cpu(
    name: str, switches: dict, modalities: tuple[str, ...]
) -> None:
    data = small.dataset(modalities=modalities)
    model = make(name, data, **switches)
    found = []
    for one in (model, copy.deepcopy(model).cuda()):
        one.new_epoch(torch.Generator().manual_seed(7))
        loss = one.loss(*(part.to(next(one.parameters()).device) for part in triples(data)))
        loss.backward()
        found.append({"loss": loss.detach()} | gradients(one))
    assert found[0].keys() == found[1].keys()
    for key, expected in found[0].items():
        close(found[1][key], expected, key)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "plain"])
@pytest.mark.parametrize(("name", "switches"), LEARNED, ids=str)
def test_a_training_repeats_to_the_bit_and_is_resumed_to_the_bit(
    name: str, switches: dict, recorded: bool
) -> None:
    data, config = (
        small.dataset(),
        dataclasses.replace(CONFIG, deterministic=True, cuda_graph=recorded),
    )

    def train(**keeping) -> tuple:
        return fit(make(name, data, **switches).cuda(), data.train, data.valid, config, **keeping)

    whole, box = train(), Box((2, 7))
    assert same(whole, train(hook=box))
    for kept in box.kept.values():
        torch.manual_seed(99)  # whatever the new process begins with
        assert same(whole, train(hook=Box(start=kept)))


@pytest.mark.parametrize(
    "changes", [{"share_propagation": 2}, {"fanout": 2}, {"precision": "bfloat16"}], ids=str
)
@pytest.mark.parametrize("name", ["dualgnn", "lightgcn"])
def test_the_options_of_speed_train(name: str, changes: dict) -> None:
    data = small.dataset()
    done = fit(
        make(name, data).cuda(), data.train, data.valid, dataclasses.replace(CONFIG, **changes)
    )
    assert len(done.history) > 1 and done.history[-1]["loss"] < done.history[0]["loss"]


@pytest.mark.parametrize(("name", "switches"), LEARNED, ids=str)
def test_a_step_is_recorded_wherever_all_steps_are_the_same(
    name: str, switches: dict, recwarn: pytest.WarningsRecorder
) -> None:
    model = make(name, **switches).cuda()
    model.new_epoch(torch.Generator().manual_seed(7))
    step = Step(model, torch.device("cuda"), capture=True)
    for _ in range(2):
        step(tuple(part.cuda() for part in triples()))
    complaints = [
        str(warning.message) for warning in recwarn if "cuda_graph" in str(warning.message)
    ]
    assert (step.replayed is not None) == model.static_step and not complaints


def test_a_refused_recording_spoils_nothing_that_comes_after() -> None:
    """It goes on plainly, on the stream of before.

    What draws on the device draws, and another model's step is recorded.
    """
    batch, device, stream = (
        tuple(part.cuda() for part in triples()),
        torch.device("cuda"),
        torch.cuda.current_stream(),
    )
    model = make("lightgcn").cuda()
    whole = model.loss
    # waits for a number: CUDA refuses
    model.loss = lambda *batch: whole(*batch) * float(whole(*batch).detach() > 0)
    step = Step(model, device, capture=True)
    torch.cuda.manual_seed(5)
    with pytest.warns(
        UserWarning, match="cuda_graph: the step cannot be captured .*stream is capturing"
    ):
        found = step(batch)
    close(found, whole(*batch).detach().cpu(), "loss")
    assert step.replayed is None and torch.cuda.current_stream() == stream
    drawn = torch.rand(3, device=device)
    torch.cuda.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3, device=device))
    other = Step(make("lightgcn").cuda(), device, capture=True)
    other(batch)
    assert other.replayed is not None


def test_lists_are_those_of_the_cpu() -> None:
    data = small.dataset()
    user, item = tables(make("dualgnn", data))
    evaluator = Evaluator(data.valid, [data.train], ks=(5,))
    assert (evaluator.rank(user.cuda(), item.cuda()) == evaluator.rank(user, item)).all()


@pytest.mark.parametrize("model", ["dualgnn", "dualgnn_plus", "itemknn"])
def test_the_commands_on_a_gpu_leave_what_a_machine_without_one_reads(
    model: str, tmp_path: Path
) -> None:
    world = trial.world(tmp_path)
    run = tmp_path / "new"
    done = trial.call(
        "train",
        "--data",
        world.data,
        "--run",
        run,
        "--model",
        model,
        "--gpu",
        0,
        "--epochs",
        2,
        "--json",
    )
    assert done.code == 0, done
    found = []
    for gpu in (0, -1):
        done = trial.call(
            "eval", "--run", run, "--data", world.data, "--topk", 3, "--gpu", gpu, "--json"
        )
        assert done.code == 0, done
        found.append(json.loads(done.out)["metrics"])
        words = ("--user", "user3", "--k", 3, "--gpu", gpu, "--json")
        done = trial.call("recommend", "--run", run, "--data", world.data, *words)
        assert done.code == 0, done
        found.append([row["item"] for row in json.loads(done.out)["users"][0]["items"]])
    assert found[:2] == found[2:]
