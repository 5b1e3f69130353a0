"""Where the data of a run is: kept as it was given and relative to the run folder, and found again
from every folder.

`path` is the data folder as it was given, `from_run` the same relative to the run folder. The first
serves people and where only the run was moved, the second other working directories and where both
were moved together.
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
    """What a run keeps about the place of its data.

    >>> reference("/a/data", "/a/runs/lightgcn")
    {'path': '/a/data', 'from_run': '../../data'}
    """
    place = Path(os.path.abspath(data))
    if place.name:  # of a link its own name is kept, which outlives what it points to
        place = Path(os.path.realpath(place.parent)) / place.name
    return {"path": str(data), "from_run": os.path.relpath(place, os.path.realpath(run))}


def locate(about: Mapping[str, Any], run: str | Path) -> str:
    """The data folder of a run.

    Args:
        about: what `reference` gave, with the data's `hash`. Runs of earlier versions have no
            `from_run`.
        run: the run folder as it is named now.

    Returns:
        The first of the two places whose data has the hash; if neither has, one that holds other
        data, for the caller to refuse.

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
    """What the manifest says; None where it cannot be read, which loading the data then
    explains.
    """
    try:
        return read_json(Path(folder) / MANIFEST).get("hash")
    except (DataError, OSError):
        return None
