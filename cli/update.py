"""`dualgnn update`: a day of log added to a trained run, without training it again."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.evaluate import data_option, open_run
from dualgnn_dgl.cli.show import PATH, force_option, json_option, memory_option, note, print_text, result, run_option
from dualgnn_dgl.errors import clean

UPDATE = "update.json"  # in the new run folder: what the update was asked for, and what it brought


@click.command(short_help="Add new interactions, users and videos to a trained run without training it again.")
@run_option
@data_option
@click.option(
    "--input", "source", required=True, type=PATH, metavar="LOG", help="New log, in a form that preprocess reads, or /dev/stdin."
)
@click.option(
    "--features", multiple=True, type=PATH, metavar="FILE", help="Features of new videos, a file per modality named after it."
)
@click.option(
    "--items", type=PATH, metavar="FILE", help="Item table: ids, titles, order of feature arrays.  [default: the one in LOG]"
)
@click.option("--new-data", type=PATH, metavar="DIR", help="Data folder to write.  [default: the old name with -updated]")
@click.option("--new-run", type=PATH, metavar="DIR", help="Run folder to write.  [default: the old name with -updated]")
@click.option("--epochs", type=click.IntRange(0), default=0, show_default=True, help="Epochs of training on from the run.")
@click.option("--lr", type=float, help="Learning rate of these epochs.  [default: that of the run]")
@memory_option
@force_option
@json_option
def command(
    run: str,
    data: str | None,
    source: str,
    features: tuple[str, ...],
    items: str | None,
    new_data: str | None,
    new_run: str | None,
    epochs: int,
    lr: float | None,
    force: bool,
    as_json: bool,
) -> None:
    """Add new interactions, users and videos to a trained run without training it again.

    The new pairs go to training, the held-out ones stay; co-occurrence and popularity are counted anew, new users come from their
    history, new videos from their features (as they were read, or as preprocess --feature-dim reduced them), and all tables are
    made again. With --epochs the model also trains on, and the better of before and after is kept. The old
    folders are left as they are.

    \b
    Examples:
        dualgnn update --input tuesday.csv
        dualgnn update --input tuesday.csv --features visual.parquet --epochs 3
    """
    from dualgnn_dgl import checkpoint, growth, locks, training
    from dualgnn_dgl import data as folders
    from dualgnn_dgl.errors import json_text
    from dualgnn_dgl.folders import check_apart, check_free, recover, replace_folders
    from dualgnn_dgl.manifest import read_options
    from dualgnn_dgl.models import model_class
    from dualgnn_dgl.options import build
    from dualgnn_dgl.preprocess.reader import read

    started = time.perf_counter()
    loaded, dataset, data = open_run(run, data)
    new_data, new_run = new_data or f"{data.rstrip('/')}-updated", new_run or f"{run.rstrip('/')}-updated"
    request: dict[str, Any] = {"run": run, "data": dataset.hash, "input": source, "features": list(features), "items": items}
    request |= {"new_data": new_data, "epochs": epochs, "lr": lr}
    check_apart(new_data, new_run)
    with ExitStack() as held:
        for folder, option in ((new_data, "--new-data"), (new_run, "--new-run")):
            held.enter_context(locks.writing(folder, f"choose another {option}"))
        if recover(new_run) and (done := _completed(new_run, request)) is not None:
            note("this update had been cut off after its last step: nothing is left to do")
            _show(done, as_json)
            return
        check_free(new_data, folders.FOLDER, force=force)
        check_free(new_run, checkpoint.FOLDER, force=force)
        model = checkpoint.restore(loaded, dataset)
        name, options = str(loaded.info["model"]), read_options(data)
        config = build(model_class(name).Config, loaded.info["config"], typed=True)
        changes = {"lr": lr} if lr is not None else {}
        train = build(training.TrainConfig, {**loaded.info["train"], "epochs": max(epochs, 1), **changes})
        note(f"reading {source}")
        raw = read(source, features=features, items=items)
        larger, added = growth.extend(
            dataset, raw, min_rating=options.get("min_rating"), cooc_top=options.get("cooc_top", 200)
        )
        modalities = training.features(larger, train)
        note(f"placing {added.users:,} new users and {added.items:,} new micro-videos in {name}")
        grown = growth.grow(model, dataset, larger, name, config, modalities)
        before = training.as_it_is(grown, larger.train, larger.valid, train)
        fit = before
        if epochs and grown.trainable:
            note(f"training on for {epochs} epochs")
            after = training.fit(grown, larger.train, larger.valid, train, modalities=modalities)
            fit = after if before.best_value is None or (after.best_value or 0) > before.best_value else before
        value = {"run": new_run, "data": new_data, "added": asdict(added), "seconds": time.perf_counter() - started}
        value |= {"metric": train.metric, "before": before.best_value, "kept": fit.best_value, "epoch": fit.best_epoch}
        both = ((new_data, folders.FOLDER), (new_run, checkpoint.FOLDER))
        with replace_folders(*both, force=force) as (data_files, run_files):
            folders.write(larger, data_files, options=options | {"updated_from": dataset.hash})
            (run_files / UPDATE).write_text(json_text({"request": request, "result": value}, indent=2), "utf-8")
            checkpoint.write_run(
                run_files,
                fit,
                model=name,
                config=config,
                train=train,
                data=checkpoint.reference(new_data, new_run),
                dataset=larger,
                device="cpu",
            )
    streams.kept(new_run, new_data)
    _show(value, as_json)


def _completed(run: str, request: dict[str, Any]) -> dict[str, Any] | None:
    """The result of an update that this very command had begun, from the run folder it made."""
    from dualgnn_dgl.checkpoint import load_run
    from dualgnn_dgl.files import read_json

    load_run(run)  # checks the file that is read here
    kept = read_json(Path(run) / UPDATE)
    return dict(kept["result"]) if kept.get("request") == request else None


def _show(value: dict[str, Any], as_json: bool) -> None:
    """Print the result of an update."""
    if as_json:
        result(value)
        return
    added = value["added"]
    filled = "".join(f", {clean(name)} for {count:,} that lacked it" for name, count in added["filled"].items() if count)
    pairs = f"{added['pairs']:,} pairs ({added['known_pairs']:,} were known)"
    print_text(f"Added {pairs}, {added['users']:,} users, {added['items']:,} micro-videos{filled}.")
    if added["dropped"]:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in added["dropped"].items())
        print_text(f"Of {added['rows']:,} rows left out: {reasons}.")
    if value["before"] is not None:
        trained = f", {value['kept']:.4f} after training on (epoch {value['epoch']})" if value["epoch"] else ""
        print_text(f"Validation {value['metric']}: {value['before']:.4f}{trained}.")
    print_text(f"Run: {clean(value['run'])}, data: {clean(value['data'])}")
