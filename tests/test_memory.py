"""Working memory: asked before it is taken, blocks halved when it runs out, the same result in any
size of blocks.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trial
from figures import record
from scipy import sparse

from dualgnn_dgl.cli.main import VERBS
from dualgnn_dgl.core import memory
from dualgnn_dgl.data import Interactions, Modality
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.evaluation import ranking, top_k
from dualgnn_dgl.graphs import arrivals, cooccurrence, heterographs
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.models import itemknn


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1MB", 2**20),
        ("512mb", 2**29),
        ("1.5 GiB", 3 * 2**29),
        ("2000000", 2_000_000),
        ("3g", 3 * 2**30),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert memory.parse(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "5", "-1GB", "lots", "1e9", "4 GBytes", "nan", "1023KB", "9" * 30]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match="--memory '.*' is no size of a megabyte or more: write it as 512MB"
    ):
        memory.parse(text)


def test_the_budget_is_what_was_given_or_a_quarter_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available", lambda device="cpu": 4000 if device == "cpu" else 8000)
    assert (memory.budget(), memory.budget("cuda")) == (1000, 2000)
    with memory.use(77):
        assert (memory.budget(), memory.budget("cuda")) == (77, 77)
        with memory.use(None):
            assert memory.budget() == 1000
        assert memory.budget() == 77
    assert memory.budget() == 1000


def test_the_least_of_machine_container_and_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**20 < memory.available() < 2**50
    for left, expected in (
        ((900, None, None), 900),
        ((900, 500, None), 500),
        ((900, 500, 70), 70),
        ((None, None, -5), 0),
    ):
        for name, size in zip(("_meminfo", "_container", "_process_limit"), left, strict=True):
            monkeypatch.setattr(memory, name, lambda *_, size=size: size)
        assert memory.available() == expected
    for name in ("_meminfo", "_container", "_process_limit"):
        monkeypatch.setattr(memory, name, lambda *_: None)
    assert memory.available() == memory.UNKNOWN


def test_a_cuda_device_counts_what_its_cache_can_give_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = SimpleNamespace(
        mem_get_info=lambda: (500, 9999), memory_reserved=lambda: 300, memory_allocated=lambda: 120
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert memory.available("cuda") == 500 + 300 - 120


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("x"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_blocks_are_halved_with_a_word_and_cover_everything_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[tuple[int, int]] = []

    def work(start: int, stop: int) -> None:
        if stop - start > 12:
            raise error
        done.append((start, stop))

    with caplog.at_level(logging.WARNING):
        memory.in_blocks(53, 40, work, what="ranking 5 items, users", smallest=4)
    assert done[0] == (0, 12) and [
        row for start, stop in done for row in range(start, stop)
    ] == list(range(53))
    assert [record.getMessage() for record in caplog.records] == [
        "ranking 5 items, users: memory ran out with 40 at a time, continuing with 20",
        "ranking 5 items, users: memory ran out with 20 at a time, continuing with 12",
    ]


def test_the_smallest_block_is_the_end_and_other_errors_pass() -> None:
    def hungry(*_: int) -> None:
        raise MemoryError

    def broken(*_: int) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(MemoryError, match="users: not even 16 at a time fit, [0-9,]+ MB are free"):
        memory.in_blocks(50, 64, hungry, what="users", smallest=16)
    with pytest.raises(MemoryError, match="bytes: not even"):
        memory.halving(2**22, hungry, what="bytes")
    with pytest.raises(RuntimeError, match="shapes"):
        memory.in_blocks(50, 64, broken, what="users")
    with pytest.raises(RuntimeError, match="shapes"):
        memory.halving(2**22, broken, what="bytes")
    assert memory.halving(2**22, lambda size: size, what="bytes") == 2**22


def tables(users: int = 70, items: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(users, 5, generator=draw), torch.randn(items, 5, generator=draw)


@pytest.mark.parametrize("size", [1, 8 * 90 * 16, 8 * 90 * 40, 2**30])
def test_any_budget_gives_the_same_lists(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    user, item = tables()
    expected = top_k(user, item, 7)
    blocks: list[int] = []
    monkeypatch.setattr(
        ranking,
        "select",
        lambda scores, k, select=ranking.select: (blocks.append(len(scores)), select(scores, k))[1],
    )
    with memory.use(size):
        found = top_k(user, item, 7)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    # in whole tiles of 16
    assert max(blocks) == {1: 16, 8 * 90 * 16: 16, 8 * 90 * 40: 48, 2**30: 70}[size]


def test_nearest_items_and_co_occurrence_keep_to_the_budget_too() -> None:
    values = np.random.default_rng(1).normal(size=(37, 6)).astype(np.float32)
    modality = Modality(values, np.arange(37) % 5 != 2)
    pairs = np.argwhere(np.random.default_rng(2).random((30, 20)) < 0.3)
    train = Interactions(pairs[:, 0], pairs[:, 1], 30, 20)
    nearest, lists = heterographs.nearest_items(modality, 4), co_occurrence(train, 6)
    for size in (1, 700, 10_000):
        with memory.use(size):
            for found, expected in zip(
                heterographs.nearest_items(modality, 4), nearest, strict=True
            ):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
            again = co_occurrence(train, 6)
        assert np.array_equal(again.neighbour, lists.neighbour) and np.array_equal(
            again.weight, lists.weight
        )


CUDA_SAYS = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 4.06 MiB is free."
)


@pytest.fixture
def cuda_like(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """A device that does not hold more than 32 rows of a product or of a choice.

    Torch then raises what it raises on CUDA.

    What was given back to it and how many rows each product had is counted.
    """
    seen: dict[str, list[int]] = {"rows": [], "emptied": []}

    def limited(name: str, owner: object) -> None:
        real = getattr(owner, name)

        def hungry(first: torch.Tensor, *words: object, **more: object) -> object:
            seen["rows"].append(len(first))
            if len(first) > 32:
                raise torch.OutOfMemoryError(CUDA_SAYS)
            return real(first, *words, **more)

        monkeypatch.setattr(owner, name, hungry)

    limited("mm", torch)
    limited("mm", torch.sparse)
    limited("topk", torch.Tensor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen["emptied"].append(1))
    return seen


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_ranking_halves_its_blocks_where_cuda_runs_out(
    kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    user, item = tables(130)
    if kind == "sparse":
        user, item = user.to_sparse().coalesce(), item.to_sparse().coalesce()
    known = sparse.csr_matrix(np.random.default_rng(4).random((130, 90)) < 0.2)
    expected = top_k(user, item, 7, known)
    seen = request.getfixturevalue("cuda_like")
    with caplog.at_level(logging.WARNING):
        found = top_k(user, item, 7, known)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert [record.getMessage().partition("users: ")[2] for record in caplog.records] == [
        "memory ran out with 144 at a time, continuing with 80",
        "memory ran out with 80 at a time, continuing with 48",
        "memory ran out with 48 at a time, continuing with 32",
    ]
    assert len(seen["emptied"]) == 3, "what its cache holds is given back before the smaller block"
    assert max(seen["rows"][3:]) <= 48 and 32 in seen["rows"]


def test_nearest_items_halve_their_blocks_where_cuda_runs_out(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    draw = np.random.default_rng(1)
    modality = Modality(draw.normal(size=(101, 6)).astype(np.float32), np.arange(101) % 5 != 2)
    expected = heterographs.nearest_items(modality, 4)
    request.getfixturevalue("cuda_like")
    with caplog.at_level(logging.WARNING):
        found = heterographs.nearest_items(modality, 4)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        "nearest of 81 items, items: memory ran out with 81 at a time, continuing with 40",
        "nearest of 81 items, items: memory ran out with 40 at a time, continuing with 20",
    ]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError(CUDA_SAYS), ValueError("shapes do not fit")],
    ids=lambda e: type(e).__name__,
)
def test_co_occurrence_halves_its_working_space(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a thread of its own the error comes up, too; the lists are those of the whole space."""
    pairs = np.argwhere(np.random.default_rng(2).random((300, 20)) < 0.3)
    train = Interactions(pairs[:, 0], pairs[:, 1], 300, 20)
    expected, sizes, count = co_occurrence(train, 6), [], cooccurrence._count

    def hungry(train: Interactions, k: int, measure: str, size: int, progress: object) -> object:
        sizes.append(size)
        if size > 2**25:
            monkeypatch.setattr(cooccurrence, "by_sweep", lambda *_: raising)
            monkeypatch.setattr(cooccurrence, "by_tally", lambda *_: raising)
        else:
            monkeypatch.undo()
        return count(train, k, measure, size, progress)

    def raising(*_: int) -> None:
        raise error

    monkeypatch.setattr(cooccurrence, "_count", hungry)
    monkeypatch.setattr(memory, "available", lambda device="cpu": 2**40)
    if not memory.ran_out(error):
        with pytest.raises(type(error)):
            co_occurrence(train, 6)
        return
    with caplog.at_level(logging.WARNING):
        found = co_occurrence(train, 6)
    assert np.array_equal(found.neighbour, expected.neighbour) and np.array_equal(
        found.weight, expected.weight
    )
    assert sizes == [2**28, 2**27, 2**26, 2**25][: len(sizes)] and len(sizes) > 1
    assert (
        "co-occurrence, bytes: memory ran out with 268,435,456 at a time, continuing with 134,217,728"
        in caplog.text
    )


