"""The verbs as Python functions: the same bits as the command line, nothing on disk unless asked
for, typed results.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import small
import torch
from click.testing import CliRunner, Result

import dualgnn_dgl
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.core.options import keys
from dualgnn_dgl.core.progress import Progress
from dualgnn_dgl.data import Dataset, Interactions, save
from dualgnn_dgl.errors import ConfigError, RunError
from dualgnn_dgl.models import MODELS, model_class
from dualgnn_dgl.runs.checkpoint import load_run, read_history, read_tensors
from dualgnn_dgl.training.cold_items import all_cold
from dualgnn_dgl.verbs.train import TrainResult

SMALL = {"epochs": 2, "width": 6}


def run(*words: object) -> Result:
    done = CliRunner().invoke(group, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def narrow(name: str) -> dict[str, int]:
    return {"epochs": 3} | ({"width": 6} if "width" in keys(model_class(name).Config) else {})


def words_of(options: dict[str, object]) -> list[str]:
    return [word for key, value in options.items() for word in ("--set", f"{key}={value}")]


def equal(one: torch.Tensor | None, two: torch.Tensor | None) -> bool:
    if one is None or two is None:
        return one is two
    return torch.equal(one.to_dense(), two.to_dense())


def same_as_run(result: TrainResult, folder: str | Path) -> bool:
    """Whether tables, weights, settings and history equal those of a run folder."""
    kept, weights = load_run(folder), read_tensors(Path(folder) / "weights.safetensors")
    mine = result.model.state_dict()
    tables = (
        equal(result.user, kept.user)
        and equal(result.item, kept.item)
        and equal(result.attention, kept.attention)
    )
    about = ("model", "config", "train", "best", "epochs", "users", "items", "modalities")

    def told(history: list[dict]) -> list[dict]:
        return [
            {key: value for key, value in row.items() if "seconds" not in key} for row in history
        ]

    return (
        tables
        and weights.keys() == mine.keys()
        and all(torch.equal(weights[key], mine[key].contiguous()) for key in weights)
        and all(result.info[key] == kept.info[key] for key in about)
        and told(result.history) == told(read_history(folder))
    )


def cold_data() -> Dataset:
    """Data whose validation pairs are all of items that no training pair holds."""
    data = small.dataset()
    held = data.valid.item[0]
    train, valid = data.train, data.valid
    rows, kept = train.item != held, valid.item == held
    counts = (data.num_users, data.num_items)
    data = dataclasses.replace(
        data,
        train=Interactions(train.user[rows], train.item[rows], *counts),
        valid=Interactions(valid.user[kept], valid.item[kept], *counts),
    )
    assert all_cold(data.train, data.valid)
    return data


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder with a prepared data folder `data`, as the current directory."""
    monkeypatch.chdir(tmp_path)
    save(small.dataset(), "data")
    return tmp_path


# ---------------------------------------------------------------- train


@pytest.mark.parametrize("name", MODELS)
def test_train_equals_the_command_line_to_the_bit(home, name):
    run("train", "--model", name, "--run", "cli", "--gpu", -1, *words_of(narrow(name)))
    result = dualgnn_dgl.train(small.dataset(), name, device="cpu", **narrow(name))
    assert same_as_run(result, "cli")
    assert result.info["train"]["batch_size"] == model_class(name).TRAIN.get("batch_size", 2048)
    written = dualgnn_dgl.train("data", name, "python", device=-1, **narrow(name))
    assert (Path("python") / "weights.safetensors").read_bytes() == (
        Path("cli") / "weights.safetensors"
    ).read_bytes()
    assert (Path("python") / "tables.safetensors").read_bytes() == (
        Path("cli") / "tables.safetensors"
    ).read_bytes()
    assert written.info == load_run("python").info and written.folder == Path("python")


def test_without_an_option_the_models_own_defaults_apply(home):
    run("train", "--model", "lightgcn", "--run", "cli", "--gpu", -1)
    assert same_as_run(dualgnn_dgl.train("data", "lightgcn", device="cpu"), "cli")


def test_cold_items_and_imputation_follow_the_same_rules(home):
    save(cold_data(), "cold")
    options = {"epochs": 3, "width": 5, "impute": "mean"}
    run(
        "train",
        "--data",
        "cold",
        "--model",
        "vbpr",
        "--run",
        "cli",
        "--gpu",
        -1,
        *words_of(options),
    )
    result = dualgnn_dgl.train(cold_data(), "vbpr", device="cpu", **options)
    assert same_as_run(result, "cli") and result.best["metric"] != "recall@19"


def test_in_memory_nothing_is_written(home):
    before = sorted(home.rglob("*"))
    result = dualgnn_dgl.train("data", "bprmf", **SMALL)
    assert sorted(home.rglob("*")) == before
    assert (
        result.folder is None and result.info["data"]["path"] == "data" and not result.interrupted
    )
    assert (
        result.user.shape == (small.USERS, 6) and len(result.history) == 2 == result.info["epochs"]
    )
    assert result.best["value"] == max(row["recall@19"] for row in result.history)
    assert "path" not in dualgnn_dgl.train(small.dataset(), "mostpop").info["data"]


