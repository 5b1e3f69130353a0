"""Every command works for every model, or says in one line why not; models are found by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import small
import trial

from dualgnn_dgl import data as datasets
from dualgnn_dgl.models import MODELS, model_class

CPU = ("--gpu", -1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, the same without features, a log of newcomers and features of new videos."""
    folder = tmp_path_factory.mktemp("every")
    whole = small.dataset()
    datasets.save(whole, folder / "data")
    datasets.save(small.dataset(modalities=()), folder / "bare")
    known = whole.item_ids[:4]
    rows = [f"newbie,{item}" for item in known] + [f"newbie,{known[0]}", f"other,{known[1]}"]
    (folder / "new.csv").write_text("\n".join(["user,item", *rows]) + "\n")
    draw = np.random.default_rng(3)
    for name, width in small.WIDTHS.items():
        np.save(folder / f"{name}.npy", draw.normal(size=(2, width)).astype(np.float32))
        (folder / f"{name}_ids.txt").write_text("new1\nnew2\n")
    return folder


@pytest.fixture(scope="module")
def run_of(home: Path):
    """A function: model name → its run folder, trained once."""
    made: dict[str, Path] = {}

    def train(name: str) -> Path:
        if name not in made:
            made[name] = home / f"run-{name}"
            short = ("--epochs", 2) if model_class(name).trainable else ()
            small_width = (
                ("--set", "width=4") if "width" in vars(model_class(name).Config()) else ()
            )
            words = ("--data", home / "data", "--run", made[name], "--model", name)
            done = trial.call("train", *words, *short, *small_width, *CPU)
            assert done.code == 0, done.err
        return made[name]

    return train


COMMANDS = {
    "eval": ("eval", "--topk", 3),
    "eval --cold-items": ("eval", "--cold-items", "--topk", 1),
    "eval --beyond": ("eval", "--beyond", "--topk", 3),
    "eval --per-user": ("eval", "--topk", 3, "--per-user", "OUT/users.parquet"),
    "recommend --user": ("recommend", "--user", "u900", "--k", 5),
    "recommend --history": ("recommend", "--history", "ITEMS", "--k", 5),
    "recommend --histories": ("recommend", "--histories", "NEW", "--k", 5),
    "recommend --new-items": (
        *("recommend", "--user", "u900", "--k", 5),
        *("--new-items", "HOME/visual.npy", "--new-items", "HOME/textual.npy"),
    ),
    "recommend --only-new": (
        *("recommend", "--history", "ITEMS", "--k", 2),
        *("--new-items", "HOME/visual.npy", "--only-new"),
    ),
    "recommend --all": ("recommend", "--all", "OUT/lists.parquet", "--k", 5),
    "update": ("update", "--input", "NEW", "--new-data", "OUT/data", "--new-run", "OUT/run"),
}


def spelled(words: tuple[object, ...], home: Path, out: Path) -> list[str]:
    ids = ",".join(datasets.load(home / "data").item_ids[:3])
    known = {"HOME": str(home), "OUT": str(out), "NEW": str(home / "new.csv"), "ITEMS": ids}
    found = []
    for word in map(str, words):
        head, slash, rest = word.partition("/")
        found.append(known.get(head, head) + slash + rest)
    return found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_command_takes_every_model(name, command, home, run_of, tmp_path) -> None:
    words = spelled(COMMANDS[command], home, tmp_path)
    device = CPU if words[0] != "update" else ()
    where = ("--run", run_of(name), "--data", home / "data", *device)
    done = trial.call(*words, *where, "--json")
    assert done.code == 0 and not trial.fault(done), done.err + trial.fault(done)
    value = json.loads(done.out)
    if words[0] == "recommend" and "--all" not in words:
        for user in value["users"]:
            items = [entry["item"] for entry in user["items"]]
            assert len(items) == len(set(items))
            assert all(np.isfinite(entry["score"]) for entry in user["items"])
    if "--all" in words:
        table = pq.read_table(tmp_path / "lists.parquet")
        assert table.num_rows and np.isfinite(table["score"].to_numpy()).all()
    if words[0] == "update":
        again = trial.call("eval", "--run", tmp_path / "run", "--topk", 3, "--json", *CPU)
        assert again.code == 0 and json.loads(again.out)["users"], again.err
        asked = ("recommend", "--run", tmp_path / "run", "--user", "newbie", "--k", 3, *CPU)
        assert trial.call(*asked).code == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_compared_tuned_and_resumed(name, home, run_of, tmp_path) -> None:
    other = "mostpop" if name != "mostpop" else "bprmf"
    words = ("--data", home / "data", "--topk", 3, "--resamples", 20, *CPU)
    found = [
        trial.call("compare", run_of(name), run_of(other), *words),
        trial.call("train", "--run", run_of(name), "--resume", *CPU),
    ]
    search = ("--model", name, "--study", tmp_path / "study", "--trials", 1, *CPU)
    if model_class(name).trainable:
        search = (*search, "--epochs", 1)
    found.append(trial.call("tune", "--data", home / "data", *search))
    for done in found:
        assert not trial.fault(done), done.err


@pytest.mark.parametrize("name", MODELS)
def test_without_features_every_model_trains_or_says_why(name, home, tmp_path) -> None:
    words = ("--data", home / "bare", "--run", tmp_path / "run", "--model", name, *CPU)
    short = ("--epochs", 1) if model_class(name).trainable else ()
    done = trial.call("train", *words, *short)
    assert not trial.fault(done, tmp_path / "run" if done.code else tmp_path / "none")
    assert done.code == 0 or "features" in done.err or "modalit" in done.err, done.err
