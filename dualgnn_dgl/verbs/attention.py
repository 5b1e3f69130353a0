"""Summarises which modality weighs most for users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dualgnn_dgl.data import Dataset


@dataclass(frozen=True)
class AttentionSummary:
    """The modality that weighs most for users.

    Attributes:
        shares: modality → share of users for whom it weighs most.
        planted: on the built-in demo, share of its users for whom it is the planted modality; else
            None.
        updated: whether the data are the demo after an update.
        new_users: number of users that the update added, which `planted` leaves out.
        users: number of users.
    """

    shares: dict[str, float]
    planted: float | None = None
    updated: bool = False
    new_users: int = 0
    users: int = 0


def summarise_attention(
    options: Mapping[str, Any], dataset: Dataset, attention: Tensor | None
) -> AttentionSummary | None:
    """Summarises which modality weighs most, and on the demo how often it is the planted one.

    Args:
        options: options that the data were prepared with.
        dataset: data set of the training.
        attention: weights (U, M), or None.
    """
    if attention is None or attention.shape[1] < 2:
        return None
    names = list(dataset.modalities)
    strongest = attention.argmax(1).cpu().numpy()  # (U,)
    counts = np.bincount(strongest, minlength=len(names)) / len(strongest)
    shares = dict(zip(names, counts.tolist(), strict=True))
    if options.get("input", "") is not None:
        return AttentionSummary(shares, users=len(strongest))
    from dualgnn_dgl.data import synthetic  # This imports pandas, which only the demo needs.

    favourite = synthetic.planted().favourite_of()
    users = zip(strongest.tolist(), dataset.user_ids.tolist(), strict=True)
    found = [names[m] == favourite[user] for m, user in users if user in favourite]
    share = float(np.mean(found)) if found else None
    return AttentionSummary(
        shares,
        share,
        bool(options.get("updated_from")),
        len(strongest) - len(found),
        len(strongest),
    )
