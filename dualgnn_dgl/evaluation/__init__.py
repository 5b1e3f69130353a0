"""Full ranking and its metrics. Sees two tables, user (U, D) and item (I, D), and knows no model. Where D is as large as the
catalogue, as for neighbourhood models, both tables are sparse: the score is the same inner product.

`top_k` ranks, `Evaluator` measures, `bootstrap` says how sure the means are.
"""

from dualgnn_dgl.evaluation.intervals import bootstrap
from dualgnn_dgl.evaluation.metrics import METRICS, Evaluation, Evaluator, hit_matrix, metrics_per_user
from dualgnn_dgl.evaluation.ranking import entries, top_k

__all__ = ["METRICS", "Evaluation", "Evaluator", "bootstrap", "entries", "hit_matrix", "metrics_per_user", "top_k"]
