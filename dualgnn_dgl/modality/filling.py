"""Imputes the absent rows of a data set's modalities with one of `imputers.IMPUTERS`."""

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
    """Returns the data set with every absent row imputed and marked `imputed`.

    The imputers use present rows and training pairs only. Present rows stay bit-identical. A data
    set without missing rows is returned unchanged.

    Args:
        dataset: The data set.
        method: A name of `IMPUTERS`.
        options: Options of the imputers.

    Raises:
        ConfigError: For an unknown method.
        DataError: If a modality is present for no item, so that there is nothing to impute from
            (`zero` needs nothing).
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
                f"modality {name} is missing for every item, so {method} has nothing to impute "
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
    """Imputes one modality, a block of columns at a time; the operator None gives zeros."""
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
