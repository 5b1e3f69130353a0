"""Measures how models rank when modalities go missing.

One experiment removes the same features for every model and can be resumed cell by cell. `Plan`
describes it, `run` runs the cells that are missing, `summarise` turns cells into curves, intervals
and paired comparisons, and `draw` into a picture. The folder:

`holes/`       the features that each draw left, Parquet
`cells/`       one JSON a cell (model, strategy, pattern, rate, stage, seed): metrics, groups of
               items, settings; named by its key
`per_user/`    recall and NDCG of every user of a cell, Parquet, for intervals and comparisons
`weights/`     parameters of models trained on all features, safetensors, for the stage test-only
summary.json, table.md, curves.png
"""

from dualgnn_dgl.core.vocabulary import STAGES
from dualgnn_dgl.experiments.robustness.cells import run
from dualgnn_dgl.experiments.robustness.plan import STRATEGIES, Cell, Plan
from dualgnn_dgl.experiments.robustness.plot import draw
from dualgnn_dgl.experiments.robustness.report import markdown
from dualgnn_dgl.experiments.robustness.summary import summarise

__all__ = ["STAGES", "STRATEGIES", "Cell", "Plan", "draw", "markdown", "run", "summarise"]
