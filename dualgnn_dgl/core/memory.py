"""How much memory a step may take, asked before it is taken.

And what happens when it runs out all the same.

Steps that work in blocks (ranking, co-occurrence, nearest items) size them by `budget()`: what
`--memory` says, else a share of what is free. Where memory runs out nevertheless, the block is
halved, a word is said, and the step goes on (`in_blocks`).
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

SHARE = 4  # a step takes at most one part in so many of what is free
UNKNOWN = 2**30  # taken to be free where the system does not say
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
    """A size as people write it, in bytes; units are powers of 1024.

    Raises
    ------
    ConfigError
        if it is no size, or less than a megabyte.

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
    """Bytes that can be taken now on 'cpu' or 'cuda'.

    The least of what machine, container and process limit leave.
    """
    if device.startswith("cuda"):
        torch: Any = sys.modules["torch"]
        free = int(torch.cuda.mem_get_info()[0])
        # its cache can be used again
        return free + int(torch.cuda.memory_reserved()) - int(torch.cuda.memory_allocated())
    left = [_meminfo("MemAvailable"), _container(), _process_limit()]
    return max(min((size for size in left if size is not None), default=UNKNOWN), 0)


def budget(device: str = "cpu") -> int:
    """Bytes that one step may take: those given to `use`, else a quarter of what is available."""
    return _given if _given is not None else max(available(device) // SHARE, 1)


@contextmanager
def use(size: int | None) -> Iterator[None]:
    """Within the block, steps take at most `size` bytes; None leaves it to them."""
    global _given
    before, _given = _given, size
    try:
        yield
    finally:
        _given = before


def ran_out(error: BaseException) -> bool:
    """Tell a lack of memory from other errors.

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
    """Call `work(start, stop)` for one block after another.

    A block for which memory runs out is halved and done again.

    Parameters
    ----------
    block : the first size, a multiple of `smallest`.
    what : the step and its unit, for messages: "ranking 5,000 items, users".
    device : whose memory it is, 'cpu' or 'cuda', for the message as well.

    Raises
    ------
    MemoryError
        if not even the smallest block fits.
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
        # here, where the error no longer holds what had been taken
        block = _halved(block, smallest, what, device)


def halving(size: int, work: Callable[[int], R], *, what: str, smallest: int = 2**20) -> R:
    """What `work(size)` returns; where memory runs out, with half the size, and half again, down to
    `smallest`.

    Raises
    ------
    MemoryError
        if not even the smallest fits.
    """
    while True:
        try:
            return work(size)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
        size = _halved(size, smallest, what)


def _halved(block: int, smallest: int, what: str, device: str = "cpu") -> int:
    """Half a block in whole multiples of the smallest, said aloud.

    The caches of a CUDA device are given back.
    """
    if block <= smallest:
        raise MemoryError(
            f"{what}: not even {smallest:,} at a time fit, {available(device) // 2**20:,} MB are "
            f"free"
        ) from None
    half = -(-(block // 2) // smallest) * smallest  # in whole multiples
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    _log.warning(
        "%s: memory ran out with %s at a time, going on with %s", what, f"{block:,}", f"{half:,}"
    )
    return half


def _meminfo(name: str, path: str = "/proc/meminfo") -> int | None:
    """A line of /proc/meminfo (or of a process's status), in bytes."""
    try:
        found = re.search(
            rf"^{name}:\s+(\d+) kB", Path(path).read_text("ascii", "replace"), re.MULTILINE
        )
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _container() -> int | None:
    """What the memory limit of a container (cgroup 2 or 1) leaves; None where there is none."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (root / limit).read_text().strip(), int((root / used).read_text())
            if most.isdigit() and int(most) < 2**60:
                # cached files count as used, yet make room when it is asked for
                return int(most) - now + _cached(root / Path(used).parent / "memory.stat")
        except (OSError, ValueError):
            continue
    return None


def _cached(path: Path) -> int:
    """Bytes of cached files of a container that can be dropped."""
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
    """What RLIMIT_AS (`ulimit -v`) leaves of the address space; None where there is no limit."""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = _meminfo("VmSize", "/proc/self/status")
    return None if most == resource.RLIM_INFINITY or taken is None else most - taken
