"""Missing modalities: simulate holes (`drop`), fill them (`impute`), and say whether filling can help (`homophily`).

All of it is a property of the data set, so that every model sees the same: `drop` marks rows absent, `impute` marks them
present and `imputed`. Nothing here knows a model.
"""

from dualgnn_dgl.modality.holes import PATTERNS, drop, read_holes, write_holes
from dualgnn_dgl.modality.impute import IMPUTERS, Imputing, impute
from dualgnn_dgl.modality.neighbours import homophily, item_graph

__all__ = ["IMPUTERS", "PATTERNS", "Imputing", "drop", "homophily", "impute", "item_graph", "read_holes", "write_holes"]
