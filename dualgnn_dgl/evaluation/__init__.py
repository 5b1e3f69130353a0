"""Ranks the whole catalogue and measures the lists.

This package reads two tables, user (U, D) and item (I, D), and knows no model. Where D is as large
as the catalogue, as for neighbourhood models, both tables are sparse: the score is the same inner
product.

ranking       `top_k`: the lists; `ranking.Ranker`: the same for many requests to one item table.
accuracy      `METRICS`: the metrics by name. To add one, write a function and add its line there.
metrics       `Evaluator`: compares the lists with the held-out items.
beyond        `beyond_accuracy`: coverage, Gini, novelty and diversity of the lists. To add a
              measure, write a function there.
slices        Users by activity, held-out items by popularity, warm, cold, complete and incomplete
              items.
intervals     `bootstrap`: intervals of means; `resampled_means`: the resamples of every interval
              and test.
significance  `paired`, `p_value`, `holm`: tests of the difference between two models.

Names are imported on first use: the command line reads the metrics' names without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualgnn_dgl.evaluation.accuracy import METRICS
    from dualgnn_dgl.evaluation.beyond import beyond_accuracy
    from dualgnn_dgl.evaluation.intervals import bootstrap
    from dualgnn_dgl.evaluation.metrics import Evaluation, Evaluator, metrics_per_user
    from dualgnn_dgl.evaluation.ranking import top_k
    from dualgnn_dgl.evaluation.significance import holm, p_value, paired

_HOMES = {
    "accuracy": ("METRICS",),
    "beyond": ("beyond_accuracy",),
    "intervals": ("bootstrap",),
    "metrics": ("Evaluation", "Evaluator", "metrics_per_user"),
    "ranking": ("top_k",),
    "significance": ("holm", "p_value", "paired"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "METRICS",
    "Evaluation",
    "Evaluator",
    "beyond_accuracy",
    "bootstrap",
    "holm",
    "metrics_per_user",
    "p_value",
    "paired",
    "top_k",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
