"""Missing modalities: simulates them (`drop`), imputes them (`impute`), measures `homophily`.

Missing modalities are a property of the data set, so that every model sees the same: `drop` marks
rows absent, `impute` marks them present and `imputed`. Nothing here depends on a model. A new
imputer is a function and its line in `imputers`. Names are imported on first use: the command line
reads the imputers' names without loading NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dualgnn_dgl.core.vocabulary import PATTERNS

if TYPE_CHECKING:
    from dualgnn_dgl.modality.filling import impute
    from dualgnn_dgl.modality.holes import drop, read_holes, write_holes
    from dualgnn_dgl.modality.imputers import IMPUTERS, Imputing
    from dualgnn_dgl.modality.neighbours import homophily, item_graph

_HOMES = {
    "filling": ("impute",),
    "holes": ("drop", "read_holes", "write_holes"),
    "imputers": ("IMPUTERS", "Imputing"),
    "neighbours": ("homophily", "item_graph"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "IMPUTERS",
    "PATTERNS",
    "Imputing",
    "drop",
    "homophily",
    "impute",
    "item_graph",
    "read_holes",
    "write_holes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
