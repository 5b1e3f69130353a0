"""Defines the types of a prepared data set, and `load` and `save` for its folder."""

from dualgnn_dgl.core.vocabulary import SPLITS
from dualgnn_dgl.data.co_occurrence import CoOccurrence
from dualgnn_dgl.data.dataset import Dataset, Interactions, Modality
from dualgnn_dgl.data.folder import load, save
from dualgnn_dgl.data.manifest import MANIFEST

__all__ = [
    "MANIFEST",
    "SPLITS",
    "CoOccurrence",
    "Dataset",
    "Interactions",
    "Modality",
    "load",
    "save",
]
