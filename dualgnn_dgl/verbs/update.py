"""Updates a trained run with new interactions, users and items, without training it again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dualgnn_dgl import training
from dualgnn_dgl.core import locks, schema
from dualgnn_dgl.core.exchange import check_apart, check_free, recover, replace_folders
from dualgnn_dgl.core.files import read_json
from dualgnn_dgl.core.options import Options, build
from dualgnn_dgl.core.progress import Report, say, silent
from dualgnn_dgl.core.vocabulary import LOG_OPTIONS
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.data import folder as data_folder
from dualgnn_dgl.data.manifest import read_options
from dualgnn_dgl.data.raw import RawInput
from dualgnn_dgl.errors import ConfigError, DataError, RunError, json_text
from dualgnn_dgl.models import model_class
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.readers.reader import read
from dualgnn_dgl.runs import checkpoint, growth
from dualgnn_dgl.runs.checkpoint import Run, load_run
from dualgnn_dgl.runs.growth import Added
from dualgnn_dgl.runs.manifest import RunRecord
from dualgnn_dgl.training import Fit, TrainConfig
from dualgnn_dgl.training.state import METRIC_NAME
from dualgnn_dgl.verbs.common import log_options
from dualgnn_dgl.verbs.opening import Opened, check_whole, open_run

UPDATE = "update.json"  # in the new run folder: the request and the result of the update
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
    """The result of an update.

    Attributes:
        run: new run folder.
        data: new data folder.
        added: counts of new pairs, users, items and features.
        seconds: wall-clock time.
        metric: validation metric of `before` and `kept`.
        before: its value after folding in the newcomers; None without a validation split.
        kept: its value for the run that was kept.
        epoch: epoch of further training that was kept; 0 for none.
        repeated: whether the same update had been completed before and nothing was left to do.
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
        """Returns the result in the form of `--json`."""
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
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    separator: str | None = None,
    layout: str | None = None,
    force: bool = False,
    progress: Report | None = None,
) -> UpdateResult:
    """Adds a new log to prepared data and a trained run, and writes both to new folders.

    New pairs go to training, held-out ones stay. New users are folded in by their histories, new
    items by their features.

    Args:
        run: run folder, or a run already loaded.
        source: the new log, in a form that `prepare` reads.
        data: the run's prepared folder; None for the one that it names.
        features: features of new items, a file per modality named after it.
        items: item table of the new log.
        new_data: data folder to write; None for the old name with -updated.
        new_run: run folder to write; None for the old name with -updated.
        epochs: epochs of further training; the better of before and after is kept.
        lr: learning rate of these epochs; None for that of the run.
        user_col, item_col, rating_col, time_col, separator, layout: as in `prepare`; None for those
            that the data were prepared with.
        force: replaces existing folders.
        progress: called with each step as it begins.

    Raises:
        DualGNNError: if run, data, log or options are not usable, or the log brings nothing new.
    """
    report, started = progress or silent, time.perf_counter()
    check_whole("epochs", epochs)
    if isinstance(data, Dataset) or isinstance(features, str | Path):
        raise ConfigError(
            "data is a data set or features is one path: give the data's folder and a list of files"
        )
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
    given = dict(
        zip(LOG_OPTIONS, (user_col, item_col, rating_col, time_col, separator, layout), strict=True)
    )
    request |= {name: value for name, value in given.items() if value is not None}
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
        raw = _read(source, options, given, features, items)
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
            update_record = {"request": request, "result": result.to_dict()}
            (run_files / UPDATE).write_text(json_text(update_record, indent=2), "utf-8")
            record = _record(opened, fit, train, larger)
            checkpoint.write_run(run_files, record, checkpoint.reference(new_data, new_run))
    return result


def _read(
    source: str | Path,
    options: Mapping[str, Any],
    given: Mapping[str, str | None],
    features: Sequence[str | Path],
    items: str | Path | None,
) -> RawInput:
    """Reads the new log as the data's own was read, and refuses one that lacks its ratings."""
    how, least = log_options(options, given), options.get("min_rating")
    unused = ["time"] + ([] if least is not None else ["rating"])
    raw = read(source, **how, features=features, items=items, unused=unused)
    if least is not None and raw.log.rating is None and how["rating_col"] != "":
        raise DataError(
            f"{source} has no ratings, but the data keep rows rated {least:g} or more: name the "
            "column with --rating-col, or add every row with --rating-col ''"
        )
    return raw


def _config(opened: Opened) -> Options:
    """Returns the model options of the run."""
    name = str(opened.run.info["model"])
    return build(model_class(name).Config, opened.run.info["config"], typed=True)


def _record(opened: Opened, fit: Fit, train: TrainConfig, larger: Dataset) -> RunRecord:
    """Returns the updated training for its run folder."""
    return RunRecord(
        fit, str(opened.run.info["model"]), _config(opened), train, larger, device="cpu"
    )


def _training(opened: Opened, epochs: int, lr: float | None) -> TrainConfig:
    """Returns the training options of the run with the given epochs and learning rate."""
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
    """Returns the model with the newcomers folded in, and the better of that and after training."""
    name = str(opened.run.info["model"])
    modalities = training.features(larger, train)
    say(
        report,
        f"folding {added.users:,} new users and {added.items:,} new micro-videos into {name}",
    )
    grown = growth.grow(model, opened.dataset, larger, name, _config(opened), modalities)
    before = training.as_it_is(grown, larger.train, larger.valid, train)
    if not epochs or not grown.trainable:
        return before, before
    say(report, f"training for {epochs} further epochs")
    after = training.fit(grown, larger.train, larger.valid, train, modalities=modalities)
    better = before.best_value is None or (after.best_value or 0) > before.best_value
    return before, after if better else before


def _completed(run: str, request: dict[str, Any]) -> UpdateResult | None:
    """Returns the result of the same update from the run folder it made; None for another one."""
    load_run(run)  # This checks the file that is read below.
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
