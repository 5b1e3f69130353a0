"""DualGNN for micro-video recommendation on DGL.

Missing modalities, per-user attention, user co-occurrence.

Shape letters used everywhere: **U** users, **I** items (micro-videos), **E** edges, **F** raw
feature width, **D** embedding width, **M** modalities, **B** batch, **K** list length.

The verbs of the command line are functions here:

    import dualgnn_dgl

    prepared = dualgnn_dgl.prepare("ratings.csv", "data", features=["visual.npy"])
    trained = dualgnn_dgl.train("data", "dualgnn", run="runs/dualgnn")
    result = dualgnn_dgl.evaluate("runs/dualgnn", topk=10)
    lists = dualgnn_dgl.recommend("runs/dualgnn", users=["u17"], k=10)

They are imported when they are first used: `import dualgnn_dgl` alone imports neither torch nor
numpy.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

# Public name → the module that defines it.
PUBLIC = {
    "compare": "dualgnn_dgl.verbs.compare",
    "evaluate": "dualgnn_dgl.verbs.evaluate",
    "prepare": "dualgnn_dgl.verbs.prepare",
    "recommend": "dualgnn_dgl.verbs.recommend",
    "robustness": "dualgnn_dgl.verbs.robustness",
    "train": "dualgnn_dgl.verbs.train",
    "tune": "dualgnn_dgl.verbs.tune",
    "update": "dualgnn_dgl.verbs.update",
    "write_recommendations": "dualgnn_dgl.verbs.recommend",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Lists the public names beside those that are there already."""
    return sorted({*globals(), *PUBLIC})