def limited(step: Callable[..., Any], room: int, size: Callable[..., int]) -> Callable[..., Any]:
    """The step, for which memory suffices up to `room` rows."""

    def stand_in(*arguments: Any, **keywords: Any) -> Any:
        if size(*arguments) > room:
            raise torch.OutOfMemoryError(CUDA_SAYS)
        return step(*arguments, **keywords)

    return stand_in


def log(users: int = 30, items: int = 20) -> Interactions:
    pairs = np.argwhere(np.random.default_rng(2).random((users, items)) < 0.3)
    return Interactions(pairs[:, 0], pairs[:, 1], users, items)


def looks(items: int = 37, seed: int = 1) -> Modality:
    return Modality(
        np.random.default_rng(seed).normal(size=(items, 6)).astype(np.float32),
        np.arange(items) % 5 != 2,
    )


def new_looks() -> torch.Tensor:
    index = arrivals.TrainingIndex(log(50, 37), {"visual": looks()})
    return arrivals.NewItems({"visual": looks(70, seed=3)}, index).nearest("visual", 4).dense()


def new_users() -> torch.Tensor:
    return (
        arrivals.UserHistories(log(20, 37), arrivals.TrainingIndex(log(50, 37), {}))
        .neighbours(4)
        .dense()
    )


def similarities() -> torch.Tensor:
    return torch.from_numpy(itemknn.nearest(log(50, 37).csr(), itemknn.Config(k=5)).toarray())


