"""Brings features and titles into the order of the items."""

from __future__ import annotations

import numpy as np

from dualgnn_dgl.data import Modality
from dualgnn_dgl.data.projection import FeatureProjection
from dualgnn_dgl.data.raw import RawModality
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.preprocess.options import Options

TITLE_LENGTH = 300  # titles are for people to read; a stray essay must not widen the whole column


def align(name: str, modality: RawModality, item_ids: np.ndarray) -> Modality:
    """Brings features into the order of `item_ids`; an item without a row is missing.

    Raises:
        DataError: if no row belongs to any item.
    """
    ids, file = np.asarray(modality.ids, np.str_), modality.file or name
    if not ids.size:
        raise DataError(f"{file} holds no row: give one per item, or leave the file out")
    order = np.argsort(ids, kind="stable")
    spot = np.minimum(np.searchsorted(ids, item_ids, sorter=order), ids.size - 1)
    rows = order[spot]  # (I,) the only row that can be this item's
    found = ids[rows] == item_ids
    if not found.any():
        raise DataError(
            f"{file}: none of its {ids.size:,} rows belongs to one of the {len(item_ids):,} items "
            f"(its ids look like '{ids[0]}', "
            f"those of the log like '{item_ids[0]}'): key the features by the log's item ids"
        )
    present = found & np.asarray(modality.present, bool)[rows]
    values = np.asarray(modality.values, np.float32)[rows]  # (I, F)
    return Modality(values, present)


def reduce(
    modality: Modality, trained: np.ndarray, options: Options
) -> tuple[Modality, FeatureProjection | None]:
    """Reduces features to `feature_dim` columns where there are more, with the map.

    It is fitted on items with training pairs, `trained` (I,), alone: an item that is held out whole
    (`cold-items`, or a split by time) must be like a new video, whose features were not fitted on.
    """
    if (
        options.feature_dim is None
        or modality.width <= options.feature_dim
        or not modality.present[trained].any()
    ):
        return modality, None
    from dualgnn_dgl.readers.features import reduce_width

    values, reduction = reduce_width(
        modality.values, modality.present, options.feature_dim, options.seed, trained
    )
    return Modality(values, modality.present), reduction


def align_titles(titles: dict[str, str], item_ids: np.ndarray) -> np.ndarray | None:
    """Returns titles (I,), '' where unknown; None if no item has one."""
    found = [titles.get(item, "")[:TITLE_LENGTH] for item in item_ids.tolist()] if titles else []
    return np.array(found, np.str_) if any(found) else None
