"""Simulates missing modalities: which items lose which modality, by a seed.

Source of the patterns: the protocols for missing modalities of Malitesta et al. (CIKM 2024, arXiv
2408.11767) and of DGMRec (SIGIR 2025, arXiv 2504.16352). In Rubin's terms (Biometrika 1976),
`random` is missing completely at random and `rare` is missing at random.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dualgnn_dgl.core.arrays import content_hash, write_columns
from dualgnn_dgl.core.files import atomic_file
from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.core.vocabulary import PATTERNS
from dualgnn_dgl.data import Dataset, Modality
from dualgnn_dgl.errors import ConfigError, DataError, unknown

DIGEST = "dualgnn-dgl.sha256"  # key of the content's digest in the file's metadata


def drop(
    dataset: Dataset,
    rate: float,
    pattern: str = "random",
    seed: int = 0,
    modality: str | None = None,
) -> Dataset:
    """Returns the data set with further modalities missing.

    Of the P rows that a modality has, round(rate · P) are marked absent. For one seed the missing
    rows are nested: a row that is missing at a rate is missing at every higher one. They do not
    depend on the other modalities, nor on any model.

    Args:
        dataset: The data set.
        rate: Share of the present rows that go missing, 0 to 1.
        pattern: 'random' (every modality separately, every item alike), 'rare' (every modality
            separately; an item with n training pairs goes missing with odds 1 / (1 + n)),
            'one-modality' (only in `modality`), 'whole-modality' (`modality` is missing for every
            item if the rate is above zero).
        seed: Seed of the draw.
        modality: Name of the affected modality, for the last two patterns; the first one by
            default.

    Raises:
        ConfigError: For an unknown pattern or modality, a rate outside 0…1, or a modality where the
            pattern takes none.
    """
    if pattern not in PATTERNS:
        raise ConfigError(unknown("pattern", pattern, PATTERNS))
    if not 0 <= rate <= 1:
        raise ConfigError(
            f"{rate:g} of the rows cannot go missing: give a share from 0 to 1, such as 0.6"
        )
    single = pattern in ("one-modality", "whole-modality")
    if modality is not None and not single:
        raise ConfigError(
            f"pattern {pattern} affects every modality: leave {modality} out, or choose "
            f"one-modality"
        )
    if modality is not None and modality not in dataset.modalities:
        raise ConfigError(unknown("modality", modality, dataset.modalities))
    if single:
        hit = [modality or next(iter(dataset.modalities), "")]
    else:
        hit = list(dataset.modalities)
    share = float(rate > 0) if pattern == "whole-modality" else rate
    weight = np.ones(dataset.num_items)
    if pattern == "rare":
        weight = 1 / (1 + np.bincount(dataset.train.item, minlength=dataset.num_items))  # (I,)
    modalities = dict(dataset.modalities)
    for name in hit:
        if name in modalities:
            modalities[name] = _thin(
                modalities[name],
                share,
                weight,
                np.random.default_rng([seed, zlib.crc32(name.encode())]),
            )
    return replace(dataset, modalities=modalities)


def _thin(
    modality: Modality, share: float, weight: np.ndarray, rng: np.random.Generator
) -> Modality:
    """Removes the first rows of a random order (the Gumbel-top-k rule).

    Row i is early in the order with a probability proportional to its weight.

    Args:
        modality: The modality.
        share: Share of the present rows to remove.
        weight: (I,).
        rng: Generator of the order.
    """
    # (I,), drawn for absent rows too, so that the draws of the other rows do not shift
    keys = np.log(weight) + rng.gumbel(size=len(weight))
    rows = np.flatnonzero(modality.present)
    lost = rows[np.argsort(-keys[rows], kind="stable")[: round(share * len(rows))]]
    present, imputed = modality.present.copy(), modality.imputed.copy()
    present[lost] = imputed[lost] = False
    return Modality(modality.values, present, imputed)


def write_holes(dataset: Dataset, path: str | Path) -> None:
    """Writes which item has which modality, as a Parquet file.

    The file has the column `item`, in the user's own ids, and one true/false column per modality.
    """
    present = {name: modality.present for name, modality in dataset.modalities.items()}
    columns: Mapping[str, object] = {
        "item": pa.array(dataset.item_ids.tolist(), pa.string()),
        **present,
    }
    digest = content_hash(
        {"item": dataset.item_ids, **{f"present.{name}": rows for name, rows in present.items()}}
    )
    with atomic_file(path) as temporary:
        write_columns(temporary, pa.table(columns).replace_schema_metadata({DIGEST: digest}))


def read_holes(path: str | Path, dataset: Dataset) -> Dataset:
    """Returns the data set with the missing rows that `write_holes` wrote, items in any order.

    Raises:
        DataError: If the file is missing or damaged, lists other items or modalities, or has a row
            that the data set lacks.
    """
    try:
        with open_regular(path) as handle:
            found = pq.read_table(handle)
        ids = np.array(found["item"].cast(pa.string()).to_pylist(), np.str_)
        said = (found.schema.metadata or {}).get(DIGEST.encode())  # None in a file made by hand
        if said is not None:  # The digest covers all columns; this data set may have fewer.
            content = {
                f"present.{name}": _flags(found, name)
                for name in found.column_names
                if name != "item"
            }
            if said.decode() != content_hash({"item": ids, **content}):
                raise ValueError("it is not what was written there")
        present = {name: _flags(found, name) for name in dataset.modalities}
    except (KeyError, OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path} does not list this data set's missing modalities ({reason}): write it again"
        ) from None
    order, mine = np.argsort(ids, kind="stable"), np.argsort(dataset.item_ids, kind="stable")
    if not np.array_equal(ids[order], dataset.item_ids[mine]):
        raise DataError(
            f"{path} lists {len(ids)} items, not the {dataset.num_items} of this data set: write "
            f"it again"
        )
    modalities = {}
    for name, modality in dataset.modalities.items():
        kept = np.empty(dataset.num_items, dtype=bool)
        kept[mine] = present[name][order]
        extra = int((kept & ~modality.present).sum())
        if extra:
            raise DataError(f"{path} wants {name} of {extra} items that lack it: write it again")
        modalities[name] = Modality(modality.values, kept, modality.imputed & kept)
    return replace(dataset, modalities=modalities)


def _flags(table: pa.Table, name: str) -> np.ndarray:
    """Returns a true/false column."""
    return table[name].cast(pa.bool_()).to_numpy(zero_copy_only=False)
