"""Folders of ours are replaced in one step, and what others keep in them stays; see folders.py."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from faults import at_every_call, killed_at

from dualgnn_dgl.core import folders, locks
from dualgnn_dgl.core.exchange import check_free, reading, recover, replace_folders
from dualgnn_dgl.core.files import atomic_file, temporary_name
from dualgnn_dgl.core.folders import Kind, check_files, read_manifest, seal
from dualgnn_dgl.errors import DataError, DualGNNError, RunError

MARKER = "ours.json"
KIND = Kind(MARKER, re.compile(r"ours\.json|part\.\d|old\.\d"), DataError)
pytestmark = pytest.mark.filterwarnings("ignore:.*has been completed")


def everything(folder: Path) -> list[str]:
    """Every path below a folder, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fill(folder: Path, text: str = "new") -> None:
    (folder / "part.1").write_text(text)
    (folder / f"{'old' if text == 'old' else 'part'}.2").write_text(text)
    seal(folder, KIND, {"format": 2, "text": text})


def write(*places: Path, text: str = "new", force: bool = True) -> None:
    with replace_folders(*((place, KIND) for place in places), force=force) as stages:
        for stage in stages:
            fill(stage, text)


NEW = [MARKER, "part.1", "part.2"]
OLD = ["old.2", MARKER, "part.1"]