# step: (what it is called, its result, where the stand-in goes, rows there is room for, how many
# rows a call is about). The first runs out when the block's neighbours have been chosen: they must
# not stand twice.
EXHAUSTED = {
    "kNN, after the choice": (
        "nearest of 30 items, items",
        lambda: heterographs.nearest_items(looks(), 4)[1],
        (torch.Tensor, "clamp"),
        10,
        lambda cosines, *_: len(cosines),
    ),
    "kNN of new items": (
        "new items",
        new_looks,
        (torch.Tensor, "topk"),
        10,
        lambda cosines, *_: len(cosines),
    ),
    "itemknn": (
        "similarities of 37 items, items",
        similarities,
        (np, "lexsort"),
        300,
        lambda keys: len(keys[1]),
    ),
    "newcomers": (
        "users nearest to newcomers, bytes",
        new_users,
        (arrivals.UserHistories, "_nearest_of"),
        3,
        lambda histories, rows, k: len(rows),
    ),
}


BUDGET = {  # bytes with which each stays below that
    "kNN, after the choice": 8 * 30 * 10,
    "kNN of new items": 8 * 30 * 10,
    "itemknn": 64 * 37 * 5,
    "newcomers": 16 * 100,
}


@pytest.mark.parametrize("step", EXHAUSTED)
def test_every_other_search_for_neighbours_halves_its_blocks_too(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    what, run, (place, name), room, size = EXHAUSTED[step]
    monkeypatch.setattr(memory, "available", lambda device="cpu": 2**40)
    # from 64 kB downwards
    monkeypatch.setattr(memory, "halving", partial(memory.halving, smallest=1))
    monkeypatch.setattr(arrivals, "VISITS", 4096)
    given_back: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    expected = run()
    monkeypatch.setattr(place, name, limited(getattr(place, name), room, size))
    with caplog.at_level(logging.WARNING):
        found = run()
    assert torch.equal(found, expected)
    said = [record.getMessage() for record in caplog.records]
    assert said and all(
        what in line and "memory ran out with" in line and "continuing with" in line
        for line in said
    ), said
    assert len(given_back) == len(said)
    caplog.clear()
    with memory.use(BUDGET[step]), caplog.at_level(logging.WARNING):
        assert torch.equal(run(), expected)
    assert not caplog.records, "told how much there is, it does not run into the limit"


def test_training_that_does_not_fit_a_cuda_device_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dualgnn_dgl.models.bprmf import BPRMF

    def hungry(*_: object) -> None:
        raise torch.OutOfMemoryError(CUDA_SAYS)

    world = trial.world(tmp_path)
    monkeypatch.setattr(BPRMF, "loss", hungry)
    done = trial.call(
        "train", "--data", world.data, "--run", tmp_path / "new", "--model", "bprmf", "--gpu", -1
    )
    assert done.code == 1 and not trial.fault(done, tmp_path / "new"), done
    assert "not enough memory (CUDA out of memory." in done.err and "--batch-size" in done.err


def test_the_last_word_counts_the_memory_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: int) -> None:
        raise torch.OutOfMemoryError(CUDA_SAYS)

    monkeypatch.setattr(
        memory, "available", lambda device="cpu": {"cpu": 2**40, "cuda": 7 * 2**20}[device]
    )
    with pytest.raises(MemoryError, match="users: not even 16 at a time fit, 7 MB are free"):
        memory.in_blocks(50, 16, hungry, what="users", smallest=16, device="cuda")


