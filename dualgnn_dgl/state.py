"""What a training changes while it runs, so that it can be put down and taken up again to the bit.

A training is put down between two batches. What is kept: the model's parameters and buffers, the optimiser's moments, every
generator's state, the place among the epoch's batches, the epoch's loss so far, the history, and the best epoch's tables and
parameters. What the epoch has drawn (the order of its batches, their negatives, what `Recommender.new_epoch` drew) is not
kept but drawn again: the states that the generators had when the epoch began are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from dualgnn_dgl.errors import RunError
from dualgnn_dgl.models.base import Recommender


@dataclass
class Fit:
    """What training leaves: the best epoch's tables and parameters, and the curve.

    `history` has one dictionary an epoch: epoch (from 1), loss, seconds, and the validation metric where it was taken.
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


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A training put down: tensors by name, and the rest as a JSON object. `info` names the epoch and the batches done."""

    tensors: dict[str, Tensor]
    info: dict[str, Any]


class Keeper(Protocol):
    """Who keeps snapshots while `training.fit` runs; `checkpoint.working.Checkpoints` is one."""

    start: Snapshot | None  # where to go on; None begins at the beginning
    stop: bool  # training shall end: after the batch at hand, with a snapshot kept

    def due(self, epochs: int | None = None, *, last: bool = False) -> bool:
        """Whether to keep one now: after a batch, or after `epochs` whole epochs, of which this was the `last`."""

    def keep(self, snapshot: Snapshot) -> None:
        """Keep it; a full disk must not end the training."""


class State:
    """All of it, while training runs. Between two epochs `step` is 0 and `epoch` the one that comes.

    Parameters
    ----------
    generators : by name; the model's own and the process's default ones are added here.
    """

    def __init__(
        self, model: Recommender, optimiser: torch.optim.Optimizer, device: torch.device, **generators: torch.Generator
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
        """Every generator that may be drawn from: training's, those that the model holds, and the default ones."""
        found = dict(self._given)
        for path, module in self.model.named_modules():
            found |= {f"model.{path}.{k}": g for k, g in vars(module).items() if isinstance(g, torch.Generator)}
        found["default"] = torch.default_generator
        if self.device.type == "cuda":
            found["default_cuda"] = torch.cuda.default_generators[self.device.index or 0]
        return found

    def begin(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The epoch's batches that are left, the model made ready for it. `batches` must not have drawn anything yet."""
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
        """Everything as it is now; the tensors are the live ones, to be written before training goes on."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{name}": value for name, value in values.items() if isinstance(value, Tensor)}
        now = {name: generator.get_state() for name, generator in self.generators().items()}
        tensors |= {f"now/{name}": state for name, state in now.items()}
        if self.step:
            tensors |= {f"began/{name}": state for name, state in self._began.items()}
        tensors["total"] = self.total
        if self.best is not None:
            tensors |= {"best/user": self.best.user, "best/item": self.best.item}
            tensors |= {f"best/state/{name}": tensor for name, tensor in self.best.state.items()}
        info = {name: getattr(self, name) for name in ("epoch", "step", "seconds", "history", "value", "since_best")}
        if self.best is not None:
            info["best"] = {"epoch": self.best.best_epoch, "value": self.best.best_value}
        return Snapshot(tensors, info)

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a training that was put down; to be called before the first `begin`.

        Raises
        ------
        RunError
            if the snapshot is of another model.
        """
        self._load(snapshot)
        self._set(snapshot, "now/")
        self._pending = snapshot
        info = snapshot.info
        self.epoch, self.step, self.seconds = info["epoch"], info["step"], info["seconds"]
        self.history, self.value, self.since_best = list(info["history"]), info["value"], info["since_best"]
        if "best" in info:
            state = _under(snapshot.tensors, "best/state/", self.device)
            user, item = (snapshot.tensors[f"best/{table}"].to(self.device) for table in ("user", "item"))
            self.best = Fit(user, item, state, best_epoch=info["best"]["epoch"], best_value=info["best"]["value"])

    def _load(self, snapshot: Snapshot) -> None:
        try:
            self.model.load_state_dict(_under(snapshot.tensors, "model/"))
            moments: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _under(snapshot.tensors, "optimiser/").items():
                index, _, key = name.partition("/")
                moments.setdefault(int(index), {})[key] = tensor
            groups = self.optimiser.state_dict()["param_groups"]
            self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
            self.total = snapshot.tensors["total"].to(self.device, copy=True)
        except (RuntimeError, KeyError, ValueError) as error:
            raise RunError(f"the checkpoint is of another model ({str(error).splitlines()[0][:160]}): train anew") from None

    def _set(self, snapshot: Snapshot, prefix: str) -> None:
        generators = self.generators()
        for name, state in _under(snapshot.tensors, prefix).items():
            if name in generators:  # a model's own may not have been made yet: then `new_epoch` makes it
                generators[name].set_state(state)


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _under(tensors: dict[str, Tensor], prefix: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, by the rest of the name, as copies on `device`."""
    return {
        name.removeprefix(prefix): tensor.to(device, copy=True) for name, tensor in tensors.items() if name.startswith(prefix)
    }
