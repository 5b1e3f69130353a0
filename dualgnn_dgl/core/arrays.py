"""Arrays and tables: `.npy` and Parquet files, read without executing anything.

Readers never unpickle, and `refuse_foreign` names the way to a safe format.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Literal

import numpy as np

from dualgnn_dgl.core.inputs import open_regular, refuse_special
from dualgnn_dgl.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

# Formats that run code when they are read, or may contain one that does, by suffix and by their
# first bytes.
FOREIGN = {
    **dict.fromkeys((".pkl", ".pickle", ".pck", ".p", ".dill", ".joblib"), "a pickle"),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), "a pickle in torch's or DGL's wrapping"),
    **dict.fromkeys((".npz", ".zip", ".tar", ".tgz", ".7z", ".rar"), "an archive"),
}


_FIRST_BYTES = (
    (b"PK\x03\x04", "an archive (zip, .npz or .pt)"),
    *((bytes([128, n]), "a pickle") for n in range(2, 6)),
)


def refuse_foreign(path: str | Path) -> None:
    """Refuses a pickle or an archive, under any name, before a reader opens it.

    Archives are not opened to look inside.

    Raises:
        DataError: With the way to a format that cannot run code.
    """
    path = Path(path)
    refuse_special(path)
    if not path.is_file():
        return
    kind = FOREIGN.get(path.suffix.lower())
    if kind is None:
        with open_regular(path) as handle:
            start = handle.read(4)
        kind = next((name for mark, name in _FIRST_BYTES if start.startswith(mark)), None)
    if kind is None:
        return
    if "archive" in kind:
        raise DataError(
            f"{path} is {kind}: unpack it, and give plain files: numpy.save(name, array) for "
            f"arrays, CSV or Parquet"
        )
    raise DataError(
        f"{path} is {kind}, which can run code when it is read: it is not opened. Load it where "
        f"you trust it and write "
        "numpy.save(name, array.astype('float32')) for arrays, or frame.to_parquet(name) for tables"
    )


def load_array(path: str | Path, *, mmap: bool = False) -> np.ndarray:
    """Reads a `.npy` array; object arrays, which need pickle, are refused.

    Args:
        path: The file.
        mmap: Whether to map the file instead of reading it.

    Raises:
        DataError: If the file is missing, is not a NumPy array, is cut short, or has Python
            objects.
    """
    path = Path(path)
    try:
        with open_regular(path) as handle:
            if handle.read(6) != b"\x93NUMPY":
                refuse_foreign(path)
                raise DataError(f"{path} is not a .npy array: save it with numpy.save(path, array)")
            handle.seek(0)
            mapped = _checked(handle, path, mmap)
            if mapped is not None:
                return mapped
            handle.seek(0)
            return np.load(handle, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, a .npy file is needed here") from None
    except (
        ValueError,
        EOFError,
        SyntaxError,
        TypeError,
        OverflowError,
        RecursionError,
        TokenError,
    ) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise DataError(
                f"{path} holds Python objects, which could run code when read: "
                "save a plain numeric array (array.astype('float32')) instead"
            ) from None
        # "<ast.Call object at 0x…>" helps no user.
        said = re.sub(r":? ?<[^>]*>", "", str(error).splitlines()[0])
        raise DataError(f"{path} is damaged ({said[:120]}): save it again") from None


def _checked(handle: io.BufferedReader, path: Path, mmap: bool) -> np.ndarray | None:
    """Checks the lengths in a `.npy` header, and returns the mapped array if `mmap` asks for it."""
    version, _ = np.lib.format.read_magic(handle)
    read_header = {
        1: np.lib.format.read_array_header_1_0,
        2: np.lib.format.read_array_header_2_0,
    }
    if version not in read_header:
        return None
    shape, by_column, kind = read_header[version](handle)
    if min(shape, default=0) < 0:  # NumPy 1 accepts this.
        raise DataError(f"{path} is damaged (a negative length in its header): save it again")
    if kind.hasobject:
        return None
    if kind.kind not in "iufbc":  # One changed bit makes text or times of numbers.
        raise DataError(f"{path} holds values of type {kind.str!s:.40}: give numbers")
    promised = math.prod(shape) * kind.itemsize
    held = os.fstat(handle.fileno()).st_size - handle.tell()
    if promised > held:  # The check comes before any memory is allocated.
        raise DataError(
            f"{path} is damaged ({held:,} bytes where its header promises {promised:,}): save it "
            f"again"
        )
    if not mmap:
        return None
    # np.load maps names only, not open files.
    order: Literal["F", "C"] = "F" if by_column else "C"
    return np.memmap(handle, kind, "r", handle.tell(), shape, order)


def read_columns(path: str | Path, **columns: pa.DataType) -> dict[str, np.ndarray]:
    """Reads columns of a Parquet file of ours as NumPy arrays.

    Args:
        path: The file.
        **columns: Name → type.

    Raises:
        DataError: If the file is missing or damaged, or lacks a column or a value.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(path) as handle:
            table = pq.read_table(handle, columns=list(columns))
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise DataError(f"{path} lacks the column {missing[0]}: run preprocess again")
        arrays = {}
        for name, kind in columns.items():
            values = table[name].cast(kind)
            if values.null_count:
                raise DataError(f"{path} has empty values in column {name}: run preprocess again")
            arrays[name] = (
                np.array(values.to_pylist(), np.str_) if kind == pa.string() else values.to_numpy()
            )
        return arrays
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run preprocess again") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({str(error).splitlines()[0][:120]}): run preprocess again"
        ) from None


def write_columns(path: str | Path, table: pa.Table) -> None:
    """Writes a Parquet file.

    Arrow gets the open file, since it cannot open a name that is not UTF-8.
    """
    import pyarrow.parquet as pq

    with open(path, "wb") as handle:
        pq.write_table(table, handle)


def content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 over names, types, shapes and values.

    Strings count as UTF-8; their padding does not matter.

    >>> content_hash({"a": np.array([1, 2])}) == content_hash({"a": np.array([1, 2])})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        if array.dtype.kind == "U":
            digest.update(f"{name}|text|{array.shape}|".encode())
            digest.update(np.char.str_len(array).astype("<i8").tobytes())  # where each text ends
            for start in range(0, len(array), 65536):
                digest.update("".join(array[start : start + 65536].tolist()).encode())
        else:
            array = np.ascontiguousarray(array)
            digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
            digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
