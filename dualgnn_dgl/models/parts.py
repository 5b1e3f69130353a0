"""Parts that models share: tables, smoothing, normalisation, attention and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dualgnn_dgl.data import Modality
from dualgnn_dgl.ops import Adjacency


def table(rows: int, columns: int) -> nn.Parameter:
    """Returns a free (rows, columns) table, Xavier-normal."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, columns)))


def node_table(users: int, items: int, columns: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Returns one Xavier-normal table of all nodes in two parts, (U, columns) and (I, columns)."""
    user, item = table(users + items, columns).detach().split([users, items])
    return nn.Parameter(user.clone()), nn.Parameter(item.clone())


def smoothed(
    to_user: Adjacency, to_item: Adjacency, user: Tensor, item: Tensor, layers: int
) -> tuple[Tensor, Tensor]:
    """Returns the mean of layers 0…L over the user–item graph, (U, D) and (I, D).

    Source: LightGCN (He et al., SIGIR 2020, eq. 3, 4).

    Args:
        to_user: Normalised adjacency, (U, I).
        to_item: Its transpose, (I, U).
        user: Layer 0 of users, (U, D).
        item: Layer 0 of items, (I, D).
        layers: Number of layers L.
    """
    user_sum, item_sum = user, item
    for _ in range(layers):
        user, item = to_user @ item, to_item @ user
        user_sum, item_sum = user_sum + user, item_sum + item
    return user_sum / (layers + 1), item_sum / (layers + 1)


def shared_item_table(
    to_user: Adjacency, to_item: Adjacency, user: Tensor, item: Tensor, layers: int
) -> Tensor:
    """Returns the item table that gives layers 1…L of an unseen user, (I, D).

    `histories.to_user @` this is layers 1…L of `smoothed`, with its 1/(L+1). Layer 0 of an unseen
    user is unknown. Without a layer, the table is the items' own rows. The arguments are those of
    `smoothed`.
    """
    if layers == 0:
        return item
    return smoothed(to_user, to_item, user, item, layers - 1)[1] * (layers / (layers + 1))


class _UnitRows(torch.autograd.Function):
    """Computes x / ‖x‖ row by row, with a short backward pass.

    It makes four passes over memory backward, where autograd of `functional.normalize` makes seven.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # of shape (N, 1)
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_(min=1e-12).reciprocal_()
        unit = x * scale
        ctx.save_for_backward(unit, scale)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, scale = ctx.saved_tensors
        along = (gradient * unit).sum(-1, keepdim=True)  # the part along the row, (N, 1)
        return torch.addcmul(gradient, unit, along, value=-1).mul_(scale)


def unit_rows(x: Tensor, present: Tensor | None = None) -> Tensor:
    """Returns the rows of x at length one; zero rows stay zero, (N, D).

    The mask is applied after the normalisation. A zero feature row passes an encoder's biases and
    would otherwise become one and the same unit vector for all items that lack the modality. Half
    precision is returned as float32. Differentiable once.

    Args:
        x: Rows, (N, D).
        present: Rows that are kept, (N,) bool; the others become zero.
    """
    unit = _UnitRows.apply(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x)
    return unit if present is None else unit.where(present.unsqueeze(-1), unit.new_zeros(()))


class _WeightedSum(torch.autograd.Function):
    """Computes Σ_m w[:, m] · x_m without the (N, M, D) tensors of a stack, both ways."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *tables)
        total = tables[0] * weight[:, :1]
        for m, x in enumerate(tables[1:], start=1):
            total.addcmul_(x, weight[:, m : m + 1])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *tables = ctx.saved_tensors
        of_weight = (
            torch.stack([(gradient * x).sum(-1) for x in tables], dim=1)
            if ctx.needs_input_grad[0]
            else None
        )
        return of_weight, *(gradient * weight[:, m : m + 1] for m in range(len(tables)))


def weighted_sum(weight: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Returns Σ_m w[:, m] · x_m, (N, M) and M tables (N, D) → (N, D). Differentiable once."""
    return _WeightedSum.apply(weight, *tables)


def masked_softmax(logits: Tensor, observed: Tensor) -> Tensor:
    """Returns the softmax over the observed entries of each row, (N, M); zero elsewhere.

    Args:
        logits: Logits, (N, M).
        observed: Entries that take part, (N, M) bool; all of a row if it has none.
    """
    observed = observed | ~observed.any(-1, keepdim=True)
    return logits.masked_fill(~observed, -torch.inf).softmax(-1)


class Features(nn.Module):
    """The modalities of a data set as buffers, in a fixed order.

    `features[m]` is (I, F_m), `features.present` (I, M) bool. They move with `.to()` and stay out
    of the state dict: the run records the data they come from.
    """

    def __init__(self, modalities: Mapping[str, Modality]) -> None:
        super().__init__()
        self.names = tuple(modalities)
        self.row_axes = {"present": "item"} | {
            f"values_{m}": "item" for m in range(len(self.names))
        }
        for m, modality in enumerate(modalities.values()):
            self.register_buffer(
                f"values_{m}",
                torch.from_numpy(np.require(modality.values, requirements="W")),
                persistent=False,
            )
        present = [torch.tensor(modality.present) for modality in modalities.values()]
        self.register_buffer("present", torch.stack(present, dim=1), persistent=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, m: int) -> Tensor:
        return getattr(self, f"values_{m}")

    def widths(self) -> list[int]:
        """Returns F of each modality."""
        return [self[m].shape[1] for m in range(len(self))]

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={width}" for name, width in zip(self.names, self.widths(), strict=True)
        )
