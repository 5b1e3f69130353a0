"""Opens the runs, data and devices that verbs are given, and checks their common options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dualgnn_dgl import data as datasets
from dualgnn_dgl.data import Dataset, Interactions
from dualgnn_dgl.errors import ConfigError, unknown
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.checkpoint import Run

HELD_OUT = ("test", "valid")
MASKS = ("all", "train")
Device = int | str | torch.device  # see `devices.pick_device`


@dataclass(frozen=True, eq=False)
class Opened:
    """A run and the data it was trained on.

    Attributes:
        run: the run.
        dataset: its data.
        name: the run's name in results and messages.
        folder: data folder; None for data that were given in memory.
    """

    run: Run
    dataset: Dataset
    name: str
    folder: str | None

    @property
    def where(self) -> str:
        """Returns the data's name in messages."""
        return "the data" if self.folder is None else self.folder


def open_run(run: str | Path | Run, data: str | Path | Dataset | None = None) -> Opened:
    """Opens a run with the data it was trained on.

    Args:
        run: run folder, or a run already loaded.
        data: prepared folder, or data already loaded; None for the folder that the run names.

    Raises:
        RunError, DataError: if either is missing or damaged, or they do not belong together.
    """
    loaded = run if isinstance(run, Run) else checkpoint.load_run(run)
    folder: str | None = None
    if isinstance(data, Dataset):
        dataset = data
    else:
        folder = (
            checkpoint.locate(loaded.info["data"], loaded.folder) if data is None else str(data)
        )
        dataset = datasets.load(folder)
    checkpoint.check_belongs(loaded, dataset)
    return Opened(loaded, dataset, run_name(run), folder)


def run_name(run: str | Path | Run) -> str:
    """Returns the name of a run in results: its folder, as it was given."""
    return str(run.folder if isinstance(run, Run) else run)


def check_choice(kind: str, value: str, known: Sequence[str]) -> None:
    """Raises `ConfigError` for a value outside a closed list, and names the nearest."""
    if value not in known:
        raise ConfigError(unknown(kind, str(value), known))


def check_whole(name: str, value: int, least: int = 0) -> None:
    """Raises `ConfigError` unless an option is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r:.40}: give a whole number of {least} or more")


def lengths(topk: int | Iterable[int], items: int) -> tuple[int, ...]:
    """Returns list lengths in order, each once and cut to the number of items.

    Raises:
        ConfigError: if one of them is no whole number.
    """
    ks = (topk,) if isinstance(topk, int) else tuple(topk)
    if wrong := [k for k in ks if not isinstance(k, int) or isinstance(k, bool)]:
        raise ConfigError(
            f"a list length is {wrong[0]!r:.40}: give whole numbers, such as (10, 20)"
        )
    return tuple(sorted({min(k, items) for k in ks}))


def known_before(dataset: Dataset, split: str, mask: str) -> dict[str, Interactions]:
    """Returns the splits whose pairs are left out of the lists.

    Args:
        dataset: the data set.
        split: held-out split, 'test' or 'valid'.
        mask: 'all' leaves out everything known before the split, 'train' the training pairs alone.

    Raises:
        ConfigError: if split or mask is unknown.
    """
    check_choice("split", split, HELD_OUT)
    check_choice("mask", mask, MASKS)
    names = ("train", "valid") if (split, mask) == ("test", "all") else ("train",)
    return {name: getattr(dataset, name) for name in names}
