"""Run the cells of an experiment: holes, strategy, training, lists, metrics by group of items; each
is kept at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dualgnn_dgl import training
from dualgnn_dgl.core.arrays import read_columns, write_columns
from dualgnn_dgl.core.files import atomic_file, json_digest, read_json, sweep_inside, write_json
from dualgnn_dgl.core.folders import file_digest
from dualgnn_dgl.core.schema import (
    DEVICE,
    HEX64,
    METRIC,
    SETTINGS,
    TEXT,
    VERSIONS,
    Schema,
    check,
    list_of,
    maybe,
    number,
    record,
    scalar,
    whole,
)
from dualgnn_dgl.core.vocabulary import STAGES
from dualgnn_dgl.data import Dataset, Interactions, Modality
from dualgnn_dgl.errors import DataError, DualGNNError, RunError
from dualgnn_dgl.evaluation import Evaluation, Evaluator, bootstrap, slices
from dualgnn_dgl.experiments.robustness.plan import NO_FEATURES, NO_HOLES, Cell, Plan
from dualgnn_dgl.graphs import heterographs
from dualgnn_dgl.modality import drop, impute, read_holes, write_holes
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.tensors import write_tensors
from dualgnn_dgl.training.cold_items import all_cold

FORMAT = 2
SAFE = str.maketrans(" :=", "---")  # in the names of files
BANISHED = -1e6  # added to the score of an item that left the catalogue
REPORTED = ("recall", "ndcg")
WEIGHTS_SCHEMA = record({"sha256": HEX64})  # of the JSON beside a file of weights, without `self`
_log = logging.getLogger("dualgnn_dgl")


def key_of(plan: Plan, cell: Cell, dataset: Dataset) -> str:
    """What a cell's result depends on, as 16 hexadecimal digits."""
    config, train = plan.settings_of(cell)
    train = replace(train, seed=0)  # the cell has its own
    content = {
        "format": FORMAT,
        "data": dataset.hash,
        "cell": asdict(cell),
        "config": asdict(config),
        "train": asdict(train),
        "ks": list(plan.ks),
    }
    if dataset.modalities and all_cold(dataset.train, dataset.valid):
        # older results of such data were chosen by another rule
        content["epoch"] = "chosen among cold items"
    return json_digest(content)[:16]


def name_of(plan: Plan, cell: Cell, dataset: Dataset) -> str:
    """The file name of a cell, without its ending."""
    parts = (cell.stage, cell.holes, f"{cell.rate:.3f}", cell.model, cell.strategy, f"s{cell.seed}")
    return "_".join([*parts, key_of(plan, cell, dataset)[:8]]).replace("+", "-and-").translate(SAFE)


def run(
    plan: Plan,
    dataset: Dataset,
    folder: str | Path,
    device: torch.device | str = "cpu",
    *,
    seconds: float = float("inf"),
    report: Callable[[int, int, Cell, Mapping[str, Any]], None] | None = None,
) -> int:
    """Run what is not there yet; returns how many cells are still missing.

    Parameters
    ----------
    seconds : no cell is begun after so many.
    report : called after every cell with (done, of how many, cell, result).
    """
    folder, started = Path(folder), time.perf_counter()
    for place in (folder, *(folder / name for name in ("holes", "cells", "per_user", "weights"))):
        sweep_inside(place)
    cells = plan.cells(dataset)
    bench = Bench(plan, dataset, folder, torch.device(device))
    missing = [cell for cell in cells if result_of(plan, cell, dataset, folder) is None]
    for done, cell in enumerate(missing):
        if time.perf_counter() - started >= seconds:
            return len(missing) - done
        result = bench.run(cell)
        if report is not None:
            report(len(cells) - len(missing) + done + 1, len(cells), cell, result)
    return 0


def schema_of(ks: Sequence[int]) -> Schema:
    """The schema of a cell's JSON file without `self`; its lists are `ks` long."""
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


