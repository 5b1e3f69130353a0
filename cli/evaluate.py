"""`dualgnn eval`: rank the whole catalogue for every user with a held-out video and print the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.show import (
    PATH,
    force_option,
    json_option,
    mask_option,
    memory_option,
    note,
    print_text,
    result,
    run_option,
    split_option,
    table,
)
from dualgnn_dgl.errors import ConfigError, clean

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from dualgnn_dgl.checkpoint import Run
    from dualgnn_dgl.data import Dataset, Interactions
    from dualgnn_dgl.evaluation import Evaluator

data_option = click.option(
    "--data", default=None, type=PATH, metavar="DIR", help="Prepared data folder.  [default: the one the run was trained on]"
)


@click.command(short_help="Rank all micro-videos for held-out users and print the metrics.")
@run_option
@data_option
@click.option(
    "--topk", "ks", type=int, multiple=True, default=(10, 20), show_default="10 20", metavar="K", help="List length; repeatable."
)
@split_option
@mask_option
@click.option("--beyond", is_flag=True, help="Also Gini, novelty, and the lists' diversity in each modality.")
@click.option(
    "--cold-items",
    is_flag=True,
    help="Rank only the videos without a training pair, each placed by its modalities alone, as a new one is.",
)
@click.option(
    "--per-user", default=None, type=PATH, metavar="FILE", help="Write every metric of every user to this Parquet file."
)
@click.option(
    "--bootstrap",
    "resamples",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Resamples; 0: no intervals.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the bootstrap.")
@memory_option
@gpu_option
@force_option
@json_option
def command(
    run: str,
    data: str | None,
    ks: tuple[int, ...],
    split: str,
    mask: str,
    beyond: bool,
    cold_items: bool,
    per_user: str | None,
    resamples: int,
    seed: int,
    gpu: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Rank all micro-videos for every user with a held-out one and print the metrics.

    Means are over users with at least one held-out video; beside each stands its 95 % bootstrap interval.

    \b
    Examples:
        dualgnn eval --topk 10
        dualgnn eval --topk 20 --mask train --beyond --json
        dualgnn eval --cold-items
    """
    if beyond and cold_items:
        raise click.UsageError("--beyond looks at lists of the whole catalogue: leave out --cold-items")
    if per_user is not None:
        check_output(per_user, "--per-user", force)
    device = pick_device(gpu)

    import numpy as np

    from dualgnn_dgl.evaluation import Evaluator, beyond_accuracy, bootstrap

    loaded, dataset, data = open_run(run, data)
    seen = known_before(dataset, split, mask)
    if cold_items:
        evaluator, tables = _cold_items(loaded, dataset, split, seen, ks)
    else:
        evaluator, tables = Evaluator(getattr(dataset, split), seen, ks), (loaded.user, loaded.item)
    items = evaluator.rank(tables[0].to(device), tables[1].to(device))  # (B, K)
    found = evaluator.measure(items)
    intervals = bootstrap(found.per_user, seed, resamples) if resamples else {}
    columns, figures = found.per_user, found.means | found.coverage
    if beyond:
        lists = beyond_accuracy(items, found.ks, dataset.train, dataset.modalities)
        columns, figures = columns | lists.per_user, figures | lists.whole | lists.means
        for name, values in lists.per_user.items():  # each has its own users: those whose lists can be measured
            if resamples and np.isfinite(values).any():
                intervals |= bootstrap({name: values[np.isfinite(values)]}, seed, resamples)
    if per_user is not None:
        write_per_user(per_user, found.users, columns, dataset)
        note(f"{len(found.users):,} users written to {per_user}")
    value = {
        "run": run,
        "data": data,
        "split": split,
        "mask": mask,
        "users": len(found.users),
        **({"cold_items": len(tables[1])} if cold_items else {}),
        "metrics": {
            name: None if np.isnan(figure) else figure
            for k in found.ks
            for name, figure in figures.items()
            if name.endswith(f"@{k}")
        },
        "intervals": {name: list(interval) for name, interval in intervals.items()},
    }
    if as_json:
        result(value)
    else:
        print_text(_text(value, found.ks, str(loaded.info.get("model", "")), len(seen)))


