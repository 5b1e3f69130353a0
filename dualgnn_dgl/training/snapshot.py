"""The result of a training, its snapshots, and the schemas that check their files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from dualgnn_dgl.core.schema import METRIC, Mismatch, list_of, maybe, number, record, text, whole

REMEDY = "remove this checkpoint to continue from an older one, or begin again with --force"


@dataclass
class Fit:
    """The result of a training: tables and parameters of the best epoch, and the curve.

    Attributes:
        user: Table of users, (U, D).
        item: Table of items, (I, D).
        state: Parameters and buffers by name.
        history: One dictionary an epoch: epoch (from 1), loss, seconds, and the validation metric
            if it was measured.
        best_epoch: Number of the best epoch.
        best_value: Its validation metric.
        interrupted: Whether training was ended early.
        attention: `Recommender.user_attention` at the best epoch, (U, M).
    """

    user: Tensor
    item: Tensor
    state: dict[str, Tensor]
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    interrupted: bool = False
    attention: Tensor | None = None


METRIC_NAME = text(r"[a-z]+@[1-9]\d{0,8}", "a metric such as recall@20", 40)
_ROW = record(
    {"epoch": whole(), "loss": maybe(number()), "seconds": number(0)},
    {"total_seconds": number(0)},
    extra=METRIC,
)
_SNAPSHOT = record(
    {
        **dict.fromkeys(("epoch", "step", "since_best"), whole()),
        "seconds": number(0),
        "history": list_of(lambda value, place: history_row(value, place)),
        "value": maybe(METRIC),
    },
    {"best": record({"epoch": whole(1), "value": METRIC})},
)


def history_row(value: Any, place: str) -> None:
    """Checks a line of history.jsonl (a schema).

    It has the epoch's numbers, and its validation metric if it was measured.
    """
    _ROW(value, place)
    for name in value.keys() - {"epoch", "loss", "seconds", "total_seconds"}:
        METRIC_NAME(name, f"a key of {place}")


def snapshot_info(value: Any, place: str) -> None:
    """Checks the `info` of a snapshot (a schema).

    The best epoch and the patience left must follow from the history.
    """
    _SNAPSHOT(value, place)
    history, metrics = (
        value["history"],
        {key for row in value["history"] for key in row if "@" in key},
    )
    epochs = [row["epoch"] for row in history]
    if (
        epochs != list(range(1, len(history) + 1))
        or value["epoch"] != len(history) + 1
        or None in [r["loss"] for r in history]
    ):
        raise Mismatch("history does not hold every epoch before the present one, with its loss")
    taken = [(row[name], -row["epoch"]) for name in metrics for row in history if name in row]
    best = max(taken, default=None)
    expected = {
        "value": taken[-1][0] if taken else None,
        "best": {"epoch": -best[1], "value": best[0]} if best else None,
        "since_best": sum(epoch < best[1] for _, epoch in taken) if best else 0,
    }
    wrong = [key for key, found in expected.items() if value.get(key) != found]
    if len(metrics) > 1 or wrong:
        raise Mismatch(f"{wrong[0] if wrong else 'the metric'} does not follow from the history")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A paused training.

    Attributes:
        tensors: Tensors by name.
        info: The rest as a JSON object; it names the epoch and the batches done.
        where: Place in messages, the checkpoint's path.
    """

    tensors: dict[str, Tensor]
    info: dict[str, Any]
    where: str = "the checkpoint"


class CheckpointHook(Protocol):
    """Keeps snapshots while `training.fit` runs; `runs.working.Checkpoints` is one.

    Attributes:
        start: Snapshot to resume from; None starts at the beginning.
        stop: Whether training ends after the current batch, with a snapshot kept.
    """

    start: Snapshot | None
    stop: bool

    def due(self, epochs: int | None = None, *, last: bool = False) -> bool:
        """Returns whether to keep a snapshot now.

        Args:
            epochs: Number of whole epochs so far, at the end of an epoch; None after a batch.
            last: Whether this epoch was the last one.
        """

    def keep(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot; a full disk must not end the training."""


def alike(kept: Tensor, made: Tensor) -> bool:
    """Returns whether a saved table equals the one that its parameters give, up to rounding.

    Sparse tables are counted, not trained: they must have numbers in the same places.
    """
    if kept.shape != made.shape or kept.is_sparse != made.is_sparse:
        return False
    if kept.is_sparse:
        kept, made = kept.coalesce(), made.detach().coalesce()
        places, again = kept.indices(), made.indices()
        if places.shape != again.shape or not torch.equal(places, again):
            return False
        kept, made = kept.values(), made.values()
    if not kept.numel():
        return True
    scale = float(kept.abs().max())
    return math.isfinite(scale) and torch.allclose(
        kept, made.detach(), rtol=1e-3, atol=1e-3 * scale
    )
