"""Losses and penalties that models share.

To add one, write a function here and call it in a model's `loss` or `penalty`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dualgnn_dgl.ops.dense import linear


def pick(table: Tensor, rows: Tensor) -> Tensor:
    """Returns rows of a table, (N, D) and (B,) → (B, D).

    Unlike `table[rows]`, the gradient is summed in a fixed order. On the CPU, the gradient of
    indexing is added by several threads at once, so the same seed would not give the same result.
    Rows of a sparse table, which is never trained, are returned dense.
    """
    if table.is_sparse:
        return table.index_select(0, rows).to_dense()
    return functional.embedding(rows, table)


def bpr(difference: Tensor) -> Tensor:
    """Returns the loss of Bayesian personalised ranking, the mean of −log σ(s⁺ − s⁻), ().

    Source: Rendle et al., UAI 2009.

    Args:
        difference: s⁺ − s⁻, (B,).

    >>> round(float(bpr(torch.zeros(3)) / math.log(2)), 6)
    1.0
    """
    return -functional.logsigmoid(difference).mean()


class _SampledSoftmax(torch.autograd.Function):
    """Computes `sampled_softmax` and its gradients in one pass, `CHUNK` users at a time.

    On a CPU a chunk is small: its scores (CHUNK, N) stay in the cache, where autograd would keep
    several tensors (B, N) that do not fit. On CUDA a chunk is a dozen launches.
    """

    CHUNK: ClassVar = {"cpu": 2048, "cuda": 32768}

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        positive: Tensor,
        negatives: Tensor,
        offset: float,
        temperature: float,
    ) -> Tensor:
        right = (user * positive).sum(1).div_(temperature)  # (B,)
        user_slope, negatives_slope, fit = (
            torch.empty_like(user),
            torch.zeros_like(negatives),
            torch.empty_like(right),
        )
        missed = torch.empty_like(right)  # share of the positive − 1, the gradient of `right`
        chunk = _SampledSoftmax.CHUNK.get(user.device.type, len(user))
        for start in range(0, len(user), chunk):
            rows = slice(start, start + chunk)
            # of shape (C, N)
            wrong = linear(user[rows], negatives).to(right.dtype).div_(temperature).add_(offset)
            top = wrong.amax(1).maximum(right[rows])  # (C,)
            wrong.sub_(top.unsqueeze(1)).exp_()
            own = (right[rows] - top).exp_()
            total = wrong.sum(1).add_(own)
            fit[rows] = total.log() + top - right[rows]
            wrong.div_(total.unsqueeze(1))
            missed[rows] = own / total - 1
            user_slope[rows] = linear(wrong, negatives.T).to(user.dtype)
            negatives_slope += linear(wrong.T, user[rows].T).to(user.dtype)
        ctx.share = share = 1 / (temperature * len(user))
        ctx.save_for_backward(
            user_slope.addcmul_(positive, missed.unsqueeze(1)).mul_(share),
            user,
            missed,
            negatives_slope.mul_(share),
        )
        return fit.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        user_slope, user, missed, negatives_slope = ctx.saved_tensors
        positive_slope = user * (missed * (ctx.share * gradient)).unsqueeze(1)  # (B, D)
        return user_slope * gradient, positive_slope, negatives_slope * gradient, None, None


def sampled_softmax(
    user: Tensor, positive: Tensor, negatives: Tensor, items: int, temperature: float
) -> Tensor:
    """Returns the mean of −log of the positive's share among itself and N shared negatives, ().

    The negatives represent all other items. Differentiable once. Source: sampled softmax (Bengio &
    Senécal 2008); the form used for recommendation by Wu et al., "On the Effectiveness of Sampled
    Softmax Loss", TOIS 2023.

    Args:
        user: Users, (B, D).
        positive: Their watched items, (B, D).
        negatives: Items drawn uniformly from all, (N, D).
        items: Number of all items.
        temperature: Divisor of the scores.
    """
    offset = math.log(max(items - 1, 1) / len(negatives))
    return _SampledSoftmax.apply(user, positive, negatives, offset, temperature)


PENALTIES = ("square", "norm")


def row_penalty(form: str, *rows: Tensor) -> Tensor:
    """Returns the penalty on the rows of a batch, ().

    Args:
        form: "square": ½ Σ ‖row‖² / B, LightGCN's L2 term (He et al., SIGIR 2020, eq. 15).
            "norm": Σ ‖rows‖_F / B, the form behind the results published with MMRec. It uses
            lengths instead of squares, so the same weight acts differently.
        rows: Rows of each table, (B, D) each.
    """
    if form == "norm":
        return sum(row.norm() for row in rows) / len(rows[0])
    return sum(row.square().sum() for row in rows) / (2 * len(rows[0]))


def released_penalty(
    user: Tensor,
    item: Tensor,
    preference: Iterable[Tensor],
    users: Tensor,
    positives: Tensor,
    negatives: Tensor,
) -> Tensor:
    """Returns the mean square of a batch's identities and preferences, ().

    It is the mean of user² + item² over the 2B pairs and D columns, plus the mean square of the
    batch's users in each preference table. Source: the penalty of MMGCN's and GRCN's released
    losses.

    Args:
        user: Identities of users, (U, D).
        item: Identities of items, (I, D).
        preference: Preference tables of M modalities, (U, F_m) each.
        users: Users of the batch, (B,).
        positives: Watched items, (B,).
        negatives: Unwatched items, (B,).
    """
    watched, unwatched = (pick(item, rows).square().mean() for rows in (positives, negatives))
    identities = pick(user, users).square().mean() + (watched + unwatched) / 2
    return identities + sum(pick(p, users).square().mean() for p in preference)
