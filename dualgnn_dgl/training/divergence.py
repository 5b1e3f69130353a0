"""Numbers that are none, found where they come up.

The first batch whose loss or gradients are not finite.

It costs one norm a parameter and never waits for the device: from CUDA the answer is fetched now
and then.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dualgnn_dgl.errors import RunError

REMEDY = "lower the learning rate (--lr)"
EVERY = 64  # batches between two answers from a CUDA device


class DivergenceMonitor:
    """Looks at every batch of an epoch.

    Its counters live on the device and change in place, so a CUDA graph may hold it.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._every = EVERY if device.type == "cuda" else 1
        # the one looked at last, from 1
        self._batch = torch.zeros((), dtype=torch.int64, device=device)
        # the first that was not finite; 0 while there is none
        self._first = torch.zeros_like(self._batch)
        self._loss = torch.zeros((), device=device)  # its loss

    def begin(self, done: int) -> None:
        """A new epoch, of which `done` batches are over."""
        self._batch.fill_(done)
        self._first.zero_()

    def look(self, loss: Tensor) -> None:
        """Note whether the loss () and all gradients are finite.

        Between `backward` and the optimiser's step.
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
        """Raise if a batch was not finite.

        After `done` batches: at once on the CPU, every 64 on CUDA; without, now.

        Raises
        ------
        RunError
            naming the epoch, the batch, and the parameters whose gradient is not finite.
        """
        if (done is not None and done % self._every) or not (first := int(self._first)):
            return
        gradients = {
            name: p.grad for name, p in self._model.named_parameters() if p.grad is not None
        }
        # a gradient whose square is none is lost to Adam, too
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
    """Raise `RunError`, naming them, if parameters are not finite after `done` batches of the
    epoch.
    """
    if bad := not_finite(dict(model.named_parameters())):
        raise RunError(
            f"training diverged in epoch {epoch} within {done} batches: {listed(bad)} is not "
            f"finite: {REMEDY}"
        )


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]


def listed(names: Iterable[str]) -> str:
    """At most three of the names.

    >>> listed(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
