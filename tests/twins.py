"""Compares a model with its slow twin in `reference/`: tables, loss and every gradient."""

from __future__ import annotations

import numpy as np
import small
import torch
from torch import Tensor


def leaf(tensor: Tensor) -> Tensor:
    """Returns a float64 copy with a gradient of its own."""
    return tensor.detach().double().clone().requires_grad_()


def named_leaves(model) -> tuple[dict[str, Tensor], list[tuple[Tensor, torch.nn.Parameter]]]:
    """Returns the parameters as leaves by name, and the pairs (leaf, parameter)."""
    links = [(leaf(parameter), parameter) for parameter in model.parameters()]
    return dict(
        zip(
            (name for name, _ in model.named_parameters()), (twin for twin, _ in links), strict=True
        )
    ), links


def plain_features(data) -> tuple[list[Tensor], list[list[bool]]]:
    """Returns features (I, F_m) in float64 and the items that have them, in plain lists."""
    parts = data.modalities.values()
    return [torch.from_numpy(np.array(m.values)).double() for m in parts], [
        m.present.tolist() for m in parts
    ]


def triples_of(batch: small.Batch) -> list[tuple[int, int, int]]:
    """Returns a batch as a plain list of (user, positive, negative)."""
    return list(zip(*(column.tolist() for column in batch), strict=True))


def compare(model, links, tables, expected, loss, expected_loss, tolerance):
    """Checks that tables, losses and gradients of model and twin agree."""
    for one, other in zip(tables, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=tolerance, atol=tolerance)
    loss.backward()
    expected_loss.backward()
    for twin, parameter in links:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        reference = torch.zeros_like(twin) if twin.grad is None else twin.grad
        torch.testing.assert_close(
            gradient.double(), reference, rtol=tolerance, atol=tolerance / 10
        )
