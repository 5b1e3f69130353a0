"""Writes and reads the prepared folder of a data set.

It contains JSON, Parquet and NPY only; nothing in it is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dualgnn_dgl.core.arrays import load_array, read_columns, write_columns
from dualgnn_dgl.core.exchange import reading, replace_folders
from dualgnn_dgl.core.folders import check_files, seal
from dualgnn_dgl.core.schema import check
from dualgnn_dgl.core.vocabulary import SPLITS
from dualgnn_dgl.data import projection
from dualgnn_dgl.data.co_occurrence import CoOccurrence
from dualgnn_dgl.data.dataset import Dataset, Interactions, Modality
from dualgnn_dgl.data.manifest import FOLDER as FOLDER
from dualgnn_dgl.data.manifest import FORMAT, MANIFEST, MANIFEST_SCHEMA, read_manifest
from dualgnn_dgl.errors import DataError, json_text


def save(
    dataset: Dataset,
    folder: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Writes the prepared folder, whole or not at all.

    Args:
        options: the options that made it, for the record.
        report: the preprocess report, kept beside it as `report.json`.
        force: replace a prepared folder that is already there.

    Raises:
        RunError: if `folder` is not empty and `force` is not set, or has files that this tool did
            not write.
    """
    with replace_folders((folder, FOLDER), force=force) as (target,):
        write(dataset, target, options=options, report=report)


def write(
    dataset: Dataset,
    target: Path,
    *,
    options: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Writes all files of a prepared folder into an empty one."""
    for split in SPLITS:
        part = getattr(dataset, split)
        write_columns(target / f"{split}.parquet", pa.table({"user": part.user, "item": part.item}))
    write_columns(
        target / "users.parquet", pa.table({"id": pa.array(dataset.user_ids.tolist(), pa.string())})
    )
    items = {"id": pa.array(dataset.item_ids.tolist(), pa.string())}
    if dataset.titles is not None:
        items["title"] = pa.array([str(title) for title in dataset.titles], pa.string())
    write_columns(target / "items.parquet", pa.table(items))
    for name, modality in dataset.modalities.items():
        np.save(target / f"modality.{name}.values.npy", modality.values, allow_pickle=False)
        np.save(target / f"modality.{name}.present.npy", modality.present, allow_pickle=False)
        if modality.imputed.any():
            np.save(target / f"modality.{name}.imputed.npy", modality.imputed, allow_pickle=False)
    if dataset.co_occurrence is not None:
        lists = dataset.co_occurrence
        np.save(target / "co_occurrence.indptr.npy", lists.indptr, allow_pickle=False)
        write_columns(
            target / "co_occurrence.parquet",
            pa.table({"neighbour": lists.neighbour, "weight": lists.weight}),
        )
    maps = projection.write(dataset.projections, target)
    if report is not None:
        (target / "report.json").write_text(json_text(dict(report), indent=2) + "\n", "utf-8")
    manifest = {
        "format": FORMAT,
        "hash": dataset.hash,
        **_counts(dataset),
        "modalities": {
            name: _figures(m) | maps.get(name, {}) for name, m in dataset.modalities.items()
        },
        "titles": dataset.titles is not None,
        "co_occurrence": dataset.co_occurrence.measure
        if dataset.co_occurrence is not None
        else None,
        "options": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in (options or {}).items()
        },
    }
    check(MANIFEST_SCHEMA, manifest, target / MANIFEST, remedy="give options that JSON can hold")
    seal(target, FOLDER, manifest)


def _counts(dataset: Dataset) -> dict[str, Any]:
    """Returns the counts of the manifest, which are checked against the files."""
    pairs = {split: len(getattr(dataset, split)) for split in SPLITS}
    return {"users": dataset.num_users, "items": dataset.num_items, "interactions": pairs}


def _figures(modality: Modality) -> dict[str, Any]:
    """Describes a modality as the manifest does; checked against the arrays like the counts."""
    filled = int(modality.imputed.sum())
    return {"width": modality.width, "coverage": modality.coverage} | (
        {"imputed": filled} if filled else {}
    )


def _modality(folder: Path, name: str, about: Mapping[str, Any]) -> Modality:
    """Reads one modality's arrays; that of imputed rows only where the manifest counts some."""
    parts = ("values", "present", "imputed") if "imputed" in about else ("values", "present")
    arrays = [load_array(folder / f"modality.{name}.{part}.npy") for part in parts]
    try:
        return Modality(*arrays)
    except DataError as error:
        raise DataError(
            f"{folder / f'modality.{name}.*.npy'}: {error}; or run preprocess again"
        ) from None


def load(folder: str | Path) -> Dataset:
    """Reads a prepared folder and checks that its content is as it was written.

    Raises:
        DataError: if the folder is missing, not a prepared one, from a newer format, damaged or
            altered.
    """
    folder = Path(folder)
    with reading(folder):
        return _load(folder)


def _load(folder: Path) -> Dataset:
    if not (folder / MANIFEST).is_file():
        hint = (
            "run 'dualgnn preprocess' first"
            if not folder.exists()
            else "it is not a prepared data folder"
        )
        raise DataError(
            f"{folder / MANIFEST} does not exist: {hint}, or point --data to the right folder"
        )
    manifest = read_manifest(folder)
    # the content hash below covers the arrays and tables
    check_files(
        folder,
        FOLDER,
        {
            name: digest
            for name, digest in manifest.get("files", {}).items()
            if name.endswith(".json")
        },
    )
    user_ids = read_columns(folder / "users.parquet", id=pa.string())["id"]
    titled, names = manifest["titles"], manifest["modalities"]
    items = read_columns(
        folder / "items.parquet", id=pa.string(), **({"title": pa.string()} if titled else {})
    )
    splits = {}
    for split in SPLITS:
        pairs = read_columns(folder / f"{split}.parquet", user=pa.int64(), item=pa.int64())
        splits[split] = Interactions(pairs["user"], pairs["item"], len(user_ids), len(items["id"]))
    lists = None
    if manifest["co_occurrence"] is not None:
        edges = read_columns(
            folder / "co_occurrence.parquet", neighbour=pa.int64(), weight=pa.float32()
        )
        indptr = load_array(folder / "co_occurrence.indptr.npy")
        lists = CoOccurrence(indptr, edges["neighbour"], edges["weight"], manifest["co_occurrence"])
    dataset = Dataset(
        **splits,
        modalities={name: _modality(folder, name, about) for name, about in names.items()},
        user_ids=user_ids,
        item_ids=items["id"],
        titles=items.get("title"),
        co_occurrence=lists,
        projections=projection.read(folder, names),
    )
    figures = {name: _figures(modality) for name, modality in dataset.modalities.items()}
    described = {
        name: {key: value for key, value in about.items() if key != "reduction"}
        for name, about in names.items()
    }
    counts = _counts(dataset)
    if (
        dataset.hash != manifest["hash"]
        or figures != described
        or any(manifest[name] != counts[name] for name in counts)
    ):
        raise DataError(
            f"{folder / MANIFEST} describes other files than those beside it (hash or counts): "
            f"run preprocess again"
        )
    return dataset
