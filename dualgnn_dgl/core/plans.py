"""Carries out the plan of a committed replacement of folders, see `exchange`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from dualgnn_dgl.core import locks
from dualgnn_dgl.core.files import json_digest, read_json, sync
from dualgnn_dgl.core.folders import COMMIT, PLAN, plain
from dualgnn_dgl.errors import RunError


def finish(target: Path) -> None:
    """Carries out a committed plan, also after an earlier attempt was cut off.

    The caller holds the folder's lock.
    """
    staged = target / COMMIT
    place = staged if staged.is_dir() else target
    if not (place / PLAN).is_file():
        if place is staged:
            # An earlier attempt was cut off between the last two steps.
            with suppress(OSError):
                staged.rmdir()
        return
    plan = read_plan(place / PLAN)
    for path, other in plan.get("others", []):
        _finish_other(target.parent / path, target.parent / other)
    if place is staged:
        for name in plan["remove"]:
            (target / name).unlink(missing_ok=True)
        for path in sorted(
            staged.iterdir(), key=lambda path: (path.name == plan["marker"], path.name)
        ):
            if path.name != PLAN:
                os.replace(path, target / path.name)
        sync(target)
    (place / PLAN).unlink()
    if place is staged:
        staged.rmdir()
    sync(target)


def _finish_other(staged: Path, target: Path) -> None:
    """Commits and finishes one of the other folders of a plan."""
    if not target.is_dir():
        if staged.is_dir():
            os.rename(staged, target)
            sync(target.parent)
        else:
            return
    with locks.exchanging(target):
        if staged.is_dir():
            os.rename(staged, target / COMMIT)
            sync(target)
        finish(target)


def read_plan(path: Path) -> dict[str, Any]:
    """Reads a plan, and checks its digest and that it names files of its folder only."""
    plan = read_json(path, RunError)
    remove, others = plan.get("remove"), plan.get("others", [])
    valid = (
        plan.pop("self", None) == json_digest(plan)
        and isinstance(remove, list)
        and isinstance(others, list)
    )
    valid = valid and all(isinstance(name, str) and plain(name) for name in remove or ())
    valid = valid and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)
        for pair in others
    )
    if (
        not valid
        or not isinstance(plan.get("leader", ""), str)
        or not isinstance(plan.get("marker"), str)
    ):
        raise RunError(
            f"the plan {path} is not what was written there (damaged or edited): remove it to "
            f"keep the old files"
        )
    return plan


def pending(path: Path) -> bool:
    """Returns whether a folder has a plan or a commit that is not finished."""
    return (path / COMMIT).is_dir() or (path / PLAN).is_file()
