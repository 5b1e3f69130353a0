"""Devices: turns a user's choice into a torch device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualgnn_dgl.errors import ConfigError

if TYPE_CHECKING:
    import torch

CPU = -1  # the number of the CPU on the command line


def pick_device(choice: int | str | torch.device | None = None) -> torch.device:
    """Returns the device to compute on.

    Args:
        choice: None takes the first CUDA device if there is one, else the CPU; −1 is the CPU, N is
            CUDA device N. A name such as "cpu" or "cuda:1" or a torch device is accepted as well.

    Raises:
        ConfigError: if the machine has no such device.
    """
    import torch

    if isinstance(choice, str):
        try:
            choice = torch.device(choice)
        except RuntimeError:
            raise ConfigError(f"'{choice:.40}' is no device: write cpu, cuda or cuda:N") from None
    if isinstance(choice, torch.device):
        if choice.type not in ("cpu", "cuda"):
            raise ConfigError(f"device {choice} is not supported: choose cpu, cuda or cuda:N")
        choice = CPU if choice.type == "cpu" else choice.index or 0
    if choice == CPU:
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice is None:
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if choice < CPU:
        raise ConfigError(
            f"device {choice} does not exist: write 0 for the first CUDA device, or {CPU} for the "
            f"CPU"
        )
    if choice >= count:
        remedy = f"leave the device out to take what there is, or choose {CPU} for the CPU"
        raise ConfigError(f"there is no CUDA device {choice} on this machine: {remedy}")
    return torch.device("cuda", choice)
