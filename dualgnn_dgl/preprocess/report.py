"""Builds the report on a data set: one JSON object, all numbers counted from the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dualgnn_dgl.data import SPLITS, CoOccurrence, Dataset, Interactions, Modality
from dualgnn_dgl.data.raw import RawInput
from dualgnn_dgl.modality import homophily, item_graph
from dualgnn_dgl.preprocess.filters import Pairs
from dualgnn_dgl.preprocess.split import Ties
from dualgnn_dgl.readers.published import compare

QUARTERS = ("most popular quarter", "second quarter", "third quarter", "least popular quarter")
NEVER = "never in train"
MOST_PAIRS = 2_000_000  # training pairs that the item graph of the homophily is made of


@dataclass(frozen=True)
class Counts:
    """Counts a log as read: distinct pairs, before any filter.

    `splits` is empty unless the log carries its own split.
    """

    users: int
    items: int
    interactions: int
    splits: Mapping[str, int]

    @classmethod
    def of(cls, pairs: Pairs) -> Counts:
        """Counts users, items and pairs."""
        sizes = (
            np.bincount(pairs.split, minlength=len(SPLITS)).tolist()
            if pairs.split is not None
            else []
        )
        return cls(
            int(np.count_nonzero(np.bincount(pairs.user))),
            int(np.count_nonzero(np.bincount(pairs.item))),
            len(pairs),
            dict(zip(SPLITS, sizes, strict=False)),
        )


@dataclass(frozen=True)
class Figures:
    """Holds numbers of the pipeline that the finished data set no longer shows.

    Attributes:
        rows_read: data rows in the files.
        dropped: reason -> rows.
        found: the log as read.
        raw_widths: modality -> columns in the file.
        split_rule: in words.
        options: resolved options by name.
        ties: equal times at a cut.
    """

    rows_read: int
    dropped: Mapping[str, int]
    found: Counts
    raw_widths: Mapping[str, int]
    split_rule: str
    options: Mapping[str, Any]
    ties: Ties = field(default_factory=Ties)


def describe(
    raw: RawInput, dataset: Dataset, figures: Figures, *, resemblance: bool = True
) -> dict[str, Any]:
    """Returns the report as a JSON object.

    Keys: input, options, rows (read, kept, dropped by reason), users, items, interactions, density,
    splits, ties, modalities (width, coverage, coverage by popularity in train, imputed rows,
    homophily on the item graph), titles, co_occurrence, published, warnings. Densities and
    coverages are shares between 0 and 1; an imputed row does not count as covered.
    `resemblance=False` leaves the homophily out.
    """
    splits = {name: _split(getattr(dataset, name)) for name in SPLITS}
    kept = sum(part["interactions"] for part in splits.values())
    popularity = np.bincount(dataset.train.item, minlength=dataset.num_items)  # (I,)
    found = {
        "users": figures.found.users,
        "items": figures.found.items,
        "interactions": figures.found.interactions,
    }
    prepared = {"users": dataset.num_users, "items": dataset.num_items, "interactions": kept}
    graph = (
        _items(dataset.train, figures.options["seed"])
        if resemblance and dataset.modalities
        else None
    )
    report = {
        "input": {
            "name": raw.name,
            "kind": raw.log.kind,
            "evidence": raw.log.evidence,
            "files": [str(file) for file in raw.log.files],
        },
        "options": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in figures.options.items()
        }
        | {"split_rule": figures.split_rule},
        "rows": {"read": figures.rows_read, "kept": kept, "dropped": dict(figures.dropped)},
        **prepared,
        "density": kept / (dataset.num_users * dataset.num_items),
        "splits": splits,
        "ties": asdict(figures.ties),
        "modalities": {
            name: {"width": modality.width, "width_read": figures.raw_widths[name]}
            | coverage(modality, popularity)
            | {"homophily": homophily(modality, graph) if graph is not None else None}
            for name, modality in dataset.modalities.items()
        },
        "titles": int(np.count_nonzero(dataset.titles != "")) if dataset.titles is not None else 0,
        "co_occurrence": _neighbours(dataset.co_occurrence, figures.options)
        if dataset.co_occurrence is not None
        else None,
        "published": compare(
            _names(raw),
            found | dict(figures.found.splits),
            prepared | {name: part["interactions"] for name, part in splits.items()},
        ),
    }
    notes = [
        *raw.log.notes,
        *raw.notes,
        *(note for modality in raw.modalities.values() for note in modality.notes),
    ]
    return report | {"warnings": notes + _warnings(report)}


def coverage(modality: Modality, popularity: np.ndarray) -> dict[str, Any]:
    """Counts the items that have a modality, in all and by popularity, and imputed rows.

    Items with training pairs are ranked by their number (ties by internal number) and cut into four
    equal parts.

    Args:
        modality: of I items
        popularity: (I,) int; training pairs of each item.
    """
    order = np.argsort(-popularity, kind="stable")
    parts = np.array_split(order[: np.count_nonzero(popularity)], len(QUARTERS))
    groups = dict(zip((*QUARTERS, NEVER), (*parts, np.flatnonzero(popularity == 0)), strict=True))
    return {
        "present": int(modality.own.sum()),
        "imputed": int(modality.imputed.sum()),
        "coverage": modality.coverage,
        "by_popularity": {
            group: {
                "items": int(rows.size),
                "fewest_pairs": int(popularity[rows].min()),
                "most_pairs": int(popularity[rows].max()),
                "coverage": float(modality.own[rows].mean()),
            }
            for group, rows in groups.items()
            if rows.size
        },
    }


def _items(train: Interactions, seed: int) -> sparse.csr_matrix:
    """Builds the item graph of the training pairs.

    Of a long log, some 2 million pairs of random users are taken.
    """
    if len(train) > MOST_PAIRS:
        chosen = np.random.default_rng(seed).random(train.num_users) < MOST_PAIRS / len(train)
        rows = chosen[train.user]
        train = Interactions(train.user[rows], train.item[rows], train.num_users, train.num_items)
    return item_graph(train)


def _split(part: Interactions) -> dict[str, Any]:
    users, items = (int(np.count_nonzero(np.bincount(codes))) for codes in (part.user, part.item))
    return {
        "interactions": len(part),
        "users": users,
        "items": items,
        "density": len(part) / (part.num_users * part.num_items),
    }


def _neighbours(lists: CoOccurrence, options: Mapping[str, Any]) -> dict[str, Any]:
    sizes = np.diff(lists.indptr)  # (U,)
    return {
        "weight": lists.measure,
        "top": options["cooc_top"],
        "users_with_neighbours": int(np.count_nonzero(sizes)),
        "mean_neighbours": float(sizes.mean()),
        "edges": int(sizes.sum()),
    }


def _names(raw: RawInput) -> set[str]:
    """Returns the names of the input, its files and their folder."""
    names = {raw.name}
    for file in raw.log.files:
        path = Path(file).absolute()
        names |= {path.stem, path.parent.name}
    return names - {""}


def _warnings(report: Mapping[str, Any]) -> list[str]:
    """Returns warnings on results that are allowed but probably not wanted."""
    warnings = []
    for name, use in (
        ("valid", "training cannot stop early or choose its best epoch"),
        ("test", "there is nothing to evaluate"),
    ):
        if not report["splits"][name]["interactions"]:
            warnings.append(f"the {name} split is empty: {use}")
    for name, modality in report["modalities"].items():
        if not modality["present"]:
            warnings.append(f"modality {name} is missing for every item: models cannot use it")
    if report["ties"]["pairs"]:
        warnings.append(_tied(report))
    return warnings


def _tied(report: Mapping[str, Any]) -> str:
    """Returns the warning that chance decided between equal times, and names rules that suit."""
    users, pairs = report["ties"]["users"], report["ties"]["pairs"]
    if report["options"]["split"] == "time-global":
        return (
            f"{pairs:,} pairs of {users:,} users share their time with a cut, so the seed decides "
            "which of them are held out: --split random needs no times"
        )
    return (
        f"{users:,} of {report['users']:,} users have equal times at a cut ({pairs:,} pairs), so "
        "the seed decides which of them are held out: --split time-global needs no order within "
        "a user's day, --split random no times"
    )
