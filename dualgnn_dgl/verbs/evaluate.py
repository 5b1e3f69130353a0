"""Measures a run: ranks all items for every user with a held-out one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dualgnn_dgl import training
from dualgnn_dgl.core.devices import pick_device
from dualgnn_dgl.core.options import build
from dualgnn_dgl.data import Dataset, Interactions
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.evaluation import Evaluator, beyond_accuracy
from dualgnn_dgl.evaluation import bootstrap as intervals_of
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.runs.checkpoint import Run
from dualgnn_dgl.training.cold_items import ColdItems
from dualgnn_dgl.verbs.opening import Device, Opened, check_whole, known_before, lengths, open_run
from dualgnn_dgl.verbs.parquet import check_output, write_per_user


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The metrics of one run.

    Attributes:
        run: the run's name.
        data: data folder; None for data that were given in memory.
        model: the model's name.
        split: held-out split that was measured.
        mask: pairs left out of the lists: 'all' or 'train'.
        left_out: splits whose pairs the lists leave out.
        ks: list lengths, ascending and each once.
        users: number of users with a held-out item.
        metrics: 'recall@10' and so on: the mean over users; NaN where no user has a value.
        intervals: 95 % bootstrap interval of a metric; empty without resamples.
        per_user: columns of equal length: `user` in the user's own ids, then every metric of that
            user.
        cold_items: number of items ranked where only those without a training pair were; else None.
    """

    run: str
    data: str | None
    model: str
    split: str
    mask: str
    left_out: tuple[str, ...]
    ks: tuple[int, ...]
    users: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_user: dict[str, np.ndarray]
    cold_items: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in the form of `--json`, with None instead of NaN.

        The values of single users are left out.
        """
        return {
            "run": self.run,
            "data": self.data,
            "split": self.split,
            "mask": self.mask,
            "users": self.users,
            **({} if self.cold_items is None else {"cold_items": self.cold_items}),
            "metrics": {
                name: None if np.isnan(value) else value for name, value in self.metrics.items()
            },
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
        }


def evaluate(
    run: str | Path | Run,
    data: str | Path | Dataset | None = None,
    *,
    topk: int | Iterable[int] = (10, 20),
    split: str = "test",
    mask: str = "all",
    beyond: bool = False,
    cold_items: bool = False,
    per_user: str | Path | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    device: Device | None = None,
    force: bool = False,
) -> EvaluationResult:
    """Ranks all items for every user with a held-out one and measures the lists.

    Args:
        run: run folder, or a run already loaded.
        data: the data it was trained on, as a folder or loaded; None for the folder that the run
            names.
        topk: list lengths; longer ones are cut to the number of items.
        split: 'test' or 'valid'.
        mask: pairs left out of the lists: 'all' that are known before the split, or 'train' alone.
        beyond: also measures Gini, novelty, and diversity in each modality.
        cold_items: ranks only the items without a training pair, each folded in by its modalities
            alone.
        per_user: Parquet file to write with every metric of every user.
        bootstrap: resamples of the users for the intervals; 0 for none.
        seed: seed of the resamples.
        device: 'cpu', 'cuda', 'cuda:1', a number as in `devices.pick_device`, or None for CUDA if
            available.
        force: replaces the file `per_user`.

    Raises:
        DualGNNError: if run, data or options are not usable, or do not belong together.
    """
    if beyond and cold_items:
        raise ConfigError("beyond measures lists of the whole catalogue: leave out cold_items")
    check_whole("bootstrap", bootstrap)
    check_whole("seed", seed)
    if per_user is not None:
        check_output(per_user, "--per-user", force)
    place = pick_device(device)
    opened = open_run(run, data)
    dataset, seen = opened.dataset, known_before(opened.dataset, split, mask)
    ks = lengths(topk, dataset.num_items)
    if cold_items:
        evaluator, tables = _cold_items(opened, split, list(seen.values()), ks)
    else:
        evaluator = Evaluator(getattr(dataset, split), list(seen.values()), ks)
        tables = opened.run.user, opened.run.item
    items = evaluator.rank(tables[0].to(place), tables[1].to(place))  # (B, K)
    found = evaluator.measure(items)
    intervals = intervals_of(found.per_user, seed, bootstrap) if bootstrap else {}
    columns, values = found.per_user, found.means | found.coverage
    if beyond:
        lists = beyond_accuracy(items, found.ks, dataset.train, dataset.modalities)
        columns, values = columns | lists.per_user, values | lists.whole | lists.means
        # Each metric has its own users: those whose lists it can measure.
        for name, column in lists.per_user.items():
            if bootstrap and np.isfinite(column).any():
                intervals |= intervals_of({name: column[np.isfinite(column)]}, seed, bootstrap)
    columns = {"user": dataset.user_ids[found.users], **columns}
    if per_user is not None:
        write_per_user(per_user, columns)
    return EvaluationResult(
        run=opened.name,
        data=opened.folder,
        model=str(opened.run.info["model"]),
        split=split,
        mask=mask,
        left_out=tuple(seen),
        ks=found.ks,
        users=len(found.users),
        metrics={
            name: value
            for k in found.ks
            for name, value in values.items()
            if name.endswith(f"@{k}")
        },
        intervals=intervals,
        per_user=columns,
        cold_items=len(tables[1]) if cold_items else None,
    )


def _cold_items(
    opened: Opened, split: str, seen: Sequence[Interactions], ks: Sequence[int]
) -> tuple[Evaluator, tuple[Tensor, Tensor]]:
    """Returns the evaluator of the items without a training pair, and tables for them.

    The tables are (U, D) and (N, D), with a row for each of the N items.
    """
    dataset, info = opened.dataset, opened.run.info
    model = checkpoint.restore(opened.run, dataset)
    modalities = training.features(dataset, build(training.TrainConfig, info["train"]))
    measure = ColdItems(dataset.train, modalities, getattr(dataset, split), seen, ks)
    return measure.evaluator, measure.tables(model)
