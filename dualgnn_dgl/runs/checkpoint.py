"""Writes and reads the run folder, in JSON, TOML, safetensors and PNG; never a pickle.

run.json            the manifest: model, configuration, seed, versions, data path and hash, best
                    epoch, seconds; the SHA-256 of every other file and of its own content
run.toml            the configuration alone, for `dualgnn train --config run.toml`
tables.safetensors  the best epoch's `user` (U, D) and `item` (I, D), all that ranking needs;
                    `attention` (U, M) if the model has one.
                    A sparse table is three tensors: `user.index` (2, n) rows and columns in
                    order, `user.value` (n,), `user.size` (2,)
weights.safetensors the best epoch's parameters
history.jsonl       one line an epoch: loss, validation metric, seconds
curve.png           the history as a picture

During training, RUN.training beside it has the lock and the checkpoints, see `working.py`.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualgnn_dgl import __version__
from dualgnn_dgl.core import schema
from dualgnn_dgl.core.exchange import reading, replace_folders
from dualgnn_dgl.core.files import json_digest
from dualgnn_dgl.core.folders import Kind, check_files, read_manifest, seal
from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.core.options import Options, build, seal_toml, to_toml
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.data.manifest import modality_name
from dualgnn_dgl.errors import ConfigError, RunError
from dualgnn_dgl.models import MODELS, model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.runs.data_path import locate as locate
from dualgnn_dgl.runs.data_path import reference as reference
from dualgnn_dgl.runs.tensors import flat, unflat, write_tensors
from dualgnn_dgl.runs.tensors import read_tensors as read_tensors
from dualgnn_dgl.training import Fit, Inputs, TrainConfig
from dualgnn_dgl.training.state import METRIC_NAME, alike, history_row

MARKER = "run.json"
FORMAT = 2  # 1: the SHA-256 of tensors and manifest only, under the key "sha256"
TENSORS = ("tables.safetensors", "weights.safetensors")
NAMES = r"run\.(json|toml)|(tables|weights)\.safetensors|history\.jsonl|curve\.png|update\.json"
FOLDER = Kind(MARKER, re.compile(NAMES), RunError, "train again")
PLACE_SCHEMA = schema.record({"path": schema.TEXT, "hash": schema.HEX64}, {"from_run": schema.TEXT})
RUN_SCHEMA = schema.record(
    {
        "format": schema.one_of(1, FORMAT),
        "model": schema.one_of(*MODELS),
        "config": schema.SETTINGS,
        "train": schema.SETTINGS,
        "data": PLACE_SCHEMA,
        "users": schema.whole(),
        "items": schema.whole(),
        "modalities": schema.list_of(modality_name),
        "best": schema.record(
            {"epoch": schema.whole(), "metric": METRIC_NAME, "value": schema.maybe(schema.METRIC)}
        ),
        "epochs": schema.whole(),
        "seconds": schema.number(0),
        "interrupted": schema.FLAG,
        "device": schema.DEVICE,
        "versions": schema.VERSIONS,
    },
    {**schema.EXTENSION, "sha256": schema.record(dict.fromkeys((*TENSORS, MARKER), schema.HEX64))},
)


@dataclass(frozen=True, eq=False)
class Run:
    """A trained run as read from its folder.

    Attributes:
        folder: the run folder.
        info: content of run.json.
        user: user table (U, D), float32 on the CPU; dense, or sparse like `item`.
        item: item table (I, D), likewise.
        attention: weights (U, M) of `info["modalities"]` for each user; None for models without.
    """

    folder: Path
    info: dict[str, Any]
    user: Tensor
    item: Tensor
    attention: Tensor | None = None


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a result depends on."""
    from importlib.metadata import version

    import numpy

    return {
        "dualgnn-dgl": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "dgl": version("dgl"),
        "numpy": numpy.__version__,
    }


def save_run(
    folder: str | Path,
    fit: Fit,
    *,
    model: str,
    config: Options,
    train: TrainConfig,
    data_path: str | Path,
    dataset: Dataset,
    device: str,
    force: bool = False,
) -> dict[str, Any]:
    """Writes the run folder, whole or not at all, and returns the content of run.json.

    Raises:
        RunError: if the folder is occupied and `force` is not set, or holds files that are not
            ours.
    """
    with replace_folders((folder, FOLDER), force=force) as (target,):
        data = reference(data_path, folder)
        return write_run(
            target,
            fit,
            model=model,
            config=config,
            train=train,
            data=data,
            dataset=dataset,
            device=device,
        )


