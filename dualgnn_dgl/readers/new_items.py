"""Reads features of videos that are in no log yet.

The files are those of `preprocess --features`, without a log to align them with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dualgnn_dgl.data import Modality
from dualgnn_dgl.data.projection import FeatureProjection, narrow
from dualgnn_dgl.errors import DataError, clean, unknown
from dualgnn_dgl.readers.features import modality_name, read_modality

Features = tuple[np.ndarray, dict[str, Modality]]


def read_new_items(
    paths: Sequence[str | Path],
    catalogue: Mapping[str, Modality],
    known: np.ndarray,
    projections: Mapping[str, FeatureProjection] | None = None,
) -> Features:
    """Returns ids (N,) of new videos, in order of first appearance, and their modalities.

    A video that a file lacks is missing there.

    A table is keyed by item id. Row r of an array belongs to line r of `<array>.ids.txt` or
    `<array>_ids.txt` beside it; without such a list, the video is called by its row number.

    Args:
        paths: feature files, each named after one of the catalogue's modalities.
        catalogue: the modalities of the trained items.
        known: (I,) their ids.
        projections: the data's maps, by which features come to be as wide as the catalogue's if
            they are not yet.

    Raises:
        DataError: for a file that is not named after a modality, has neither the catalogue's
            columns nor its map's, or describes a known video.
    """
    found = {}
    for path in map(Path, paths):
        name = modality_name(path)
        if name not in catalogue:
            raise DataError(
                f"{path}: {unknown('modality', name, catalogue)}; name the file after its modality"
            )
        if name in found:
            raise DataError(f"{path}: {name} was given before: give one file for each modality")
        read = read_modality(path, None, "")
        values = narrow(
            str(path),
            name,
            read.values,
            read.present,
            catalogue[name].width,
            (projections or {}).get(name),
        )
        found[name] = replace(read, values=values)
    order = list(
        dict.fromkeys(name for modality in found.values() for name in modality.ids.tolist())
    )
    ids = np.array(order, dtype=np.str_)
    old = np.isin(ids, known)
    if old.any():
        first = clean(ids[old][0])
        raise DataError(
            f"the micro-video '{first}' is in the catalogue already ({int(old.sum())} of its "
            f"kind): leave it out"
        )
    place = {name: row for row, name in enumerate(order)}
    features = {}
    for name, modality in found.items():
        rows = np.array([place[item] for item in modality.ids.tolist()], dtype=np.int64)
        values = np.zeros((len(ids), modality.values.shape[1]), np.float32)
        present = np.zeros(len(ids), dtype=bool)
        values[rows], present[rows] = modality.values, modality.present
        features[name] = Modality(values, present)
    return ids, features
