"""Folders that this library writes: their kinds, their manifests, and their own files.

A prepared data folder and a run folder contain a few files that this library wrote, listed with
their SHA-256 in a manifest (`dataset.json`, `run.json`). Users may put other files beside them;
`exchange` replaces only the library's own files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualgnn_dgl.core.files import json_digest, read_json
from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.errors import DataError, DualGNNError, json_text

COMMIT, PLAN = ".dualgnn-commit", ".dualgnn-plan.json"
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Kind:
    """Identifies a kind of folder.

    Attributes:
        marker: The manifest's file name.
        names: Names of the files that such a folder can have; they decide which files are ours if
            no readable manifest lists them.
        error: Raised if the folder is damaged.
        remedy: The end of those messages.
    """

    marker: str
    names: re.Pattern[str]
    error: type[DualGNNError] = DataError
    remedy: str = "make it again"


def seal(folder: Path, kind: Kind, info: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest of a staging folder: `info`, the SHA-256 of every other file, its own."""
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    sealed = {**info, "files": files}
    sealed["self"] = json_digest(sealed)
    (folder / kind.marker).write_text(json_text(sealed, indent=2) + "\n", "utf-8")
    return sealed


def read_manifest(folder: Path, kind: Kind) -> dict[str, Any]:
    """Reads the manifest of a folder and compares it with its own SHA-256.

    A manifest of format 1 has no such digest.

    Raises:
        DualGNNError: Of the kind's class, if it is missing, damaged or edited.
    """
    path = folder / kind.marker
    info = read_json(path, kind.error)
    if info.get("format") == 1 and "files" not in info and "self" not in info:
        return info
    if info.get("self") != json_digest(
        {key: value for key, value in info.items() if key != "self"}
    ):
        raise kind.error(f"{path} is not what was written there (damaged or edited): {kind.remedy}")
    files = info.get("files")
    if not isinstance(files, dict) or not all(
        plain(name) and _is_digest(digest) for name, digest in files.items()
    ):
        raise kind.error(f"{path} does not list the folder's files as it should: {kind.remedy}")
    return info


def check_files(folder: Path, kind: Kind, files: Mapping[str, str]) -> None:
    """Compares files with their SHA-256.

    Raises:
        DualGNNError: Of the kind's class, with the first file that is missing or differs.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise kind.error(f"{path} does not exist: the folder is incomplete, {kind.remedy}")
        if file_digest(path) != expected:
            raise kind.error(
                f"{path} is not the file that {kind.marker} describes (damaged or exchanged): "
                f"{kind.remedy}"
            )


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def plain(name: str) -> bool:
    """Returns whether a name stays inside its folder."""
    return (
        bool(name)
        and "/" not in name
        and "\0" not in name
        and name not in (".", "..", COMMIT, PLAN)
    )


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def own_files(folder: Path, kind: Kind) -> set[str]:
    """Returns the names of the files in a folder that this library wrote.

    These are the files that the manifest lists. If it is unreadable, the file names decide.
    """
    try:
        listed = read_manifest(folder, kind).get("files")
    except DualGNNError:
        listed = None
    here = {path.name for path in folder.iterdir() if not path.is_dir()}
    return (
        here & {*listed, kind.marker}
        if listed is not None
        else {name for name in here if kind.names.fullmatch(name)}
    )
