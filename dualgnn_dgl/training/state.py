"""What a training changes while it runs, so that it can be put down and taken up again to the bit.

A training is put down between two batches. What is kept: the model's parameters and buffers, the
optimiser's moments, every generator's state, the place among the epoch's batches, the epoch's loss
so far, the history, and the best epoch's tables and parameters. What the epoch has drawn (the order
of its batches, their negatives, what `Recommender.new_epoch` drew) is not kept but drawn again: the
states that the generators had when the epoch began are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from dualgnn_dgl.core.schema import (
    METRIC,
    Mismatch,
    check,
    list_of,
    maybe,
    number,
    record,
    text,
    whole,
)
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.models.base import Recommender

REMEDY = "remove this checkpoint to continue from an older one, or begin again with --force"


@dataclass
class Fit:
    """What training leaves: the best epoch's tables and parameters, and the curve.

    `history` has one dictionary an epoch: epoch (from 1), loss, seconds, and the validation metric
        where it was taken.
    `attention` (U, M) is what `Recommender.user_attention` says at the best epoch.
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
    """Allows a line of history.jsonl (a schema).

    The epoch's figures, and its validation metric where it was taken.
    """
    _ROW(value, place)
    for name in value.keys() - {"epoch", "loss", "seconds", "total_seconds"}:
        METRIC_NAME(name, f"a key of {place}")


