"""Settings of all tests: repeatable examples, and no more threads than the machine has."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

# Tests run in two processes at once (make test): each computes with one thread, else they wait for
# each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def without_gpu() -> bool:
    """Returns whether CUDA is missing; torch is imported here, after its threads have been set."""
    import torch

    return not torch.cuda.is_available()


# Triton decides when it is imported whether it compiles or interprets, and torch may import it in
# any test.
if without_gpu():
    os.environ["TRITON_INTERPRET"] = "1"

# The same examples every time, and no deadline: a busy machine is no fault of the code.
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


def pytest_make_parametrize_id(val: Any) -> str | None:
    """Names raw bytes by their length.

    A gzip header contains the time, and both processes must find the same names.
    """
    return f"{len(val)}bytes" if isinstance(val, bytes) else None