def result_of(plan: Plan, cell: Cell, dataset: Dataset, folder: Path) -> dict[str, Any] | None:
    """A cell's result from its file; None where it has not been run with these settings on this
    data, or is damaged.
    """
    name = name_of(plan, cell, dataset)
    file = folder / "cells" / f"{name}.json"
    if not file.is_file():
        return None
    try:
        result = _checked(file, schema_of(plan.ks))
        if result["key"] != key_of(plan, cell, dataset):
            return None
        config, train = plan.settings_of(cell)
        described = {
            "cell": asdict(cell),
            "config": asdict(config),
            "train": asdict(train),
            "data": dataset.hash,
        }
        if wrong := [key for key in described if result[key] != described[key]]:
            raise RunError(f"{file}: {wrong[0]} is not that of this experiment")
        if "refused" not in result:
            _check_figures(result, dataset, folder / "per_user" / f"{name}.parquet")
    except (OSError, RunError, DataError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        _log.warning("%s: this cell is to be run again", reason)
        return None
    return result


def _check_figures(result: Mapping[str, Any], dataset: Dataset, file: Path) -> None:
    """Raises `RunError` or `DataError` unless the result agrees with itself and with the users'
    figures in `file`.
    """
    if file_digest(file) != result["per_user"]:
        raise RunError(f"{file} is not what was written there (cut short or altered)")
    pairs = {group: figures["pairs"] for group, figures in result["groups"].items()}
    for parts in (("warm", "cold"), ("complete", "incomplete")):
        if sum(pairs.get(group, 0) for group in parts) != result["metrics"]["pairs"]:
            raise RunError(
                f"{file}: the pairs of {' and '.join(parts)} items of its cell do not add up"
            )
    names = [name for name in result["metrics"] if "@" in name]
    columns = read_columns(file, user=pa.string(), **{name: pa.float32() for name in names})
    if not np.array_equal(columns["user"], dataset.user_ids[np.unique(dataset.test.user)]):
        raise RunError(f"{file} holds other users than the test split")
    for name in names:
        value = columns[name]
        if (
            not ((value >= 0) & (value <= 1 + 1e-6)).all()
            or abs(float(value.mean(dtype=float)) - result["metrics"][name]) > 1e-5
        ):
            raise RunError(f"{file} holds other figures than its cell: {name}")


def _write_checked(file: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON with the SHA-256 of its content."""
    write_json(file, {**value, "self": json_digest(value)})


def _checked(file: Path, schema: Schema) -> dict[str, Any]:
    """Reads what `_write_checked` wrote.

    Raises `RunError` where the file was altered or does not fit the schema.
    """
    value = read_json(file, RunError)
    if value.pop("self", None) != json_digest(value):
        raise RunError(f"{file} is not what was written there (cut short or altered)")
    check(schema, value, file, RunError, "damaged or edited")
    return value


@dataclass
class Bench:
    """Where cells are run: the data, its graph, and the folder."""

    plan: Plan
    dataset: Dataset
    folder: Path
    device: torch.device

    def __post_init__(self) -> None:
        self.graph = heterographs.heterograph(self.dataset)

    def run(self, cell: Cell) -> dict[str, Any]:
        """Run one cell and keep its result.

        What a model refuses (no row left to fill from, say) is a result too: its reason.
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
            "config": asdict(config),
            "train": asdict(train),
            "data": self.dataset.hash,
            "seconds": seconds,
        }
        result |= {"device": str(self.device), "versions": checkpoint.versions()}
        _write_checked(self.folder / "cells" / f"{name}.json", result)
        return result

    def holed(self, cell: Cell) -> Dataset:
        """The data set with the cell's holes, from their file, or drawn and written."""
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
        """User (U, D) and item (I, D) of the cell's model, and what is to be said about its
        training.
        """
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
        """Train and give the best epoch's tables; its parameters go to the file `keep`."""
        config, train = self.plan.settings_of(cell)
        fit = training.train_model(cell.model, inputs, config, train, device=self.device).fit
        if fit.interrupted:
            raise KeyboardInterrupt
        if keep is not None:
            with atomic_file(keep) as temporary:
                sha256 = write_tensors(temporary, fit.state)
            _write_checked(keep.with_suffix(".json"), {"sha256": sha256})
        return (
            fit.user,
            fit.item,
            {"best_epoch": fit.best_epoch, "epochs": len(fit.history), "valid": fit.best_value},
        )

    def weights(self, whole: Cell) -> Path:
        """Where the parameters of a cell without holes are kept."""
        name = f"{whole.model}_{whole.strategy}_s{whole.seed}_{key_of(self.plan, whole, self.dataset)[:8]}".translate(
            SAFE
        )
        return self.folder / "weights" / f"{name}.safetensors"

    def trained(self, cell: Cell, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters of the cell's model trained on everything, from their file or by training.

        Shapes are those of `like`.
        """
        whole = self.plan.whole(cell)
        file = self.weights(whole)
        try:
            if file.is_file():
                state = checkpoint.read_tensors(
                    file, _checked(file.with_suffix(".json"), WEIGHTS_SCHEMA)["sha256"]
                )
                if form(state) != form(like) or not all(
                    bool(tensor.isfinite().all()) for tensor in state.values()
                ):
                    raise RunError(f"{file} holds other parameters than those of {cell.model}")
                return state
        except RunError as error:
            _log.warning("%s: trained again", error)
        self.fitted(whole, training.Inputs(self.dataset, self.graph, self.dataset.modalities), file)
        return checkpoint.read_tensors(file)

    def measure(self, user: Tensor, item: Tensor, holed: Dataset, file: Path) -> dict[str, Any]:
        """Metrics over all test pairs, and over those whose item is warm, cold, complete,
        incomplete; the lists are the same.
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
        """Sizes and mean metrics of a group of items (I,), as a cell keeps them."""
        sizes = {
            "users": len(found.users),
            "pairs": int(items[self.dataset.test.item].sum()),
            "items": int(items.sum()),
        }
        return sizes | {
            name: round(float(value.mean()), 6) for name, value in _reported(found).items()
        }


def _reported(found: Evaluation) -> dict[str, np.ndarray]:
    """The metrics that a cell keeps, of each evaluated user (B,)."""
    return {
        name: value for name, value in found.per_user.items() if name.partition("@")[0] in REPORTED
    }


def form(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    """Names of tensors with their types and shapes."""
    return {name: (tensor.dtype, *tensor.shape) for name, tensor in tensors.items()}


def complete(dataset: Dataset) -> np.ndarray:
    """Items (I,) that have every modality themselves."""
    return slices.complete(dataset.modalities.values(), dataset.num_items)


def filled(holed: Dataset, strategy: str) -> Dataset:
    """The data set as the strategy shows it to the model."""
    return (
        holed if strategy == NO_FEATURES or strategy.startswith("mask") else impute(holed, strategy)
    )


def reduced(holed: Dataset, kept: np.ndarray) -> training.Inputs:
    """The inputs of a training on the kept items (I,) alone; all users stay.

    Raises
    ------
    DataError
        if no training pair is left.
    """
    place = np.cumsum(kept) - 1  # (I,) new number of a kept item

    def part(pairs: Interactions) -> Interactions:
        rows = kept[pairs.item]
        return Interactions(
            pairs.user[rows], place[pairs.item[rows]], pairs.num_users, int(kept.sum())
        )

    if not kept[holed.train.item].any():
        raise DataError(
            "no item that has every modality was watched in training: nothing is left to learn from"
        )
    modalities = {
        name: Modality(m.values[kept], m.present[kept], m.imputed[kept])
        for name, m in holed.modalities.items()
    }
    dataset = Dataset(
        part(holed.train),
        part(holed.valid),
        part(holed.test),
        modalities,
        holed.user_ids,
        holed.item_ids[kept],
    )
    return training.Inputs(dataset, heterographs.heterograph(dataset), modalities)


def demote(user: Tensor, item: Tensor, kept: np.ndarray) -> tuple[Tensor, Tensor]:
    """Tables with one column more, by which every item (I,) that is not kept ranks behind all that
    are.

    `item` has a row for every item, or for the kept ones alone.
    """
    stays = torch.from_numpy(kept).to(item.device)
    full = item.new_zeros(len(kept), item.shape[1] + 1)
    full[stays, :-1] = item if len(item) < len(kept) else item[stays]
    full[~stays, -1] = BANISHED
    return torch.cat([user, user.new_ones(len(user), 1)], dim=1), full
