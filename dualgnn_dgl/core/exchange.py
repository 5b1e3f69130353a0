"""Replaces the library's own files of a folder in one step; other files in it stay.

A prepared data folder and a run folder contain a few files that this library wrote, listed with
their SHA-256 in a manifest (`dataset.json`, `run.json`). Users put other files beside them: notes,
lists, runs inside a data folder. A replacement never moves the folder, only its own files:

1. The new files are written to a staging folder with a temporary name, inside the folder, or beside
   it if it does not exist.
2. One rename commits them: of the staging folder to `COMMIT` inside the folder, or to the folder
   itself if it does not exist.
3. Files that only the old manifest lists are removed, and the new ones move from `COMMIT` to their
   places, the manifest last.

A process that is killed before step 2 leaves the old state. One killed after it leaves the new
state, which the next command that opens the folder completes (`recover`). Several folders are
replaced together by one commit: that of the last, whose `PLAN` names the others.
"""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from dualgnn_dgl.core import locks
from dualgnn_dgl.core.files import (
    is_temporary,
    json_digest,
    remove_if_orphaned,
    sweep,
    sweep_inside,
    sync,
    temporary_name,
)
from dualgnn_dgl.core.folders import COMMIT, PLAN, Kind, own_files
from dualgnn_dgl.core.plans import finish, pending, read_plan
from dualgnn_dgl.errors import DualGNNError, RunError, json_text


def check_free(path: str | Path, kind: Kind, *, force: bool = False) -> None:
    """Checks before long work that a folder may be written, without making anything.

    A folder may be written if it is absent, empty, or ours with `force` set.

    Args:
        path: The folder.
        kind: Its kind.
        force: Whether an old result may be replaced.

    Raises:
        RunError: If it may not be written, or has a file of the user's under a name that ours
            needs.
    """
    path = Path(path)
    recover(path)
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file, a folder is needed here: choose another path")
    place = Path(os.path.realpath(path))
    ancestor = next(parent for parent in (place, *place.parents) if parent.exists())
    if not ancestor.is_dir():
        raise RunError(
            f"{ancestor} is a file, so the folder {path} cannot be made: choose another path"
        )
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise RunError(
            f"you may not write into {ancestor}, where {path} would be made: choose another folder"
        )
    held = [entry for entry in place.iterdir() if not _passing(entry)] if place.is_dir() else []
    if not held:
        return
    if not (place / kind.marker).is_file():
        raise RunError(
            f"{path} holds files that are not ours (no {kind.marker}): choose another folder"
        )
    if not force:
        raise RunError(
            f"{path} already holds a result: choose another folder, or replace it with --force"
        )
    own = own_files(place, kind)
    for entry in held:
        if kind.names.fullmatch(entry.name) and entry.name not in own:
            raise RunError(_foreign(entry))


def refuse_own(path: str | Path, *kinds: Kind) -> None:
    """Raises `RunError` if a path to write belongs to a result of one of the kinds."""
    place = Path(os.path.realpath(path))
    for kind in kinds:
        if (place.parent / kind.marker).is_file() and place.name in own_files(place.parent, kind):
            raise RunError(f"{path} belongs to the result in {place.parent}: choose another file")


def _foreign(path: Path) -> str:
    return (
        f"{path} has a name that results take, but was not written as one: move it, or choose "
        f"another folder"
    )


def _passing(entry: Path) -> bool:
    """Returns whether an entry belongs to a running command."""
    return (
        is_temporary(entry)
        or entry.name in (COMMIT, PLAN)
        or (entry.name.startswith(".") and entry.name.endswith(".lock"))
    )


