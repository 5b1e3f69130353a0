"""Full ranking and what it says. Sees two tables, user (U, D) and item (I, D), and knows no model. Where D is as large as the
catalogue, as for neighbourhood models, both tables are sparse: the score is the same inner product.

ranking       `top_k`: the lists
metrics       `Evaluator`: do the lists hold what was held out? A new metric of accuracy: `metrics_per_user`
beyond        `beyond_accuracy`: what the lists are like: coverage, Gini, novelty, diversity. A new one: a function there
slices        for whom: users by activity, held-out items by popularity
intervals     `bootstrap`: how sure a mean is; `resampled_means`, the resamples of every interval and test
significance  `paired`, `p_value`, `holm`: is the difference of two models more than chance?
"""

from dualgnn_dgl.evaluation.beyond import Beyond, beyond_accuracy
from dualgnn_dgl.evaluation.intervals import bootstrap, percentiles, resampled_means
from dualgnn_dgl.evaluation.metrics import METRICS, Evaluation, Evaluator, hit_matrix, metrics_per_user
from dualgnn_dgl.evaluation.ranking import entries, top_k
from dualgnn_dgl.evaluation.significance import Difference, holm, p_value, paired

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
