"""Runs the cells of an experiment; each result is kept at once.

A cell removes features, applies its strategy, trains, ranks, and measures by group of items.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dualgnn_dgl import training
from dualgnn_dgl.core.arrays import write_columns
from dualgnn_dgl.core.files import atomic_file, sweep_inside
from dualgnn_dgl.core.folders import file_digest
from dualgnn_dgl.core.options import recorded
from dualgnn_dgl.core.schema import (
    HEX64,
    record,
)
from dualgnn_dgl.core.vocabulary import STAGES
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.errors import DataError, DualGNNError, RunError
from dualgnn_dgl.evaluation import Evaluation, Evaluator, bootstrap, slices
from dualgnn_dgl.experiments.ledger import read_sealed, write_sealed
from dualgnn_dgl.experiments.robustness.catalogue import complete, demote, filled, reduced
from dualgnn_dgl.experiments.robustness.plan import NO_HOLES, Cell, Plan
from dualgnn_dgl.experiments.robustness.results import (
    REPORTED,
    SAFE,
    key_of,
    ledger_of,
    name_of,
)
from dualgnn_dgl.graphs import heterographs
from dualgnn_dgl.modality import drop, read_holes, write_holes
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.tensors import write_tensors

# The JSON file beside a file of weights, without `self`.
WEIGHTS_SCHEMA = record({"sha256": HEX64})
_log = logging.getLogger("dualgnn_dgl")


def run(
    plan: Plan,
    dataset: Dataset,
    folder: str | Path,
    device: torch.device | str = "cpu",
    *,
    seconds: float = float("inf"),
    report: Callable[[int, int, Cell, Mapping[str, Any]], None] | None = None,
) -> int:
    """Runs the cells without a result, and returns how many of them are still missing.

    Args:
        plan: the experiment.
        dataset: its data.
        folder: its folder.
        device: device of the trainings.
        seconds: time after which no cell is begun.
        report: called after every cell with (done, total, cell, result).
    """
    folder = Path(folder)
    for place in (folder, *(folder / name for name in ("holes", "cells", "per_user", "weights"))):
        sweep_inside(place)
    bench = Bench(plan, dataset, folder, torch.device(device))
    ledger = ledger_of(plan, dataset, folder)
    return ledger.run(plan.cells(dataset), bench.run, seconds=seconds, report=report)


@dataclass
class Bench:
    """Runs cells on one data set, in one folder."""

    plan: Plan
    dataset: Dataset
    folder: Path
    device: torch.device

    def __post_init__(self) -> None:
        self.graph = heterographs.heterograph(self.dataset)

    def run(self, cell: Cell) -> dict[str, Any]:
        """Runs one cell and returns its result.

        If a model refuses, for example because no row is left to impute from, the reason is the
        result.
        """
        started = time.perf_counter()
        name = name_of(self.plan, cell, self.dataset)
        result: dict[str, Any] = {
            "key": key_of(self.plan, cell, self.dataset),
            "cell": asdict(cell),
        }
        try:
            holed = self.holed(cell)
            user, item, about = self.tables(cell, holed)
            file = self.folder / "per_user" / f"{name}.parquet"
            result |= about | self.measure(user, item, holed, file)
            result["per_user"] = file_digest(file)
        except DualGNNError as error:
            result["refused"] = str(error)[:1000]
        config, train = self.plan.settings_of(cell)
        seconds = round(time.perf_counter() - started, 2)
        result |= {
            "config": recorded(config),
            "train": asdict(train),
            "data": self.dataset.hash,
            "seconds": seconds,
        }
        result |= {"device": str(self.device), "versions": checkpoint.versions()}
        return result

    def holed(self, cell: Cell) -> Dataset:
        """Returns the data set without the cell's features.

        The features that are left are read from their file, or drawn and written.
        """
        if cell.pattern == NO_HOLES:
            return self.dataset
        label = f"{cell.holes}_{cell.rate:.3f}_s{cell.seed}_{self.dataset.hash[:8]}".translate(SAFE)
        file = self.folder / "holes" / f"{label}.parquet"
        try:
            if file.is_file():
                return read_holes(file, self.dataset)
        except DataError as error:
            _log.warning("%s: drawn again from the seed", error)
        holed = drop(self.dataset, cell.rate, cell.pattern, cell.seed, cell.modality)
        write_holes(holed, file)
        return holed

    def tables(self, cell: Cell, holed: Dataset) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Returns user (U, D) and item (I, D) of the cell's model, and its training's record."""
        kept = complete(holed)  # (I,)
        dropping = cell.strategy == "drop-items"
        if cell.stage == STAGES[0]:
            if dropping:
                user, item, about = self.fitted(cell, reduced(holed, kept))
                return *demote(user, item, kept), about
            keep = (
                self.weights(cell)
                if cell.pattern == NO_HOLES and STAGES[1] in self.plan.stages
                else None
            )
            return self.fitted(
                cell,
                training.Inputs(self.dataset, self.graph, filled(holed, cell.strategy).modalities),
                keep,
            )
        modalities = (self.dataset if dropping else filled(holed, cell.strategy)).modalities
        config, _ = self.plan.settings_of(cell)
        model = training.Inputs(self.dataset, self.graph, modalities).model(
            cell.model, config, cell.seed
        )
        model.load_state_dict(self.trained(cell, model.state_dict()))
        user, item = training.tables(model.to(self.device))
        return *(demote(user, item, kept) if dropping else (user, item)), {}

    def fitted(
        self, cell: Cell, inputs: training.Inputs, keep: Path | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Trains and returns the best epoch's tables; its parameters go to the file `keep`."""
        config, train = self.plan.settings_of(cell)
        fit = training.train_model(cell.model, inputs, config, train, device=self.device).fit
        if fit.interrupted:
            raise KeyboardInterrupt
        if keep is not None:
            with atomic_file(keep) as temporary:
                sha256 = write_tensors(temporary, fit.state)
            write_sealed(keep.with_suffix(".json"), {"sha256": sha256})
        return (
            fit.user,
            fit.item,
            {"best_epoch": fit.best_epoch, "epochs": len(fit.history), "valid": fit.best_value},
        )

    def weights(self, whole: Cell) -> Path:
        """Returns the file for the parameters of a cell that is trained on all features."""
        digest = key_of(self.plan, whole, self.dataset)[:8]
        name = f"{whole.model}_{whole.strategy}_s{whole.seed}_{digest}".translate(SAFE)
        return self.folder / "weights" / f"{name}.safetensors"

    def trained(self, cell: Cell, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the parameters of the cell's model trained on all features.

        They come from their file or by training, and have the shapes of `like`.
        """
        whole = self.plan.whole(cell)
        file = self.weights(whole)
        try:
            if file.is_file():
                state = checkpoint.read_tensors(
                    file, read_sealed(file.with_suffix(".json"), WEIGHTS_SCHEMA)["sha256"]
                )
                if form(state) != form(like) or not all(
                    bool(tensor.isfinite().all()) for tensor in state.values()
                ):
                    raise RunError(f"{file} has other parameters than those of {cell.model}")
                return state
        except RunError as error:
            _log.warning("%s: trained again", error)
        self.fitted(whole, training.Inputs(self.dataset, self.graph, self.dataset.modalities), file)
        return checkpoint.read_tensors(file)

    def measure(self, user: Tensor, item: Tensor, holed: Dataset, file: Path) -> dict[str, Any]:
        """Measures the lists over all test pairs and by group of items.

        The users' values go to `file`. The groups are warm, cold, complete and incomplete items;
        the lists are the same.
        """
        test = self.dataset.test
        if not len(test):
            raise DataError(
                "no user has a held-out item: prepare the data with a split that has a test part"
            )
        evaluator = Evaluator(test, [self.dataset.train, self.dataset.valid], self.plan.ks)
        lists = evaluator.rank(user, item)  # (B, K)
        masks = slices.warmth(self.dataset.train) | slices.completeness(
            holed.modalities.values(), holed.num_items
        )
        whole = evaluator.measure(lists)
        found = {
            name: self.figures(part, masks[name].chosen)
            for name, part in slices.sliced(evaluator, lists, masks)
        }
        metrics = self.figures(whole, np.ones(holed.num_items, dtype=bool))
        values = _reported(whole)
        intervals = bootstrap(values, seed=0)
        columns = {name: value.astype(np.float32) for name, value in values.items()}
        with atomic_file(file) as temporary:
            ids = pa.array(self.dataset.user_ids[whole.users].tolist(), pa.string())
            write_columns(temporary, pa.table({"user": ids} | columns))
        rounded = {
            name: [round(end, 6) for end in interval] for name, interval in intervals.items()
        }
        return {"metrics": metrics, "intervals": rounded, "groups": found}

    def figures(self, found: Evaluation, items: np.ndarray) -> dict[str, Any]:
        """Returns sizes and mean metrics of a group of items (I,), as a cell keeps them."""
        sizes = {
            "users": len(found.users),
            "pairs": int(items[self.dataset.test.item].sum()),
            "items": int(items.sum()),
        }
        return sizes | {
            name: round(float(value.mean()), 6) for name, value in _reported(found).items()
        }


def _reported(found: Evaluation) -> dict[str, np.ndarray]:
    """Returns the metrics that a cell keeps, of each evaluated user (B,)."""
    return {
        name: value for name, value in found.per_user.items() if name.partition("@")[0] in REPORTED
    }


def form(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    """Returns the names of tensors with their types and shapes."""
    return {name: (tensor.dtype, *tensor.shape) for name, tensor in tensors.items()}
