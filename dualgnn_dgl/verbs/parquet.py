"""Writes the Parquet files of verbs: lists of many users, and metrics of every user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse
from torch import Tensor

from dualgnn_dgl.core.arrays import write_columns
from dualgnn_dgl.core.exchange import refuse_own
from dualgnn_dgl.core.files import atomic_file
from dualgnn_dgl.data.manifest import FOLDER
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.evaluation.ranking import Ranker


def check_output(path: str | Path, option: str, force: bool) -> None:
    """Raises an error, before any work, for a Parquet file that cannot be written.

    Raises:
        ConfigError: if the name does not end in .parquet, or the file exists and `force` is not
            set.
        RunError: if the file belongs to a prepared folder.
    """
    if Path(path).suffix != ".parquet" or Path(path).is_dir():
        raise ConfigError(
            f"{option} writes Parquet and was given '{path}': name a file that ends in .parquet"
        )
    refuse_own(path, FOLDER)
    if Path(path).exists() and not force:
        raise ConfigError(
            f"{path} is already there: choose another name, or replace it with --force"
        )


def write_per_user(path: str | Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes a row per evaluated user, whole or not at all.

    Args:
        path: the Parquet file.
        columns: `user` (B,) in the user's own ids, then every metric (B,); NaN is written as
            missing.
    """
    arrays = {"user": pa.array(columns["user"].tolist(), pa.string())}
    arrays |= {
        name: pa.array(values, from_pandas=True)
        for name, values in columns.items()
        if name != "user"
    }
    with atomic_file(path) as temporary:
        write_columns(temporary, pa.table(arrays))


def write_lists(
    path: str | Path,
    tables: tuple[Tensor, Tensor],
    k: int,
    seen: sparse.csr_matrix | None,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    step: int = 16384,
) -> int:
    """Writes user, rank (from 1), item and score of every user's list, whole or not at all.

    Args:
        path: the Parquet file.
        tables: user (U, D) and item (I, D).
        k: list length.
        seen: pairs (U, I) to leave out.
        user_ids: (U,) text.
        item_ids: (I,) text.
        step: users ranked and written at a time, which bounds the memory.

    Returns:
        The number of rows.
    """
    users, items = (pa.array(ids.tolist(), pa.string()) for ids in (user_ids, item_ids))
    schema = pa.schema(
        [
            ("user", pa.string()),
            ("rank", pa.int32()),
            ("item", pa.string()),
            ("score", pa.float32()),
        ]
    )
    rows, (user, item) = 0, tables
    ranker = Ranker(item)
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as handle,
        pq.ParquetWriter(handle, schema) as writer,
    ):
        for start in range(0, len(users), step):
            block = np.arange(start, min(start + step, len(users)))
            lists = ranker.top_k(user, k, seen, block)
            found, scores = (tensor.cpu().numpy() for tensor in lists)
            row, place = np.nonzero(found >= 0)
            columns = [
                users.take(pa.array(block[row])),
                pa.array(place + 1, pa.int32()),
                items.take(pa.array(found[row, place])),
                pa.array(scores[row, place]),
            ]
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(row)
    return rows
