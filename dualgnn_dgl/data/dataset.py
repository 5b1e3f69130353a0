"""Defines the types of a prepared data set.

Interactions, modalities with their mask, co-occurrence, and all of them together.

Shape letters: U users, I items, E edges, F raw feature width (see `dualgnn_dgl.__init__` for all of
them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from dualgnn_dgl.core.arrays import content_hash
from dualgnn_dgl.core.vocabulary import SPLITS
from dualgnn_dgl.data.co_occurrence import CoOccurrence
from dualgnn_dgl.data.manifest import usable
from dualgnn_dgl.data.projection import FeatureProjection
from dualgnn_dgl.errors import DataError


@dataclass(frozen=True, eq=False)
class Interactions:
    """Represents views: in pair e, user `user[e]` watched item `item[e]`.

    Attributes:
        user, item: (E,) int64
        num_users, num_items: int

    Raises:
        DataError: if the lengths differ, an index is no whole number or out of range, or a pair
            occurs twice.
    """

    user: np.ndarray
    item: np.ndarray
    num_users: int
    num_items: int

    def __post_init__(self) -> None:
        for name, count in (("user", self.num_users), ("item", self.num_items)):
            given = np.asarray(getattr(self, name))
            if given.size and (
                given.dtype.kind not in "iuf" or not np.array_equal(given, np.floor(given))
            ):
                raise DataError(
                    f"interactions hold {name} indices of type {given.dtype}: give whole numbers"
                )
            values = given.astype(np.int64, copy=False).reshape(-1)
            object.__setattr__(self, name, values)
            if values.size and not 0 <= int(values.min()) <= int(values.max()) < count:
                raise DataError(
                    f"interactions hold the {name} index {values.min()}…{values.max()}, outside "
                    f"0…{count - 1}"
                )
        if self.user.shape != self.item.shape:
            raise DataError(
                f"interactions hold {self.user.size} users but {self.item.size} items: give one "
                f"of each per pair"
            )
        keys = np.sort(self.keys())
        if keys.size and bool((keys[1:] == keys[:-1]).any()):
            raise DataError(
                f"interactions hold {int((keys[1:] == keys[:-1]).sum())} pairs twice: remove "
                f"duplicates first"
            )

    def __len__(self) -> int:
        return int(self.user.size)

    def keys(self) -> np.ndarray:
        """Returns one number a pair, user · I + item; (E,) int64."""
        return self.user * np.int64(self.num_items) + self.item

    def csr(self) -> sparse.csr_matrix:
        """Returns the 0/1 matrix R of shape (U, I), float32, column indices sorted."""
        ones = np.ones(len(self), dtype=np.float32)
        matrix = sparse.csr_matrix(
            (ones, (self.user, self.item)), shape=(self.num_users, self.num_items)
        )
        matrix.sort_indices()
        return matrix


@dataclass(frozen=True, eq=False)
class Modality:
    """Represents one kind of item feature and where it is missing.

    Attributes:
        values: (I, F) float32; finite where present; rows of absent items are set to zero here.
        present: (I,) bool
        imputed: (I,) bool, optional; rows that count as present but were imputed from others
            (`modality.impute`); none by default.
    """

    values: np.ndarray
    present: np.ndarray
    imputed: np.ndarray = None  # type: ignore[assignment]  # made in __post_init__

    def __post_init__(self) -> None:
        for part, kind in (
            ("values", np.asarray(self.values).dtype),
            ("present", np.asarray(self.present).dtype),
        ):
            if kind.kind not in "fiub":
                raise DataError(
                    f"a modality holds {part} of type {str(kind):.60}: give real numbers, and "
                    f"true or false"
                )
        values = np.asarray(self.values, dtype=np.float32)
        present = np.asarray(self.present, dtype=bool)
        imputed = (
            np.zeros_like(present) if self.imputed is None else np.asarray(self.imputed, dtype=bool)
        )
        if imputed.shape != present.shape or bool((imputed & ~present).any()):
            raise DataError(
                f"a modality marks rows {imputed.shape} as imputed that are not present: an "
                f"imputed row is present"
            )
        if values.ndim != 2 or present.shape != values.shape[:1]:
            raise DataError(
                f"a modality needs values (I, F) and present (I,), got {values.shape} and "
                f"{present.shape}"
            )
        if not present.all():
            values = np.where(present[:, None], values, np.float32(0))
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise DataError(
                f"a modality holds NaN or infinity in row {row}, which is marked present: mark it "
                f"absent or fix it"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "present", present)
        object.__setattr__(self, "imputed", imputed)

    def take(self, items: np.ndarray) -> Modality:
        """Returns the same modality of the given items alone, in their order."""
        return Modality(self.values[items], self.present[items], self.imputed[items])

    @property
    def own(self) -> np.ndarray:
        """Returns the rows (I,) that were read, not imputed."""
        return self.present & ~self.imputed

    @property
    def width(self) -> int:
        """Returns F, the number of feature columns."""
        return int(self.values.shape[1])

    @property
    def coverage(self) -> float:
        """Returns the share of items that have this modality themselves, not imputed."""
        return float(self.own.mean()) if self.present.size else 0.0


@dataclass(frozen=True, eq=False)
class Dataset:
    """Represents a prepared data set: three disjoint splits, modalities by name, and ids.

    Internal user u is `user_ids[u]`, internal item i is `item_ids[i]`. `titles` is (I,) text or
    None. `co_occurrence` comes from training pairs only, or is None if it was not computed.
    `projections` are the maps by which modalities were reduced, for features that come later:
    models do not see them, and `hash` leaves them out. `hash` covers all other content; it is
    computed here, also after `dataclasses.replace`.
    """

    train: Interactions
    valid: Interactions
    test: Interactions
    modalities: Mapping[str, Modality]
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None = None
    co_occurrence: CoOccurrence | None = None
    projections: Mapping[str, FeatureProjection] = field(default_factory=dict)
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        users, items = len(self.user_ids), len(self.item_ids)
        for name, count in (("user_ids", users), ("item_ids", items)):
            ids = np.asarray(getattr(self, name), dtype=np.str_)
            if len(np.unique(ids)) != count:
                raise DataError(
                    f"{name} hold {count - len(np.unique(ids))} ids twice: give every id once"
                )
            object.__setattr__(self, name, ids)
        for split in SPLITS:
            part = getattr(self, split)
            if (part.num_users, part.num_items) != (users, items):
                raise DataError(
                    f"split {split} counts {part.num_users} users and {part.num_items} items, the "
                    f"ids {users} and {items}"
                )
        joined = np.sort(np.concatenate([getattr(self, split).keys() for split in SPLITS]))
        overlap = int((joined[1:] == joined[:-1]).sum())
        if overlap:
            raise DataError(
                f"the splits share {overlap} pairs: a pair belongs to train, valid or test, never "
                f"to two"
            )
        for name, modality in self.modalities.items():
            if not usable(name):
                raise DataError(
                    f"a modality is named {name!r:.120}, which no file can be named by: use "
                    f"letters and digits"
                )
            if len(modality.present) != items:
                raise DataError(
                    f"modality {name} has {len(modality.present)} rows for {items} items: give "
                    f"one row per item"
                )
            map_ = self.projections.get(name)
            if map_ is not None and map_.width != modality.width:
                raise DataError(
                    f"modality {name} has {modality.width} columns, its reduction gives "
                    f"{map_.width}: leave one out"
                )
        if self.titles is not None and len(self.titles) != items:
            raise DataError(
                f"there are {len(self.titles)} titles for {items} items: give one per item, '' "
                f"where unknown"
            )
        if self.co_occurrence is not None and self.co_occurrence.num_users != users:
            raise DataError(
                f"co-occurrence lists {self.co_occurrence.num_users} users, the data set {users}"
            )
        object.__setattr__(
            self,
            "projections",
            {name: kept for name, kept in self.projections.items() if name in self.modalities},
        )
        object.__setattr__(self, "hash", content_hash(_arrays(self)))

    @property
    def num_users(self) -> int:
        """Returns U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Returns I."""
        return len(self.item_ids)


def _arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns the content that the hash covers, by name."""
    arrays: dict[str, np.ndarray] = {"user_ids": dataset.user_ids, "item_ids": dataset.item_ids}
    # their order is that of the attention's columns
    arrays["modalities"] = np.array(list(dataset.modalities), dtype=np.str_)
    for split in SPLITS:
        part = getattr(dataset, split)
        arrays |= {f"{split}.user": part.user, f"{split}.item": part.item}
    for name, modality in dataset.modalities.items():
        arrays |= {
            f"modality.{name}.values": modality.values,
            f"modality.{name}.present": modality.present,
        }
        if modality.imputed.any():
            arrays[f"modality.{name}.imputed"] = modality.imputed
    if dataset.titles is not None:
        arrays["titles"] = np.asarray(dataset.titles, dtype=np.str_)
    if dataset.co_occurrence is not None:
        lists = dataset.co_occurrence
        arrays |= {
            "co.indptr": lists.indptr,
            "co.neighbour": lists.neighbour,
            "co.weight": lists.weight,
        }
        arrays["co.measure"] = np.array([lists.measure], dtype=np.str_)
    return arrays
