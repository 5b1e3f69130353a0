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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualgnn_dgl import __version__
from dualgnn_dgl.core import schema
from dualgnn_dgl.core.exchange import reading, replace_folders
from dualgnn_dgl.core.files import json_digest
from dualgnn_dgl.core.folders import check_files, file_digest, read_manifest, seal
from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.core.options import Options, build, seal_toml
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.errors import ConfigError, RunError
from dualgnn_dgl.models import model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.runs.curve import draw_curve
from dualgnn_dgl.runs.data_path import locate as locate
from dualgnn_dgl.runs.data_path import reference as reference
from dualgnn_dgl.runs.manifest import FOLDER as FOLDER
from dualgnn_dgl.runs.manifest import FORMAT, TENSORS, RunRecord
from dualgnn_dgl.runs.manifest import MARKER as MARKER
from dualgnn_dgl.runs.manifest import RUN_SCHEMA as RUN_SCHEMA
from dualgnn_dgl.runs.manifest import describe as describe
from dualgnn_dgl.runs.manifest import run_toml as run_toml
from dualgnn_dgl.runs.manifest import versions as versions
from dualgnn_dgl.runs.tensors import flat, unflat, write_tensors
from dualgnn_dgl.runs.tensors import read_tensors as read_tensors
from dualgnn_dgl.training import Fit, Inputs, TrainConfig
from dualgnn_dgl.training.state import alike, history_row


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

    Args:
        folder: the run folder.
        fit: the training.
        model: name of the model.
        config: options of the model.
        train: options of training.
        data_path: data folder.
        dataset: data set of the training.
        device: name of the device.
        force: replaces an existing run.

    Raises:
        RunError: if the folder is occupied and `force` is not set, or holds files that are not
            ours.
    """
    record = RunRecord(fit, model, config, train, dataset, device)
    with replace_folders((folder, FOLDER), force=force) as (target,):
        return write_run(target, record, reference(data_path, folder))


def write_run(target: Path, record: RunRecord, data: Mapping[str, str]) -> dict[str, Any]:
    """Writes all files of a run into a folder and returns the content of run.json.

    Args:
        target: an empty folder, or one with files that belong to the run.
        record: the training.
        data: place of the data, as `reference` returns it for the folder's final place.
    """
    fit, info = record.fit, describe(record, data)
    tables = {"user": fit.user, "item": fit.item}
    if fit.attention is not None:
        tables["attention"] = fit.attention
    for name, tensors in zip(TENSORS, (flat(tables), fit.state), strict=True):
        write_tensors(target / name, tensors)
    history = target / "history.jsonl"
    schema.check(schema.list_of(history_row), fit.history, history, RunError, "report this fault")
    history.write_text("".join(json.dumps(row) + "\n" for row in fit.history), "utf-8")
    configuration = run_toml(record.model, record.config, record.train)
    (target / "run.toml").write_text(seal_toml(configuration), "utf-8")
    if len(fit.history) > 1:
        draw_curve(fit.history, record.train.metric, fit.best_epoch, target / "curve.png")
    schema.check(RUN_SCHEMA, info, target / MARKER, RunError, "report this fault")
    return seal(target, FOLDER, info)


def read_history(folder: str | Path) -> list[dict[str, Any]]:
    """Reads the epochs of a run that `load_run` has checked."""
    with open_regular(Path(folder) / "history.jsonl", RunError) as handle:
        return [json.loads(line) for line in handle.read().splitlines()]


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
    return _tables(folder, info)


def _tables(folder: Path, info: dict[str, Any]) -> Run:
    """Reads the tables of a run and checks that they fit together and to the manifest."""
    file = folder / "tables.safetensors"
    tensors = read_tensors(file)
    user, item = unflat(tensors, "user"), unflat(tensors, "item")
    if user is None or item is None or user.ndim != 2 or item.ndim != 2:
        raise RunError(f"{file} does not have the tables that {MARKER} describes: train again")
    if (user.shape[0], item.shape[0]) != (info["users"], info["items"]):
        raise RunError(f"{file} does not have the tables that {MARKER} describes: train again")
    same = user.shape[1] == item.shape[1] and user.is_sparse == item.is_sparse
    if not same or user.dtype != torch.float32 or item.dtype != torch.float32:
        raise RunError(f"{file} has tables that do not fit together: train again")
    attention = tensors.get("attention")
    weights = (len(user), len(info["modalities"]))
    if attention is not None and (attention.shape != weights or attention.dtype != torch.float32):
        raise RunError(f"{file} has an attention that does not fit {MARKER}: train again")
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
    _load_state(model, run, written)
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


def _load_state(model: Recommender, run: Run, written: str) -> None:
    """Loads the saved parameters of a run into its model."""
    file = run.folder / "weights.safetensors"
    listed = run.info.get("files") or run.info.get("sha256") or {}
    with reading(run.folder):
        # The tables were read earlier: another command may have replaced the run since.
        if file.is_file() and file_digest(file) != listed.get(file.name):
            raise RunError(
                f"{run.folder} was replaced or changed while it was read: run the command again"
            )
        state = read_tensors(file)
    wanted = {key: tensor.dtype for key, tensor in model.state_dict().items()}
    # torch would cast a parameter of another type silently.
    other = [key for key, tensor in state.items() if tensor.dtype != wanted.get(key, tensor.dtype)]
    if other:
        raise RunError(f"{file}: {other[0]:.120} is {state[other[0]].dtype}: train again")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise RunError(_of_another_version(run, reason, written)) from None


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
