"""Detects non-finite losses and gradients where they first occur.

It costs one norm a parameter and never waits for the device: the result is fetched from CUDA from
time to time.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dualgnn_dgl.errors import RunError

REMEDY = "lower the learning rate (--lr)"
EVERY = 64  # batches between two checks on a CUDA device


class DivergenceMonitor:
    """Checks every batch of an epoch.

    Its counters are on the device and change in place, so it can be part of a CUDA graph.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._every = EVERY if device.type == "cuda" else 1
        # Number of the batch that was checked last, from 1.
        self._batch = torch.zeros((), dtype=torch.int64, device=device)
        # Number of the first batch that was not finite; 0 if there is none.
        self._first = torch.zeros_like(self._batch)
        self._loss = torch.zeros((), device=device)  # its loss

    def begin(self, done: int) -> None:
        """Begins an epoch of which `done` batches are over."""
        self._batch.fill_(done)
        self._first.zero_()

    def look(self, loss: Tensor) -> None:
        """Records whether the loss () and all gradients are finite.

        Call it between `backward` and the optimiser's step.
        """
        loss = loss.detach().float()
        gradients = [
            parameter.grad for parameter in self._model.parameters() if parameter.grad is not None
        ]
        total = loss
        if gradients:
            total = (
                total + torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]).sum()
            )
        self._batch += 1
        new = ~total.isfinite() & (self._first == 0)
        self._first.copy_(torch.where(new, self._batch, self._first))
        self._loss.copy_(torch.where(new, loss, self._loss))

    def check(self, epoch: int, done: int | None = None) -> None:
        """Raises an error if a batch was not finite.

        Args:
            epoch: Number of the epoch.
            done: Batches done; the check then happens at once on the CPU and every 64 batches on
                CUDA. None checks now.

        Raises:
            RunError: The message names the epoch, the batch, and the parameters whose gradient is
                not finite.
        """
        if (done is not None and done % self._every) or not (first := int(self._first)):
            return
        gradients = {
            name: p.grad for name, p in self._model.named_parameters() if p.grad is not None
        }
        # A gradient whose square overflows also breaks Adam.
        bad = not_finite(gradients) or [
            name for name, grad in gradients.items() if not bool(grad.float().norm().isfinite())
        ]
        named = (
            f"the gradient of {listed(bad)} is not finite" if bad else "all gradients are finite"
        )
        raise RunError(
            f"training diverged in epoch {epoch}, batch {first}: the loss is "
            f"{float(self._loss):g}, {named}: {REMEDY}"
        )


def check_parameters(model: nn.Module, epoch: int, done: int) -> None:
    """Raises `RunError` that names the parameters which are not finite after some batches."""
    if bad := not_finite(dict(model.named_parameters())):
        raise RunError(
            f"training diverged in epoch {epoch} within {done} batches: {listed(bad)} is not "
            f"finite: {REMEDY}"
        )


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Returns the names of the tensors that contain NaN or infinity."""
    return [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]


def listed(names: Iterable[str]) -> str:
    """Returns at most three of the names, as text.

    >>> listed(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
