"""Prepares data sets: filter, core, split, align, count, impute.

`prepare` runs the steps, `report` describes the outcome.
"""

from dualgnn_dgl.preprocess.align import align
from dualgnn_dgl.preprocess.draft import Say
from dualgnn_dgl.preprocess.options import Options, resolve
from dualgnn_dgl.preprocess.pipeline import Prepared, prepare

__all__ = ["Options", "Prepared", "Say", "align", "prepare", "resolve"]
