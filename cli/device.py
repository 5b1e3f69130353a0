"""Where a command computes: `--gpu N`, shared by the verbs that need torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dualgnn_dgl.errors import ConfigError

if TYPE_CHECKING:
    import torch

gpu_option = click.option(
    "--gpu",
    type=int,
    default=None,
    metavar="N",
    help="CUDA device; -1 forces the CPU.  [default: CUDA if it is there, else the CPU]",
)


def pick_device(gpu: int | None) -> torch.device:
    """Turn `--gpu` into a device: None takes CUDA if it is there, −1 forces the CPU, N is CUDA device N.

    Raises
    ------
    ConfigError
        if the machine has no such device.
    """
    import torch

    if gpu == -1:
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is None:
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if gpu < -1:
        raise ConfigError(f"--gpu {gpu} names no device: write 0 for the first CUDA device, or -1 for the CPU")
    if gpu >= count:
        raise ConfigError(
            f"there is no CUDA device {gpu} on this machine: leave --gpu out to take what there is, or write --gpu -1 for the CPU"
        )
    return torch.device("cuda", gpu)