def snapshot_info(value: Any, place: str) -> None:
    """Allows the `info` of a snapshot (a schema).

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
    """A training put down: tensors by name, and the rest as a JSON object.

    `info` names the epoch and the batches done.

    `where` is its place in messages, the checkpoint's path.
    """

    tensors: dict[str, Tensor]
    info: dict[str, Any]
    where: str = "the checkpoint"


class CheckpointHook(Protocol):
    """Who keeps snapshots while `training.fit` runs; `runs.working.Checkpoints` is one."""

    start: Snapshot | None  # where to go on; None begins at the beginning
    stop: bool  # training shall end: after the batch at hand, with a snapshot kept

    def due(self, epochs: int | None = None, *, last: bool = False) -> bool:
        """Whether to keep one now: after a batch, or after `epochs` whole epochs, of which this was
        the `last`.
        """

    def keep(self, snapshot: Snapshot) -> None:
        """Keep it; a full disk must not end the training."""


class State:
    """All of it, while training runs.

    Between two epochs `step` is 0 and `epoch` the one that comes.

    Parameters
    ----------
    generators : by name; the model's own and the process's default ones are added here.
    """

    def __init__(
        self,
        model: Recommender,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
        **generators: torch.Generator,
    ) -> None:
        self.model, self.optimiser, self.device, self._given = model, optimiser, device, generators
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.total = torch.zeros((), device=device)  # sum of the losses of the epoch's pairs
        self.history: list[dict[str, Any]] = []
        self.value: float | None = None
        self.since_best = 0
        self.best: Fit | None = None
        self._began: dict[str, Tensor] = {}
        self._pending: Snapshot | None = None

    @property
    def best_value(self) -> float | None:
        """Validation metric of the best epoch so far."""
        return None if self.best is None else self.best.best_value

    def generators(self) -> dict[str, torch.Generator]:
        """Every generator that may be drawn from.

        Training's, those that the model holds, and the default ones.
        """
        found = dict(self._given)
        for path, module in self.model.named_modules():
            found |= {
                f"model.{path}.{k}": g
                for k, g in vars(module).items()
                if isinstance(g, torch.Generator)
            }
        found["default"] = torch.default_generator
        if self.device.type == "cuda":
            found["default_cuda"] = torch.cuda.default_generators[self.device.index or 0]
        return found

    def begin(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The epoch's batches that are left, the model made ready for it.

        `batches` must not have drawn anything yet.
        """
        pending, self._pending = self._pending, None
        if pending is not None and self.step:
            self._set(pending, "began/")  # draw again what the epoch had drawn
        self._began = {name: generator.get_state() for name, generator in self.generators().items()}
        self.model.new_epoch(self._given["graph"])
        left = islice(batches, self.step, None)
        first = next(left, None)  # a generator function has run to here, and drawn
        if pending is not None and self.step:
            self._load(pending)
            self._set(pending, "now/")
            self.model.resume_epoch(self.step)
        return iter(()) if first is None else _chain(first, left)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """The epoch is over, `row` is its line of the history."""
        self.history.append(row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.total = torch.zeros_like(self.total)

    def snapshot(self) -> Snapshot:
        """Everything as it is now; the tensors are the live ones, to be written before training
        goes on.
        """
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser/{index}/{name}": value
                for name, value in values.items()
                if isinstance(value, Tensor)
            }
        now = {name: generator.get_state() for name, generator in self.generators().items()}
        tensors |= {f"now/{name}": state for name, state in now.items()}
        if self.step:
            tensors |= {f"began/{name}": state for name, state in self._began.items()}
        tensors["total"] = self.total
        if self.best is not None:
            tensors |= {"best/user": self.best.user, "best/item": self.best.item}
            tensors |= {f"best/state/{name}": tensor for name, tensor in self.best.state.items()}
        info = {
            name: getattr(self, name)
            for name in ("epoch", "step", "seconds", "history", "value", "since_best")
        }
        if self.best is not None:
            info["best"] = {"epoch": self.best.best_epoch, "value": self.best.best_value}
        return Snapshot(tensors, info)

    def restore(self, snapshot: Snapshot, steps: int) -> None:
        """Continues a training from its snapshot; to be called before the first `begin`.

        Args:
            snapshot: as `snapshot` made it.
            steps: batches an epoch.

        Raises:
            RunError: if the snapshot is of another model or training, or was altered; the message
                names the checkpoint.
        """
        info = snapshot.info
        check(snapshot_info, info, snapshot.where, RunError, REMEDY)
        if info["step"] > steps:
            raise RunError(
                f"{snapshot.where}: step is {info['step']}, an epoch has {steps} batches: {REMEDY}"
            )
        check_tensors(self, snapshot, (info["epoch"] - 1) * steps + info["step"])
        if "best" in info:
            state = _under(snapshot.tensors, "best/state/", self.device)
            user, item = (
                snapshot.tensors[f"best/{table}"].to(self.device) for table in ("user", "item")
            )
            self._check_best(state, (user, item), snapshot.where)
            self.best = Fit(
                user,
                item,
                state,
                best_epoch=info["best"]["epoch"],
                best_value=info["best"]["value"],
            )
        self._load(snapshot)
        self._set(snapshot, "now/")
        self._pending = snapshot
        self.epoch, self.step, self.seconds = info["epoch"], info["step"], info["seconds"]
        self.history, self.value, self.since_best = (
            list(info["history"]),
            info["value"],
            info["since_best"],
        )

    def _check_best(
        self, state: dict[str, Tensor], kept: tuple[Tensor, Tensor], where: str
    ) -> None:
        """Raises `RunError` unless the best epoch's parameters give the tables that were kept with
        them.
        """
        self.model.load_state_dict(state)
        self.model.eval()
        with torch.no_grad():
            made = self.model.embed()
        for one, two in zip(kept, made, strict=True):
            if not alike(one, two):
                raise RunError(
                    f"{where}: the parameters of the best epoch give other tables than those "
                    f"kept: {REMEDY}"
                )

    def _load(self, snapshot: Snapshot) -> None:
        self.model.load_state_dict(_under(snapshot.tensors, "model/"))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(snapshot.tensors, "optimiser/").items():
            index, _, key = name.partition("/")
            moments.setdefault(int(index), {})[key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.total = snapshot.tensors["total"].to(self.device, copy=True)

    def _set(self, snapshot: Snapshot, prefix: str) -> None:
        generators = self.generators()
        for name, state in _under(snapshot.tensors, prefix).items():
            if name not in generators:  # a model may make its own in `new_epoch`
                continue
            try:
                generators[name].set_state(state)
            except (RuntimeError, TypeError) as error:
                reason = str(error).splitlines()[0][:80]
                raise RunError(
                    f"{snapshot.where}: {prefix}{name} is no state of a generator ({reason}): "
                    f"{REMEDY}"
                ) from None


def alike(kept: Tensor, made: Tensor) -> bool:
    """Whether a table as kept is the one that its parameters give again, up to rounding."""
    if kept.shape != made.shape or kept.is_sparse != made.is_sparse:
        return False
    if kept.is_sparse:  # counted, not trained: the same places hold numbers
        kept, made = kept.coalesce(), made.detach().coalesce()
        if kept.indices().shape != made.indices().shape or not torch.equal(
            kept.indices(), made.indices()
        ):
            return False
        kept, made = kept.values(), made.values()
    if not kept.numel():
        return True
    scale = float(kept.abs().max())
    return math.isfinite(scale) and torch.allclose(
        kept, made.detach(), rtol=1e-3, atol=1e-3 * scale
    )


def check_tensors(state: State, snapshot: Snapshot, done: int) -> None:
    """Checks the tensors of a snapshot against the training that is to continue.

    Names, shapes, types, finite values.

    Args:
        state: the training.
        snapshot: its `info` has been checked.
        done: batches done.

    Raises:
        RunError: naming the first tensor that does not fit.
    """
    where, tensors, info = snapshot.where, snapshot.tensors, snapshot.info
    model = state.model.state_dict()
    expected = {f"model/{name}": tensor for name, tensor in model.items()} | {"total": state.total}
    if "best" in info:
        expected |= {f"best/state/{name}": tensor for name, tensor in model.items()}
        # `State._check_best` compares their shapes
        expected |= dict.fromkeys(("best/user", "best/item"), torch.empty(0))
    for index, parameter in enumerate(state.model.parameters()):
        names = [f"optimiser/{index}/{name}" for name in ("step", "exp_avg", "exp_avg_sq")]
        if tensors.keys() & set(names):  # a parameter without a gradient has none
            expected |= dict(zip(names, (state.total, parameter, parameter), strict=True))
    generators = state.generators()
    for part in ("now/", "began/") if info["step"] else ("now/",):
        expected |= {part + name: generator.get_state() for name, generator in generators.items()}
        own = [
            name for name in tensors if name.startswith(f"{part}model.") and name not in expected
        ]
        # a model may make its own later, always on the CPU
        expected |= dict.fromkeys(own, generators["graph"].get_state())

    if different := sorted(expected.keys() ^ tensors.keys()):
        how = "an unknown tensor" if different[0] in tensors else "lacking"
        raise RunError(
            f"{where}: {different[0]:.120} is {how}, the checkpoint is of another model: {REMEDY}"
        )
    for name, wanted in expected.items():
        found = tensors[name]
        fits = found.dtype == wanted.dtype and (
            found.shape == wanted.shape or name in ("best/user", "best/item")
        )
        if not fits:
            shapes = (
                f"{found.dtype} {tuple(found.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
            )
            raise RunError(
                f"{where}: {name:.120} is {shapes}, the checkpoint is of another model: {REMEDY}"
            )
        low = (
            0
            if name.endswith(("/exp_avg_sq", "/step")) and name.startswith("optimiser/")
            else -torch.inf
        )
        high = done if low == 0 and name.endswith("/step") else torch.finfo(torch.float64).max
        if found.is_floating_point() and not bool(
            ((found >= low) & (found <= high) & found.isfinite()).all()
        ):
            raise RunError(f"{where}: {name:.120} holds numbers outside its range: {REMEDY}")


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _under(
    tensors: dict[str, Tensor], prefix: str, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, by the rest of the name, as copies on `device`."""
    return {
        name.removeprefix(prefix): tensor.to(device, copy=True)
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
