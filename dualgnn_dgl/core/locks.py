"""Locks between processes: one writer a folder, and no reader while files are being exchanged.

Two kinds, because a training holds its run folder for hours while others may still read the run
before it:

`writing(folder)`    held by a verb from its first check to its last byte. The lock is a file of its
                     own, `.NAME.lock` beside the
                     folder, so that nothing the verb replaces carries it; it is removed by its last
                     holder.
`exchanging(folder)` and `reading(folder)`    held for the moment in which files change their names,
                                              or are loaded. They lie on
                     the folder itself, which is never replaced (`folders.py`), so readers need no
                     right to write.

All are `flock`s: the system releases them when the process ends, however it ends.
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

# a file system without flock; EBADF: one that locks only files opened for writing (NFS)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EINVAL)
# seconds to wait for those who read, and for one who exchanges files
READERS, WRITERS = 600.0, 60.0
PATIENCE = 0.2  # seconds to wait for a lock that `sweep` may be looking at

_guard = threading.Lock()
# folder → (thread, how often): a thread may take a lock that it holds
_held: dict[Path, tuple[int, int]] = {}


@contextmanager
def writing(
    folder: str | Path, instead: str = "choose another folder", *, nested: bool = False
) -> Iterator[None]:
    """Hold the lock of the one process that writes `folder`, which need not exist.

    Args:
        folder: A data, run, study or experiment folder.
        instead: The end of the message if it is taken: what else the user can do.
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
            for parent in made:  # those made for the lock, as far as they stayed empty
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
    """The lock file of a folder, and the parents that were made for it, innermost first."""
    made, parent = [], folder.parent
    while not parent.exists():
        made.append(parent)
        parent = parent.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    # a mounted folder whose parent belongs to root
    if folder.is_dir() and not os.access(folder.parent, os.W_OK):
        return folder / ".lock", made
    return folder.with_name(f".{folder.name}.lock"), made


def _take(path: Path, folder: Path, instead: str) -> int:
    """Open and lock a lock file; its last holder may have removed it meanwhile, then the file is
    another one: try again.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise RunError(
                    f"{path} should be a lock file and is something else: remove it"
                ) from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RunError(f"{path} should be a lock file and is something else: remove it")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, str(os.getpid()).encode(), 0)
                    return handle
            os.close(handle)
        except BlockingIOError:
            if time.monotonic() < end:
                os.close(handle)
                time.sleep(0.01)
                continue
            owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise RunError(_busy(folder, owner, instead)) from None
        except OSError as error:
            if error.errno in NO_LOCKS:
                warnings.warn(
                    f"{folder} lies on a file system without locks: run one command on it at a "
                    f"time",
                    stacklevel=2,
                )
                return handle
            # locked, only its number could not be written
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return handle
            os.close(handle)
            raise
        except BaseException:
            os.close(handle)
            raise


def _release(handle: int, path: Path) -> None:
    """Remove the lock file and let go of it, in this order.

    Nobody else holds it, and who waits for it looks again.
    """
    with suppress(OSError):
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            path.unlink()
    os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the lock file that a killed process left.

    One that holds anything but a process number is none of ours.
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
    """Keep the files of an existing folder from being exchanged while they are loaded."""
    with _on_folder(Path(folder), fcntl.LOCK_SH, WRITERS):
        yield


@contextmanager
def exchanging(folder: str | Path) -> Iterator[None]:
    """Be alone with the files of an existing folder, for the moment in which they change their
    names.
    """
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
    """Whether the lock was had, or this file system has none."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def hold(handle: int) -> None:
    """Lock a temporary file or folder of one's own, to show that its writer lives."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def release(handle: int) -> None:
    """Let go of what `hold` locked."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)


def alive(handle: int) -> bool:
    """Take the lock that a writer holds on its temporary file or folder, opened as `handle`.

    False once it is taken.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by a living writer; or there are no locks, then nobody can tell
        return True
    return False
