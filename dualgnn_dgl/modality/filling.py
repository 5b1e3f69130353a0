"""Fill the absent rows of a data set's modalities with one of `imputers.IMPUTERS`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from dualgnn_dgl.data import Dataset, Modality
from dualgnn_dgl.errors import ConfigError, DataError, unknown
from dualgnn_dgl.modality.imputers import IMPUTERS, TOLERANCE, Imputing
from dualgnn_dgl.modality.neighbours import COLUMNS, item_graph

if TYPE_CHECKING:
    from dualgnn_dgl.modality.imputers import Operator


def impute(dataset: Dataset, method: str, options: Imputing | None = None) -> Dataset:
    """The data set with every absent row filled and marked `imputed`.

    Rows that are there stay as they are, bit for bit.

    Fitted on present rows and training pairs only. A data set without holes comes back unchanged.

    Raises
    ------
    ConfigError
        for an unknown method.
    DataError
        if a modality is present for no item: there is nothing to fill from (`zero` does not mind).
    """
    if method not in IMPUTERS:
        raise ConfigError(unknown("imputer", method, IMPUTERS))
    options = options or Imputing()
    holed = {
        name: modality
        for name, modality in dataset.modalities.items()
        if not modality.present.all()
    }
    if not holed:
        return dataset
    for name, modality in holed.items():
        if method != "zero" and not modality.present.any():
            raise DataError(
                f"modality {name} is missing for every item, so {method} has nothing to fill "
                f"from: leave it out"
            )
    operator = IMPUTERS[method]
    graph = (
        item_graph(dataset.train, options.k) if operator is not None and method != "mean" else None
    )
    filled = {name: _fill(modality, operator, graph, options) for name, modality in holed.items()}
    return replace(dataset, modalities={**dataset.modalities, **filled})


def _fill(
    modality: Modality,
    operator: Operator | None,
    graph: sparse.csr_matrix | None,
    options: Imputing,
) -> Modality:
    """One modality, a block of columns at a time; None stands for zeros."""
    present = modality.present
    values = modality.values.copy()  # (I, F)
    if operator is not None:
        absent = np.flatnonzero(~present)
        known = present.astype(np.float32)[:, None]  # p, (I, 1)
        mass = operator(known, present, graph, options)[absent]  # (L p)_i
        reached = mass[:, 0] > 10 * TOLERANCE
        for start in range(0, modality.width, COLUMNS):
            block = slice(start, start + COLUMNS)
            columns = np.ascontiguousarray(modality.values[:, block])  # X, zero where absent
            values[absent[reached], block] = (
                operator(columns, present, graph, options)[absent[reached]] / mass[reached]
            )
            values[absent[~reached], block] = columns[present].mean(axis=0, dtype=np.float64)
    return Modality(values, np.ones_like(present), modality.imputed | ~present)
