"""Single files: written whole or not at all, and read without executing anything.

A file is written under a temporary name beside the target and renamed into place, so a crash, a
full disk or Ctrl-C leaves either the old content or the new one. Readers never unpickle. Whole
folders: `folders.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dualgnn_dgl.core import locks
from dualgnn_dgl.core.inputs import open_regular, refuse_special
from dualgnn_dgl.core.schema import Schema, check
from dualgnn_dgl.core.strict import parse_json
from dualgnn_dgl.errors import DataError, DualGNNError, RunError, json_text

if TYPE_CHECKING:
    import pyarrow as pa


def sync(path: Path) -> None:
    """Flushes a file or folder to the disk, so that a rename cannot overtake its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# A temporary name proves that it is one of ours: it is .NAME.TOKEN.tmp, and the second half of the
# token is a digest of NAME and the first half.
_TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8})([0-9a-f]{8})\.tmp", re.DOTALL)
_NAME = 200  # bytes of NAME in a temporary name; file systems allow 255 in all


def temporary_name(name: str) -> str:
    """Returns a new temporary name for a file that will be renamed to `name`."""
    short, token = _short(name), secrets.token_hex(4)
    return f".{short}.{token}{_check(short, token)}.tmp"


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME])


def _check(short: str, token: str) -> str:
    return hashlib.sha256(os.fsencode(f"dualgnn-dgl {short} {token}")).hexdigest()[:8]


def is_temporary(path: Path, name: str | None = None) -> bool:
    """Returns whether `temporary_name` made the name of a path, for `name` if one is given.

    >>> is_temporary(Path(temporary_name("run.json")), "run.json")
    True
    >>> is_temporary(Path(".run.json.0123456789abcdef.tmp"))
    False
    """
    found = _TEMPORARY.fullmatch(path.name)
    if found is None or _check(found[1], found[2]) != found[3]:
        return False
    return name is None or found[1] == _short(name)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path; it replaces `path` when the block ends without an error.

    If `path` is a link, the file it points to is replaced.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise RunError(f"{path} is {kind} and cannot be replaced by a file: choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    temporary, handle = _create(path)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _create(path: Path) -> tuple[Path, int]:
    """Creates a temporary file beside `path`, locked while its handle is open.

    It has the permissions that the umask leaves.
    """
    while True:
        temporary = path.with_name(temporary_name(path.name))
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        locks.hold(handle)
        if temporary.exists():
            return temporary, handle
        os.close(handle)  # Another process removed it before it was locked.


def sweep(path: Path) -> None:
    """Removes temporary files and folders that killed processes left beside `path`."""
    with suppress(OSError):
        for left in [left for left in path.parent.iterdir() if is_temporary(left, path.name)]:
            remove_if_orphaned(left)


def sweep_inside(folder: Path) -> None:
    """Removes all temporary files that killed processes left in a folder."""
    with suppress(OSError):
        for left in [left for left in folder.iterdir() if is_temporary(left) and not left.is_dir()]:
            remove_if_orphaned(left)


def remove_if_orphaned(left: Path) -> None:
    """Removes a temporary file or folder unless a living process holds its lock."""
    try:
        handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        if locks.alive(handle):
            return
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    finally:
        os.close(handle)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json_text(value, indent=2) + "\n", "utf-8")


def read_json(
    path: str | Path,
    what: type[DualGNNError] = DataError,
    schema: Schema | None = None,
    remedy: str = "make it again",
) -> dict[str, Any]:
    """Reads a JSON object that fits `schema`, by the strict rules of strict.py.

    Args:
        path: The file.
        what: The error to raise.
        schema: Schema of the object, or None.
        remedy: The end of the messages.

    Raises:
        DualGNNError: As `what`, with the file's name and the `remedy`, for any damage or mismatch.
    """
    path = Path(path)
    try:
        with open_regular(path, what) as handle:
            value = parse_json(handle.read().decode("utf-8"))
    except FileNotFoundError:
        raise what(f"{path} does not exist") from None
    except ValueError as error:
        raise what(
            f"{path} is not readable JSON ({str(error).splitlines()[0][:200]}): damaged or "
            f"edited; {remedy}"
        ) from None
    if not isinstance(value, dict):
        raise what(f"{path} must hold one JSON object, it holds {type(value).__name__}: {remedy}")
    if schema is not None:
        check(schema, value, path, what, remedy)
    return value


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


def json_digest(value: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a JSON object; it does not depend on the layout of the file.

    >>> json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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
            read_header = {
                1: np.lib.format.read_array_header_1_0,
                2: np.lib.format.read_array_header_2_0,
            }
            version, _ = np.lib.format.read_magic(handle)
            if version in read_header:
                shape, by_column, kind = read_header[version](handle)
                if min(shape, default=0) < 0:  # NumPy 1 accepts this.
                    raise DataError(
                        f"{path} is damaged (a negative length in its header): save it again"
                    )
                promised, held = (
                    math.prod(shape) * kind.itemsize,
                    os.fstat(handle.fileno()).st_size - handle.tell(),
                )
                # The check comes before any memory is allocated.
                if promised > held and not kind.hasobject:
                    raise DataError(
                        f"{path} is damaged ({held:,} bytes where its header promises "
                        f"{promised:,}): save it again"
                    )
                # np.load maps names only, not open files.
                if mmap and not kind.hasobject:
                    order: Literal["F", "C"] = "F" if by_column else "C"
                    return np.memmap(handle, kind, "r", handle.tell(), shape, order)
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
