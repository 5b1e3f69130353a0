"""Loads the data of a verb, from memory or from disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dualgnn_dgl import data as datasets
from dualgnn_dgl.core.vocabulary import LOG_OPTIONS
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.data.manifest import read_options

DEFAULT_DATA = "data"
Data = Dataset | str | os.PathLike[str]
Config = str | os.PathLike[str] | Mapping[str, Any]  # path of a run.toml, or its content
Device = int | str | torch.device | None  # see `devices.pick_device`


@dataclass(frozen=True, eq=False)
class Source:
    """A data set and where it comes from.

    Attributes:
        dataset: the data set.
        path: prepared folder as it was named; None for a data set in memory.
        options: options that the folder was prepared with; empty in memory.
    """

    dataset: Dataset
    path: str | None
    options: dict[str, Any]

    def __str__(self) -> str:
        return "in memory" if self.path is None else self.path


def load_data(data: Data | None) -> Source:
    """Loads a prepared folder, or takes a data set as it is.

    Args:
        data: data set or path of a prepared folder; None takes the folder `data` in the current
            directory.

    Raises:
        DataError: if the folder is missing, damaged or of another format.
    """
    if isinstance(data, Dataset):
        return Source(data, None, {})
    path = DEFAULT_DATA if data is None else os.fspath(data)
    dataset = datasets.load(path)
    # The options are read now, because the folder may be gone when the work ends.
    return Source(dataset, path, read_options(path, dataset.hash))


def log_options(options: Mapping[str, Any], given: Mapping[str, str | None]) -> dict[str, Any]:
    """Returns how to read a later log: by the options given, else as the data's own log was read.

    A column that decides nothing in a later log is looked for only if it is given.

    Args:
        options: options of the prepared folder, see `manifest.read_options`.
        given: values of `vocabulary.LOG_OPTIONS`; None for an option that was not given.
    """
    unread = {"time_col"} | ({"rating_col"} if options.get("min_rating") is None else set())
    kept = {name: None if name in unread else options.get(name) for name in LOG_OPTIONS}
    kept["positive"] = options.get("positive")
    return kept | {name: value for name, value in given.items() if value is not None}
