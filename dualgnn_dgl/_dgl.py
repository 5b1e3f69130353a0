"""The one place that imports DGL, and makes it import on torch versions it was never built for.

DGL 1.1.3 and 2.1.0, the last on PyPI for Linux, are CPU builds for old torch. Version 2.1.0 loads
its GraphBolt library at import and stops with "Cannot find DGL C++ graphbolt library" where no
build for the running torch is beside it. Nothing here uses GraphBolt, so an empty stand-in module
takes its place *when and only when* that library is absent. Heterographs, `dgl.ops` and autograd
then work. Everything else imports dgl from here.

Where DGL is not installed, as on Python 3.13, `_standin` carries everything that needs no engine.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dualgnn_dgl.errors import DualGNNError


def _needs_stand_in(folder: Path) -> bool:
    """Whether this DGL has a GraphBolt part but no library of it for the running torch."""
    graphbolt = folder / "graphbolt"
    version = torch.__version__.split("+")[0]
    return graphbolt.is_dir() and not list(graphbolt.glob(f"*graphbolt_pytorch_{version}.*"))


def _import_dgl() -> types.ModuleType:
    if "dgl" in sys.modules:
        return sys.modules["dgl"]
    spec = importlib.util.find_spec("dgl")
    if spec is None or not spec.submodule_search_locations:
        from dualgnn_dgl import _standin  # no wheel for this Python or system

        return _standin
    # else DGL prints a notice and writes a file into the home folder
    os.environ.setdefault("DGLBACKEND", "pytorch")
    if _needs_stand_in(Path(spec.submodule_search_locations[0])):
        sys.modules["dgl.graphbolt"] = types.ModuleType(
            "dgl.graphbolt", "stand-in: GraphBolt is not built for this torch"
        )
    try:
        return importlib.import_module("dgl")
    except Exception as error:  # DGL fails in many ways at import; each is an installation problem
        sys.modules.pop("dgl.graphbolt", None)
        raise DualGNNError(
            f"DGL does not import here ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:160]}): "
            "install 'dgl==2.1.0' or 'dgl==1.1.3' with packaging and pandas"
        ) from error


if TYPE_CHECKING:
    import dgl as dgl
else:
    dgl = _import_dgl()

AVAILABLE = dgl.__version__ != "none"  # False where the stand-in serves
