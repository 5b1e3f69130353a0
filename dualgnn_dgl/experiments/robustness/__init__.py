"""How well models rank when modalities go missing.

One experiment, the same holes for every model, resumable cell by cell.

`Plan` says what to run, `run` runs what is not there yet, `summarise` turns the cells into curves,
intervals and paired comparisons, `draw` into a picture. The folder:

holes/        which item had which modality in each draw, Parquet
cells/        one JSON a cell (model, strategy, pattern, rate, stage, seed): metrics, groups of
              items, settings; named by its key
per_user/     recall and NDCG of every user of a cell, Parquet: what intervals and comparisons are
              made of
weights/      parameters of models trained on everything, safetensors, for the stage test-only
summary.json, table.md, curves.png
"""

from dualgnn_dgl.core.vocabulary import STAGES
from dualgnn_dgl.experiments.robustness.cells import run
from dualgnn_dgl.experiments.robustness.plan import STRATEGIES, Cell, Plan
from dualgnn_dgl.experiments.robustness.plot import draw
from dualgnn_dgl.experiments.robustness.summary import markdown, summarise

__all__ = ["STAGES", "STRATEGIES", "Cell", "Plan", "draw", "markdown", "run", "summarise"]
