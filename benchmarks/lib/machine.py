"""Describes the machine that made a result."""

from __future__ import annotations

import platform
from pathlib import Path


def machine(threads: int) -> dict:
    """Returns processor, threads, GPU and the versions of the packages."""
    import torch

    from dualgnn_dgl.runs.checkpoint import versions

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"cpu": name, "threads": threads, "gpu": gpu, **versions()}
