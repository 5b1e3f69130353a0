"""The run folder: read back equal, readable by people and other programs, damage and foreign data
refused in one line.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import tomllib

import numpy as np
import pytest
import small
import torch
from safetensors.numpy import load_file

import dualgnn_dgl
from dualgnn_dgl.core.options import build
from dualgnn_dgl.data import save
from dualgnn_dgl.errors import ConfigError, RunError
from dualgnn_dgl.graphs.heterographs import heterograph
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.checkpoint import (
    MARKER,
    check_belongs,
    load_run,
    read_tensors,
    restore,
    save_run,
)
from dualgnn_dgl.runs.settings import resolve
from dualgnn_dgl.training import Fit, TrainConfig, fit


def trained(name="dualgnn", data=None, epochs=3, **switches):
    """(data, configuration, training configuration, fit) of a short training."""
    data = data or small.dataset()
    kind = model_class(name)
    config = kind.Config(**({"width": 6} if kind.trainable else {}), **switches)
    train = TrainConfig(epochs=epochs, batch_size=21, lr=0.02)
    model = create(name, heterograph(data), data.modalities, config, train.seed)
    return data, config, train, fit(model, data.train, data.valid, train)


def store(folder, name, made, **keywords):
    data, config, train, done = made
    options = {
        "model": name,
        "config": config,
        "train": train,
        "data_path": "data",
        "dataset": data,
        "device": "cpu",
    }
    return save_run(folder, done, **{**options, **keywords})


@pytest.fixture(scope="module")
def dualgnn():
    return trained()


@pytest.fixture(scope="module")
def whole(dualgnn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    store(folder, "dualgnn", dualgnn)
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    target = tmp_path / "run"
    shutil.copytree(whole, target)
    return target


def refused(folder, words: str = ".") -> None:
    with pytest.raises(RunError, match=words) as error:
        load_run(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("name", list(MODELS))
def test_saved_then_loaded_is_equal(tmp_path, name):
    made = trained(name)
    data, config, train, done = made
    info = store(tmp_path / "run", name, made)
    run = load_run(tmp_path / "run")
    for one, other in ((run.user, done.user), (run.item, done.item)):
        assert one.is_sparse == other.is_sparse and torch.equal(one.to_dense(), other.to_dense())
    assert run.info == json.loads(json.dumps(info)) and run.folder == tmp_path / "run"
    assert (
        (run.attention is None)
        == (done.attention is None)
        == (name not in small.overriding("user_attention"))
    )
    if run.attention is not None:
        assert torch.equal(run.attention, done.attention) and run.info["modalities"] == list(
            data.modalities
        )
    assert (
        run.info["model"] == name
        and run.info["users"] == data.num_users
        and run.info["items"] == data.num_items
    )
    assert run.info["data"] == {
        "path": "data",
        "from_run": os.path.relpath("data", tmp_path / "run"),
        "hash": data.hash,
    }
    assert (
        build(model_class(name).Config, run.info["config"]) == config
        and build(TrainConfig, run.info["train"]) == train
    )
    assert run.info["best"] == {
        "epoch": done.best_epoch,
        "metric": f"recall@{small.ITEMS}",
        "value": done.best_value,
    }
    assert run.info["versions"]["torch"] == torch.__version__ and "dgl" in run.info["versions"]
    check_belongs(run, data)


def test_weights_make_the_same_tables_again(whole, dualgnn):
    data, config, _, done = dualgnn
    model = create("dualgnn", heterograph(data), data.modalities, config, seed=77)
    model.load_state_dict(read_tensors(whole / "weights.safetensors"))
    user, item = model.embed()
    assert torch.equal(user, done.user) and torch.equal(item, done.item)


def test_every_file_is_open_to_other_programs(whole, dualgnn):
    _, config, train, done = dualgnn
    assert sorted(path.name for path in whole.iterdir()) == [
        "curve.png",
        "history.jsonl",
        "run.json",
        "run.toml",
        "tables.safetensors",
        "weights.safetensors",
    ]
    np.testing.assert_array_equal(
        load_file(whole / "tables.safetensors")["user"], done.user.numpy()
    )
    rows = [json.loads(line) for line in (whole / "history.jsonl").read_text("utf-8").splitlines()]
    assert rows == done.history and [row["epoch"] for row in rows] == [1, 2, 3]
    sections = tomllib.loads((whole / "run.toml").read_text("utf-8"))
    assert sections["name"] == "dualgnn"
    assert (
        build(model_class("dualgnn").Config, sections["model"]) == config
        and build(TrainConfig, sections["train"]) == train
    )
    assert (whole / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not any(
        path.read_bytes()[:2] in (b"\x80\x04", b"\x80\x02", b"PK") for path in whole.iterdir()
    ), "a pickle"


def test_one_epoch_and_no_validation(tmp_path):
    data = small.dataset()
    empty = dataclasses.replace(data, valid=small.interactions([], data.num_users, data.num_items))
    for number, made in enumerate(
        (trained("bprmf", empty, epochs=1), trained("bprmf", empty, epochs=4))
    ):
        store(tmp_path / str(number), "bprmf", made)
        run = load_run(tmp_path / str(number))
        assert run.info["best"]["value"] is None and run.info["best"]["epoch"] == run.info["epochs"]


def test_interrupted_run_says_so_and_loads(tmp_path):
    made = trained("bprmf")
    made[3].interrupted = True
    store(tmp_path / "run", "bprmf", made)
    assert load_run(tmp_path / "run").info["interrupted"] is True


# ---------------------------------------------------------------- damage


def test_any_missing_tensor_file_or_marker(whole, tmp_path):
    for name in ("run.json", "tables.safetensors", "weights.safetensors"):
        target = tmp_path / name
        shutil.copytree(whole, target)
        (target / name).unlink()
        refused(target, name.replace(".", r"\."))


@pytest.mark.parametrize("name", ["run.json", "tables.safetensors", "weights.safetensors"])
def test_cut_emptied_and_noisy_files(copied, name):
    content = (copied / name).read_bytes()
    noise = np.random.default_rng(0).bytes(len(content))
    cut = (b"", content[:7], content[: len(content) // 2], content[:-2])
    for damaged in (*cut, content + b"x", noise, b"\xff" * 8 + content[8:]):
        (copied / name).write_bytes(damaged)
        refused(copied)


@pytest.mark.parametrize("name", ["tables.safetensors", "weights.safetensors"])
def test_a_single_changed_bit_among_the_numbers_is_noticed(copied, name):
    content = bytearray((copied / name).read_bytes())
    for place in (0, 9, len(content) // 2, len(content) - 1):
        changed = content.copy()
        changed[place] ^= 1
        (copied / name).write_bytes(changed)
        refused(copied)
    (copied / name).write_bytes(content)
    load_run(copied)


def test_any_byte_of_run_json_is_an_error_or_leaves_a_sound_run(copied, dualgnn):
    content = bytearray((copied / MARKER).read_bytes())
    draw = np.random.default_rng(2)
    for place in draw.integers(len(content), size=60).tolist():
        changed = content.copy()
        changed[place] ^= int(draw.integers(1, 256))
        (copied / MARKER).write_bytes(changed)
        try:
            run = load_run(copied)
        except RunError as error:
            assert "\n" not in str(error)
        else:
            assert torch.equal(run.user, dualgnn[3].user) and torch.equal(run.item, dualgnn[3].item)


@pytest.mark.parametrize(
    "edit",
    [
        lambda i: i.update(format=3),
        lambda i: i.pop("format"),
        lambda i: i.update(users=5),
        lambda i: i.pop("items"),
        lambda i: i.pop("data"),
        lambda i: i.update(data="data"),
        lambda i: i["data"].pop("hash"),
        lambda i: i["data"].update(hash=3),
        lambda i: i.pop("files"),
        lambda i: i.update(files=[]),
        lambda i: i["files"].pop("weights.safetensors"),
        lambda i: i["files"].update({"../run.json": "0" * 64}),
        lambda i: i["files"].update({"notes.txt": "0" * 64}),
        lambda i: i.update(modalities=["visual"]),
        lambda i: i.update(modalities=5),
        lambda i: i.pop("model"),
        lambda i: i.update(model=["dualgnn"]),
        lambda i: i.pop("best"),
        lambda i: i.update(best=3),
    ],
)
def test_an_edited_run_json_is_refused(copied, edit):
    info = json.loads((copied / MARKER).read_text("utf-8"))
    edit(info)
    (copied / MARKER).write_text(json.dumps(info), "utf-8")
    refused(copied)


@pytest.mark.parametrize(
    "edit",
    [
        lambda i: i["best"].update(value=0.99),
        lambda i: i["config"].update(layers=9),
        lambda i: i["train"].update(seed=5),
        lambda i: i.update(seconds=1),
        lambda i: i.pop("self"),
        lambda i: i["files"].pop("history.jsonl"),
        lambda i: i.update(comment="mine"),
    ],
)
def test_any_other_figure_in_run_json_is_noticed_too(copied, edit):
    info = json.loads((copied / MARKER).read_text("utf-8"))
    (copied / MARKER).write_text(json.dumps(info, indent=7, sort_keys=True), "utf-8")
    load_run(copied)  # the layout says nothing
    edit(info)
    (copied / MARKER).write_text(json.dumps(info), "utf-8")
    refused(copied, "damaged or edited")


def test_tables_of_another_run_are_noticed(copied, tmp_path):
    other = trained(l2=0.5)
    store(tmp_path / "other", "dualgnn", other)
    shutil.copy(tmp_path / "other" / "tables.safetensors", copied / "tables.safetensors")
    refused(copied, "tables.safetensors")


def test_a_run_that_is_replaced_after_it_was_read_is_named(tmp_path):
    """Its parameters are read later than its tables; another command may write in between."""
    data = small.dataset()
    folder = tmp_path / "run"
    store(folder, "bprmf", trained("bprmf", data))
    loaded = load_run(folder)
    store(folder, "lightgcn", trained("lightgcn", data), force=True)
    with pytest.raises(RunError, match="while it was read: run the command again"):
        restore(loaded, data)
    restore(load_run(folder), data)


def test_a_pickle_in_the_place_of_tensors_does_not_run(copied, tmp_path):
    trap = tmp_path / "executed"

    class Exploit:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    torch.save({"user": Exploit()}, copied / "tables.safetensors")
    refused(copied)
    with pytest.raises(RunError, match="damaged"):
        read_tensors(copied / "tables.safetensors")
    assert not trap.exists()


def test_folders_that_are_no_run(tmp_path):
    refused(tmp_path / "none", "dualgnn train")
    refused(tmp_path, "not a run folder")


def test_other_data_is_refused_with_both_hashes(whole):
    other = small.dataset(seed=5)
    with pytest.raises(RunError, match=other.hash[:12]) as error:
        check_belongs(load_run(whole), other)
    assert "--data" in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------- writing


def test_occupied_folder_is_refused_and_force_replaces(tmp_path, dualgnn):
    store(tmp_path / "run", "dualgnn", dualgnn)
    with pytest.raises(RunError, match="--force"):
        store(tmp_path / "run", "dualgnn", dualgnn)
    other = trained("mostpop")
    store(tmp_path / "run", "mostpop", other, force=True)
    assert load_run(tmp_path / "run").info["model"] == "mostpop"
    assert not (tmp_path / "run" / "curve.png").exists(), "nothing of the old run stays"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("precious")
    with pytest.raises(RunError, match="not ours"):
        store(tmp_path / "home", "dualgnn", dualgnn, force=True)


@pytest.mark.parametrize("function", ["write_tensors", "draw_curve", "seal"])
def test_full_disk_leaves_nothing_or_the_old_run(tmp_path, monkeypatch, dualgnn, function):
    store(tmp_path / "old", "dualgnn", dualgnn)
    before = load_run(tmp_path / "old").info

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, function, full)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="No space"):
            store(tmp_path / name, "dualgnn", dualgnn, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert load_run(tmp_path / "old").info == before


def test_saving_changes_nothing_it_received(tmp_path, dualgnn):
    data, _, _, done = dualgnn
    user, state, history = (
        done.user.clone(),
        {k: v.clone() for k, v in done.state.items()},
        [dict(row) for row in done.history],
    )
    store(tmp_path / "run", "dualgnn", dualgnn)
    assert (
        torch.equal(done.user, user)
        and done.history == history
        and dataclasses.replace(data).hash == data.hash
    )
    assert all(torch.equal(done.state[key], state[key]) for key in state)


def test_tables_that_share_memory_or_are_turned_can_be_saved(tmp_path, dualgnn):
    data, config, train, _ = dualgnn
    table = torch.randn(3, small.USERS + small.ITEMS).T
    done = Fit(table[: small.USERS], table[small.USERS :], {"a": table, "b": table})
    store(tmp_path / "run", "dualgnn", (data, config, train, done))
    run = load_run(tmp_path / "run")
    assert torch.equal(run.user, done.user) and torch.equal(run.item, done.item)


# ---------------------------------------------------------------- runs of earlier versions


OLDER = [name for name in MODELS if model_class(name).Config.REMOVED]


def as_once_written(config, **changes):
    """The configuration as a version before the removals wrote it."""
    fields = [
        (key, type(value), dataclasses.field(default=value, metadata=META))
        for key, value in {**config.REMOVED, **changes}.items()
    ]
    kind = dataclasses.make_dataclass("Config", fields, bases=(type(config),), frozen=True)
    return kind(**dataclasses.asdict(config))


META = {"help": "an option of an earlier version", "choices": (), "removed": ()}
META |= {"low": None, "high": None}


@pytest.mark.parametrize("name", OLDER)
def test_a_run_with_removed_options_at_their_defaults_is_read(tmp_path, name):
    data, config, train, done = trained(name)
    older = as_once_written(config)
    store(tmp_path / "run", name, (data, older, train, done))
    run = load_run(tmp_path / "run")
    assert run.info["config"] == config.REMOVED | dataclasses.asdict(config)
    model = checkpoint.restore(run, data)
    assert model.config == config and torch.equal(model.embed()[0], done.user)
    assert resolve(config=tmp_path / "run" / "run.toml") == (name, config, train)
    text = (tmp_path / "run" / "run.toml").read_text("utf-8")
    assert set(config.REMOVED) <= set(tomllib.loads(text)["model"])
    base = {"model": name, "config": run.info["config"], "train": run.info["train"]}
    assert resolve(base=base)[1] == config


def test_a_finished_run_of_an_earlier_version_is_not_trained_again(tmp_path, dualgnn):
    data, config, train, done = dualgnn
    save(data, tmp_path / "data")
    made = data, as_once_written(config), train, done
    store(tmp_path / "run", "dualgnn", made, data_path=tmp_path / "data")
    again = dualgnn_dgl.train(run=tmp_path / "run", resume=True)
    assert again.model is None and torch.equal(again.user, done.user)


def test_a_run_with_a_removed_value_is_refused_in_one_line(tmp_path, dualgnn):
    data, config, train, done = dualgnn
    store(tmp_path / "run", "dualgnn", (data, as_once_written(config, borrow=True), train, done))
    for read, kind in (
        (lambda: checkpoint.restore(load_run(tmp_path / "run"), data), RunError),
        (lambda: resolve(config=tmp_path / "run" / "run.toml"), ConfigError),
    ):
        with pytest.raises(kind, match="borrow=true was removed .it is always false now") as error:
            read()
        assert "\n" not in str(error.value) and "leave the option out" in str(error.value)


def test_a_removed_option_on_the_command_line():
    assert resolve("dualgnn", options={"borrow": "false"})[1] == model_class("dualgnn").Config()
    with pytest.raises(ConfigError, match="drop_edges=true was removed"):
        resolve("dualgnn", options={"drop_edges": "true"})
    with pytest.raises(ConfigError, match="missing=learned was removed: choose one of neighbours"):
        resolve("dualgnn", options={"missing": "learned"})
