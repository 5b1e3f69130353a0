"""Preprocessing: filter, core, split, align, count, impute; `prepare` runs the steps, `report`
describes the outcome.
"""

from dualgnn_dgl.preprocess.options import Options, resolve
from dualgnn_dgl.preprocess.pipeline import Prepared, Say, align, prepare

__all__ = ["Options", "Prepared", "Say", "align", "prepare", "resolve"]
