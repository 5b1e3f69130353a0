"""Projects raw features to fewer columns, now and for later videos.

`preprocess --feature-dim N` fits the map (`readers.features.reduce_width`), and the prepared folder
keeps it as two `.npy` arrays. Features of new videos may have the raw width F or the reduced one N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dualgnn_dgl.core import schema
from dualgnn_dgl.core.arrays import content_hash, load_array
from dualgnn_dgl.errors import DataError

BLOCK = 50_000  # rows mapped at once
PARTS = ("mean", "components")
# what a manifest says of a modality's map
SCHEMA = schema.record({"from": schema.whole(2), "hash": schema.HEX64})


@dataclass(frozen=True, eq=False)
class FeatureProjection:
    """Represents the map x ↦ components · (x − mean).

    Attributes:
        mean: (F,) float32
        components: (N, F) float32, fewer rows than columns

    Raises:
        DataError: if the shapes do not fit, or a number is not finite.
    """

    mean: np.ndarray
    components: np.ndarray

    def __post_init__(self) -> None:
        for part in PARTS:
            given = np.asarray(getattr(self, part))
            if given.dtype.kind != "f":
                raise DataError(
                    f"a reduction holds {part} of type {str(given.dtype):.60}: give real numbers"
                )
            object.__setattr__(self, part, given.astype(np.float32, copy=False))
        mean, components = self.mean, self.components
        if (
            mean.ndim != 1
            or components.ndim != 2
            or not 0 < len(components) < components.shape[1] == len(mean)
        ):
            found = f"{mean.shape} and {components.shape}"
            raise DataError(
                f"a reduction needs mean (F,) and components (N, F) with N < F, got {found}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(components).all()):
            raise DataError("a reduction holds NaN or infinity: fit it to features within float32")

    @property
    def raw_width(self) -> int:
        """Returns F, the width of its input."""
        return len(self.mean)

    @property
    def width(self) -> int:
        """Returns N, the width of its output."""
        return len(self.components)

    @cached_property
    def hash(self) -> str:
        """Returns the SHA-256 of the two arrays."""
        return content_hash({part: getattr(self, part) for part in PARTS})

    def apply(self, values: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Projects features (n, F) to (n, N) float32.

        Rows that are not present (n,) become zero.
        """
        reduced = np.zeros((len(values), self.width), dtype=np.float32)
        rows, shift = np.flatnonzero(present), self.mean @ self.components.T  # (N,)
        # `data.Modality` refuses numbers beyond float32.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, rows.size, BLOCK):
                part = rows[start : start + BLOCK]
                reduced[part] = np.asarray(values[part], np.float32) @ self.components.T - shift
        return reduced


def narrow(
    what: str,
    name: str,
    values: np.ndarray,
    present: np.ndarray,
    width: int,
    reduction: FeatureProjection | None,
) -> np.ndarray:
    """Returns features (n, N) as in the data, from (n, N) or from (n, F) by the map.

    Args:
        what: the features in messages.
        name: of the modality.
        values: (n, N or F)
        present: (n,) bool
        width: N, the data's.
        reduction: the data's map of this modality, if it has one.

    Raises:
        DataError: for any other width.
    """
    columns = values.shape[1]
    if columns == width:
        return values
    if reduction is not None and columns == reduction.raw_width:
        return reduction.apply(values, present)
    if reduction is not None:
        raise DataError(
            f"{what} has {columns} columns, {name} of the catalogue has {width}, reduced from "
            f"{reduction.raw_width}: "
            f"give {reduction.raw_width} columns, or {width} reduced ones, of the same encoder"
        )
    raise DataError(
        f"{what} has {columns} columns, {name} of the catalogue has {width}: make both with the "
        f"same encoder (if --feature-dim "
        "reduced the catalogue's, it was by a version that did not keep the map: run preprocess "
        "again)"
    )


def write(projections: Mapping[str, FeatureProjection], folder: Path) -> dict[str, dict[str, Any]]:
    """Writes the maps into a prepared folder that is being made.

    What its manifest says of them, by modality.
    """
    for name, reduction in projections.items():
        for part in PARTS:
            np.save(
                folder / f"modality.{name}.{part}.npy", getattr(reduction, part), allow_pickle=False
            )
    return {
        name: {"reduction": {"from": kept.raw_width, "hash": kept.hash}}
        for name, kept in projections.items()
    }


def read(folder: Path, names: Mapping[str, Any]) -> dict[str, FeatureProjection]:
    """Reads the maps that a manifest names; data of early versions has none.

    Args:
        names: modality → what the manifest says of it.

    Raises:
        DataError: if a file is missing or damaged, or not the one that was written.
    """
    found = {}
    for name, about in names.items():
        kept = about.get("reduction")
        if kept is None:
            continue
        what = f"the map that reduces {name} in {folder}"
        try:
            found[name] = FeatureProjection(
                *(load_array(folder / f"modality.{name}.{part}.npy") for part in PARTS)
            )
        except DataError as error:
            raise DataError(f"{what} cannot be read ({error}): run preprocess again") from None
        if (kept["from"], kept["hash"]) != (found[name].raw_width, found[name].hash):
            raise DataError(
                f"{what} is not the one that was written (from or hash): run preprocess again"
            )
    return found
