"""Memory limits of blocked operations, and smaller blocks where memory runs out.

Operations in blocks (ranking, co-occurrence, nearest items) choose their block size by `budget()`:
the value of `--memory`, else a share of the free memory. If memory runs out nevertheless,
`in_blocks` halves the block, logs a warning and continues.
"""

from __future__ import annotations

import logging
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dualgnn_dgl.errors import ConfigError

SHARE = 4  # a step takes at most 1 / SHARE of the free memory
UNKNOWN = 2**30  # assumed to be free where the system gives no number
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "Storage size calculation overflowed",
    "Cannot allocate memory",
    # cuBLAS and cuSPARSE, whose workspaces do not come from torch's allocator
    "STATUS_ALLOC_FAILED",
)
_log = logging.getLogger("dualgnn_dgl")
_given: int | None = None
R = TypeVar("R")


def parse(text: str) -> int:
    """Parses a size in bytes; units are powers of 1024.

    Raises:
        ConfigError: If it is not a size, or less than a megabyte.

    >>> parse("512MB"), parse("1.5 GiB"), parse("2000000")
    (536870912, 1610612736, 2000000)
    """
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*([kmgt]?)i?b?\s*", text.lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 2**20:
        raise ConfigError(
            f"--memory '{text[:40]}' is no size of a megabyte or more: write it as 512MB or 4GB"
        )
    return size


def available(device: str = "cpu") -> int:
    """Returns the free memory of 'cpu' or 'cuda' in bytes.

    On the CPU this is the least that the machine, the container and the process limit leave.
    """
    if device.startswith("cuda"):
        torch: Any = sys.modules["torch"]
        free = int(torch.cuda.mem_get_info()[0])
        # The memory in torch's cache can be used again.
        return free + int(torch.cuda.memory_reserved()) - int(torch.cuda.memory_allocated())
    left = [_meminfo("MemAvailable"), _container(), _process_limit()]
    return max(min((size for size in left if size is not None), default=UNKNOWN), 0)


def budget(device: str = "cpu") -> int:
    """Returns the bytes that a step may take: the size given to `use`, else a part of the free."""
    return _given if _given is not None else max(available(device) // SHARE, 1)


@contextmanager
def use(size: int | None) -> Iterator[None]:
    """Limits steps within the block to `size` bytes; None sets no limit."""
    global _given
    before, _given = _given, size
    try:
        yield
    finally:
        _given = before


def ran_out(error: BaseException) -> bool:
    """Returns whether an error means that memory ran out.

    Torch's allocators raise a bare RuntimeError, and torch may not be loaded.
    """
    torch: Any = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


def in_blocks(
    count: int,
    block: int,
    work: Callable[[int, int], None],
    *,
    what: str,
    smallest: int = 1,
    device: str = "cpu",
) -> None:
    """Calls `work(start, stop)` for one block after another.

    If memory runs out in a block, the block is halved and repeated.

    Args:
        count: Number of units in all blocks.
        block: The first size, a multiple of `smallest`.
        work: Processes the units from start to stop.
        what: The step and its unit, for messages: "ranking 5,000 items, users".
        smallest: The smallest block.
        device: The device of the memory, 'cpu' or 'cuda'.

    Raises:
        MemoryError: If not even the smallest block fits.
    """
    start, block = 0, max(min(block, -(-count // smallest) * smallest), smallest)
    while start < count:
        try:
            work(start, min(start + block, count))
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
        else:
            start += block
            continue
        # Outside of `except`, where the error no longer keeps the block's memory alive.
        block = _halved(block, smallest, what, device)


def halving(size: int, work: Callable[[int], R], *, what: str, smallest: int = 2**20) -> R:
    """Returns `work(size)`, with half the size as often as memory runs out.

    Args:
        size: The first size.
        work: Computes the result with a given size.
        what: The step and its unit, for messages.
        smallest: The smallest size.

    Raises:
        MemoryError: If not even the smallest size fits.
    """
    while True:
        try:
            return work(size)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
        size = _halved(size, smallest, what)


def _halved(block: int, smallest: int, what: str, device: str = "cpu") -> int:
    """Halves the block in whole multiples of the smallest, logs it, and empties the CUDA cache."""
    if block <= smallest:
        raise MemoryError(
            f"{what}: not even {smallest:,} at a time fit, {available(device) // 2**20:,} MB are "
            f"free"
        ) from None
    half = -(-(block // 2) // smallest) * smallest
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    _log.warning(
        "%s: memory ran out with %s at a time, continuing with %s", what, f"{block:,}", f"{half:,}"
    )
    return half


def _meminfo(name: str, path: str = "/proc/meminfo") -> int | None:
    """Returns a line of /proc/meminfo, or of a process's status, in bytes."""
    try:
        found = re.search(
            rf"^{name}:\s+(\d+) kB", Path(path).read_text("ascii", "replace"), re.MULTILINE
        )
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _container() -> int | None:
    """Returns the bytes that a container's limit (cgroup 2 or 1) leaves, None without a limit."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (root / limit).read_text().strip(), int((root / used).read_text())
            if most.isdigit() and int(most) < 2**60:
                # Cached files count as used, but are dropped when memory is needed.
                return int(most) - now + _cached(root / Path(used).parent / "memory.stat")
        except (OSError, ValueError):
            continue
    return None


def _cached(path: Path) -> int:
    """Returns the bytes of a container's cached files that can be dropped."""
    try:
        return sum(
            int(n)
            for n in re.findall(
                r"^(?:total_)?inactive_file (\d+)$", path.read_text(), re.MULTILINE
            )[-1:]
        )
    except OSError:
        return 0


def _process_limit() -> int | None:
    """Returns the bytes that RLIMIT_AS (`ulimit -v`) leaves, None without a limit."""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = _meminfo("VmSize", "/proc/self/status")
    return None if most == resource.RLIM_INFINITY or taken is None else most - taken
