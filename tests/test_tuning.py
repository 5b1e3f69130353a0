"""The search: proposals, memory, what ends a trial, what is refused; and `dualgnn tune` as a person
meets it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import small
import torch
from click.testing import CliRunner, Result
from test_checkpoint import as_once_written

from dualgnn_dgl import models, training
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.core.options import build
from dualgnn_dgl.data import Interactions, save
from dualgnn_dgl.errors import ConfigError, RunError
from dualgnn_dgl.experiments import tuning
from dualgnn_dgl.experiments.tuning.plan import MARKER
from dualgnn_dgl.graphs import heterographs
from dualgnn_dgl.models import model_class
from dualgnn_dgl.runs.checkpoint import load_run
from dualgnn_dgl.training import Inputs, TrainConfig, chain

DATA = small.dataset()


def plan(model: str = "lightgcn", fixed: tuple[str, ...] = (), **train) -> tuning.Plan:
    config = build(models.model_class(model).Config, {} if model == "mostpop" else {"width": 5})
    options = build(
        TrainConfig, {"epochs": 2, "batch_size": 17, "metric": "ndcg@9", "lr": 0.01, **train}
    )
    return tuning.make_plan(model, config, options, DATA.hash, fixed)


def search(
    folder: Path, about: tuning.Plan, trials: int, valid=DATA.valid, **options
) -> list[tuning.Trial]:
    calls = {key: options.pop(key) for key in ("begin", "end") if key in options}
    with tuning.Study(folder, about, **options) as study:
        data = dataclasses.replace(
            DATA, valid=valid, test=Interactions([], [], DATA.num_users, DATA.num_items)
        )
        study.tune(Inputs(data, heterographs.heterograph(data), data.modalities), trials, **calls)
        return study.trials()


def told(trials: list[tuning.Trial]) -> list[tuple]:
    """All of a trial but its seconds."""
    return [dataclasses.astuple(dataclasses.replace(trial, seconds=0.0)) for trial in trials]


def test_the_defaults_come_first_and_nothing_is_tried_twice(tmp_path) -> None:
    about = plan()
    found = search(tmp_path / "s", about, 11)
    assert found[0].params == {"layers": 3, "l2": 1e-4, "lr": 1e-2} == about.start()
    assert [trial.number for trial in found] == list(range(11)) and {
        trial.state for trial in found
    } == {"complete"}
    assert len({json.dumps(trial.params) for trial in found}) == 11
    assert all(
        trial.params[key] in values
        for trial in found
        for key, values in model_class("lightgcn").SEARCH.items()
    )
    assert all(
        0 <= trial.value <= 1 and 1 <= trial.epoch <= trial.epochs == 2 and trial.seconds > 0
        for trial in found
    )


def test_the_best_configuration_is_written_and_repeats_its_value(tmp_path) -> None:
    found = search(tmp_path / "s", plan(), 4)
    best = max(found, key=lambda trial: trial.value)
    written = tomllib.loads((tmp_path / "s" / "run.toml").read_text())
    values = written["model"] | written["train"]
    assert (
        written["name"] == "lightgcn" and {key: values[key] for key in best.params} == best.params
    )
    assert values["width"] == 5 and values["metric"] == "ndcg@9"


def test_same_seed_same_proposals_also_when_stopped_and_taken_up_again(tmp_path) -> None:
    whole = search(tmp_path / "whole", plan(), 10)
    search(tmp_path / "parts", plan(), 3)

    def strike(number: int, _) -> None:
        if number == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts", plan(), 10, begin=strike)
    parts = search(tmp_path / "parts", plan(), 10)
    assert told(whole) == told(parts)
    assert told(search(tmp_path / "parts", plan(), 4)) == told(parts), "there are as many already"
    other = search(tmp_path / "other", plan(seed=1), 10)
    assert [trial.params for trial in other] != [trial.params for trial in whole]


def test_ctrl_c_within_a_trial_forgets_that_trial_alone(tmp_path) -> None:
    def strike(number: int, _):
        def report(progress) -> None:
            if number == 2 and progress.epoch == 2:
                raise KeyboardInterrupt

        return report

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "s", plan(), 5, begin=strike)
    with tuning.Study(tmp_path / "s", plan()) as study:
        assert len(study.trials()) == 2
    assert told(search(tmp_path / "s", plan(), 5)) == told(search(tmp_path / "whole", plan(), 5))


def test_a_used_up_space_ends_the_search(tmp_path) -> None:
    about = plan("bprmf", fixed=("lr",))
    found = search(tmp_path / "s", about, 40)
    assert sorted(trial.params["l2"] for trial in found) == sorted(
        model_class("bprmf").SEARCH["l2"]
    )
    assert [trial.params for trial in search(tmp_path / "none", plan("mostpop"), 40)] == [{}]


def test_values_to_try_hold_those_it_starts_from_and_none_that_are_fixed() -> None:
    config = build(models.model_class("lightgcn").Config, {"layers": 7})
    about = tuning.make_plan("lightgcn", config, TrainConfig(lr=0.5), "x", ("l2",))
    values = model_class("lightgcn").SEARCH
    assert about.space == {"layers": (*values["layers"], 7), "lr": (*values["lr"], 0.5)}
    assert about.start() == {"layers": 7, "lr": 0.5}
    assert (
        about.resolved({"layers": 2, "lr": 0.25})[0].layers == 2
        and about.resolved({"lr": 0.25})[1].lr == 0.25
    )


def test_a_study_of_an_earlier_version_is_continued(tmp_path) -> None:
    """Removed options at their old defaults are ignored, other values refused in one line."""
    about = plan("dualgnn")
    older = dataclasses.replace(about, config=as_once_written(about.config))
    with tuning.Study(tmp_path / "s", older):
        pass
    assert '"borrow": false' in (tmp_path / "s" / MARKER).read_text("utf-8")
    with tuning.Study(tmp_path / "s", about) as study:
        assert study.trials() == []
    other = dataclasses.replace(about, config=as_once_written(about.config, borrow=True))
    with tuning.Study(tmp_path / "other", other):
        pass
    with pytest.raises(RunError, match="study.json: borrow=true was removed .*: choose another"):
        tuning.read_plan(tmp_path / "other")


def test_the_worst_are_ended_early_unless_forbidden(tmp_path, monkeypatch) -> None:
    """Curves as if planted: a trial's value is the same in all its epochs; from the fifth trial on
    the worst tenth ends early.
    """
    curves = [0.9, 0.8, 0.1, 0.7, 0.05, 0.85, 0.02]

    def planted(model, train, valid, config, *, report, **_):
        from dualgnn_dgl.core.progress import Progress
        from dualgnn_dgl.training import Fit

        value = curves[planted.calls]
        planted.calls += 1
        history = []
        for epoch in range(1, 21):
            history.append({"epoch": epoch})
            report(Progress(epoch, 1, 1, 0.5, value, value, finished=True))
        return Fit(None, None, {}, history, 1, value)

    monkeypatch.setattr(chain, "fit", planted)
    for prune, states in ((True, "CCCCPCP"), (False, "CCCCCCC")):
        planted.calls = 0
        found = search(tmp_path / str(prune), plan(), 7, prune=prune)
        assert "".join(trial.state[0].upper() for trial in found) == states
        assert found[4].epochs == (tuning.WARM_UP if prune else 20)
        assert [trial.value for trial in found] == curves
        with tuning.Study(tmp_path / str(prune), plan()) as study:
            assert study.best().number == 0


def test_a_diverging_trial_is_written_down_and_the_search_goes_on(tmp_path, monkeypatch) -> None:
    real = training.fit

    def diverging(*words, **options):
        if words[3].lr > 2e-2 or words[3].lr == 1e-2:
            raise RunError("the loss became nan in epoch 1: lower the learning rate")
        return real(*words, **options)

    monkeypatch.setattr(chain, "fit", diverging)
    found = search(tmp_path / "s", plan(), 7)
    assert found[0].state == "failed" and found[0].value is None and "became nan" in found[0].error
    assert {trial.state for trial in found} == {"complete", "failed"} and len(found) == 7
    assert (tmp_path / "s" / "run.toml").is_file()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"),
    ],
    ids=["numpy", "cuda", "cpu"],
)
def test_a_trial_without_enough_memory_fails_alone_and_other_errors_are_told(
    tmp_path, monkeypatch, error
) -> None:
    real, calls = training.fit, []

    def hungry(*words, **options):
        calls.append(words)
        if len(calls) == 2:
            raise error
        return real(*words, **options)

    monkeypatch.setattr(chain, "fit", hungry)
    found = search(tmp_path / "s", plan(), 3)
    assert [trial.state for trial in found] == [
        "complete",
        "failed",
        "complete",
    ] and "memory" in found[1].error
    error, calls[:] = RuntimeError("shapes do not fit"), [()]
    with pytest.raises(RuntimeError, match="shapes"):
        search(tmp_path / "s", plan(), 5)


def test_another_validation_split_matters_and_no_test_split_enters(tmp_path) -> None:
    """`tune` has no parameter for test data, and says so where there is nothing to choose by."""
    with pytest.raises(ConfigError, match="no validation split"):
        search(tmp_path / "s", plan(), 2, valid=small.interactions([], small.USERS, small.ITEMS))
    other = search(tmp_path / "other", plan(), 3, valid=DATA.test)
    assert [t.value for t in other] != [t.value for t in search(tmp_path / "same", plan(), 3)]


def test_only_its_own_study_is_taken_up(tmp_path) -> None:
    search(tmp_path / "s", plan(), 1)
    for about, says in (
        (plan("bprmf"), r"study of another model \(lightgcn, now bprmf\)"),
        (plan(epochs=3), r"other training options \(epochs: 2, now 3\)"),
        (plan(fixed=("l2",)), "other values to try"),
        (dataclasses.replace(plan(), data_hash="other"), "other data"),
    ):
        with pytest.raises(RunError, match=says), tuning.Study(tmp_path / "s", about):
            pass
    again = search(tmp_path / "s", plan("bprmf"), 1, force=True)
    assert set(again[0].params) == {"l2", "lr"}
    assert (
        tuning.read_plan(tmp_path / "s") == plan("bprmf")
        and tuning.read_plan(tmp_path / "nowhere") is None
    )


def test_one_process_at_a_time(tmp_path) -> None:
    with tuning.Study(tmp_path / "s", plan()):
        with pytest.raises(RunError, match="is writing .*: wait for it, or choose another --study"):
            tuning.Study(tmp_path / "s", plan()).__enter__()
    with tuning.Study(tmp_path / "s", plan()) as study:
        assert study.trials() == [] and study.best() is None


def test_nothing_but_json_lies_in_the_folder_and_damage_is_told(tmp_path) -> None:
    folder = tmp_path / "s"
    before = told(search(folder, plan(), 3))
    assert sorted(path.name for path in folder.iterdir()) == [
        "journal.jsonl",
        "journal.sha256.json",
        "run.toml",
        "study.json",
    ]
    lines = (folder / "journal.jsonl").read_bytes().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    with (folder / "journal.jsonl").open("ab") as handle:
        handle.write(b'{"op_code":4,"worker')  # torn by a crash
    (folder / "journal.jsonl.lock").touch()  # and its lock left behind
    assert told(search(folder, plan(), 5))[:3] == before
    content = (folder / "journal.jsonl").read_bytes()
    for broken in (
        content.replace(b'"op_code":', b'"op":', 1),
        b"\x80\x04nonsense\n" + content,
        b"[]\n" + content,
    ):
        (folder / "journal.jsonl").write_bytes(broken)
        with pytest.raises(RunError, match="is not what was written there|is damaged"):
            search(folder, plan(), 6)
        (folder / "journal.sha256.json").unlink(missing_ok=True)  # of a version that kept none
        with pytest.raises(RunError, match="is damaged"):
            search(folder, plan(), 6)
    (folder / "study.json").write_text("{")
    with pytest.raises(RunError, match="study.json"):
        tuning.read_plan(folder)


def test_without_optuna_it_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match="pip install optuna"):
        tuning.Study(tmp_path / "s", plan())
    assert not (tmp_path / "s").exists()


# -------------------- the command line


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder to stand in, with a prepared data folder `data`."""
    monkeypatch.chdir(tmp_path)
    save(DATA, "data")
    return tmp_path