def known_before(dataset: Dataset, split: str, mask: str) -> list[Interactions]:
    """The pairs that `--split` and `--mask` leave out of the lists."""
    return [dataset.train, dataset.valid] if (split, mask) == ("test", "all") else [dataset.train]


def _cold_items(
    loaded: Run, dataset: Dataset, split: str, seen: Sequence[Interactions], ks: Sequence[int]
) -> tuple[Evaluator, tuple[Tensor, Tensor]]:
    """What ranks the videos that nobody watched in training, and the tables (U, D) and (N, D) with a row for each of them."""
    from dualgnn_dgl import checkpoint, training
    from dualgnn_dgl.cold_items import ColdItems
    from dualgnn_dgl.options import build

    model = checkpoint.restore(loaded, dataset)
    filled = training.features(dataset, build(training.TrainConfig, loaded.info["train"]))
    measure = ColdItems(dataset.train, filled, getattr(dataset, split), seen, ks)
    return measure.evaluator, measure.tables(model)


def check_output(path: str, option: str, force: bool) -> None:
    """Refuse, before any work is done, a Parquet file that should not be written."""
    if Path(path).suffix != ".parquet" or Path(path).is_dir():
        raise ConfigError(f"{option} writes Parquet and was given '{path}': name a file that ends in .parquet")
    from dualgnn_dgl.folders import refuse_own
    from dualgnn_dgl.manifest import FOLDER

    refuse_own(path, FOLDER)
    if Path(path).exists() and not force:
        raise ConfigError(f"{path} is already there: choose another name, or replace it with --force")


def open_run(run: str, data: str | None) -> tuple[Run, Dataset, str]:
    """The run, the data it was trained on, and the data folder's name; checked to belong together."""
    from dualgnn_dgl import checkpoint
    from dualgnn_dgl import data as datasets

    loaded = checkpoint.load_run(run)
    folder = checkpoint.locate(loaded.info["data"], loaded.folder) if data is None else data
    dataset = datasets.load(folder)
    checkpoint.check_belongs(loaded, dataset)
    return loaded, dataset, folder


def write_per_user(path: str, users: np.ndarray, metrics: Mapping[str, np.ndarray], dataset: Dataset) -> None:
    """A Parquet file with a row per evaluated user: `user` in the user's own ids, then every metric; whole or not at all."""
    import pyarrow as pa

    from dualgnn_dgl.files import atomic_file, write_columns

    columns = {"user": pa.array(dataset.user_ids[users].tolist(), pa.string())}
    columns |= {name: pa.array(values, from_pandas=True) for name, values in metrics.items()}  # NaN: empty
    with atomic_file(path) as temporary:
        write_columns(temporary, pa.table(columns))


def _text(value: Mapping[str, Any], ks: Sequence[int], model: str, masked: int) -> str:
    """The result for people: what was measured, then a row per metric and a column per list length."""
    names = list(dict.fromkeys(name.partition("@")[0] for name in value["metrics"]))

    def cell(name: str) -> str:
        low, high = value["intervals"].get(name, (None, None))
        if value["metrics"][name] is None:
            return "–"
        return f"{value['metrics'][name]:.4f}" + (f" [{low:.4f}, {high:.4f}]" if low is not None else "")

    lines = [
        f"run    {clean(value['run'])}" + (f" ({model})" if model else ""),
        *measured_on(value, masked),
        "",
        table(["metric", *(f"@{k}" for k in ks)], [[name, *(cell(f"{name}@{k}") for k in ks)] for name in names]),
    ]
    return "\n".join(lines)


def measured_on(value: Mapping[str, Any], masked: int) -> list[str]:
    """What the figures were measured on, a line each; `masked` is how many splits the lists leave out."""
    left_out = "train and valid" if masked == 2 else "train"
    return [
        f"data   {clean(value['data'])}",
        f"split  {value['split']}",
        f"mask   {value['mask']} (left out of the lists: {left_out})",
        f"users  {value['users']:,}",
        *([f"items  {value['cold_items']:,} without a training pair, by their modalities"] if "cold_items" in value else []),
    ]
