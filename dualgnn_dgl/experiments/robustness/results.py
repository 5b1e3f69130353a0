"""Names, writes and reads the results of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dualgnn_dgl.core.arrays import read_columns
from dualgnn_dgl.core.files import json_digest
from dualgnn_dgl.core.folders import file_digest
from dualgnn_dgl.core.options import recorded
from dualgnn_dgl.core.schema import (
    DEVICE,
    HEX64,
    METRIC,
    SETTINGS,
    TEXT,
    VERSIONS,
    Schema,
    list_of,
    maybe,
    number,
    record,
    scalar,
    whole,
)
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.experiments.ledger import Ledger
from dualgnn_dgl.experiments.robustness.plan import Cell, Plan
from dualgnn_dgl.training.cold_items import all_cold

FORMAT = 2
SAFE = str.maketrans(" :=", "---")  # characters replaced in the names of files
REPORTED = ("recall", "ndcg")


def key_of(plan: Plan, cell: Cell, dataset: Dataset) -> str:
    """Returns a digest of everything that a cell's result depends on, as 16 hexadecimal digits."""
    config, train = plan.settings_of(cell)
    train = replace(train, seed=0)  # The seed is part of the cell.
    content = {
        "format": FORMAT,
        "data": dataset.hash,
        "cell": asdict(cell),
        "config": recorded(config),
        "train": asdict(train),
        "ks": list(plan.ks),
    }
    if dataset.modalities and all_cold(dataset.train, dataset.valid):
        # Older versions chose the epoch by another rule on such data.
        content["epoch"] = "chosen among cold items"
    return json_digest(content)[:16]


def name_of(plan: Plan, cell: Cell, dataset: Dataset) -> str:
    """Returns the file name of a cell, without its extension."""
    parts = (cell.stage, cell.holes, f"{cell.rate:.3f}", cell.model, cell.strategy, f"s{cell.seed}")
    return "_".join([*parts, key_of(plan, cell, dataset)[:8]]).replace("+", "-and-").translate(SAFE)


def schema_of(ks: Sequence[int]) -> Schema:
    """Returns the schema of a cell's JSON file without `self`, for list lengths `ks`."""
    names = [f"{name}@{k}" for name in REPORTED for k in ks]
    figures = record(
        {**dict.fromkeys(("users", "pairs", "items"), whole(1)), **dict.fromkeys(names, METRIC)}
    )
    about = {
        "key": TEXT,
        "cell": record(dict.fromkeys(Cell.__dataclass_fields__, scalar)),
        **dict.fromkeys(("config", "train"), SETTINGS),
        "data": HEX64,
        "seconds": number(0),
        "device": DEVICE,
        "versions": VERSIONS,
    }
    measured = {
        "metrics": figures,
        "intervals": record(dict.fromkeys(names, list_of(METRIC, 2, 2))),
        "groups": record({}, dict.fromkeys(("warm", "cold", "complete", "incomplete"), figures)),
        "per_user": HEX64,
    }
    fitted = {"best_epoch": whole(), "epochs": whole(), "valid": maybe(METRIC)}
    whole_result, refusal = record(about | measured, fitted), record(about | {"refused": TEXT})
    return lambda value, place: (refusal if "refused" in value else whole_result)(value, place)


def ledger_of(plan: Plan, dataset: Dataset, folder: Path) -> Ledger[Cell]:
    """Returns the kept results of the cells; a damaged one is computed again."""

    def valid(cell: Cell, result: dict[str, Any]) -> bool:
        """Returns whether a result has the settings and data of its cell."""
        if result["key"] != key_of(plan, cell, dataset):
            return False
        name = name_of(plan, cell, dataset)
        config, train = plan.settings_of(cell)
        described = {
            "cell": asdict(cell),
            "config": recorded(config),
            "train": asdict(train),
            "data": dataset.hash,
        }
        if wrong := [key for key in described if result[key] != described[key]]:
            raise RunError(
                f"{folder / 'cells' / name}.json: {wrong[0]} is not that of this experiment"
            )
        if "refused" not in result:
            _check_figures(result, dataset, folder / "per_user" / f"{name}.parquet")
        return True

    return Ledger(
        folder / "cells",
        lambda cell: name_of(plan, cell, dataset),
        schema=schema_of(plan.ks),
        valid=valid,
        remake=True,
    )


def result_of(plan: Plan, cell: Cell, dataset: Dataset, folder: Path) -> dict[str, Any] | None:
    """Reads a cell's result; None if it is missing, damaged, or of other settings or data."""
    return ledger_of(plan, dataset, folder).find(cell)


def _check_figures(result: Mapping[str, Any], dataset: Dataset, file: Path) -> None:
    """Raises an error unless the result agrees with itself and with the users' values in `file`.

    Raises:
        RunError, DataError: if it does not.
    """
    if file_digest(file) != result["per_user"]:
        raise RunError(f"{file} is not what was written there (cut short or altered)")
    pairs = {group: values["pairs"] for group, values in result["groups"].items()}
    for parts in (("warm", "cold"), ("complete", "incomplete")):
        if sum(pairs.get(group, 0) for group in parts) != result["metrics"]["pairs"]:
            raise RunError(
                f"{file}: the pairs of {' and '.join(parts)} items of its cell do not add up"
            )
    names = [name for name in result["metrics"] if "@" in name]
    columns = read_columns(file, user=pa.string(), **{name: pa.float32() for name in names})
    if not np.array_equal(columns["user"], dataset.user_ids[np.unique(dataset.test.user)]):
        raise RunError(f"{file} has other users than the test split")
    for name in names:
        value = columns[name]
        if (
            not ((value >= 0) & (value <= 1 + 1e-6)).all()
            or abs(float(value.mean(dtype=float)) - result["metrics"][name]) > 1e-5
        ):
            raise RunError(f"{file} has other values of {name} than its cell")