QUICK = ("--epochs", "2", "--set", "width=5", "--set", "metric=recall@3", "--gpu", "-1")


def run(*words) -> Result:
    return CliRunner().invoke(group, [str(word) for word in words])


def test_tune_then_train_with_what_it_found(home) -> None:
    found = run("tune", "--model", "lightgcn", "--trials", 3, *QUICK, "--json")
    assert found.exit_code == 0, (found.output, found.exception)
    value = json.loads(found.stdout)
    assert list(value) == ["study", "data", "model", "metric", "seed", "trials", "best", "config"]
    assert (
        value["study"] == "studies/lightgcn"
        and len(value["trials"]) == 3
        and value["config"] == "studies/lightgcn/run.toml"
    )
    assert value["best"] in value["trials"] and "width" not in value["best"]["params"]
    assert run("train", "--config", value["config"], "--gpu", -1, "--run", "best").exit_code == 0
    info = load_run("best").info
    assert (
        info["best"]["value"] == pytest.approx(value["best"]["value"])
        and info["best"]["epoch"] == value["best"]["epoch"]
    )
    again = run("tune", "--study", "studies/lightgcn", "--trials", 5, "--gpu", -1)
    assert again.exit_code == 0 and "3 trials are finished already" in again.stderr, again.output
    rows = [line.split() for line in again.stdout.splitlines()]
    assert (
        rows[0][:5] == ["trial", "validation", "recall@3", "best", "epoch"]
        and len([r for r in rows if "complete" in r]) == 5
    )
    assert "next: dualgnn train --data data --config studies/lightgcn/run.toml" in again.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "layrs=3"), "did you mean 'layers'"),
        (("--data", "nowhere"), "dualgnn preprocess"),
        (("--study", "data"), "not ours"),
        (("--study", "."), "not ours"),
        (("--config", "none.toml"), "none.toml does not exist"),
        (("--epochs", "0"), "at least 1"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(home, words, says) -> None:
    found = run("tune", "--model", "lightgcn", "--gpu", -1, *words)
    assert found.exit_code == 1 and says in found.stderr and found.stdout == "", found.output
    assert len(found.stderr.splitlines()) == 1 and sorted(path.name for path in home.iterdir()) == [
        "data"
    ]


def test_another_search_in_the_same_folder_is_refused(home) -> None:
    first = run("tune", "--model", "mostpop", "--gpu", -1)
    assert (
        first.exit_code == 0 and "all combinations of these values were tried (1)" in first.stderr
    )
    longer = run("tune", "--study", "studies/mostpop", "--epochs", 7, "--gpu", -1)
    assert "study of other training options (epochs: 200, now 7)" in longer.stderr, (
        "the model is the study's"
    )
    found = run("tune", "--model", "bprmf", "--study", "studies/mostpop", "--gpu", -1)
    assert (
        found.exit_code == 1
        and "study of another model" in found.stderr
        and "--force" in found.stderr
    )
    assert (
        run(
            "tune",
            "--model",
            "bprmf",
            "--study",
            "studies/mostpop",
            "--trials",
            1,
            "--force",
            *QUICK,
        ).exit_code
        == 0
    )


def test_ctrl_c_keeps_the_study(home) -> None:
    """A real SIGINT to a real process, once two trials have been reported."""
    command = [
        sys.executable,
        "-m",
        "dualgnn_dgl.cli.main",
        "tune",
        "--model",
        "lightgcn",
        "--trials",
        "40",
        *QUICK,
    ]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        seen = []
        for line in child.stderr:
            seen.append(line)
            if line.startswith("trial 1"):
                break
        child.send_signal(signal.SIGINT)
        out, rest = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    errors = "".join(seen) + rest
    assert child.returncode == 130 and "interrupted" in errors and "Traceback" not in errors, errors
    count = len([line for line in out.splitlines() if "complete" in line])
    assert 2 <= count < 40 and (home / "studies" / "lightgcn" / "run.toml").is_file()
    with tuning.Study("studies/lightgcn", tuning.read_plan("studies/lightgcn")) as study:
        assert len(study.trials()) == count