def test_settings_come_from_defaults_then_a_file_or_mapping_then_options(home):
    Path("my.toml").write_text(
        'name = "bprmf"\n[model]\nwidth = 5\n[train]\nepochs = 4\nlr = 0.5\n'
    )
    for config in ("my.toml", Path("my.toml"), tomllib.loads(Path("my.toml").read_text())):
        info = dualgnn_dgl.train("data", config=config, options={"epochs": "3"}, lr=0.25).info
        assert (
            info["model"],
            info["config"]["width"],
            info["train"]["epochs"],
            info["train"]["lr"],
        ) == ("bprmf", 5, 3, 0.25)
    assert (
        dualgnn_dgl.train("data", "lightgcn", config="my.toml", epochs=1).info["config"]["width"]
        == 64
    )


def test_progress_is_one_type_of_event(home):
    events: list[Progress] = []
    dualgnn_dgl.train("data", "lightgcn", progress=events.append, **SMALL)
    assert all(type(event) is Progress for event in events)
    assert any("parameters" in event.message for event in events) and events[0].message.startswith(
        "data: data"
    )
    ends = [event for event in events if event.finished]
    assert [event.epoch for event in ends] == [1, 2] and all(
        event.epochs == 2 and event.value is not None for event in ends
    )
    assert {event.metric for event in ends} == {"recall@19"}