def write_run(
    target: Path,
    fit: Fit,
    *,
    model: str,
    config: Options,
    train: TrainConfig,
    data: Mapping[str, str],
    dataset: Dataset,
    device: str,
) -> dict[str, Any]:
    """Writes all files of a run into a folder and returns the content of run.json.

    Args:
        target: an empty folder, or one with files that belong to the run.
        fit: the training.
        model: name of the model.
        config: options of the model.
        train: options of training.
        data: place of the data, as `reference` returns it for the folder's final place.
        dataset: data set of the training.
        device: name of the device.
    """
    info = describe(
        fit, model=model, config=config, train=train, data=data, dataset=dataset, device=device
    )
    tables = {"user": fit.user, "item": fit.item} | (
        {} if fit.attention is None else {"attention": fit.attention}
    )
    for name, tensors in zip(TENSORS, (flat(tables), fit.state), strict=True):
        write_tensors(target / name, tensors)
    schema.check(
        schema.list_of(history_row),
        fit.history,
        target / "history.jsonl",
        RunError,
        "report this fault",
    )
    lines = "".join(json.dumps(row) + "\n" for row in fit.history)
    (target / "history.jsonl").write_text(lines, "utf-8")
    (target / "run.toml").write_text(seal_toml(run_toml(model, config, train)), "utf-8")
    if len(fit.history) > 1:
        draw_curve(fit.history, train.metric, fit.best_epoch, target / "curve.png")
    schema.check(RUN_SCHEMA, info, target / MARKER, RunError, "report this fault")
    return seal(target, FOLDER, info)


def describe(
    fit: Fit,
    *,
    model: str,
    config: Options,
    train: TrainConfig,
    data: Mapping[str, str],
    dataset: Dataset,
    device: str,
) -> dict[str, Any]:
    """Returns the content of run.json, without the digests of files.

    Args:
        fit: the training.
        model: name of the model.
        config: options of the model.
        train: options of training.
        data: place of the data, empty where they are in memory only.
        dataset: data set of the training.
        device: name of the device.
    """
    # The metric's name as measured: a catalogue of fewer than K items shortens the list.
    metric = next((key for row in fit.history for key in row if "@" in key), train.metric)
    return {
        "format": FORMAT,
        "model": model,
        "config": asdict(config),  # type: ignore[call-overload]
        "train": asdict(train),
        "data": {**data, "hash": dataset.hash},
        "users": dataset.num_users,
        "items": dataset.num_items,
        "modalities": list(dataset.modalities),
        "best": {"epoch": fit.best_epoch, "metric": metric, "value": fit.best_value},
        "epochs": len(fit.history),
        "seconds": sum(row.get("total_seconds", 0.0) for row in fit.history),
        "interrupted": fit.interrupted,
        "device": device,
        "versions": versions(),
    }


def read_history(folder: str | Path) -> list[dict[str, Any]]:
    """Reads the epochs of a run that `load_run` has checked."""
    with open_regular(Path(folder) / "history.jsonl", RunError) as handle:
        return [json.loads(line) for line in handle.read().splitlines()]


def run_toml(model: str, config: Options, train: TrainConfig) -> str:
    """Returns the whole configuration as TOML, in the form of `--print-config` and `--config`."""
    return f'name = "{model}"\n\n{to_toml(config, "model")}\n\n{to_toml(train, "train")}\n'


def load_run(folder: str | Path) -> Run:
    """Reads a run folder.

    Raises:
        RunError: if it is missing, not a run folder, of another format, or damaged.
    """
    folder = Path(folder)
    with reading(folder):
        return _load_run(folder)


def _load_run(folder: Path) -> Run:
    if not (folder / MARKER).is_file():
        hint = "run 'dualgnn train' first" if not folder.exists() else "it is not a run folder"
        raise RunError(
            f"{folder / MARKER} does not exist: {hint}, or point --run to the right folder"
        )
    info = read_manifest(folder, FOLDER)
    if info.get("format") not in (1, FORMAT):
        raise RunError(
            f"{folder / MARKER} has format {info.get('format')!s:.40}, this version reads "
            f"{FORMAT}: train again"
        )
    schema.check(RUN_SCHEMA, info, folder / MARKER, RunError, "damaged or edited; train again")
    if info["format"] == 1:
        _check_digests(folder, info)
    else:
        check_files(folder, FOLDER, info["files"])
    tensors = read_tensors(folder / "tables.safetensors")
    user, item = unflat(tensors, "user"), unflat(tensors, "item")
    shapes = (info["users"], info["items"])
    if (
        user is None
        or item is None
        or user.ndim != 2
        or item.ndim != 2
        or (user.shape[0], item.shape[0]) != shapes
    ):
        raise RunError(
            f"{folder / 'tables.safetensors'} does not have the tables that {MARKER} describes: "
            f"train again"
        )
    alike = user.shape[1] == item.shape[1] and user.is_sparse == item.is_sparse
    if not alike or user.dtype != torch.float32 or item.dtype != torch.float32:
        raise RunError(
            f"{folder / 'tables.safetensors'} has tables that do not fit together: train again"
        )
    attention = tensors.get("attention")
    weights = (len(user), len(info["modalities"]))
    if attention is not None and (attention.shape != weights or attention.dtype != torch.float32):
        raise RunError(
            f"{folder / 'tables.safetensors'} has an attention that does not fit {MARKER}: "
            f"train again"
        )
    return Run(folder, info, user, item, attention)


