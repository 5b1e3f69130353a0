"""Single files: written whole or not at all, and read without executing anything.

A file is written under a temporary name beside the target and renamed into place, so a crash, a
full disk or Ctrl-C leaves either the old content or the new one. Readers never unpickle. Whole
folders: `folders.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualgnn_dgl.core import locks
from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.core.schema import Schema, check
from dualgnn_dgl.core.strict import parse_json
from dualgnn_dgl.errors import DataError, DualGNNError, RunError, json_text

if TYPE_CHECKING:
    pass


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


def json_digest(value: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a JSON object; it does not depend on the layout of the file.

    >>> json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
