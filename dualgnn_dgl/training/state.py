"""Everything that a training changes, so that it can be paused and resumed bit-exactly.

A training pauses between two batches. A snapshot has the model's parameters and buffers, the
optimiser's moments, the state of every generator, the place among the epoch's batches, the epoch's
loss so far, the history, and the tables and parameters of the best epoch. Draws of the epoch (the
order of its batches, their negatives, those of `Recommender.new_epoch`) are not part of it. They
are repeated from the states that the generators had when the epoch began, which are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from dualgnn_dgl.core.schema import check
from dualgnn_dgl.errors import RunError
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.training.snapshot import (
    METRIC_NAME,
    REMEDY,
    CheckpointHook,
    Fit,
    Snapshot,
    alike,
    history_row,
    snapshot_info,
)

__all__ = [
    "METRIC_NAME",
    "REMEDY",
    "CheckpointHook",
    "Fit",
    "Snapshot",
    "State",
    "alike",
    "check_tensors",
    "history_row",
    "snapshot_info",
]


class State:
    """The state of a running training.

    Between two epochs `step` is 0 and `epoch` the next one.

    Args:
        model: Model that is trained.
        optimiser: Its optimiser.
        device: Device of the training.
        generators: Generators of the training by name; the model's own and the default ones of the
            process are added.
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
        """Returns every generator that may be used: training's, the model's, the default ones."""
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
        """Prepares the model for an epoch, and yields its remaining batches.

        Args:
            batches: Batches of the epoch, which must not have drawn anything yet.
        """
        pending, self._pending = self._pending, None
        if pending is not None and self.step:
            self._set(pending, "began/")  # repeat the epoch's draws
        self._began = {name: generator.get_state() for name, generator in self.generators().items()}
        self.model.new_epoch(self._given["graph"])
        left = islice(batches, self.step, None)
        first = next(left, None)  # from here on, the sampler has drawn
        if pending is not None and self.step:
            self._load(pending)
            self._set(pending, "now/")
            self.model.resume_epoch(self.step)
        return iter(()) if first is None else _chain(first, left)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Ends an epoch; `row` is its line of the history."""
        self.history.append(row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.total = torch.zeros_like(self.total)

    def snapshot(self) -> Snapshot:
        """Returns a snapshot of the live tensors, to be written before training continues."""
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
        """Continues a training from its snapshot; call it before the first `begin`.

        Args:
            snapshot: As `snapshot` made it.
            steps: Batches an epoch.

        Raises:
            RunError: If the snapshot is of another model or training, or was altered; the message
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
        """Raises `RunError` unless the best epoch's parameters give the tables kept with them."""
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
            if name not in generators:  # a model may add one in `new_epoch`
                continue
            try:
                generators[name].set_state(state)
            except (RuntimeError, TypeError) as error:
                reason = str(error).splitlines()[0][:80]
                raise RunError(
                    f"{snapshot.where}: {prefix}{name} is no state of a generator ({reason}): "
                    f"{REMEDY}"
                ) from None


def check_tensors(state: State, snapshot: Snapshot, done: int) -> None:
    """Checks names, shapes, types and values of a snapshot's tensors.

    Args:
        state: The training that is to continue.
        snapshot: A snapshot whose `info` has been checked.
        done: Batches done.

    Raises:
        RunError: The message names the first tensor that does not fit.
    """
    where, tensors, info = snapshot.where, snapshot.tensors, snapshot.info
    model = state.model.state_dict()
    expected = {f"model/{name}": tensor for name, tensor in model.items()} | {"total": state.total}
    if "best" in info:
        expected |= {f"best/state/{name}": tensor for name, tensor in model.items()}
        # `State._check_best` compares the shapes of these.
        expected |= dict.fromkeys(("best/user", "best/item"), torch.empty(0))
    for index, parameter in enumerate(state.model.parameters()):
        names = [f"optimiser/{index}/{name}" for name in ("step", "exp_avg", "exp_avg_sq")]
        if tensors.keys() & set(names):  # only parameters with a gradient
            expected |= dict(zip(names, (state.total, parameter, parameter), strict=True))
    generators = state.generators()
    for part in ("now/", "began/") if info["step"] else ("now/",):
        expected |= {part + name: generator.get_state() for name, generator in generators.items()}
        own = [
            name for name in tensors if name.startswith(f"{part}model.") and name not in expected
        ]
        # A model may add generators later, always on the CPU.
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
    """Returns copies on `device` of the tensors below a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor.to(device, copy=True)
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
