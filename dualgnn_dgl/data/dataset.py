"""The types of a prepared data set.

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
from dualgnn_dgl.data.manifest import usable
from dualgnn_dgl.data.projection import FeatureProjection
from dualgnn_dgl.errors import DataError


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who watched what: pair e says that user `user[e]` watched item `item[e]`.

    Parameters
    ----------
    user, item : (E,) int64
    num_users, num_items : int

    Raises
    ------
    DataError
        if the lengths differ, an index is no whole number or out of range, or a pair stands twice.
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
        """One number a pair, user · I + item; (E,) int64."""
        return self.user * np.int64(self.num_items) + self.item

    def csr(self) -> sparse.csr_matrix:
        """The 0/1 matrix R of shape (U, I), float32, column indices sorted."""
        ones = np.ones(len(self), dtype=np.float32)
        matrix = sparse.csr_matrix(
            (ones, (self.user, self.item)), shape=(self.num_users, self.num_items)
        )
        matrix.sort_indices()
        return matrix


@dataclass(frozen=True, eq=False)
class Modality:
    """One kind of item feature and where it is missing.

    Parameters
    ----------
    values : (I, F) float32
        finite where present; rows of absent items are set to zero here, whatever they held.
    present : (I,) bool
    imputed : (I,) bool, optional
        rows that count as present but were filled in from others (`modality.impute`); none by
        default.
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
                f"a modality marks rows {imputed.shape} as imputed that are not present: a filled "
                f"row is present"
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
                f"absent or mend it"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "present", present)
        object.__setattr__(self, "imputed", imputed)

    def take(self, items: np.ndarray) -> Modality:
        """The same modality of the given items alone, in their order."""
        return Modality(self.values[items], self.present[items], self.imputed[items])

    @property
    def own(self) -> np.ndarray:
        """Rows (I,) that were read, not filled in."""
        return self.present & ~self.imputed

    @property
    def width(self) -> int:
        """F, the number of feature columns."""
        return int(self.values.shape[1])

    @property
    def coverage(self) -> float:
        """Share of items that have this modality themselves; filled rows do not count."""
        return float(self.own.mean()) if self.present.size else 0.0


@dataclass(frozen=True, eq=False)
class CoOccurrence:
    """For each user, the users who share most training items, strongest first, in CSR form.

    The neighbours of user u are `neighbour[indptr[u]:indptr[u+1]]`, ordered by weight (descending),
    then by internal user index (ascending). Never u itself. Source: DualGNN, section on the user
    co-occurrence graph.

    Parameters
    ----------
    indptr : (U+1,) int64
    neighbour : (N,) int64
    weight : (N,) float32
        the number of shared items, or their cosine or Jaccard similarity, as `measure` says.
    measure : 'count', 'cosine' or 'jaccard'
    """

    indptr: np.ndarray
    neighbour: np.ndarray
    weight: np.ndarray
    measure: str = "count"

    def __post_init__(self) -> None:
        for name, kind in (("indptr", np.int64), ("neighbour", np.int64), ("weight", np.float32)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind).reshape(-1))
        sound = (
            self.indptr.size >= 1
            and self.indptr[0] == 0
            and bool((np.diff(self.indptr) >= 0).all())
        )
        if (
            not sound
            or self.indptr[-1] != self.neighbour.size
            or self.neighbour.size != self.weight.size
        ):
            raise DataError(
                "the co-occurrence lists do not fit together: make them anew with preprocess"
            )
        users = self.indptr.size - 1
        if (
            self.neighbour.size
            and not 0 <= int(self.neighbour.min()) <= int(self.neighbour.max()) < users
        ):
            raise DataError(
                f"the co-occurrence lists name a user outside 0…{users - 1}: make them anew with "
                f"preprocess"
            )

    @property
    def num_users(self) -> int:
        """U."""
        return int(self.indptr.size - 1)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared data set: three disjoint splits, modalities by name, and the user's own ids.

    Internal user u is `user_ids[u]`, internal item i is `item_ids[i]`. `titles` is (I,) text or
    None,
    `co_occurrence` comes from training pairs only, or is None where nobody computed it yet.
    `reductions` are the maps by which modalities were reduced, for features that come later: no
    part of what a model sees, and none of `hash`. That is of all other content, made here;
    `dataclasses.replace` makes it anew.
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
        """U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)


def _arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    """Everything that makes the data set what it is, by name: what the hash is taken over."""
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
