"""Computes the gradient of one batch, in one of four ways.

These are: plain; from sampled blocks; from several batches that share one propagation; or replayed
as a CUDA graph. A whole-graph model pays one propagation for every step, at any batch size, so
speed depends on the number of propagations.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.models.base import Recommender
from dualgnn_dgl.training.blocks import Blocks


class _Loss(nn.Module):
    """A model's loss as a module's forward pass, which CUDA graphs need."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        return self.model.loss(users, positives, negatives)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Stops garbage collection inside the block.

    A recording of an earlier training that is freed while CUDA records would end the new one.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def put_back(device: torch.device) -> Iterator[None]:
    """Restores the current stream and the CUDA generator's state if a recording fails."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.current_stream(device)
    generator = torch.cuda.default_generators[stream.device_index]
    state = generator.clone_state()
    try:
        yield
    except RuntimeError:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(state)
        raise


def first_cause(error: BaseException) -> str:
    """Returns the first line of the error that was raised first.

    A recording that an error ends raises a second one when it is closed.
    """
    while error.__context__ is not None:
        error = error.__context__
    return str(error).partition("\n")[0]


class Step:
    """`step(batch)` sets the gradient of a batch's mean loss, and returns the loss.

    Args:
        model: Model to train.
        device: Its device.
        share: Batches that share one propagation. A batch is cut into that many parts. All are
            compared on the same tables, and the sum of the tables' gradients goes back through the
            graph once. For losses that are means over triples the result is that of the whole
            batch, in the memory of a part.
        blocks: Samples the graph for every batch; None takes the whole.
        capture: Records the step of a full batch once as a CUDA graph, and replays it. This needs
            CUDA and equal steps (`Recommender.static_step`); a shorter batch takes the plain way.
        bfloat16: Computes dense products in bfloat16 (autocast).

    Raises:
        ConfigError: If the model has no loss of given tables (`share`), or options contradict each
            other.
    """

    def __init__(
        self,
        model: Recommender,
        device: torch.device,
        *,
        share: int = 1,
        blocks: Blocks | None = None,
        capture: bool = False,
        bfloat16: bool = False,
    ) -> None:
        if share > 1 and type(model).loss is not Recommender.loss:
            raise ConfigError(
                f"share_propagation: {type(model).__name__}'s loss is more than its tables: leave "
                f"it at 1"
            )
        if share > 1 and blocks is not None:
            raise ConfigError(
                "share_propagation needs the whole graph, fanout a block a batch: give one of them"
            )
        self.model, self.device, self.share, self.blocks, self.bfloat16 = (
            model,
            device,
            share,
            blocks,
            bfloat16,
        )
        self.capture = (
            capture
            and device.type == "cuda"
            and blocks is None
            and share == 1
            and model.static_step
        )
        self.replayed: Any = None  # the captured loss of a batch of `size`
        self.size = 0

    def __call__(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Returns the loss of (users, positives, negatives), (B,) int64 each, ()."""
        if self.capture and self.replayed is None:
            self.record(batch)
        if self.share > 1:
            return self.shared(batch)
        if self.replayed is not None and len(batch[0]) == self.size:
            loss: Tensor = self.replayed(*batch)
        else:
            with self.autocast():
                loss = (self.model if self.blocks is None else self.blocks).loss(*batch)
        loss.backward()
        return loss.detach()

    def shared(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Computes the step in parts, over tables that are propagated once."""
        with self.autocast():
            tables = self.model.training_tables()
        held = [table.detach().requires_grad_() for table in tables]
        size = -(-len(batch[0]) // self.share)
        total = torch.zeros((), device=self.device)
        for part in zip(*(whole.split(size) for whole in batch), strict=True):
            with self.autocast():
                loss = self.model.loss_of((held[0], held[1]), *part) * (
                    len(part[0]) / len(batch[0])
                )
            loss.backward()
            total = total + loss.detach()
        torch.autograd.backward(list(tables), [table.grad for table in held])
        return total

    def record(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Captures the loss and its gradient for batches of this size.

        If CUDA cannot, it warns and training continues without.
        """
        samples = tuple(part.clone() for part in batch)
        try:
            with undisturbed(), put_back(self.device), self.autocast(cache=False):
                self.replayed = torch.cuda.make_graphed_callables(
                    _Loss(self.model), samples, allow_unused_input=True
                )
            self.size = len(batch[0])
            # The recording has a stream of its own. torch would warn about it at the first replay,
            # although it synchronises where it has to.
            if quiet := getattr(
                torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None
            ):
                quiet(False)
        except RuntimeError as error:
            self.capture = False
            warnings.warn(
                f"cuda_graph: the step cannot be captured ({first_cause(error)[:160]})",
                stacklevel=2,
            )

    def autocast(self, *, cache: bool = True) -> torch.autocast:
        """Returns the context in which dense products take bfloat16, if `bfloat16` is set."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=cache
        )
