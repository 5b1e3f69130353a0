"""Full ranking and what it says. Sees two tables, user (U, D) and item (I, D), and knows no model. Where D is as large as the
catalogue, as for neighbourhood models, both tables are sparse: the score is the same inner product.

ranking       `top_k`: the lists
accuracy      `METRICS`: the metrics by name; a new one is a function and its line there
metrics       `Evaluator`: do the lists hold what was held out?
beyond        `beyond_accuracy`: what the lists are like: coverage, Gini, novelty, diversity. A new one: a function there
slices        for whom: users by activity, held-out items by popularity, warm, cold, complete and incomplete items
intervals     `bootstrap`: how sure a mean is; `resampled_means`, the resamples of every interval and test
significance  `paired`, `p_value`, `holm`: is the difference of two models more than chance?

Names are imported when first asked for: the command line reads the metrics' names without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualgnn_dgl.evaluation.accuracy import METRICS
    from dualgnn_dgl.evaluation.beyond import Beyond, beyond_accuracy
    from dualgnn_dgl.evaluation.intervals import bootstrap, percentiles, resampled_means
    from dualgnn_dgl.evaluation.metrics import Evaluation, Evaluator, hit_matrix, metrics_per_user
    from dualgnn_dgl.evaluation.ranking import entries, top_k
    from dualgnn_dgl.evaluation.significance import Difference, holm, p_value, paired

_HOMES = {
    "accuracy": ("METRICS",),
    "beyond": ("Beyond", "beyond_accuracy"),
    "intervals": ("bootstrap", "percentiles", "resampled_means"),
    "metrics": ("Evaluation", "Evaluator", "hit_matrix", "metrics_per_user"),
    "ranking": ("entries", "top_k"),
    "significance": ("Difference", "holm", "p_value", "paired"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "METRICS",
    "Beyond",
    "Difference",
    "Evaluation",
    "Evaluator",
    "beyond_accuracy",
    "bootstrap",
    "entries",
    "hit_matrix",
    "holm",
    "metrics_per_user",
    "p_value",
    "paired",
    "percentiles",
    "resampled_means",
    "top_k",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