LIMITED = r"""
import json, resource, sys
import numpy as np, torch
import trial
from pathlib import Path
from dualgnn_dgl.core import memory
from dualgnn_dgl.graphs import heterographs
from dualgnn_dgl.graphs.cooccurrence import co_occurrence
from dualgnn_dgl.data import Interactions, Modality
from dualgnn_dgl.evaluation import top_k

torch.set_num_threads(1)
world = trial.world(Path(sys.argv[1]))
draw = np.random.default_rng(0)
user, item = torch.randn(600, 4), torch.randn(150_000, 4)
modality = Modality(draw.normal(size=(6_000, 4)).astype(np.float32), np.ones(6_000, bool))
pairs = np.unique(draw.integers(0, [4_000, 900], (60_000, 2)), axis=0)
train = Interactions(pairs[:, 0], pairs[:, 1], 4_000, 900)
steps = {
    "ranking": lambda: top_k(user, item, 10)[0].sum().item(),
    "nearest": lambda: heterographs.nearest_items(modality, 10)[1].sum().item(),
    "co_occurrence": lambda: int(co_occurrence(train, 50).neighbour.sum()),
}
free = {name: step() for name, step in steps.items()}


def within(megabytes):
    taken = memory._meminfo("VmSize", "/proc/self/status")
    resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * 2**20, resource.RLIM_INFINITY))


found = {"free": free}
for name, megabytes in (("ranking", 90), ("nearest", 70), ("co_occurrence", 160)):
    within(megabytes)
    found[name] = {"limited": steps[name]()}  # estimated: no error at all
    if name != "co_occurrence":
        with memory.use(2**33):  # a budget that is not there: halved, with a word
            found[name]["halved"] = steps[name]()
    within(2**30 // 2**20)
within(120)
eval_words = ("eval", "--run", world.run, "--data", world.data, "--topk", 3, "--bootstrap", 0, "--gpu", -1, "--json")
done = trial.call(*eval_words)
found["eval"] = [done.code, json.loads(done.out)["metrics"] if done.out else done.err, trial.fault(done)]
within(8)
try:
    top_k(user, item, 10)
    found["nothing left"] = False
except (MemoryError, RuntimeError) as error:
    found["nothing left"] = memory.ran_out(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
found["eval free"] = json.loads(trial.call(*eval_words).out)["metrics"]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux only")
def test_steps_finish_in_a_limited_address_space(tmp_path: Path) -> None:
    """RLIMIT_AS a little above what the process has.

    Blocks are sized by it; given too large a budget, they are halved.
    """
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_TRIM_THRESHOLD_": "100000",
    }
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("ranking", "nearest", "co_occurrence"):
        assert set(found[name].values()) == {found["free"][name]}, (name, found)
    said = [line for line in done.stderr.splitlines() if "memory ran out" in line]
    assert any("ranking 150,000 items, users: memory ran out" in line for line in said), done.stderr
    assert any("nearest of 6,000 items" in line for line in said), done.stderr
    assert found["eval"] == [0, found["eval free"], ""]
    assert found["nothing left"] is True
    record(
        "memory",
        {
            "steps under RLIMIT_AS": 3,
            "halvings": len(said),
            "results": "equal to those without a limit",
        },
    )


def test_the_command_line_takes_a_size_and_refuses_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(trial.logs()["log.csv"])
    words = ["preprocess", "--input", tmp_path / "log.csv", "--data", tmp_path / "data"]
    done = trial.call(*words, "--memory", "1MB")
    assert done.code == 0, done.err
    assert memory._given is None  # the command's own
    done = trial.call(*words, "--memory", "much", "--force")
    assert done.code == 1 and "--memory 'much' is no size" in done.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_takes_a_size(verb: str) -> None:
    """All of them rank, count or compare; what is no size is told before anything else is done."""
    needed = {"compare": ["a", "b"], "update": ["--input", "log.csv"]}.get(verb, [])
    done = trial.call(verb, *needed, "--memory", "much")
    assert done.code == 1 and "--memory 'much' is no size" in done.err, done


def test_trainings_and_rankings_of_searches_and_experiments_keep_to_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tune`, `robustness` and `update`.

    Every budget that is asked for in them is the one of the command line.
    """
    pytest.importorskip("optuna")
    world, asked, budget = trial.world(tmp_path), [], memory.budget
    monkeypatch.setattr(
        memory, "budget", lambda device="cpu": asked.append(budget(device)) or asked[-1]
    )
    monkeypatch.setattr(cooccurrence, "budget", memory.budget)
    (tmp_path / "day.csv").write_text("user_id,item_id\nnew,v1\nnew,v2\n")
    on, one = ["--data", world.data], ["--epochs", 1, "--gpu", -1]
    for words in (
        ["tune", *on, *one, "--model", "freedom", "--study", tmp_path / "study", "--trials", 2],
        [
            "robustness",
            *on,
            *one,
            "--models",
            "freedom",
            "--rates",
            "0,.5",
            "--seeds",
            1,
            "--out",
            tmp_path / "holes",
        ],
        [
            "update",
            "--run",
            world.run,
            "--input",
            tmp_path / "day.csv",
            "--new-data",
            tmp_path / "d",
            "--new-run",
            tmp_path / "r",
        ],
    ):
        asked.clear()
        done = trial.call(*words, "--memory", "3MB")
        assert done.code == 0, done
        assert len(asked) > 1 and set(asked) == {3 * 2**20}, (words[0], asked)
        assert memory._given is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_training_on_a_full_cuda_device_is_one_line(tmp_path: Path) -> None:
    world = trial.world(tmp_path)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    try:
        done = trial.call(
            "train",
            "--data",
            world.data,
            "--run",
            tmp_path / "new",
            "--set",
            "width=4096",
            "--gpu",
            0,
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert done.code == 1 and not trial.fault(done, tmp_path / "new"), done
    assert "not enough memory (CUDA out of memory" in done.err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_ranking_survives_a_full_cuda_device(caplog: pytest.LogCaptureFixture) -> None:
    user, item = (table.cuda() for table in tables(3_000, 60_000))
    expected = top_k(user.cpu(), item.cpu(), 5)[0]
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 200 * 2**20) / total)
    try:
        with memory.use(2**34), caplog.at_level(logging.WARNING):
            found = top_k(user, item, 5, block=3_000)[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "memory ran out" in caplog.text
    # the last bit of a score may differ on a GPU
    assert (found.cpu() == expected).float().mean() > 0.999
