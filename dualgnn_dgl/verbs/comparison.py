"""The result of `compare`: rows by metric, groups of users and items, and the lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Interval = tuple[float, float]


@dataclass(frozen=True)
class Versus:
    """The difference of a run to the base, over the same users; positive where the run is better.

    Attributes:
        difference: mean over users.
        interval: 95 % bootstrap interval of the mean.
        p_bootstrap: two-sided p-value of the bootstrap.
        p_bootstrap_holm: the same, corrected for the number of runs.
        p_wilcoxon: two-sided p-value of Wilcoxon's signed-rank test.
        p_wilcoxon_holm: the same, corrected for the number of runs.
        better: number of users for whom the run is better.
        worse: number of users for whom it is worse.
    """

    difference: float
    interval: Interval
    p_bootstrap: float
    p_bootstrap_holm: float
    p_wilcoxon: float
    p_wilcoxon_holm: float
    better: int
    worse: int


@dataclass(frozen=True)
class Standing:
    """One run by one metric.

    Attributes:
        mean: mean over users.
        interval: 95 % bootstrap interval of the mean.
        versus: difference to the base; None for the base.
    """

    mean: float
    interval: Interval
    versus: Versus | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the row in the form of `--json`."""
        row: dict[str, Any] = {"mean": self.mean, "interval": list(self.interval)}
        if self.versus is not None:
            values = dict(vars(self.versus))
            row |= {
                "difference": values.pop("difference"),
                "difference_interval": list(values.pop("interval")),
                **values,
            }
        return row


@dataclass(frozen=True)
class Part:
    """One run within a group of users or items.

    Attributes:
        mean: mean over the users of the group.
        difference: difference to the base; None for the base.
        interval: 95 % bootstrap interval of the difference; None for the base.
    """

    mean: float
    difference: float | None = None
    interval: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the cell in the form of `--json`."""
        if self.interval is None:
            return {"mean": self.mean}
        return {
            "mean": self.mean,
            "difference": self.difference,
            "difference_interval": list(self.interval),
        }


@dataclass(frozen=True)
class Slice:
    """A group of users or held-out items.

    Attributes:
        low: fewest training pairs in the group.
        high: most training pairs in the group.
        users: number of users that have a value.
        metrics: metric → run → its values.
    """

    low: int
    high: int
    users: int
    metrics: dict[str, dict[str, Part]]

    def to_dict(self) -> dict[str, Any]:
        """Returns the group in the form of `--json`."""
        metrics = {
            name: {run: part.to_dict() for run, part in parts.items()}
            for name, parts in self.metrics.items()
        }
        return {"from": self.low, "to": self.high, "users": self.users, "metrics": metrics}


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """The comparison of several runs with one of them, the base.

    Attributes:
        base: run that the others are compared with.
        runs: run → its model, the base first.
        data: data folder; None for data that were given in memory.
        split: held-out split that was measured.
        mask: pairs left out of the lists: 'all' or 'train'.
        left_out: splits whose pairs the lists leave out.
        users: number of users with a held-out item.
        metrics: metric → run → its row.
        by_user_activity: groups of users by the number of their training items.
        by_item_popularity: groups of held-out items by the number of their training users; 0: cold.
        beyond: 'gini@20' and so on → run → value; NaN where it has none.
    """

    base: str
    runs: dict[str, str]
    data: str | None
    split: str
    mask: str
    left_out: tuple[str, ...]
    users: int
    metrics: dict[str, dict[str, Standing]]
    by_user_activity: tuple[Slice, ...]
    by_item_popularity: tuple[Slice, ...]
    beyond: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in the form of `--json`, with None instead of NaN."""
        return {
            "base": self.base,
            "runs": dict(self.runs),
            "data": self.data,
            "split": self.split,
            "mask": self.mask,
            "users": self.users,
            "metrics": {
                name: {run: row.to_dict() for run, row in rows.items()}
                for name, rows in self.metrics.items()
            },
            "slices": {
                "user_training_pairs": [part.to_dict() for part in self.by_user_activity],
                "item_training_users": [part.to_dict() for part in self.by_item_popularity],
            },
            "beyond": {
                name: {run: None if np.isnan(value) else value for run, value in values.items()}
                for name, values in self.beyond.items()
            },
        }
