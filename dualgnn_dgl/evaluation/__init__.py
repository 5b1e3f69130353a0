"""Full ranking and what it says. Sees two tables, user (U, D) and item (I, D), and knows no model. Where D is as large as the
catalogue, as for neighbourhood models, both tables are sparse: the score is the same inner product.

ranking       `top_k`: the lists
accuracy      `METRICS`: the metrics by name; a new one is a function and its line there
metrics       `Evaluator`: do the lists hold what was held out?
beyond        `beyond_accuracy`: what the lists are like: coverage, Gini, novelty, diversity. A new one: a function there
slices        users by activity, held-out items by popularity, warm, cold, complete and incomplete items
intervals     `bootstrap`: how sure a mean is; `intervals.resampled_means`, the resamples of every interval and test
significance  `paired`, `p_value`, `holm`: is the difference of two models more than chance?

Names are imported when first asked for: the command line reads the metrics' names without loading torch.
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
