"""`dualgnn train` as a person meets it: what it writes, prints and refuses, and what Ctrl-C
leaves.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import small
import torch
from click.testing import CliRunner, Result

from dualgnn_dgl.cli.main import group
from dualgnn_dgl.core.options import keys
from dualgnn_dgl.data import save
from dualgnn_dgl.models import MODELS, model_class
from dualgnn_dgl.runs.checkpoint import load_run, read_tensors
from dualgnn_dgl.training import TrainConfig

SHORT = ("--epochs", "2", "--set", "width=6", "--gpu", "-1")


def run(*words: str) -> Result:
    """Call `dualgnn …` in the working folder; stdout and stderr apart."""
    return CliRunner().invoke(group, [str(word) for word in words])


def refused(*words: str, exit_code: int = 1) -> str:
    """The one line that a mistake is answered with."""
    result = run(*words)
    assert result.exit_code == exit_code, (result.output, result.exception)
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert exit_code == 2 or not any(line.startswith("Error") for line in lines[:-1])
    return lines[-1]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder to stand in, with a prepared data folder `data`."""
    monkeypatch.chdir(tmp_path)
    save(small.dataset(), "data")
    return tmp_path


def test_plain_train_makes_the_default_run(home):
    result = run("train", *SHORT)
    assert result.exit_code == 0, result.output
    assert [path.name for path in home.iterdir() if path.name.startswith(".")] == []
    loaded = load_run(home / "runs" / "dualgnn")
    assert (
        loaded.info["model"] == "dualgnn"
        and loaded.info["epochs"] == 2
        and loaded.info["config"]["width"] == 6
    )
    assert loaded.user.shape == (small.USERS, 6) and loaded.info["data"]["path"] == "data"
    assert "Best epoch" in result.stdout and "runs/dualgnn" in result.stdout
    assert "device: cpu" in result.stderr, "progress goes to stderr"


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_trains(home, name):
    words = ("--set", "width=5") if "width" in keys(model_class(name).Config) else ()
    result = run(
        "train", "--model", name, "--run", f"out/{name}", "--epochs", 2, "--gpu", -1, *words
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert load_run(home / "out" / name).info["model"] == name


def test_json_is_one_object_on_stdout(home):
    result = run(
        "train",
        *SHORT,
        "--json",
        "--seed",
        "3",
        "--lr",
        "0.01",
        "--batch-size",
        "9",
        "--patience",
        "4",
    )
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert len(result.stdout.strip().splitlines()) == 1
    assert said.pop("run") == "runs/dualgnn"
    assert said == load_run("runs/dualgnn").info
    given = {"epochs": 2, "seed": 3, "lr": 0.01, "batch_size": 9, "patience": 4}
    assert {key: said["train"][key] for key in given} == given


def test_print_config_writes_nothing_needs_no_data_and_reads_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(
        "train", "--print-config", "--model", "lightgcn", "--set", "layers=2", "--lr", "0.5"
    )
    assert result.exit_code == 0 and list(tmp_path.iterdir()) == []
    sections = tomllib.loads(result.stdout)
    assert (
        sections["name"] == "lightgcn"
        and sections["model"]["layers"] == 2
        and sections["train"]["lr"] == 0.5
    )
    Path("run.toml").write_text(result.stdout)
    assert run("train", "--print-config", "--config", "run.toml").stdout == result.stdout


def test_a_model_brings_its_own_training_defaults_and_everything_said_beats_them(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def train_of(*words):
        return tomllib.loads(run("train", "--print-config", *words).stdout)["train"]

    wanted, plain = dict(model_class("lightgcn").TRAIN), dataclasses.asdict(TrainConfig())
    assert wanted and train_of("--model", "lightgcn") == plain | wanted
    assert train_of("--model", "bprmf") == plain
    assert train_of("--model", "lightgcn", "--lr", "0.5")["lr"] == 0.5
    Path("my.toml").write_text('name = "lightgcn"\n[train]\nbatch_size = 77\n')
    assert train_of("--config", "my.toml") == plain | wanted | {"batch_size": 77}


def test_deterministic_is_recorded_said_and_repeats(home):
    for folder in ("a", "b"):
        result = run("train", *SHORT, "--run", folder, "--deterministic")
        assert result.exit_code == 0 and "deterministic: exact on the CPU" in result.stderr
        assert load_run(folder).info["train"]["deterministic"] is True
    assert Path("a/weights.safetensors").read_bytes() == Path("b/weights.safetensors").read_bytes()
    assert "deterministic = true" in run("train", "--config", "a/run.toml", "--print-config").stdout
    assert "deterministic = false" in run("train", "--print-config").stdout


def test_named_options_beat_set_and_set_beats_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.toml").write_text(
        'name = "bprmf"\n[model]\nwidth = 11\nl2 = 0.25\n[train]\nseed = 1\nepochs = 5\nlr = 0.5\n'
    )
    pairs = [word for pair in ("width=12", "epochs=6", "seed=2") for word in ("--set", pair)]
    sections = tomllib.loads(
        run("train", "--config", "my.toml", *pairs, "--seed", "3", "--print-config").stdout
    )
    assert (
        sections["name"] == "bprmf"
        and sections["model"]["width"] == 12
        and sections["model"]["l2"] == 0.25
    )
    assert (sections["train"]["seed"], sections["train"]["epochs"], sections["train"]["lr"]) == (
        3,
        6,
        0.5,
    )
    other = tomllib.loads(
        run("train", "--config", "my.toml", "--model", "lightgcn", "--print-config").stdout
    )
    assert other["name"] == "lightgcn" and other["model"]["width"] == 64, (
        "another model's keys do not apply"
    )
    assert other["train"]["epochs"] == 5


def test_impute_fills_for_the_model_and_is_written_down(home):
    plain, filled = run("train", *SHORT), run("train", *SHORT, "--run", "filled", "--impute", "ppr")
    assert plain.exit_code == filled.exit_code == 0, filled.output
    assert "visual: 3 of 19 items imputed by ppr" in filled.stderr and "imputed" not in plain.stderr
    one, two = load_run("runs/dualgnn"), load_run("filled")
    assert (one.info["train"]["impute"], two.info["train"]["impute"]) == ("none", "ppr")
    assert one.info["data"]["hash"] == two.info["data"]["hash"], "the data folder stays as it is"
    assert not torch.equal(one.item, two.item)
    again = run("train", "--config", "filled/run.toml", "--run", "again", "--gpu", "-1")
    assert again.exit_code == 0 and torch.equal(load_run("again").item, two.item)
    assert run("eval", "--run", "filled", "--topk", "5").exit_code == 0
    assert "none" in refused("train", "--impute", "pagerank", exit_code=2)


@pytest.mark.parametrize("name", ["dualgnn", "lightgcn"])
def test_the_written_run_toml_reproduces_the_same_weights(home, name):
    first = run(
        "train",
        "--model",
        name,
        "--run",
        "a",
        *SHORT,
        "--seed",
        "8",
        "--batch-size",
        "13",
        "--lr",
        "0.02",
    )
    second = run("train", "--config", "a/run.toml", "--run", "b", "--gpu", "-1")
    other = run("train", "--config", "a/run.toml", "--run", "c", "--gpu", "-1", "--seed", "9")
    assert first.exit_code == second.exit_code == other.exit_code == 0, second.output
    for file in ("weights.safetensors", "tables.safetensors", "run.toml"):
        assert Path("a", file).read_bytes() == Path("b", file).read_bytes(), file
        assert Path("a", file).read_bytes() != Path("c", file).read_bytes(), file
    keep = ("epoch", "loss", "recall@19")
    one, two = (
        [[json.loads(line)[k] for k in keep] for line in Path(r, "history.jsonl").open()]
        for r in "ab"
    )
    assert one == two


def test_the_test_split_is_not_looked_at(home):
    """Another test split, the same weights: nothing held out for the test can have entered."""
    data = small.dataset()
    known = set(small.pairs_of(data.train)) | set(small.pairs_of(data.valid))
    rest = [
        (u, i) for u in range(data.num_users) for i in range(data.num_items) if (u, i) not in known
    ][::3]
    save(
        dataclasses.replace(data, test=small.interactions(rest, data.num_users, data.num_items)),
        "other",
    )
    for folder in ("data", "other"):
        assert run("train", "--data", folder, "--run", f"run-{folder}", *SHORT).exit_code == 0
    one, two = (
        read_tensors(Path(f"run-{folder}") / "weights.safetensors") for folder in ("data", "other")
    )
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "widht=3"), "did you mean 'width'"),
        (("--set", "epoch=3"), "did you mean 'epochs'"),
        (("--set", "width"), "key=value"),
        (("--set", "width=wide"), "a whole number"),
        (("--set", "width=0"), "at least 1"),
        (("--set", "user_fusion=summ"), "did you mean 'sum'"),
        (("--set", "metric=recal@20"), "recall"),
        (("--set", "metric=recall@²"), "metric"),
        (("--epochs", "0"), "at least 1"),
        (("--lr", "nan"), "finite"),
        (("--lr", "-1"), "at least 0"),
        (("--batch-size", "0"), "at least 1"),
        (("--seed", "-1"), "at least 0"),
        (("--seed", "9" * 25), "seed"),
        (("--config", "none.toml"), "none.toml does not exist"),
        (("--data", "nowhere"), "dualgnn preprocess"),
        (("--gpu", "-2"), "device -2"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(home, words, says):
    assert says in refused("train", *words)
    assert sorted(path.name for path in home.iterdir()) == ["data"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[modle]\nwidth = 3\n", "did you mean 'model'"),
        ("[model]\nwidht = 3\n", "did you mean 'width'"),
        ("[train]\nepochs = 1.5\n", "a whole number"),
        ("model = 3\n", "[model]"),
        ("name = 3\n", "name must be a text"),
        ('name = "dualgn"\n', "did you mean 'dualgnn'"),
        ("epochs = 3\n", "epochs"),
        ("a = \n", "not readable TOML"),
    ],
)
def test_mistakes_in_the_file_are_one_line_with_its_name(home, content, says):
    Path("my.toml").write_text(content)
    text = refused("train", "--config", "my.toml")
    assert says in text


