"""Reads the manifest of a prepared folder, dataset.json, and defines its schema.

`data.save` writes it.

`files` and `self` are digests (name → SHA-256, and that of the manifest itself); folders of older
    versions have none.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dualgnn_dgl.core import schema
from dualgnn_dgl.core.exchange import reading
from dualgnn_dgl.core.files import read_json
from dualgnn_dgl.core.folders import Kind, check_files
from dualgnn_dgl.core.folders import read_manifest as read_checked
from dualgnn_dgl.core.vocabulary import CO_MEASURES, LOG_OPTIONS, SPLITS
from dualgnn_dgl.data import projection
from dualgnn_dgl.errors import DataError

MANIFEST = "dataset.json"
FORMAT = 2  # 1: no list of files with their SHA-256
NAMES = (
    r"(dataset|report)\.json|(train|valid|test|users|items|co_occurrence)\.parquet|"
    r"(co_occurrence|modality)\..+\.npy"
)
FOLDER = Kind(MANIFEST, re.compile(NAMES, re.DOTALL), DataError, "run preprocess again")


def usable(name: object) -> bool:
    """Returns whether `name` can be part of a file name everywhere, as modalities must be."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= 100:
        return False
    return not name.startswith(".") and not set(name) & set("/\\")


def modality_name(value: Any, place: str) -> None:
    """Allows what can name a modality (a schema)."""
    if not usable(value):
        schema.fail(value, place, "a name that can be part of a file name")


# What `preprocess` writes down of its options. `update` and `train` read some of them; a caller of
# `save` may add notes.
_OPTIONS = {
    "input": schema.maybe(schema.TEXT),
    "min_rating": schema.maybe(schema.number()),
    "k_core": schema.maybe(schema.whole()),
    "seed": schema.whole(),
    "feature_dim": schema.maybe(schema.whole(1)),
    "cooc_weight": schema.one_of(*CO_MEASURES),
    "cooc_top": schema.whole(1),
    "ratios": schema.list_of(schema.whole(), 3, 3),
    **dict.fromkeys(("split", "impute"), schema.maybe(schema.NAME)),
    **dict.fromkeys(LOG_OPTIONS, schema.maybe(schema.TEXT)),
    "positive": schema.maybe(schema.list_of(schema.TEXT)),
    "split_rule": schema.TEXT,
    "updated_from": schema.HEX64,
}
_COUNT = schema.whole()
MANIFEST_SCHEMA = schema.record(
    {
        "format": schema.one_of(1, FORMAT),
        "hash": schema.HEX64,
        "users": _COUNT,
        "items": _COUNT,
        "interactions": schema.record(dict.fromkeys(SPLITS, _COUNT)),
        "modalities": schema.dict_of(
            modality_name,
            schema.record(
                {"width": _COUNT, "coverage": schema.number(0, 1)},
                {"imputed": schema.whole(1), "reduction": projection.SCHEMA},
            ),
        ),
        "titles": schema.FLAG,
        "co_occurrence": schema.maybe(schema.one_of(*CO_MEASURES)),
        "options": schema.record({}, _OPTIONS, extra=schema.plain),
    },
    schema.EXTENSION,
)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Reads the manifest of a prepared folder, checked against its schema.

    Raises:
        DataError: if the file is missing, damaged, of another format, or does not fit the schema.
    """
    path = Path(folder) / MANIFEST
    manifest = read_checked(Path(folder), FOLDER)
    found = manifest.get("format")
    if found not in (1, FORMAT):
        raise DataError(
            f"{path} has format {found!s:.40}, this version reads {FORMAT}: run preprocess again"
        )
    schema.check(MANIFEST_SCHEMA, manifest, path, remedy="run preprocess again")
    return manifest


def read_options(folder: str | Path, content: str | None = None) -> dict[str, Any]:
    """Reads the options that a prepared folder was made with, `input` among them.

    Args:
        folder: prepared folder.
        content: hash of the data set that was loaded from it; None accepts any.

    Raises:
        DataError: as `read_manifest`, and if the folder holds other data by now.
    """
    with reading(folder):
        manifest = read_manifest(folder)
    if content is not None and manifest["hash"] != content:
        raise DataError(f"{folder} was replaced while it was read: run the command again")
    return dict(manifest["options"])


def read_report(folder: str | Path) -> dict[str, Any]:
    """Reads the preprocess report of a prepared folder; empty where none was kept.

    Raises:
        DataError: as `read_manifest`, and if the report is damaged or altered.
    """
    path = Path(folder) / "report.json"
    with reading(folder):
        files = read_manifest(folder).get("files", {path.name: None} if path.is_file() else {})
        if path.name not in files:
            return {}
        if files[path.name] is not None:
            check_files(path.parent, FOLDER, {path.name: files[path.name]})
        return read_json(path)
