"""What training minimises: the losses and penalties that models share.

To add one: a function here, called in a model's `loss` or `penalty`.
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
    """Rows of a table, (N, D) and (B,) → (B, D).

    Like `table[rows]`, but with a gradient that is summed in a fixed order: that of indexing adds
    from several threads at once on the CPU, so that the same seed would not give the same result.
    Of a sparse table, which nothing trains, the rows come dense.
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
    """The loss of `sampled_softmax` and its gradients in one pass, `CHUNK` users at a time.

    On a CPU these are few: their scores (CHUNK, N) stay in the cache, where autograd keeps several
    tensors (B, N) that do not. On CUDA a part is a dozen launches.
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
        missed = torch.empty_like(right)  # −(1 − share of the positive), the gradient of `right`
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
    """−log of the positive's share among itself and N shared negatives that stand for all other
    items; a scalar.

    user, positive (B, D), negatives (N, D) drawn uniformly from `items` items. Differentiable once.
    Source: sampled softmax (Bengio & Senécal 2008); the form used for recommendation by Wu et al.,
    "On the Effectiveness of Sampled Softmax Loss", TOIS 2023.
    """
    offset = math.log(max(items - 1, 1) / len(negatives))
    return _SampledSoftmax.apply(user, positive, negatives, offset, temperature)


PENALTIES = ("square", "norm")


def row_penalty(form: str, *rows: Tensor) -> Tensor:
    """Penalty on the rows of a batch, (B, D) each.

    "square": ½ Σ ‖row‖² / B, LightGCN's L2 term (He et al., SIGIR 2020, eq. 15).
    "norm": Σ ‖rows‖_F / B, lengths instead of squares, which the figures published with MMRec were
    made with; a weight means something else there.
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
    """Mean of user² + item² over the 2B pairs of a batch (watched and unwatched) and the D columns
    of user (U, D), item (I, D), plus Σ_m of the mean square of the batch's users in `preference`, M
    tables (U, F_m).

    Source: the penalty of MMGCN's and GRCN's released losses.
    """
    watched, unwatched = (pick(item, rows).square().mean() for rows in (positives, negatives))
    identities = pick(user, users).square().mean() + (watched + unwatched) / 2
    return identities + sum(pick(p, users).square().mean() for p in preference)
