"""Keeps the place of a run's data, and finds it again from every working directory.

`path` is the data folder as it was given, `from_run` the same relative to the run folder. The first
is for people, and for a run that was moved alone. The second is for other working directories, and
for a run that was moved together with its data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dualgnn_dgl.core.files import read_json
from dualgnn_dgl.data import MANIFEST
from dualgnn_dgl.errors import DataError, RunError


def reference(data: str | Path, run: str | Path) -> dict[str, str]:
    """Returns the place of the data as a run keeps it.

    >>> reference("/a/data", "/a/runs/lightgcn")
    {'path': '/a/data', 'from_run': '../../data'}
    """
    place = Path(os.path.abspath(data))
    if place.name:  # The name of a link is kept, because it outlives its target.
        place = Path(os.path.realpath(place.parent)) / place.name
    return {"path": str(data), "from_run": os.path.relpath(place, os.path.realpath(run))}


def locate(about: Mapping[str, Any], run: str | Path) -> str:
    """Finds the data folder of a run.

    Args:
        about: result of `reference`, with the data's `hash`. Runs of earlier versions have no
            `from_run`.
        run: the run folder as it is named now.

    Returns:
        The first of the two places whose data has the hash. If neither has, one with other data,
            which the caller refuses.

    Raises:
        RunError: if there is prepared data in neither place.
    """
    tried = [str(about["path"])]
    if isinstance(about.get("from_run"), str):
        place = os.path.normpath(os.path.join(os.path.realpath(run), about["from_run"]))
        if os.path.abspath(tried[0]) != place:
            tried.append(place)
    found = [folder for folder in tried if os.path.isfile(os.path.join(folder, MANIFEST))]
    if not found:
        places = " and ".join(os.path.abspath(folder) for folder in tried)
        raise RunError(
            f"the data of {run} is not where it was (tried {places}): point --data to it, or run "
            f"preprocess again"
        )
    return next((folder for folder in found if _hash(folder) == about.get("hash")), found[-1])


def _hash(folder: str) -> Any:
    """Returns the hash in the manifest of the data; None if it cannot be read.

    Loading the data then explains why.
    """
    try:
        return read_json(Path(folder) / MANIFEST).get("hash")
    except (DataError, OSError):
        return None
