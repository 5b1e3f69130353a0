"""Trains any `Recommender`: the way from a data set to a trained model, and the loop in it.

`fit` has no parameter through which test data could enter.
"""

from dualgnn_dgl.models.train_config import TrainConfig
from dualgnn_dgl.training.chain import Inputs, Trained, features, train_model
from dualgnn_dgl.training.loop import as_it_is, fit, tables
from dualgnn_dgl.training.state import Fit

__all__ = [
    "Fit",
    "Inputs",
    "TrainConfig",
    "Trained",
    "as_it_is",
    "features",
    "fit",
    "tables",
    "train_model",
]