def text_of(folder: Path) -> str:
    """Which of the two contents a folder holds, whole."""
    with reading(folder):
        info = read_manifest(folder, KIND)
        check_files(folder, KIND, info["files"])
        assert all((folder / name).read_text() == info["text"] for name in info["files"])
        return info["text"]


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "a" / "b"
    with replace_folders((target, KIND)) as (stage,):
        fill(stage)
        assert not target.exists()
    assert everything(target) == NEW and text_of(target) == "new"
    assert everything(tmp_path / "a") == ["b", *(f"b/{name}" for name in NEW)]


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", force=False)
    assert everything(tmp_path) == ["a", *(f"a/{name}" for name in NEW)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("occupied", [False, True])
def test_a_failed_write_leaves_nothing_new(tmp_path, error, occupied):
    target = tmp_path / "a"
    if occupied:
        write(target, text="old")
    before = everything(tmp_path)
    with pytest.raises(error), replace_folders((target, KIND), force=occupied) as (stage,):
        fill(stage, "half")
        raise error
    assert everything(tmp_path) == before
    assert not occupied or text_of(target) == "old"


def test_an_occupied_folder_is_refused_and_force_replaces_it(tmp_path):
    target = tmp_path / "a"
    write(target, text="old")
    with pytest.raises(RunError, match="--force"), replace_folders((target, KIND)):
        raise AssertionError("the block must not run")
    write(target)
    assert everything(target) == NEW and text_of(target) == "new", (
        "files of the old manifest that the new one lacks are gone"
    )


def litter(folder: Path) -> dict[str, bytes]:
    """Put into a folder what a user might; returns what must be there afterwards."""
    (folder / "notes.txt").write_bytes(b"precious")
    (folder / ".hidden").write_bytes(b"precious")
    (folder / "users.parquet").write_bytes(b"PAR1")
    (folder / "sub" / "runs" / "a").mkdir(parents=True)
    (folder / "sub" / "runs" / "a" / "run.json").write_bytes(b"{}")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("notes.txt")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    (folder / ".mine.abcdefgh.tmp").write_bytes(b"looks temporary")
    (folder / ".a.0123456789abcdef.tmp").write_bytes(b"looks like one of ours")
    (folder / ".mine.12345678.old").mkdir()
    return {
        name: (folder / name).read_bytes() for name in everything(folder) if kept(folder / name)
    }


def kept(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(("ours", "part", "old"))


def test_what_others_keep_in_the_folder_stays(tmp_path):
    target = tmp_path / "a"
    write(target, text="old")
    precious = litter(target)
    names = set(everything(target)) - set(OLD)
    handle = (target / "notes.txt").open()  # an open file stays the same one
    write(target)
    assert set(everything(target)) == names | set(NEW)
    assert {name: (target / name).read_bytes() for name in precious} == precious
    assert os.path.samestat(os.fstat(handle.fileno()), os.stat(target / "notes.txt"))
    handle.close()


@pytest.mark.parametrize("name", ["part.2", "old.7"])
def test_a_users_file_under_one_of_our_names_is_refused_before_the_work(tmp_path, name):
    target = tmp_path / "a"
    write(target, text="old")
    (target / name).write_text("precious")
    for action in (lambda: check_free(target, KIND, force=True), lambda: write(target)):
        with pytest.raises(
            RunError, match=re.escape(f"{target / name} has a name that results take")
        ):
            action()
    assert (target / name).read_text() == "precious" and text_of(target) == "old"


def test_a_users_file_that_came_while_we_wrote_is_refused_too(tmp_path):
    target = tmp_path / "a"
    write(target, text="old")
    with (
        pytest.raises(RunError, match=r"part\.2 has a name"),
        replace_folders((target, KIND), force=True) as (stage,),
    ):
        fill(stage)
        (target / "part.2").mkdir()
    assert text_of(target) == "old" and everything(target) == sorted([*OLD, "part.2"])


def test_a_damaged_manifest_costs_nothing_of_the_users(tmp_path):
    target = tmp_path / "a"
    write(target, text="old")
    precious = litter(target)
    for damage in (
        b"",
        b"{}",
        b'{"format": 2, "files": 3}',
        (target / MARKER).read_bytes().replace(b"old", b"odd", 1),
    ):
        (target / MARKER).write_bytes(damage)
        write(target)
        assert text_of(target) == "new"
        assert {name: (target / name).read_bytes() for name in precious} == precious
        assert not (target / "old.2").exists(), "by its name it was one of ours"


@pytest.mark.parametrize("force", [False, True])
def test_foreign_folders_and_files_are_refused_even_with_force(tmp_path, force):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wedding.jpg").write_text("precious")
    (tmp_path / "file").write_text("precious")
    os.mkfifo(tmp_path / "fifo")
    for name, words in (("photos", "not ours"), ("file", "is a file"), ("fifo", "is a file")):
        with (
            pytest.raises(RunError, match=words),
            replace_folders((tmp_path / name, KIND), force=force),
        ):
            raise AssertionError("the block must not run")
        with pytest.raises(RunError, match=words):
            check_free(tmp_path / name, KIND, force=force)
    assert everything(tmp_path) == ["fifo", "file", "photos", "photos/wedding.jpg"]


def test_a_hidden_file_also_makes_a_folder_foreign(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".git").write_text("precious")
    with pytest.raises(RunError, match="not ours"):
        check_free(tmp_path / "a", KIND, force=True)


def test_a_path_that_can_never_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "run", tmp_path / "file" / "deep" / "run"):
        with pytest.raises(DualGNNError, match="file"):
            check_free(place, KIND)
    check_free(tmp_path / "new" / "deep" / "run", KIND)
    assert everything(tmp_path) == ["file"], "asking makes nothing"


@pytest.mark.parametrize("name", [".", "./", "../home", ""])
def test_the_current_folder_can_be_written(tmp_path, monkeypatch, name):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for text in ("old", "new"):
        write(Path(name), text=text)
        assert text_of(home) == text and os.path.samestat(os.stat("."), os.stat(home))
    assert everything(tmp_path) == ["home", *(f"home/{name}" for name in NEW)]


def test_a_linked_folder_stays_a_link(tmp_path):
    """`data -> big disk`: the content goes where the link points."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    for text in ("old", "new"):
        write(tmp_path / "data", text=text)
    assert (tmp_path / "data").is_symlink() and text_of(tmp_path / "disk") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "disk"]


def test_a_file_that_is_a_link_is_replaced_without_touching_its_target(tmp_path):
    target = tmp_path / "a"
    write(target, text="old")
    (tmp_path / "elsewhere").write_text("old")
    (target / "part.1").unlink()
    (target / "part.1").symlink_to(tmp_path / "elsewhere")
    write(target)
    assert text_of(target) == "new" and (tmp_path / "elsewhere").read_text() == "old"


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_the_umask_is_respected(tmp_path, mask):
    before = os.umask(mask)
    try:
        write(tmp_path / "a", text="old")
        write(tmp_path / "a")
        with atomic_file(tmp_path / "b") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    for path in (tmp_path / "b", *(tmp_path / "a").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_full_disk_at_the_last_flush_leaves_nothing(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path / "there", text="old")
    monkeypatch.setattr(os, "fsync", full)
    for name in ("a", "there"):
        with pytest.raises(OSError, match="No space"):
            write(tmp_path / name)
    with pytest.raises(OSError, match="No space"), atomic_file(tmp_path / "b") as temporary:
        temporary.write_text("x")
    assert (
        everything(tmp_path) == ["there", *(f"there/{name}" for name in OLD)]
        and text_of(tmp_path / "there") == "old"
    )


LIMITED = """
import re, resource, signal, sys
import numpy as np
from dualgnn_dgl.core.exchange import replace_folders
from dualgnn_dgl.core.folders import Kind
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with replace_folders((sys.argv[1], Kind("ours.json", re.compile("x"))), force=True) as (folder,):
        np.save(folder / "small.npy", np.zeros(10))
        np.save(folder / "large.npy", np.zeros(100_000), allow_pickle=False)
except OSError as error:
    sys.exit(33)
"""


def test_a_write_that_hits_a_real_limit_leaves_nothing_half_written(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "a")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 33, done.stderr
    assert everything(tmp_path) == []


# ---------------------------------------------------------------- killed anywhere


@pytest.fixture
def quick(monkeypatch):
    """Without waiting for the disk: a killed process loses nothing that it had handed to the
    system.
    """
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def states(
    tmp_path: Path, places: list[Path], precious: dict[Path, dict[str, bytes]]
) -> list[str | None]:
    """The content of each folder after a recovery.

    Nothing of the user's is lost, nothing of ours is left over.
    """
    for place in places:
        recover(place)
        lock = place.with_name(f".{place.name}.lock")
        # killed before its number was in it: nothing proves whose it is, the next writer takes it
        # over
        if lock.exists():
            assert lock.read_bytes() == b""
            with locks.writing(place):
                pass
    found = []
    for place in places:
        found.append(text_of(place) if place.exists() else None)
        for name, content in precious.get(place, {}).items():
            assert (place / name).read_bytes() == content, f"{name} is lost"
        ours = (
            {name for name in everything(place) if "/" not in name and (place / name).is_file()}
            if place.exists()
            else set()
        )
        assert ours <= {*NEW, *OLD, *precious.get(place, {}), "link"}, f"left over: {ours}"
    tops = {path.name for path in tmp_path.iterdir()}
    assert tops <= {place.name for place in places}, f"left over: {tops}"
    return found


@pytest.mark.parametrize(
    "there",
    [(False,), (True,), (False, False), (True, True), (True, False), (False, True)],
    ids=lambda flags: str(len(flags)),
)
def test_killed_at_any_call_all_folders_are_old_or_all_new(tmp_path, there, quick):
    places = [tmp_path / name for name in ("a", "b")[: len(there)]]
    old = ["old" if flag else None for flag in there]
    precious: dict[Path, dict[str, bytes]] = {}
    seen = set()

    def prepare():
        for path in list(tmp_path.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for place, flag in zip(places, there, strict=True):
            if flag:
                write(place, text="old")
                precious[place] = litter(place)

    def check(number):
        found = states(tmp_path, places, precious)
        assert found in (old, ["new"] * len(there)), (number, found)
        seen.add(str(found))

    count = at_every_call(lambda: write(*places), prepare, check)
    assert len(seen) == 2 and count > 15, "it was killed before the commit and after it"


@pytest.mark.parametrize(
    "there", [(True,), (True, True), (False, True)], ids=lambda flags: str(flags)
)
def test_a_recovery_that_is_killed_is_completed_by_the_next(tmp_path, there, quick):
    places = [tmp_path / name for name in ("a", "b")[: len(there)]]

    first = [1]

    def prepare():
        """As after a kill right behind the commit."""
        while True:
            for path in list(tmp_path.iterdir()):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for place, flag in zip(places, there, strict=True):
                if flag:
                    write(place, text="old")
            assert killed_at(first[0], lambda: write(*places)) != 0
            if (places[-1] / folders.COMMIT).exists():
                break
            first[0] += 1

    def check(number):
        assert states(tmp_path, places, {}) == ["new"] * len(there), number

    assert at_every_call(lambda: recover(places[0]), prepare, check) > 5


def test_the_next_command_says_that_it_completed_a_replacement(tmp_path):
    write(tmp_path / "a", text="old")
    number = 1
    while not (tmp_path / "a" / folders.COMMIT).exists():
        killed_at(number, lambda: write(tmp_path / "a"))
        number += 1
    with pytest.warns(UserWarning, match="a replacement that was cut off has been completed"):
        assert text_of(tmp_path / "a") == "new"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text_of(tmp_path / "a") == "new"


def test_only_what_a_dead_writer_left_is_swept(tmp_path):
    mine = tmp_path / ".a.0123456789abcdef.tmp"  # its second half does not follow from the first
    mine.mkdir()
    (mine / "thesis").write_text("precious")
    # a living writer: of another thread or process, seen from here
    with replace_folders((tmp_path / "a", KIND)) as (stage,):
        with pytest.raises(RunError, match="is writing"):
            other_process(
                f"from dualgnn_dgl.core.locks import writing\nwith "
                f"writing({str(tmp_path / 'a')!r}): pass"
            )
        recover(tmp_path / "a")
        assert stage.exists()
        fill(stage)
    dead = tmp_path / temporary_name("a")
    dead.mkdir()
    (tmp_path / temporary_name("a")).write_text("half")
    recover(tmp_path / "a")
    assert (
        sorted(path.name for path in tmp_path.iterdir()) == [mine.name, "a"]
        and (mine / "thesis").exists()
    )


def other_process(script: str) -> None:
    """Run a script in a process of its own; its RunError comes back."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise RunError(done.stderr.strip().splitlines()[-1])


def test_a_forged_plan_is_refused_and_nothing_is_removed(tmp_path):
    write(tmp_path / "a", text="old")
    (tmp_path / "precious").write_text("x")
    commit = tmp_path / "a" / folders.COMMIT
    commit.mkdir()
    (commit / folders.PLAN).write_text(
        json.dumps({"marker": MARKER, "remove": ["../precious"], "self": "0" * 64})
    )
    with pytest.raises(RunError, match="is not what was written there"):
        text_of(tmp_path / "a")
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("remove", [["../precious"], ["/etc/x"], [".."], "notes", [3], None])
def test_a_plan_never_reaches_out_of_its_folder(tmp_path, remove):
    """Even one whose digest agrees."""
    write(tmp_path / "a", text="old")
    (tmp_path / "precious").write_text("x")
    commit = tmp_path / "a" / folders.COMMIT
    commit.mkdir()
    plan = {"marker": MARKER, "remove": remove}
    (commit / folders.PLAN).write_text(json.dumps({**plan, "self": folders.json_digest(plan)}))
    with pytest.raises(RunError, match="plan"):
        text_of(tmp_path / "a")
    assert (tmp_path / "precious").exists()


# ---------------------------------------------------------------- locks


def test_a_lock_is_its_own_file_and_goes_with_its_holder(tmp_path):
    with locks.writing(tmp_path / "deep" / "a"):
        assert (tmp_path / "deep" / ".a.lock").read_text() == str(os.getpid())
        with locks.writing(tmp_path / "deep" / "a", nested=True):  # a step of the same job
            pass
        # another job
        with pytest.raises(RunError, match="is writing"), locks.writing(tmp_path / "deep" / "a"):
            pass
        assert (tmp_path / "deep" / ".a.lock").exists()
        with pytest.raises(
            RunError,
            match=rf"another command \(process {os.getpid()}\) is writing .*: wait for it, or "
            rf"choose",
        ):
            other_process(
                f"from dualgnn_dgl.core.locks import writing\nwith "
                f"writing({str(tmp_path / 'deep' / 'a')!r}): pass"
            )
    assert everything(tmp_path) == []


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "socket"])
def test_something_else_in_the_place_of_the_lock_is_refused(tmp_path, kind):
    place = tmp_path / ".a.lock"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "link":
        (tmp_path / "precious").write_text("x")
        place.symlink_to(tmp_path / "precious")
    else:
        server = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(tmp_path)
        server.bind(place.name)
        os.chdir(here)
    with pytest.raises(RunError, match="should be a lock file"), locks.writing(tmp_path / "a"):
        pass
    assert kind != "link" or (tmp_path / "precious").read_text() == "x"


def test_a_reader_waits_for_an_exchange_and_a_writer_for_readers(tmp_path, monkeypatch):
    write(tmp_path / "a", text="old")
    monkeypatch.setattr(locks, "READERS", 0.05)
    monkeypatch.setattr(locks, "WRITERS", 0.05)
    with locks.reading(tmp_path / "a"), locks.reading(tmp_path / "a"):
        with pytest.raises(RunError, match="at work"):
            write(tmp_path / "a")
    assert text_of(tmp_path / "a") == "old"
    with (
        locks.exchanging(tmp_path / "a"),
        pytest.raises(RunError, match="at work"),
        reading(tmp_path / "a"),
    ):
        pass


@pytest.mark.parametrize("other", ["x/../a", "a/runs/b", "."])
def test_two_results_in_one_folder_are_refused(tmp_path, other):
    with pytest.raises(RunError, match="two folders"):
        write(tmp_path / "a", tmp_path / other)
    assert everything(tmp_path) == []
