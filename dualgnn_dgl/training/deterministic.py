"""Deterministic training: same seed, same machine, same bits.

It switches torch's deterministic algorithms on for a while.

CPU: exact. Every sum here has an order that depends only on the data and the number of threads,
with the switch or without. The switch makes the rest of torch do the same, or refuse, and sets
new memory to a value, so that no result depends on its content.

CUDA: torch's own operations are deterministic or refused, matrix products too
(CUBLAS_WORKSPACE_CONFIG). The Triton kernels of `ops` use no atomic additions. Not covered:
cuSPARSE, which `Adjacency @ x` takes without Triton; and another GPU, driver or torch version,
which may round in another way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.ops import triton_kernel


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Lets torch use deterministic algorithms only inside the block.

    Args:
        wanted: False changes nothing.

    Raises:
        ConfigError: If an operation has no deterministic form on this device; the message names it.
    """
    if not wanted:
        yield
        return
    # cuBLAS reads this when it starts, so it has no effect after a product on the GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        first = str(error).split(". ")[0].splitlines()[0][:200]
        raise ConfigError(
            f"deterministic training is not possible here ({first}): train without, or on the CPU"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def promise(device: torch.device) -> str:
    """Returns one line about deterministic training on this device.

    >>> promise(torch.device("cpu")).startswith("deterministic: exact")
    True
    """
    if device.type == "cpu":
        return (
            f"deterministic: exact on the CPU, with the same versions and number of threads "
            f"({torch.get_num_threads()})"
        )
    sparse = (
        ""
        if triton_kernel.fits(device)
        else "; not covered: sparse products, which cuSPARSE does here (no Triton)"
    )
    return f"deterministic: on the same GPU, driver and versions{sparse}"
