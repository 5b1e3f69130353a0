"""Locks between processes: one writer per folder, and no reader while files are being exchanged.

There are two kinds, because a training run locks its folder for hours while other commands may
still read the previous result there:

`writing(folder)` is held by a verb from its first check to its last byte. Its lock is a separate
file, `.NAME.lock` beside the folder, so that it does not move with anything the verb replaces. The
last holder removes it.

`exchanging(folder)` and `reading(folder)` are held only while files are renamed or loaded. They
lock the folder itself, which is never replaced (`folders.py`), so readers need no permission to
write.

All locks are `flock`s: the system releases them when the process ends for any reason.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dualgnn_dgl.errors import RunError

# Errors of a file system without flock. EBADF: it locks only files opened for writing (NFS).
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EINVAL)
# Errors after which the file is locked, and only the process number could not be written.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Seconds to wait for readers, and for a process that exchanges files.
READERS, WRITERS = 600.0, 60.0
PATIENCE = 0.2  # seconds to wait for a lock that `sweep` may be looking at

_guard = threading.Lock()
# folder → (thread, depth): a thread may take a lock again that it holds already
_held: dict[Path, tuple[int, int]] = {}


@contextmanager
def writing(
    folder: str | Path, instead: str = "choose another folder", *, nested: bool = False
) -> Iterator[None]:
    """Holds the lock of the only process that writes `folder`, which need not exist.

    Args:
        folder: A data, run, study or experiment folder.
        instead: The end of the message if it is taken: the user's alternative to waiting.
        nested: Whether this thread may hold the lock already.

    Raises:
        RunError: If another process, or another thread of this one, is writing the folder.
    """
    folder, thread = Path(folder).resolve(), threading.get_ident()
    with _guard:
        owner, depth = _held.get(folder, (thread, 0))
        if depth and not (nested and owner == thread):
            raise RunError(_busy(folder, str(os.getpid()), instead))
        _held[folder] = (thread, depth + 1)
    try:
        if depth:
            yield
            return
        place, made = _place(folder)
        handle = -1
        try:
            handle = _take(place, folder, instead)
            yield
        finally:
            if handle >= 0:
                _release(handle, place)
            # Parents that were made for the lock are removed if they are still empty.
            for parent in made:
                with suppress(OSError):
                    parent.rmdir()
    finally:
        with _guard:
            if depth:
                _held[folder] = (thread, depth)
            else:
                del _held[folder]


def _busy(folder: Path, process: str, instead: str) -> str:
    return f"another command (process {process}) is writing {folder}: wait for it, or {instead}"


def _place(folder: Path) -> tuple[Path, list[Path]]:
    """Returns the lock file of a folder, and the parents made for it, innermost first."""
    made, parent = [], folder.parent
    while not parent.exists():
        made.append(parent)
        parent = parent.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The parent of a mounted folder often belongs to root.
    if folder.is_dir() and not os.access(folder.parent, os.W_OK):
        return folder / ".lock", made
    return folder.with_name(f".{folder.name}.lock"), made


def _take(path: Path, folder: Path, instead: str) -> int:
    """Opens and locks a lock file, and returns its handle.

    Its last holder may have removed the file meanwhile. Then the path is another file: try again.
    """
    end = time.monotonic() + PATIENCE
    while True:
        handle, kept, busy = _open(path), False, False
        try:
            kept = _lock(handle, path)
        except BlockingIOError:
            if time.monotonic() >= end:
                owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise RunError(_busy(folder, owner, instead)) from None
            busy = True
        except OSError as error:
            if error.errno in NO_LOCKS:
                warnings.warn(
                    f"{folder} is on a file system without locks: run one command on it at a time",
                    stacklevel=2,
                )
            elif error.errno not in NO_ROOM:
                raise
            kept = True
        finally:
            if not kept:
                os.close(handle)
        if kept:
            return handle
        if busy:
            time.sleep(0.01)


def _open(path: Path) -> int:
    """Opens a lock file, and refuses anything else."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise RunError(_no_lock_file(path)) from None
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise RunError(_no_lock_file(path))


def _no_lock_file(path: Path) -> str:
    return f"{path} should be a lock file and is something else: remove it"


def _lock(handle: int, path: Path) -> bool:
    """Locks a file and writes the number of this process into it.

    Returns:
        Whether the file still is the one at `path`.
    """
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            return True
    return False


def _release(handle: int, path: Path) -> None:
    """Removes the lock file and then releases the lock.

    No other process can hold the lock, and a waiting process opens the file again.
    """
    with suppress(OSError):
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            path.unlink()
    os.close(handle)


def sweep(folder: Path) -> None:
    """Removes the lock file that a killed process left.

    A file whose content is not a process number is not one of ours, and stays.
    """
    for path in (folder.with_name(f".{folder.name}.lock"), folder / ".lock"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            content = os.pread(handle, 30, 0) if stat.S_ISREG(os.fstat(handle).st_mode) else b"?"
            if content.isdigit() and not alive(handle):
                _release(handle, path)
            else:
                os.close(handle)


@contextmanager
def reading(folder: str | Path) -> Iterator[None]:
    """Keeps the files of an existing folder from being exchanged while they are loaded."""
    with _on_folder(Path(folder), fcntl.LOCK_SH, WRITERS):
        yield


@contextmanager
def exchanging(folder: str | Path) -> Iterator[None]:
    """Locks out readers of an existing folder while its files are renamed."""
    with _on_folder(Path(folder), fcntl.LOCK_EX, READERS):
        yield


@contextmanager
def _on_folder(folder: Path, kind: int, seconds: float) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + seconds
        while not _try(handle, kind):
            if time.monotonic() > end:
                raise RunError(
                    f"another process has been at work on {folder} for {seconds:.0f} s: wait for "
                    f"it, or stop it"
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _try(handle: int, kind: int) -> bool:
    """Tries to take a lock, and returns whether it succeeded or the file system has no locks."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def hold(handle: int) -> None:
    """Locks a temporary file or folder of this process, to show that its writer is alive."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def release(handle: int) -> None:
    """Releases the lock that `hold` took."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)


def alive(handle: int) -> bool:
    """Returns whether the writer of a temporary file or folder, opened as `handle`, is alive.

    A living writer holds its lock. If there is none, this process takes the lock.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # A living writer holds it, or the file system has no locks.
        return True
    return False