class _Stage:
    """The new content of one folder, until it is committed."""

    def __init__(self, target: Path, kind: Kind) -> None:
        self.target, self.kind, self.inside = target, kind, target.is_dir()
        if not self.inside:
            target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = (target if self.inside else target.parent) / temporary_name(target.name)
            self.path.mkdir()
            self.handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            locks.hold(self.handle)
            if self.path.exists():
                return
            os.close(self.handle)  # Another process removed it before it was locked.

    def plan(self, more: Mapping[str, Any]) -> None:
        """Flushes the new files and writes the steps that follow the commit."""
        new = {path.name for path in self.path.iterdir()}
        remove: list[str] = []
        if self.inside:
            own = own_files(self.target, self.kind)
            for name in sorted(new - own):
                if os.path.lexists(self.target / name):
                    raise RunError(_foreign(self.target / name))
            remove = sorted(own - new)
        if self.inside or more:
            plan = {"marker": self.kind.marker, "remove": remove, **more}
            (self.path / PLAN).write_text(
                json_text({**plan, "self": json_digest(plan)}, indent=2) + "\n", "utf-8"
            )
        for path in self.path.iterdir():
            sync(path)
        sync(self.path)

    def commit(self) -> None:
        """Renames the staging folder; from then on the new content counts."""
        if self.inside:
            os.rename(self.path, self.target / COMMIT)
            sync(self.target)
            return
        try:
            os.rename(self.path, self.target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise RunError(
                f"{self.target} was made by another process meanwhile: choose another folder"
            ) from None
        sync(self.target.parent)

    def close(self) -> None:
        """Removes files that were not committed."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.handle)


def check_apart(*paths: str | Path) -> None:
    """Raises `RunError` if two folders for results are the same, or one is inside the other."""
    places = [Path(os.path.realpath(path)) for path in paths]
    for index, place in enumerate(places):
        for other in places[:index]:
            if place.is_relative_to(other) or other.is_relative_to(place):
                raise RunError(
                    f"{other} and {place} cannot have a result each: name two folders, neither "
                    f"inside the other"
                )


@contextmanager
def replace_folders(*targets: tuple[str | Path, Kind], force: bool = False) -> Iterator[list[Path]]:
    """Yields a staging folder for each target, and replaces all targets together at the end.

    The targets are replaced if the block ends without an error. The block may write files there, no
    folders, and the manifest by `seal`. If a target is a link, the folder it points to is replaced.

    Args:
        *targets: Folders with their kinds.
        force: Whether old results may be replaced.

    Raises:
        RunError: If a target is occupied and `force` is not set, has files that are not ours under
            names that are needed, or is being written by another process.
    """
    places = [(Path(os.path.realpath(path)), kind) for path, kind in targets]
    check_apart(*(place for place, _ in places))
    with ExitStack() as stack:
        for place, _ in places:
            stack.enter_context(locks.writing(place, nested=True))
        stages = []
        for place, kind in places:
            check_free(place, kind, force=force)
            stages.append(_Stage(place, kind))
            stack.callback(stages[-1].close)
        yield [stage.path for stage in stages]
        _commit(stages)


def _commit(stages: list[_Stage]) -> None:
    *others, leader = stages
    base = leader.target.parent
    for stage in others:
        stage.plan({"leader": os.path.relpath(leader.target, stage.target.parent)})
    named = [
        [os.path.relpath(path, base) for path in (stage.path, stage.target)] for stage in others
    ]
    leader.plan({"others": named} if named else {})
    with ExitStack() as held:
        if leader.inside:
            held.enter_context(locks.exchanging(leader.target))
        leader.commit()
        # From here on the plan protects them. A committed folder may be the target itself.
        for stage in stages:
            locks.release(stage.handle)
        if not leader.inside:
            held.enter_context(locks.exchanging(leader.target))
        finish(leader.target)


def recover(path: str | Path) -> bool:
    """Completes a replacement that was cut off after its commit, and removes older leftovers.

    Returns:
        Whether a replacement was completed; a warning says so.
    """
    path = Path(os.path.realpath(path))
    completed = False
    if pending(path):
        with locks.exchanging(path):
            if pending(path):
                completed = (path / COMMIT / PLAN).is_file() or (path / PLAN).is_file()
                try:
                    finish(path)
                except PermissionError as error:
                    raise RunError(
                        f"a replacement of {path} was cut off and you may not complete it "
                        f"({error.strerror}): "
                        "open the folder once as its owner"
                    ) from None
    for folder in (path, path.parent):
        with suppress(OSError):
            for stage in [
                entry
                for entry in folder.iterdir()
                if is_temporary(entry, path.name) and entry.is_dir()
            ]:
                completed |= _settle(stage, path)
    sweep_inside(path)
    if path.parent.is_dir():
        sweep(path)
        locks.sweep(path)
    if completed:
        warnings.warn(f"{path}: a replacement that was cut off has been completed", stacklevel=2)
    return completed


def _settle(stage: Path, target: Path) -> bool:
    """Completes the commit of a staging folder, or removes an orphaned one without a commit."""
    try:
        leader = target.parent / read_plan(stage / PLAN)["leader"]
    except (DualGNNError, KeyError, OSError):
        leader = None
    if leader is not None and pending(leader):
        return recover(leader)
    remove_if_orphaned(stage)
    return False


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Completes a replacement that was cut off, and protects the files while they are loaded.

    An absent folder is no error here.
    """
    place = Path(os.path.realpath(path))
    recover(place)
    if not place.is_dir():
        yield
        return
    with locks.reading(place):
        if not pending(place):
            yield
            return
    with reading(place):  # A replacement was cut off just now.
        yield