def restore(run: Run, dataset: Dataset) -> Recommender:
    """Rebuilds the trained model of a run, on the CPU, in evaluation mode.

    The model can compute its tables again and fold in newcomers.

    Raises:
        RunError: if the run belongs to other data, or was written by a version whose model of this
            name differs.
    """
    check_belongs(run, dataset)
    name, written = run.info["model"], run.info["versions"].get("dualgnn-dgl", "unknown")
    try:
        config = build(model_class(name).Config, run.info["config"], typed=True)
        train = build(TrainConfig, run.info["train"], typed=True)
    except ConfigError as error:
        raise RunError(_of_another_version(run, str(error), written)) from None
    # A width that does not fit is refused before memory is requested for it.
    if getattr(config, "width", 0) > run.user.shape[1]:
        raise RunError(_of_another_version(run, "its tables are narrower than its width", written))
    model = Inputs.of(dataset, train).model(name, config)
    state = read_tensors(run.folder / "weights.safetensors")
    wanted = {key: tensor.dtype for key, tensor in model.state_dict().items()}
    # torch would cast a parameter of another type silently.
    if other := [
        key for key, tensor in state.items() if tensor.dtype != wanted.get(key, tensor.dtype)
    ]:
        raise RunError(
            f"{run.folder / 'weights.safetensors'}: {other[0]:.120} is {state[other[0]].dtype}: "
            f"train again"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(
            _of_another_version(run, " ".join(str(error).split())[:160], written)
        ) from None
    model.eval()
    with torch.no_grad():
        made = model.embed()
    for kept, again in zip((run.user, run.item), made, strict=True):
        if not alike(kept, again):
            raise RunError(
                _of_another_version(
                    run, "its parameters give other tables than the saved ones", written
                )
            )
    return model


def _of_another_version(run: Run, reason: str, written: str) -> str:
    return (
        f"the model {run.info['model']} of {run.folder} cannot be rebuilt ({reason}): it was "
        f"written by version {written}, "
        f"this is {__version__}. Its tables still work for 'eval' and 'recommend --user'; for "
        f"newcomers, train again"
    )


def _check_digests(folder: Path, info: Mapping[str, Any]) -> None:
    """Checks the digests of a run of format 1."""
    expected = info.get("sha256")
    if expected is None:
        raise RunError(
            f"{folder / MARKER} has no SHA-256 of the run's files (damaged or edited): train again"
        )
    without = {
        **info,
        "sha256": {name: value for name, value in expected.items() if name != MARKER},
    }
    if expected.get(MARKER) != json_digest(without):
        raise RunError(
            f"{folder / MARKER} is not what was written there (damaged or edited): train again"
        )
    check_files(folder, FOLDER, {name: expected.get(name, "") for name in TENSORS})


def check_belongs(run: Run, dataset: Dataset) -> None:
    """Raises `RunError` unless the run was trained on this data set and describes it correctly."""
    if run.info["data"]["hash"] != dataset.hash:
        trained, this = run.info["data"]["hash"][:12], dataset.hash[:12]
        raise RunError(
            f"the run {run.folder} was trained on other data (hash {trained}…, this data {this}…): "
            "point --data to the folder it was trained on, or train again"
        )
    described = {
        "users": dataset.num_users,
        "items": dataset.num_items,
        "modalities": list(dataset.modalities),
    }
    for key, value in described.items():
        if run.info[key] != value:
            raise RunError(
                f"{run.folder / MARKER} has other {key} than its data (damaged or edited): train "
                f"again"
            )


def draw_curve(history: Sequence[Mapping[str, Any]], metric: str, best: int, path: Path) -> None:
    """Draws loss and validation metric over epochs, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.subplots()
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss"] for row in history], color="tab:gray", label="training loss")
    left.set_xlabel("epoch")
    left.set_ylabel("training loss")
    name = next((key for row in history for key in row if "@" in key), None)
    handles = left.get_lines()
    if name is not None:
        right = left.twinx()
        points = [(row["epoch"], row[name]) for row in history if name in row]
        right.plot(
            *zip(*points, strict=True), color="tab:blue", marker=".", label=f"validation {name}"
        )
        right.axvline(best, color="tab:orange", linestyle="--", label=f"best epoch {best}")
        right.set_ylabel(f"validation {name}")
        right.set_ylim(bottom=0)
        handles = handles + right.get_lines()
    left.legend(
        handles=handles, loc="lower center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 1.0)
    )
    figure.savefig(path, format="png", dpi=120)
