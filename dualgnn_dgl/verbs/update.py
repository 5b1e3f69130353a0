"""Updates a trained run with new interactions, users and items, without training it again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dualgnn_dgl import training
from dualgnn_dgl.core import locks, schema
from dualgnn_dgl.core.exchange import check_apart, check_free, recover, replace_folders
from dualgnn_dgl.core.files import read_json
from dualgnn_dgl.core.options import build
from dualgnn_dgl.core.progress import Report, say, silent
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.data import folder as data_folder
from dualgnn_dgl.data.manifest import read_options
from dualgnn_dgl.errors import ConfigError, RunError, json_text
from dualgnn_dgl.models import model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.readers.reader import read
from dualgnn_dgl.runs import checkpoint, growth
from dualgnn_dgl.runs.checkpoint import Run, load_run
from dualgnn_dgl.runs.growth import Added
from dualgnn_dgl.training import Fit, TrainConfig
from dualgnn_dgl.training.state import METRIC_NAME
from dualgnn_dgl.verbs.opening import Opened, check_whole, open_run

UPDATE = "update.json"  # in the new run folder: what the update was asked for, and what it brought
_COUNTS = schema.dict_of(schema.TEXT, schema.whole())
RESULT_SCHEMA = schema.record(
    {
        **dict.fromkeys(("run", "data"), schema.TEXT),
        "added": schema.record(
            {
                **dict.fromkeys(("rows", "pairs", "known_pairs", "users", "items"), schema.whole()),
                **dict.fromkeys(("dropped", "filled"), _COUNTS),
            }
        ),
        "seconds": schema.number(0),
        "metric": METRIC_NAME,
        **dict.fromkeys(("before", "kept"), schema.maybe(schema.METRIC)),
        "epoch": schema.whole(),
    }
)


@dataclass(frozen=True)
class UpdateResult:
    """What an update wrote and what it brought.

    Args:
        run: The new run folder.
        data: The new data folder.
        added: Counts of pairs, users, items and features that were new.
        seconds: Wall-clock time.
        metric: The validation metric of the next two values.
        before: Its value after placing the newcomers; None without a validation split.
        kept: Its value for the run that was kept.
        epoch: The epoch of further training that was kept; 0 for none.
        repeated: Whether the same update had been completed before and nothing was left to do.
    """

    run: str
    data: str
    added: Added
    seconds: float
    metric: str
    before: float | None
    kept: float | None
    epoch: int
    repeated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        return {name: value for name, value in asdict(self).items() if name != "repeated"}


def update(
    run: str | Path | Run,
    source: str | Path,
    data: str | Path | None = None,
    *,
    features: Sequence[str | Path] = (),
    items: str | Path | None = None,
    new_data: str | Path | None = None,
    new_run: str | Path | None = None,
    epochs: int = 0,
    lr: float | None = None,
    force: bool = False,
    progress: Report | None = None,
) -> UpdateResult:
    """Adds a new log to prepared data and a trained run, and writes both to new folders.

    New pairs go to training, held-out ones stay. New users are placed by their histories, new items
    by their features.

    Args:
        run: A run folder, or a run already loaded.
        source: The new log, in a form that `prepare` reads.
        data: The run's prepared folder; None for the one that it names.
        features: Features of new items, a file per modality named after it.
        items: The item table of the new log.
        new_data: The data folder to write; None for the old name with -updated.
        new_run: The run folder to write; None for the old name with -updated.
        epochs: Epochs of further training; the better of before and after is kept.
        lr: Learning rate of these epochs; None for that of the run.
        force: Replaces folders that are already there.
        progress: Receives each step as it begins.

    Raises:
        DualGNNError: If run, data, log or options are not usable, or the log brings nothing new.
    """
    report, started = progress or silent, time.perf_counter()
    check_whole("epochs", epochs)
    if isinstance(data, Dataset) or isinstance(features, str | Path):
        raise ConfigError("update reads the data's folder and a list of feature files: give paths")
    opened = open_run(run, data)
    folder = str(opened.folder)
    new_data, new_run = (
        str(new_data or f"{folder.rstrip('/')}-updated"),
        str(new_run or f"{opened.name.rstrip('/')}-updated"),
    )
    request: dict[str, Any] = {
        "run": opened.name,
        "data": opened.dataset.hash,
        "input": str(source),
    }
    request |= {
        "features": [str(file) for file in features],
        "items": None if items is None else str(items),
    }
    request |= {"new_data": new_data, "epochs": epochs, "lr": lr}
    check_apart(new_data, new_run)
    with ExitStack() as held:
        for place, option in ((new_data, "--new-data"), (new_run, "--new-run")):
            held.enter_context(locks.writing(place, f"choose another {option}"))
        if recover(new_run) and (done := _completed(new_run, request)) is not None:
            return done
        check_free(new_data, data_folder.FOLDER, force=force)
        check_free(new_run, checkpoint.FOLDER, force=force)
        model, options = (
            checkpoint.restore(opened.run, opened.dataset),
            read_options(folder, opened.dataset.hash),
        )
        train = _training(opened, epochs, lr)
        say(report, f"reading {source}")
        unused = ["time"] + ([] if options.get("min_rating") is not None else ["rating"])
        raw = read(source, features=features, items=items, unused=unused)
        larger, added = growth.extend(
            opened.dataset,
            raw,
            min_rating=options.get("min_rating"),
            cooc_top=options.get("cooc_top", 200),
        )
        before, fit = _grown(opened, model, larger, added, train, epochs, report)
        result = UpdateResult(
            run=new_run,
            data=new_data,
            added=added,
            seconds=time.perf_counter() - started,
            metric=train.metric,
            before=before.best_value,
            kept=fit.best_value,
            epoch=fit.best_epoch,
        )
        both = ((new_data, data_folder.FOLDER), (new_run, checkpoint.FOLDER))
        with replace_folders(*both, force=force) as (data_files, run_files):
            data_folder.write(
                larger, data_files, options=options | {"updated_from": opened.dataset.hash}
            )
            said = {"request": request, "result": result.to_dict()}
            (run_files / UPDATE).write_text(json_text(said, indent=2), "utf-8")
            checkpoint.write_run(
                run_files,
                fit,
                model=str(opened.run.info["model"]),
                config=build(
                    model_class(str(opened.run.info["model"])).Config,
                    opened.run.info["config"],
                    typed=True,
                ),
                train=train,
                data=checkpoint.reference(new_data, new_run),
                dataset=larger,
                device="cpu",
            )
    return result


def _training(opened: Opened, epochs: int, lr: float | None) -> TrainConfig:
    """How to train on: as the run was, for so many epochs."""
    changes = {"lr": lr} if lr is not None else {}
    return build(TrainConfig, {**opened.run.info["train"], "epochs": max(epochs, 1), **changes})


def _grown(
    opened: Opened,
    model: Recommender,
    larger: Dataset,
    added: Added,
    train: TrainConfig,
    epochs: int,
    report: Report,
) -> tuple[Fit, Fit]:
    """The model with the newcomers placed, and the better of that and the model after further
    training.
    """
    name = str(opened.run.info["model"])
    config = build(model_class(name).Config, opened.run.info["config"], typed=True)
    modalities = training.features(larger, train)
    say(report, f"placing {added.users:,} new users and {added.items:,} new micro-videos in {name}")
    grown = growth.grow(model, opened.dataset, larger, name, config, modalities)
    before = training.as_it_is(grown, larger.train, larger.valid, train)
    if not epochs or not grown.trainable:
        return before, before
    say(report, f"training on for {epochs} epochs")
    after = training.fit(grown, larger.train, larger.valid, train, modalities=modalities)
    better = before.best_value is None or (after.best_value or 0) > before.best_value
    return before, after if better else before


def _completed(run: str, request: dict[str, Any]) -> UpdateResult | None:
    """The result of the same update that had been begun, from the run folder it made."""
    load_run(run)  # checks the file that is read here
    path = Path(run) / UPDATE
    kept = read_json(path)
    if kept.get("request") != request:
        return None
    schema.check(
        schema.record({"request": schema.plain, "result": RESULT_SCHEMA}),
        kept,
        path,
        RunError,
        "update again",
    )
    result = dict(kept["result"])
    return UpdateResult(**{**result, "added": Added(**result["added"])}, repeated=True)