class Asks:
    """Asks a training to end in the middle of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.when, self.ask = (epoch, step), None

    def __call__(self, progress: Progress) -> None:
        if (progress.epoch, progress.step) == self.when and not progress.finished:
            self.ask()


def test_a_training_that_was_asked_to_end_resumes_to_the_same_bits(home):
    options = {"epochs": 5, "width": 6, "batch_size": 11}
    whole = dualgnn_dgl.train("data", "dualgnn", "whole", device="cpu", **options)
    asks = Asks(3, 2)
    part = dualgnn_dgl.train(
        "data", "dualgnn", "parts", device="cpu", progress=asks, stop=asks, **options
    )
    assert part.interrupted and len(part.history) == 2 and Path("parts.training").is_dir()
    with pytest.raises(RunError, match="interrupted in epoch 3"):
        dualgnn_dgl.train("data", "dualgnn", "parts", **options)
    resumed = dualgnn_dgl.train(run="parts", resume=True)
    assert not resumed.interrupted and not Path("parts.training").exists()
    assert same_as_run(whole, "parts") and same_as_run(resumed, "whole")
    again = dualgnn_dgl.train("data", run="parts", resume=True)
    assert (
        again.model is None
        and again.seconds is None
        and equal(again.user, whole.user)
        and len(again.history) == 5
    )


def test_ctrl_c_keeps_the_best_epoch_so_far():
    def strike(progress: Progress) -> None:
        if progress.epoch == 3:
            raise KeyboardInterrupt

    result = dualgnn_dgl.train(small.dataset(), "bprmf", progress=strike, epochs=9, width=5)
    assert result.interrupted and len(result.history) == 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            {"model": "lightgnc"},
            "unknown model 'lightgnc'; did you mean 'lightgcn'? Known: dualgnn, ",
        ),
        ({"layer": 2}, "unknown key 'layer'; did you mean 'layers'?"),
        ({"epochs": 0}, "epochs is 0: give at least 1"),
        ({"epochs": "many"}, "a whole number"),
        ({"config": {"nam": "bprmf"}}, "config: unknown section 'nam'; did you mean 'name'?"),
        ({"config": {"train": 3}}, "config: train must be a table"),
        ({"resume": True}, "give a run folder"),
        ({"keep_last": 3}, "give a run folder"),
        ({"run": "r", "resume": True, "force": True}, "give one of them"),
        ({"run": "r"}, "save the data set first"),
        (
            {"data": "data", "run": "r", "checkpoint_every": 0},
            "checkpoint_every is 0: give at least 1",
        ),
        (
            {"data": "data", "run": "r", "checkpoint_minutes": float("nan")},
            "checkpoint_minutes is nan",
        ),
        ({"device": "gpu"}, "'gpu' is no device"),
    ],
)
def test_mistakes_are_one_line_before_any_work(home, call, says):
    with pytest.raises(ConfigError, match=".*") as error:
        dualgnn_dgl.train(**{"data": small.dataset(), **call})
    assert says in str(error.value)
    assert sorted(path.name for path in home.iterdir()) == ["data"]


# ---------------------------------------------------------------- tune


@pytest.mark.parametrize("name", MODELS)
def test_tune_equals_the_command_line(home, name):
    said = json.loads(
        run(
            "tune", "--model", name, "--trials", 2, "--gpu", -1, "--json", *words_of(narrow(name))
        ).stdout
    )
    result = dualgnn_dgl.tune(small.dataset(), name, trials=2, device="cpu", **narrow(name))

    def told(trials: list[dict]) -> list[dict]:
        return [
            {key: value for key, value in trial.items() if key != "seconds"} for trial in trials
        ]

    assert told([dataclasses.asdict(trial) for trial in result.trials]) == told(said["trials"])
    assert result.best is not None and result.best.number == said["best"]["number"]
    assert result.config == tomllib.loads(Path(said["config"]).read_text())
    assert (result.folder, result.config_file, said["config"]) == (
        None,
        None,
        f"studies/{name}/run.toml",
    )
    best = dualgnn_dgl.train(small.dataset(), config=result.config, device="cpu")
    assert best.best["value"] == result.best.value and best.info["model"] == name


def test_a_study_folder_is_continued_and_knows_its_model(home):
    first = dualgnn_dgl.tune("data", "bprmf", "s/{model}", trials=2, **SMALL)
    assert first.folder == "s/bprmf" and first.config_file == "s/bprmf/run.toml"
    more = dualgnn_dgl.tune("data", study="s/bprmf", trials=4)
    assert more.plan == first.plan and more.trials[:2] == first.trials and len(more.trials) == 4
    assert dualgnn_dgl.tune("data", study="s/bprmf", trials=99).exhausted


def test_ctrl_c_keeps_the_finished_trials(home):
    def strike(progress: Progress) -> None:
        if progress.task.startswith("trial 1") and progress.epoch == 2:
            raise KeyboardInterrupt

    result = dualgnn_dgl.tune("data", "bprmf", "s", trials=3, progress=strike, **SMALL)
    assert result.interrupted and len(result.trials) == 1 and result.best == result.trials[0]


def test_mistakes_of_a_search(home):
    for call, says in (
        (
            {"model": "lightgnc"},
            "unknown model 'lightgnc'; did you mean 'lightgcn'? Known: dualgnn, ",
        ),
        ({"trials": 0}, "trials is 0: give at least 1"),
        ({"laers": 3}, "unknown key 'laers'; did you mean 'layers'?"),
    ):
        with pytest.raises(ConfigError) as error:
            dualgnn_dgl.tune("data", **call)
        assert says in str(error.value)


# ---------------------------------------------------------------- the package


@pytest.mark.parametrize(
    "words", [("train", "--model"), ("tune", "--model"), ("robustness", "--models")]
)
def test_an_unknown_model_is_answered_with_the_nearest_one(home, words):
    done = CliRunner().invoke(group, [*words, "lightgnc"])
    assert (
        done.exit_code
        and "unknown model 'lightgnc'; did you mean 'lightgcn'? Known: dualgnn, " in done.stderr
    )


def test_the_verbs_are_offered_and_imported_when_they_are_used():
    script = (
        "import sys, dualgnn_dgl\n"
        "assert not {'torch', 'dgl', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert set(dualgnn_dgl.PUBLIC) <= set(dir(dualgnn_dgl))\n"
        "for name in dualgnn_dgl.PUBLIC:\n"
        "    verb = getattr(dualgnn_dgl, name)\n"
        "    assert callable(verb) and verb.__name__ == name and verb.__doc__\n"
        "try:\n"
        "    dualgnn_dgl.trian\n"
        "except AttributeError as error:\n"
        "    assert 'trian' in str(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_display_of_ones_own_sees_what_the_command_line_shows(home):
    """The command line's lines are the messages of the events, nothing else is noted on the way."""
    shown = SimpleNamespace(lines=[])
    options = {"width": 6, "epochs": 1}
    err = run("train", "--model", "bprmf", "--run", "a", "--gpu", -1, *words_of(options)).stderr
    dualgnn_dgl.train(
        "data",
        "bprmf",
        "b",
        device=-1,
        progress=lambda p: p.message and shown.lines.append(p.message),
        **options,
    )
    lines = [line for line in err.splitlines() if "raise --epochs" not in line]
    assert len(shown.lines) == len(lines) - 1, "one line is that of the epoch"


@pytest.mark.parametrize(
    ("epochs", "patience", "best", "interrupted", "rising"),
    [
        (20, 5, 20, False, True),
        (20, 5, 16, False, True),
        (20, 5, 15, False, False),
        (12, 5, 12, False, False),
        (20, 5, 20, True, False),
        (20, 5, None, False, False),
    ],
)
def test_a_training_that_ends_while_rising_says_so(epochs, patience, best, interrupted, rising):
    """`epochs` of at most 20 were run; the best value came at `best`."""
    info = {
        "train": {"epochs": 20, "patience": patience, "eval_every": 1},
        "epochs": epochs,
        "best": {"epoch": best or epochs, "value": None if best is None else 0.1},
    }
    result = TrainResult(info, None, None, None, [], None, interrupted=interrupted)
    assert result.rising is rising
