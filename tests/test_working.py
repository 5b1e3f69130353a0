"""The working folder: checkpoints whole or none, damage noticed and stepped over, one training at a
time.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from dualgnn_dgl.core import exchange, files, locks
from dualgnn_dgl.data.manifest import FOLDER
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.runs import working
from dualgnn_dgl.runs.working import Checkpoints
from dualgnn_dgl.training.state import Snapshot


def shot(epoch: int, step: int = 0, fill: float = 1.5) -> Snapshot:
    tensors = {
        "model/user": torch.full((3, 4), fill),
        "now/graph": torch.Generator().get_state(),
        "total": torch.tensor(0.1),
    }
    return Snapshot(
        tensors, {"epoch": epoch, "step": step, "history": [{"epoch": 1, "loss": 0.1 + 0.2}]}
    )


def same(one: Snapshot, two: Snapshot) -> bool:
    equal = one.tensors.keys() == two.tensors.keys() and all(
        torch.equal(one.tensors[k], two.tensors[k]) for k in one.tensors
    )
    return equal and one.info == two.info


@pytest.fixture
def filled(tmp_path):
    """(run, what was said): a working folder with the checkpoints of epochs 4 and 5."""
    said: list[str] = []
    with Checkpoints(tmp_path / "runs" / "a", say=said.append) as hook:
        hook.about = {"model": "bprmf"}
        for epoch in range(1, 6):
            hook.keep(shot(epoch, fill=epoch))
    return hook, said


def reopened(hook: Checkpoints):
    with Checkpoints(hook.run, say=hook.say) as again:
        return again.newest()


def test_the_newest_comes_back_equal_and_the_last_two_stay(filled):
    hook, said = filled
    assert sorted(path.name for path in hook.folder.iterdir()) == [
        "checkpoint-000004-000000000.json",
        "checkpoint-000004-000000000.safetensors",
        "checkpoint-000005-000000000.json",
        "checkpoint-000005-000000000.safetensors",
    ]
    found = reopened(hook)
    assert (
        found.name == "checkpoint-000005-000000000"
        and found.about == {"model": "bprmf"}
        and said == []
    )
    assert same(found.snapshot, shot(5, fill=5))


def test_newest_is_by_number_not_by_letter(tmp_path):
    with Checkpoints(tmp_path / "a", last=9) as hook:
        for epoch, step in ((2, 11), (1_000_000, 0), (999_999, 7), (2, 1_000_000_000)):
            hook.keep(shot(epoch, step))
        assert [name.split("-")[1:] for name in hook.names()] == [
            ["1000000", "000000000"],
            ["999999", "000000007"],
            ["000002", "1000000000"],
            ["000002", "000000011"],
        ]


def test_nothing_is_left_where_nothing_was_kept(tmp_path):
    with Checkpoints(tmp_path / "deep" / "er" / "a"):
        assert (tmp_path / "deep" / "er" / ".a.lock").read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with Checkpoints(tmp_path / "there" / "a") as hook:
        hook.keep(shot(1))
        hook.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and not list(
        (tmp_path / "there").iterdir()
    )


def test_foreign_files_in_the_folder_stay(tmp_path):
    (tmp_path / "a.training").mkdir()
    (tmp_path / "a.training" / "letter.txt").write_text("precious")
    with Checkpoints(tmp_path / "a") as hook:
        hook.keep(shot(1))
        hook.clear()
    assert (tmp_path / "a.training" / "letter.txt").read_text() == "precious"


@pytest.mark.parametrize("ending", ["json", "safetensors"])
def test_any_damage_is_noticed_and_the_one_before_is_used(filled, ending):
    hook, said = filled
    path = hook.folder / f"checkpoint-000005-000000000.{ending}"
    content = path.read_bytes()
    draw = np.random.default_rng(1)
    flipped = []
    for place in draw.integers(len(content), size=40).tolist():
        changed = bytearray(content)
        changed[place] ^= int(draw.integers(1, 256))
        flipped.append(bytes(changed))
    for damaged in (
        b"",
        content[:9],
        content[: len(content) // 2],
        content[:-1],
        content + b"\n}",
        *flipped,
    ):
        path.write_bytes(damaged)
        said.clear()
        found = reopened(hook)
        # spaces between the words of the JSON say nothing
        if found.name.startswith("checkpoint-000005"):
            assert ending == "json" and same(found.snapshot, shot(5, fill=5)) and said == []
            continue
        assert found.name == "checkpoint-000004-000000000" and same(found.snapshot, shot(4, fill=4))
        assert (
            len(said) == 1
            and path.name.split(".")[0] in said[0]
            and "\n" not in said[0]
            and "older" in said[0]
        )


def test_every_single_changed_number_in_the_json_is_noticed(filled):
    hook, said = filled
    path = hook.folder / "checkpoint-000005-000000000.json"
    info = json.loads(path.read_text())
    for change in (
        lambda i: i["training"].update(step=3),
        lambda i: i["training"]["history"][0].update(loss=0.3),
        lambda i: i["about"].update(model="lightgcn"),
        lambda i: i.update(format=2),
        lambda i: i.update(more=1),
    ):
        altered = json.loads(json.dumps(info))
        change(altered)
        path.write_text(json.dumps(altered))
        assert reopened(hook).name == "checkpoint-000004-000000000"


def test_nothing_sound_is_one_line_and_none_at_all_is_none(filled, tmp_path):
    hook, said = filled
    for path in hook.folder.glob("*.safetensors"):
        path.write_bytes(b"x")
    with pytest.raises(RunError, match="--force"):
        reopened(hook)
    assert len(said) == 2
    with Checkpoints(tmp_path / "other") as other:
        assert other.newest() is None


def test_what_a_kill_left_is_cleared_away(filled):
    """Half a write, and a pair whose JSON never came; nothing that only looks like it."""
    hook, _ = filled
    (hook.folder / files.temporary_name("checkpoint-000006-000000000.safetensors")).write_bytes(
        b"half"
    )
    (hook.folder / "checkpoint-000006-000000000.safetensors").write_bytes(b"whole, but nobody's")
    (hook.folder / ".checkpoint-000006-000000000.safetensors.abcd1234.tmp").write_bytes(b"a user's")
    (hook.folder / "model.safetensors").write_bytes(b"a user's")
    assert reopened(hook).name == "checkpoint-000005-000000000"
    assert len(list(hook.folder.iterdir())) == 6


def test_a_pickle_in_the_place_of_a_checkpoint_does_not_run(filled, tmp_path):
    hook, said = filled
    trap = tmp_path / "executed"

    class Exploit:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    torch.save({"model/user": Exploit()}, hook.folder / "checkpoint-000005-000000000.safetensors")
    assert reopened(hook).name == "checkpoint-000004-000000000"
    assert not trap.exists()


@pytest.mark.parametrize("place", ["write_tensors", "write_json"])
def test_a_full_disk_is_said_keeps_the_last_and_does_not_end_training(filled, monkeypatch, place):
    hook, said = filled

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Checkpoints(hook.run, say=said.append) as again:
        monkeypatch.setattr(working, place, full)
        again.keep(shot(6))
        monkeypatch.undo()
        assert len(said) == 1 and "No space left" in said[0] and "\n" not in said[0]
        assert again.newest().name == "checkpoint-000005-000000000"
        again.keep(shot(7, fill=7))
        assert same(again.newest().snapshot, shot(7, fill=7)), "when there is room again"
    assert len(list(hook.folder.iterdir())) == 4


def test_due(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(working.time, "monotonic", lambda: clock[0])
    hook = Checkpoints(tmp_path / "a", every=3, minutes=2)
    assert [epoch for epoch in range(1, 10) if hook.due(epoch)] == [3, 6, 9] and not hook.due()
    clock[0] += 119
    assert not hook.due() and not hook.due(1)
    clock[0] += 2
    assert hook.due() and hook.due(1) and not hook.due(3, last=True), "within a long epoch, too"
    with hook:
        hook.keep(shot(1))
        assert not hook.due()
        assert "saving" in hook.ask() and hook.due() and not hook.due(1, last=True)
        hook.clear()
    assert Checkpoints(tmp_path / "a", leave=True).due(1, last=True)


HOLDER = """
import sys, time
from dualgnn_dgl.runs.working import Checkpoints
with Checkpoints(sys.argv[1]) as hook:
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_training_is_refused_at_once_and_a_killed_one_holds_nothing(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "held\n"
        (tmp_path / "link").symlink_to(tmp_path / "a")
        for name in ("a", "link", "a/"):  # one run under any of its names
            with (
                pytest.raises(RunError, match=f"process {child.pid}.*--run") as error,
                Checkpoints(f"{tmp_path}/{name}"),
            ):
                pass
            assert "\n" not in str(error.value)
        assert (tmp_path / ".a.lock").exists()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with Checkpoints(tmp_path / "a"):
        assert (tmp_path / ".a.lock").read_text() == str(os.getpid())


def test_a_lock_file_that_its_owner_has_removed_is_no_lock(tmp_path, monkeypatch):
    """Opened before the owner removed it, held after: another process would make a new one.

    So it is tried again.
    """
    flock, seen = locks.fcntl.flock, []

    def late(handle, how):
        if not seen:
            (tmp_path / ".a.lock").unlink()
        seen.append(handle)
        flock(handle, how)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    with Checkpoints(tmp_path / "a"):
        assert len(seen) == 2 and (tmp_path / ".a.lock").read_text() == str(os.getpid())


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def none(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with pytest.warns(UserWarning, match="without locks"), Checkpoints(tmp_path / "a") as hook:
        hook.keep(shot(1))
        assert hook.newest().name == "checkpoint-000001-000000000"


def test_files_are_flushed_with_the_folder_that_names_them(tmp_path, monkeypatch):
    """A rename is on the disk only when its folder is."""
    flushed: list[str] = []
    for module in (files, exchange):
        monkeypatch.setattr(module, "sync", lambda path: flushed.append(path.name))
    with files.atomic_file(tmp_path / "x") as temporary:
        temporary.write_text("1")
    assert flushed[-1] == tmp_path.name and len(flushed) == 2
    with exchange.replace_folders((tmp_path / "y", FOLDER)):
        pass
    assert flushed[-1] == tmp_path.name


def test_what_a_training_is_begun_with_is_known_before_its_first_checkpoint(tmp_path):
    about = {"model": "bprmf", "keep": {"every": 3}}
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path / "a") as hook:
        hook.begin(about)
        raise KeyboardInterrupt
    with Checkpoints(tmp_path / "a") as again:
        assert again.begun() == about
        path = again.folder / "begun.json"
        path.write_text(path.read_text().replace("bprmf", "bprmg"))
        with pytest.raises(
            RunError, match=r"begun\.json is not what was written there.*: begin again with --force"
        ):
            again.begun()
    assert list(tmp_path.iterdir()) == [], "a training that ended leaves nothing"