@pytest.mark.parametrize(
    "words", [("--model", "dualgn"), ("--epochs", "many"), ("--nothing",), ("extra",)]
)
def test_usage_mistakes_exit_with_two(home, words):
    refused("train", *words, exit_code=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_gpu_0_without_cuda_is_one_line_that_says_what_to_write(home):
    text = refused("train", "--gpu", "0")
    assert "no CUDA device 0" in text and "-1 for the CPU" in text
    assert sorted(path.name for path in home.iterdir()) == ["data"]


def test_occupied_run_is_refused_before_the_work_and_force_replaces_it(home):
    assert run("train", *SHORT).exit_code == 0
    started = time.perf_counter()
    assert "--force" in refused("train", "--epochs", "100000", "--patience", "100000")
    assert time.perf_counter() - started < 20
    assert run("train", *SHORT, "--force", "--model", "bprmf").exit_code == 0
    assert load_run("runs/dualgnn").info["model"] == "bprmf"


@pytest.mark.parametrize("words", [(), ("--force",)])
def test_foreign_folders_and_impossible_places_are_refused_before_the_work(home, words):
    Path("photos").mkdir()
    Path("photos/wedding.jpg").write_text("precious")
    Path("file").write_text("precious")
    places = {
        "photos": "not ours",
        "file": "is a file",
        "file/run": "is a file",
        ".": "not ours",
        "data": "not ours",
    }
    for place, says in places.items():
        assert says in refused(
            "train", "--run", place, "--epochs", "100000", "--patience", "100000", *words
        )
    assert Path("photos/wedding.jpg").read_text() == "precious"
    assert sorted(path.name for path in home.iterdir()) == ["data", "file", "photos"]


def test_damaged_data_is_one_line(home):
    content = bytearray(Path("data/train.parquet").read_bytes())
    content[len(content) // 2 :] = b"\0" * (len(content) - len(content) // 2)
    Path("data/train.parquet").write_bytes(content)
    assert "train.parquet" in refused("train", *SHORT)


def test_data_without_features_names_the_model_that_needs_none(home):
    save(small.dataset(modalities=()), "plain")
    assert "lightgcn" in refused("train", "--data", "plain")
    assert (
        run(
            "train", "--data", "plain", "--model", "lightgcn", "--epochs", "1", "--gpu", "-1"
        ).exit_code
        == 0
    )


def test_data_without_training_pairs_is_one_line(home):
    data = small.dataset()
    empty = small.interactions([], data.num_users, data.num_items)
    save(dataclasses.replace(data, train=empty, co_occurrence=None), "empty")
    assert "nothing to learn from" in refused("train", "--data", "empty", *SHORT)


def test_a_diverging_loss_is_one_line_and_leaves_no_run(home):
    text = refused(
        "train",
        "--lr",
        "1e30",
        "--epochs",
        "30",
        "--patience",
        "30",
        "--gpu",
        "-1",
        "--set",
        "l2=1e30",
    )
    assert "learning rate" in text and "--lr" in text
    assert sorted(path.name for path in home.iterdir()) == ["data"]


def test_a_model_too_large_for_the_memory_is_one_line(home):
    assert "memory" in refused("train", "--set", "width=1000000000000", "--gpu", "-1")


def test_no_validation_split_is_said(home):
    data = small.dataset()
    save(
        dataclasses.replace(data, valid=small.interactions([], data.num_users, data.num_items)),
        "novalid",
    )
    result = run("train", "--data", "novalid", *SHORT)
    assert result.exit_code == 0 and "no validation split" in result.stdout


# ---------------------------------------------------------------- Ctrl-C and a full disk, for real

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_warning_is_one_line_and_what_torch_says_of_its_own_parts_is_left_out():
    warn = (
        "import sys, warnings as w; from dualgnn_dgl.cli import main as m; m.group = lambda **_: "
        "[*map(w.warn, sys.argv[1:])]"
    )
    words = [
        "Sparse invariant checks are implicitly disabled.",
        "cuda_graph: the step\ncannot be captured",
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"{warn}; m.main()", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "warning: cuda_graph: the step cannot be captured\n"


CHILD = [sys.executable, "-m", "dualgnn_dgl.cli.main", "train", "--gpu", "-1", "--set", "width=6"]


def test_ctrl_c_leaves_a_usable_run_and_exit_130(home):
    """A real SIGINT to a real process, once three epochs have been reported."""
    command = [*CHILD, "--epochs", "1000000", "--patience", "1000000"]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=ONE_THREAD,
        # a test run in the background inherits "ignore"
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        seen = []
        for line in child.stderr:
            seen.append(line)
            if sum("loss" in text for text in seen) >= 3:
                break
        child.send_signal(signal.SIGINT)
        out, rest = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    errors = "".join(seen) + rest
    assert child.returncode == 130, errors
    assert "Traceback" not in errors and "interrupted" in errors
    info = load_run(home / "runs" / "dualgnn").info
    assert info["interrupted"] is True and 1 <= info["best"]["epoch"] <= info["epochs"] < 1_000_000
    assert sorted(path.name for path in home.iterdir()) == ["data", "runs"]
    assert sorted(path.name for path in (home / "runs").iterdir()) == [
        "dualgnn",
        "dualgnn.training",
    ]


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
from dualgnn_dgl.cli.main import main
sys.argv = ["dualgnn", "train", "--gpu", "-1", "--epochs", "2", "--run", "out/run"]
main()
"""


def test_no_room_for_the_run_is_one_line_and_nothing_half_written(home):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120, env=ONE_THREAD
    )
    lines = done.stderr.strip().splitlines()
    assert (
        done.returncode == 1 and lines[-1].startswith("Error: ") and "Traceback" not in done.stderr
    ), done.stderr
    assert list((home / "out").iterdir()) == [] if (home / "out").exists() else True


def test_help_names_every_option_and_imports_no_torch():
    code = (
        "import sys; from click.testing import CliRunner; from dualgnn_dgl.cli.main import group; "
        "print(CliRunner().invoke(group, ['train', '--help']).output); assert not {'torch', "
        "'dgl'} & sys.modules.keys()"
    )
    wide = {**os.environ, "COLUMNS": "110"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=wide
    )
    assert done.returncode == 0, done.stderr
    named = (
        "--data --run --model --gpu --epochs --lr --batch-size --patience --seed --set --config "
        "--print-config --force --json "
        "--resume --checkpoint-every --checkpoint-minutes --keep-last --keep-checkpoints "
        "--deterministic"
    )
    for option in named.split():
        assert option in done.stdout, option
    assert "Examples:" in done.stdout


def test_what_was_given_is_quoted_in_one_line(home):
    result = run("train", "a\nb")
    assert (
        result.exit_code == 2
        and result.stderr.strip().splitlines()[-1] == "Error: Got unexpected extra argument (a b)"
    )
